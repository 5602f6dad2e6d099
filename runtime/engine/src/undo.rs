//! What takes the steps of a plan back, in reverse. It runs when it is dropped, unless it was kept.

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
        for step in self.steps.iter().rev() {
            // The first failure is what the user is told; what undo leaves behind, delete --force finds by the record.
            let _ = perform(step, &self.steps);
        }
    }
}

/// Performs one undo step of a container that has `all` of these. What is gone already is fine.
///
/// # Errors
/// What could not be removed, in words.
pub fn perform(step: &Undo, all: &[Undo]) -> Result<(), String> {
    match step {
        Undo::RemoveGroup { hierarchy, dir } => {
            let groups: Vec<&std::path::Path> = all
                .iter()
                .filter_map(
                    |u| if let Undo::RemoveGroup { dir, .. } = u { Some(dir.as_path()) } else { None },
                )
                .collect();
            crate::apply::remove_group(hierarchy, dir, &groups)
                .map_err(|e| format!("remove cgroup {}: {e}", dir.display()))
        }
        Undo::StopScope { unit } => crate::systemd::stop_scope(unit),
        Undo::RemoveResctrlGroup { dir } => match std::fs::remove_dir(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("remove {}: {e}", dir.display()))
            }
            _ => Ok(()),
        },
    }
}
