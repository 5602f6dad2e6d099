//! What takes the steps of a plan back, in reverse. It runs when it is dropped, unless it was kept.

use std::path::Path;

use croft_plan::step::Undo;

/// A stack of undo steps.
#[derive(Debug, Default)]
pub struct UndoStack {
    steps: Vec<Undo>,
}

impl UndoStack {
    /// Adds the undo of one step.
    pub fn extend(&mut self, undo: Option<Undo>) {
        self.steps.extend(undo);
    }

    /// Keeps what was done: nothing is undone any more.
    pub fn keep(mut self) {
        self.steps.clear();
    }
}

impl Drop for UndoStack {
    fn drop(&mut self) {
        for step in self.steps.drain(..).rev() {
            // The first failure is what the user is told; what undo leaves behind, delete --force finds by the record.
            let _ = perform(&step);
        }
    }
}

/// Performs one undo step. What is gone already is fine.
///
/// # Errors
/// What could not be removed, in words.
pub fn perform(step: &Undo) -> Result<(), String> {
    match step {
        Undo::RemoveGroup { hierarchy, dir } => crate::apply::remove_group(hierarchy, dir)
            .map_err(|e| format!("remove cgroup {}: {e}", dir.display())),
        Undo::StopScope { unit, dir } => crate::apply::empty_group(dir)
            .map_err(|e| format!("kill cgroup {}: {e}", dir.display()))
            .and_then(|()| crate::systemd::stop_scope(unit)),
        Undo::Unmount { dir } => unmount(dir).map_err(|e| format!("unmount {}: {e}", dir.display())),
        Undo::RemoveResctrlGroup { dir } => match std::fs::remove_dir(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("remove {}: {e}", dir.display()))
            }
            _ => Ok(()),
        },
    }
}

fn unmount(dir: &Path) -> std::io::Result<()> {
    croft_sys::mount::unmount_tree(dir).map_err(std::io::Error::from)?;
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
