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
        return all(&container, signal, &proc);
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

fn all(container: &Container, signal: i32, proc: &Proc) -> Result<()> {
    let Some(group) = &container.record.groups.v2 else {
        let Some(init) = container.record.process.filter(|_| container.pidfd.is_some()) else {
            return Ok(());
        };
        return each(&in_pid_namespace_of(init.pid, proc), signal);
    };
    let Ok(fd) = cgroup::open(&group.dir) else { return Ok(()) };
    if signal == 9 {
        return cgroup::kill(fd.as_fd()).on(|| format!("kill cgroup {}", group.dir.display()));
    }
    each(&cgroup::pids_below(&group.dir).on(|| format!("list cgroup {}", group.dir.display()))?, signal)
}

fn each(pids: &[i32], signal: i32) -> Result<()> {
    for pid in pids {
        let Ok(pidfd) = wait::pidfd_open(*pid) else { continue };
        match wait::pidfd_signal(pidfd.as_fd(), signal) {
            Err(e) if e.errno() != Errno::SRCH => {
                return Err(Error::Kernel { op: format!("send signal {signal} to {pid}"), source: e });
            }
            _ => {}
        }
    }
    Ok(())
}

/// An ordinary user's container may have no group: what it consists of then is the pid namespace of its process, and that
/// process alone where the namespace is not its own.
fn in_pid_namespace_of(init: i32, proc: &Proc) -> Vec<i32> {
    let namespace = |pid: &str| proc.read_link(&format!("{pid}/ns/pid")).ok();
    let its = namespace(&init.to_string());
    if its.is_none() || its == namespace("self") {
        return vec![init];
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| namespace(&pid.to_string()) == its).collect()
}

/// The number of a signal that a person names: `KILL`, `SIGKILL`, `9`, `RTMIN+3`.
pub fn signal_number(text: &str) -> Option<i32> {
    croft_sys::signal::parse(text)
}
