//! `start`: opens the gate.

use croft_plan::lifecycle::{Status, Verb};
use croft_plan::spec::{HookPoint, Spec};
use croft_sys::proc::Proc;

use crate::error::{Context, Error, Result};
use crate::report::OciState;
use crate::state::{Record, StateRoot};
use crate::{gate, hooks};

/// Starts a created container. Returns what went wrong once it ran: hooks, or that there was nothing to run.
///
/// # Errors
/// When it is not created, or its program cannot be run.
pub fn start(root: &StateRoot, id: &str) -> Result<Vec<Error>> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let container = root.open_for(id, Verb::Start, &proc)?;
    let spec = Spec::parse(&container.dir.config()?)?;
    let opener = gate::open(container.dir.path())?;
    opener.let_go().map_err(|why| Error::refused("start", why))?;
    gate::take_away(container.dir.path())?;
    if !spec.process.is_set() {
        // An error by the spec, which leaves open how it shows; OCI runtime-tools and crun have the container be stopped.
        let why = "the configuration has no process: nothing was run, and the container is stopped";
        return Ok(vec![Error::refused("start", why)]);
    }
    Ok(after_start(&container.record, &spec))
}

/// Runs the poststart hooks. As the spec has it, their failure stops neither the container nor further hooks: it is returned
/// for a warning.
pub fn after_start(record: &Record, spec: &Spec) -> Vec<Error> {
    let list = spec.hooks.at(HookPoint::Poststart);
    if list.is_empty() {
        return Vec::new();
    }
    let pid = record.process.map_or(0, |p| p.pid);
    let state = OciState::of(record, spec, pid, Status::Running).to_json();
    hooks::run_all(list, HookPoint::Poststart, &state)
}
