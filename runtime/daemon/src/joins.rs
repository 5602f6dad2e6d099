//! Namespaces of other containers, for one that shares them.
//!
//! Who shares a namespace of a container is in its user namespace too: what is in a namespace belongs to the user namespace that it was made
//! in. So all that a container shares is of one other container, whose ids are then its own.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use croft_api::container::{Config, Ipc, NetworkMode, Pid, State};
use croft_api::problem::{Kind, Problem};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::container::View;
use crate::daemon::Shared;

/// What a container has of another one.
#[derive(Debug, Default)]
pub struct Joined {
    /// Namespaces, by their kinds in the configuration.
    pub namespaces: BTreeMap<&'static str, PathBuf>,
    /// The first of its ids.
    pub ids: Option<u32>,
    /// Where its /dev/shm is on the host.
    pub shm: Option<PathBuf>,
    /// Where its hosts and resolv.conf are.
    pub names: Option<PathBuf>,
    /// What the paths of the namespaces lead to, as long as they are used.
    pub held: Vec<OwnedFd>,
}

/// What is wanted of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// To see whether it is possible at all.
    Check,
    /// To be in their namespaces: they have to run.
    Start,
}

/// The containers that `config` shares something with, by the kind of namespace.
pub fn others(config: &mut Config) -> Vec<(&'static str, &mut String)> {
    let mut others = Vec::new();
    if let NetworkMode::Container(other) = &mut config.network {
        others.push(("network", other));
    }
    if let Pid::Container(other) = &mut config.pid {
        others.push(("pid", other));
    }
    if let Ipc::Container(other) = &mut config.ipc {
        others.push(("ipc", other));
    }
    others
}

/// Whether it shares something with another container.
pub fn any(config: &Config) -> bool {
    !others(&mut config.clone()).is_empty()
}

impl Shared {
    /// What `config` has of other containers.
    ///
    /// # Errors
    /// When one is not there, does not run, or does not share.
    pub fn joined(&self, title: &str, config: &Config, wanted: For) -> Result<Joined, Problem> {
        let mut joined = Joined::default();
        let mut config = config.clone();
        let mut owner: Option<String> = None;
        for (kind, id) in others(&mut config) {
            let view = self.container(id).map(|handle| handle.view()).ok_or_else(|| {
                let why = format!("the container {id}, whose {kind} it shares, is not there");
                Problem::new(Kind::NotFound, title, why)
            })?;
            let name = view.record.name.clone();
            if owner.replace(view.record.id.clone()).is_some_and(|other| other != view.record.id) {
                let why = "it shares namespaces of two containers, and can be in the user namespace of one";
                return Err(Problem::new(Kind::Invalid, title, why));
            }
            if view.record.ids.is_none() {
                let why = format!("{name} is in the host's user namespace, or in another container's");
                return Err(Problem::new(Kind::Invalid, title, why).hint("share with the one that owns it"));
            }
            joined.ids = view.record.ids;
            match kind {
                "network" => joined.names = Some(self.run_folder(&view.record.id)),
                "ipc" if view.record.config.ipc != Ipc::Shareable => {
                    let why = format!("{name} shares its memory with nobody");
                    return Err(Problem::new(Kind::Invalid, title, why).hint("make it with --ipc shareable"));
                }
                "ipc" => joined.shm = Some(self.run_folder(&view.record.id).join("shm")),
                _ => {}
            }
            if wanted == For::Start {
                enter(&view, kind, &mut joined).map_err(|why| {
                    let why = format!("{name}, whose {kind} it shares: {why}");
                    Problem::new(Kind::WrongState, title, why).hint(format!("croft start {name}"))
                })?;
            }
        }
        Ok(joined)
    }
}

/// Opens the namespaces of a running container.
fn enter(view: &View, kind: &'static str, joined: &mut Joined) -> Result<(), String> {
    let pid = view.pid.filter(|_| matches!(view.state, State::Running | State::Paused));
    let pid = pid.ok_or("it does not run")?;
    let gone = |e: &dyn std::fmt::Display| format!("it has ended: {e}");
    let process = rustix::process::Pid::from_raw(pid).ok_or("it does not run")?;
    let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(|e| gone(&e))?;
    // The number may have gone to another process before it was held.
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|e| gone(&e))?;
    if !groups.contains(&view.record.id) {
        return Err(gone(&"its process is another's"));
    }
    let file = if kind == "network" { "net" } else { kind };
    for (kind, file) in [(kind, file), ("user", "user")] {
        let path = format!("/proc/{pid}/ns/{file}");
        let namespace: OwnedFd = std::fs::File::open(&path).map_err(|e| format!("{path}: {e}"))?.into();
        let held = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        joined.namespaces.insert(kind, held.into());
        joined.held.push(namespace);
    }
    let mut ended = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec::default())) {
        Ok(0) => Ok(()),
        Ok(_) => Err(gone(&"this moment")),
        Err(e) => Err(gone(&e)),
    }
}
