//! `delete`: takes back what create did, by its record.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use croft_plan::build::{Driver, Keyring, Request, RootSwitch, build};
use croft_plan::lifecycle::{Status, Verb};
use croft_plan::spec::{HookPoint, Spec};
use croft_sys::proc::Proc;
use croft_sys::{cgroup, wait};

use crate::error::{Context, Error, Result};
use crate::report::OciState;
use crate::state::{Container, Record, StateRoot};
use crate::{hooks, undo};

/// Whether a container that still runs is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is refused.
    No,
    /// It is killed, and a container that does not exist is fine.
    Yes,
}

/// How long a killed process may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Deletes a container. Returns what went wrong after it was gone: hooks.
///
/// # Errors
/// When it may not be deleted, or something of it cannot be removed.
pub fn delete(root: &StateRoot, id: &str, force: Force) -> Result<Vec<Error>> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let verb = if force == Force::Yes { Verb::ForceDelete } else { Verb::Delete };
    match root.open_for(id, verb, &proc) {
        Err(Error::NotFound(_)) if force == Force::Yes => Ok(Vec::new()),
        Err(Error::BadState { id, why }) if force == Force::Yes => remove_unrecorded(root, &id, why),
        Err(e) => Err(e),
        Ok(container) => remove(container, None),
    }
}

/// Removes a container whose record is lost or cannot be understood: the groups that its configuration leads to, with what
/// is in them. Says so in what it returns.
fn remove_unrecorded(root: &StateRoot, id: &str, why: String) -> Result<Vec<Error>> {
    let dir = root.lock(id)?;
    let (record, what) = match dir.config().ok().and_then(|bytes| recorded_by_config(root, id, &bytes)) {
        Some(record) => (record, "what its configuration leads to is removed"),
        None => (Record::empty(id), "its folder is removed, but its processes and cgroups are not known"),
    };
    let hooks = remove(Container { dir, record, pidfd: None, status: Status::Stopped }, None)?;
    let mut warnings = vec![Error::BadState { id: id.to_owned(), why: format!("{why}; {what}") }];
    warnings.extend(hooks);
    Ok(warnings)
}

/// What would be recorded if a container with this configuration were created now.
fn recorded_by_config(root: &StateRoot, id: &str, bytes: &[u8]) -> Option<Record> {
    let spec = Spec::parse(bytes).ok()?;
    let facts = crate::facts::of_this_host().ok()?;
    // `slice:prefix:name` is systemd's form. Without a path this takes the usual driver.
    let of_systemd = spec.linux.cgroups_path.as_ref().is_some_and(|p| p.matches(':').count() == 2);
    let request = Request {
        id: id.to_owned(),
        bundle: PathBuf::new(),
        rootfs: PathBuf::new(),
        mount_point: root.mount_point(id),
        keyring: Keyring::New,
        root_switch: RootSwitch::Pivot,
        driver: if of_systemd { Driver::Systemd } else { Driver::Cgroupfs },
        mount_base: None,
    };
    let plan = build(&spec, &facts, &request).ok()?;
    let undo = plan.host.iter().filter_map(|step| step.undo()).collect();
    Some(Record { groups: plan.groups, undo, ..Record::empty(id) })
}

/// Removes an open container. `spec` is what it was made from, where that is known without reading it again.
///
/// # Errors
/// When something of it cannot be removed; its record stays then, so that delete can be tried again.
pub fn remove(container: Container, spec: Option<&Spec>) -> Result<Vec<Error>> {
    let Container { dir, record, pidfd, .. } = container;
    if let Some(pidfd) = &pidfd {
        thaw(&record);
        match wait::pidfd_signal(pidfd.as_fd(), 9) {
            Err(e) if e.errno() != croft_sys::Errno::SRCH => {
                return Err(Error::Kernel { op: "kill the container's process".into(), source: e });
            }
            _ => {}
        }
        let ended = croft_sys::wait_readable_for(pidfd.as_fd(), Some(KILL_LIMIT));
        if !ended.on(|| "wait for the container's process".into())? {
            return Err(Error::refused(
                "delete",
                "the container's process does not end; it may wait in the kernel",
            ));
        }
    }
    if let (Some(v2), false) = (&record.groups.v2, record.groups.v1.is_empty()) {
        // Undo begins with the v1 groups, which only the cgroup2 group can empty.
        crate::apply::empty_group(&v2.dir).on(|| format!("kill cgroup {}", v2.dir.display()))?;
    }
    for step in record.undo.iter().rev() {
        undo::perform(step).map_err(|why| Error::refused("delete", why))?;
    }
    let kept = match spec {
        None => dir.config().ok().and_then(|bytes| Spec::parse(&bytes).ok()),
        Some(_) => None,
    };
    dir.remove()?;
    let Some(spec) = spec.or(kept.as_ref()) else { return Ok(Vec::new()) };
    let list = spec.hooks.at(HookPoint::Poststop);
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let state = OciState::of(&record, spec, 0, Status::Stopped).to_json();
    Ok(hooks::run_all(list, HookPoint::Poststop, &state))
}

/// A frozen process of v1's freezer dies only once it is thawed; cgroup2's dies frozen.
fn thaw(record: &Record) {
    if let Some(group) = &record.groups.v2
        && let Ok(fd) = cgroup::open(&group.dir)
    {
        let _ = cgroup::write(fd.as_fd(), "cgroup.freeze", "0");
    }
}

/// Removes a container that its creator gives up: its process has been reaped.
pub(crate) fn delete_unlocked(record: &Record, dir: &std::path::Path) {
    for step in record.undo.iter().rev() {
        let _ = undo::perform(step);
    }
    let _ = std::fs::remove_dir_all(dir);
}
