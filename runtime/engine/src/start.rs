//! `start`: opens the gate.

use croft_plan::lifecycle::{Status, Verb};
use croft_plan::spec::{HookPoint, Spec};
use croft_sys::proc::Proc;

use crate::error::{Context, Error, Result};
use crate::report::OciState;
use crate::state::{Record, StateRoot};
use crate::{gate, hooks};

/// Starts a created container.
///
/// # Errors
/// When it is not created, or its program cannot be run.
pub fn start(root: &StateRoot, id: &str) -> Result<()> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let container = root.open_for(id, Verb::Start, &proc)?;
    let spec = Spec::parse(&container.dir.config()?)?;
    let opener = gate::open(container.dir.path())?;
    opener.let_go().map_err(|why| Error::refused("start", why))?;
    gate::take_away(container.dir.path())?;
    after_start(&container.record, &spec);
    Ok(())
}

/// Runs the poststart hooks. As the spec has it, their failure does not stop the container: it is returned for a warning.
pub fn after_start(record: &Record, spec: &Spec) -> Option<Error> {
    let list = spec.hooks.at(HookPoint::Poststart);
    if list.is_empty() {
        return None;
    }
    let pid = record.process.map_or(0, |p| p.pid);
    let state = OciState::of(record, spec, pid, Status::Running).to_json();
    hooks::run(list, HookPoint::Poststart, &state).err()
}
