//! `start`: opens the gate.

use std::os::fd::{AsFd, BorrowedFd};

use croft_plan::lifecycle::{Answer, Status, Verb, allows};
use croft_plan::spec::{HookPoint, Spec};
use croft_sys::proc::Proc;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Context, Error, Result};
use crate::report::OciState;
use crate::state::{Container, Record, StateRoot};
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

/// A start that only opens the gate, for a supervisor that has others to look after: nothing here waits. The container is locked
/// against other verbs as long as this lives.
#[derive(Debug)]
pub struct Gated {
    container: Container,
    opener: gate::Opener,
}

/// A start that is under way.
#[derive(Debug)]
pub struct Starting {
    container: Container,
    opened: gate::Opened,
}

/// The start of a container by its gate. `None` when that does not do, and [`start`] has to: hooks are to be run, there is no
/// process, it cannot be started, or another verb is at work.
///
/// # Errors
/// When the container's state cannot be read.
pub fn by_gate(root: &StateRoot, id: &str) -> Result<Option<Gated>> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let Some(container) = root.try_open(id, &proc)? else { return Ok(None) };
    if allows(container.status, Verb::Start) != Answer::Do || !is_gate_all(&container.dir.config()?) {
        return Ok(None);
    }
    let opener = gate::open(container.dir.path())?;
    Ok(Some(Gated { container, opener }))
}

impl AsFd for Gated {
    /// What is readable once [`Starting::finish`] need not wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opener.as_fd()
    }
}

impl Gated {
    /// Begins.
    ///
    /// # Errors
    /// When the container does not wait any more.
    pub fn begin(self) -> Result<Starting> {
        let opened = self.opener.open().map_err(|why| Error::refused("start", why))?;
        Ok(Starting { container: self.container, opened })
    }
}

impl AsFd for Starting {
    /// As that which it was.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}

impl Starting {
    /// The outcome.
    ///
    /// # Errors
    /// When its program could not be run.
    pub fn finish(self) -> Result<()> {
        self.opened.outcome().map_err(|why| Error::refused("start", why))?;
        gate::take_away(self.container.dir.path())
    }
}

/// Whether the gate is all that there is to a start by this configuration, of which nothing else is read.
fn is_gate_all(config: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Config {
        process: Option<IgnoredAny>,
        hooks: Option<Hooks>,
    }
    #[derive(Deserialize)]
    struct Hooks {
        poststart: Option<Vec<IgnoredAny>>,
    }
    let Ok(config) = serde_json::from_slice::<Config>(config) else { return false };
    let hooks = config.hooks.and_then(|hooks| hooks.poststart).unwrap_or_default();
    config.process.is_some() && hooks.is_empty()
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

#[cfg(test)]
mod tests {
    use super::is_gate_all;

    #[test]
    fn hooks_and_the_want_of_a_process_are_more_than_a_gate() {
        for config in [
            r#"{"process": {"args": ["x"]}}"#,
            r#"{"process": {}, "hooks": null}"#,
            r#"{"process": {}, "hooks": {"createRuntime": [{"path": "/x"}], "poststart": []}}"#,
        ] {
            assert!(is_gate_all(config.as_bytes()), "{config}");
        }
        for config in [
            r#"{"process": {}, "hooks": {"poststart": [{"path": "/x"}]}}"#,
            r#"{"hooks": {}}"#,
            r#"{"process": null}"#,
            r#"{"process": {}, "hooks": {"poststart": 7}}"#,
            "{",
        ] {
            assert!(!is_gate_all(config.as_bytes()), "{config}");
        }
    }
}
