//! `kill`: a signal to the container's process, or to all of its processes.

use std::os::fd::AsFd;

use croft_plan::lifecycle::{Status, Verb};
use croft_sys::proc::Proc;
use croft_sys::{Errno, cgroup, wait};

use crate::error::{Context, Error, Result};
use crate::state::{Container, StateRoot};

/// To whom a signal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The container's own process.
    Init,
    /// Every process in its group.
    All,
}

/// Sends signal number `signal`.
///
/// # Errors
/// When the container has no process any more.
pub fn kill(root: &StateRoot, id: &str, signal: i32, whom: Whom) -> Result<()> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let verb = Verb::Kill;
    if whom == Whom::All {
        // As with runc, what is left of a container whose own process has ended can still be killed.
        let container = root.open(id, &proc)?;
        return all(&container, signal);
    }
    let container = root.open_for(id, verb, &proc)?;
    let Some(pidfd) = &container.pidfd else {
        return Err(gone(id));
    };
    match wait::pidfd_signal(pidfd.as_fd(), signal) {
        Err(e) if e.errno() == Errno::SRCH => Err(gone(id)),
        other => other.on(|| format!("send signal {signal} to the container's process")),
    }
}

fn gone(id: &str) -> Error {
    Error::WrongState { id: id.to_owned(), status: Status::Stopped, why: "container not running" }
}

fn all(container: &Container, signal: i32) -> Result<()> {
    let Some(group) = &container.record.groups.v2 else { return Ok(()) };
    let Ok(fd) = cgroup::open(&group.dir) else { return Ok(()) };
    if signal == 9 {
        return cgroup::kill(fd.as_fd()).on(|| format!("kill cgroup {}", group.dir.display()));
    }
    for pid in cgroup::pids_below(&group.dir).on(|| format!("list cgroup {}", group.dir.display()))? {
        let Ok(pidfd) = wait::pidfd_open(pid) else { continue };
        match wait::pidfd_signal(pidfd.as_fd(), signal) {
            Err(e) if e.errno() != Errno::SRCH => {
                return Err(Error::Kernel { op: format!("send signal {signal} to {pid}"), source: e });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The number of a signal that a person names: `KILL`, `SIGKILL`, `9`, `RTMIN+3`.
pub fn signal_number(text: &str) -> Option<i32> {
    croft_sys::signal::parse(text)
}
