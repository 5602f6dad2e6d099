//! `pause` and `resume`: cgroup2's freezer.

use std::os::fd::AsFd;
use std::time::Duration;

use croft_plan::lifecycle::Verb;
use croft_sys::cgroup::{self, Event};
use croft_sys::proc::Proc;

use crate::error::{Context, Error, Result};
use crate::state::StateRoot;

/// How long the processes may take to stop. One in an uninterruptible sleep can outlast any limit.
const LIMIT: Duration = Duration::from_secs(10);

/// Freezes every process of a container and waits until the last has stopped.
///
/// # Errors
/// When the container does not run, or does not stop in time; it runs on then.
pub fn pause(root: &StateRoot, id: &str) -> Result<()> {
    switch(root, id, Verb::Pause)
}

/// Lets every process of a paused container go on.
///
/// # Errors
/// When the container is not paused.
pub fn resume(root: &StateRoot, id: &str) -> Result<()> {
    switch(root, id, Verb::Resume)
}

fn switch(root: &StateRoot, id: &str, verb: Verb) -> Result<()> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let container = root.open_for(id, verb, &proc)?;
    let (word, value, event) = match verb {
        Verb::Pause => ("pause", "1", Event::Frozen),
        _ => ("resume", "0", Event::Thawed),
    };
    let Some(group) = &container.record.groups.v2 else {
        let why = "it has no control group: its user may make none";
        return Err(Error::refused(format!("{word} container {id:?}"), why));
    };
    let op = || format!("{word} container {id:?}, cgroup {}", group.dir.display());
    let fd = cgroup::open(&group.dir).on(op)?;
    cgroup::write(fd.as_fd(), "cgroup.freeze", value).on(op)?;
    let done = cgroup::wait_for(fd.as_fd(), event, LIMIT);
    if done.is_err() && verb == Verb::Pause {
        // Half frozen is no state that anyone asked for.
        let _ = cgroup::write(fd.as_fd(), "cgroup.freeze", "0");
    }
    done.on(op)
}
