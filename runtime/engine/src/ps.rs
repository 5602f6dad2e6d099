//! `ps`: the processes of a container.

use croft_plan::lifecycle::{Answer, Status, Verb, allows};
use croft_sys::cgroup;
use croft_sys::proc::Proc;

use crate::error::{Context, Error, Result};
use crate::state::{Container, StateRoot};

/// The pids of every process of a container, as the host counts them, in order.
///
/// # Errors
/// When the container does not run.
pub fn pids(root: &StateRoot, id: &str) -> Result<Vec<i32>> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let container = running(root, id, Verb::Ps, &proc)?;
    match (&container.record.groups.v2, container.record.process) {
        (Some(group), _) => {
            cgroup::pids_below(&group.dir).on(|| format!("list cgroup {}", group.dir.display()))
        }
        // Without a group the container is its process and what descends from it.
        (None, Some(process)) => descendants(process.pid, &proc),
        (None, None) => Ok(Vec::new()),
    }
}

/// Reads a container for a verb that changes nothing, without keeping others from it meanwhile.
pub(crate) fn running(root: &StateRoot, id: &str, verb: Verb, proc: &Proc) -> Result<Container> {
    let container = root.peek(id, proc)?;
    match allows(container.status, verb) {
        Answer::Do => Ok(container),
        Answer::Refuse(why) => Err(Error::WrongState { id: id.to_owned(), status: container.status, why }),
    }
}

/// Whether the container still has a process of its own.
pub(crate) fn has_ended(root: &StateRoot, id: &str, proc: &Proc) -> bool {
    root.peek(id, proc).map_or(true, |container| container.status == Status::Stopped)
}

fn descendants(ancestor: i32, proc: &Proc) -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc").map_err(|e| Error::file("read", "/proc".as_ref(), e))?;
    let pids = entries.flatten().filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok());
    let parents: Vec<(i32, i32)> =
        pids.filter_map(|pid| proc.stat(pid).ok().map(|stat| (pid, stat.parent))).collect();
    let mut found = std::collections::BTreeSet::from([ancestor]);
    loop {
        let children: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            return Ok(found.into_iter().collect());
        }
        found.extend(children);
    }
}
