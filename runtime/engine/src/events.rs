//! `events`: a container's numbers, and its ends for want of memory.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use croft_plan::build::Groups;
use croft_plan::cgroup::stats::{Event, EventKind, Stats, oom_kills};
use croft_plan::cgroup::{CgroupHost, Source, Version};
use croft_plan::lifecycle::Verb;
use croft_sys::event::{self, Interest};
use croft_sys::proc::Proc;
use croft_sys::{OFlags, cgroup, fs};

use crate::error::{Context, Error, Result};
use crate::ps::{has_ended, running};
use crate::state::{Container, StateRoot};

/// The numbers of one container now.
///
/// # Errors
/// When it does not run, or a file of its groups cannot be understood.
pub fn stats(root: &StateRoot, id: &str) -> Result<Event> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let container = running(root, id, Verb::Events, &proc)?;
    let host = crate::facts::gather(&proc)?.cgroups;
    read(id, &container.record.groups, &host)
}

/// Gives `report` the numbers at once and after each `interval`, and an event each time that the kernel kills a process of
/// the container for want of memory, until the container ends or `report` says that nobody listens any more.
///
/// # Errors
/// As [`stats`].
pub fn watch(
    root: &StateRoot,
    id: &str,
    interval: Duration,
    report: &mut dyn FnMut(&Event) -> Listening,
) -> Result<()> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let container = running(root, id, Verb::Events, &proc)?;
    let host = crate::facts::gather(&proc)?.cgroups;
    let mut memory = MemoryWatch::new(&container.record.groups, &host)?;
    let groups = &container.record.groups;
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            if has_ended(root, id, &proc) || report(&read(id, groups, &host)?) == Listening::No {
                return Ok(());
            }
            next += interval;
        }
        match wait(&container, &memory, next.saturating_duration_since(Instant::now()))? {
            Woken::Ended => return Ok(()),
            Woken::Interval => {}
            Woken::Memory => {
                let event = Event { kind: EventKind::Oom, id: id.to_owned(), data: None };
                if memory.has_killed(groups, &host)? && report(&event) == Listening::No {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether anybody takes the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// Go on.
    Yes,
    /// The reader has gone.
    No,
}

enum Woken {
    Ended,
    Interval,
    Memory,
}

fn wait(container: &Container, memory: &MemoryWatch, limit: Duration) -> Result<Woken> {
    let op = || "wait for events".to_owned();
    let Some(pidfd) = &container.pidfd else { return Ok(Woken::Ended) };
    let mut sources = vec![(pidfd.as_fd(), Interest::Readable)];
    sources.extend(memory.file.as_ref().map(|(fd, interest)| (fd.as_fd(), *interest)));
    let ready = event::wait(&sources, Some(limit)).on(op)?;
    Ok(match (ready[0].readable, ready.get(1)) {
        (true, _) => Woken::Ended,
        (false, Some(file)) if file.readable || file.changed => Woken::Memory,
        _ => Woken::Interval,
    })
}

/// What tells of the kernel's killing: `memory.events` on cgroup2, an eventfd on v1. None where the container has no memory group.
struct MemoryWatch {
    file: Option<(OwnedFd, Interest)>,
    killed: u64,
}

impl MemoryWatch {
    fn new(groups: &Groups, host: &CgroupHost) -> Result<Self> {
        let op = || "watch for the end of memory".to_owned();
        let on_v1 = host.has("memory", Version::V1);
        let dir = groups.dir("memory", if on_v1 { Version::V1 } else { Version::V2 });
        let file = match dir {
            Some(dir) if on_v1 => {
                let group = cgroup::open(dir).on(op)?;
                Some((cgroup::oom_notifications(group.as_fd()).on(op)?, Interest::Readable))
            }
            Some(dir) => {
                let path = dir.join("memory.events");
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                // Without the controller there is no such file, and nothing to wait for.
                let fd = fs::open(&path, flags, fs::Mode::empty()).ok();
                fd.map(|fd| (fd, Interest::Changed))
            }
            None => None,
        };
        let mut watch = Self { file, killed: 0 };
        watch.has_killed(groups, host)?;
        Ok(watch)
    }

    /// Whether more was killed than at the last look. The look also takes the notification back.
    fn has_killed(&mut self, groups: &Groups, host: &CgroupHost) -> Result<bool> {
        let mut buffer = [0u8; 512];
        let told = match &self.file {
            Some((fd, Interest::Changed)) => {
                let _ = croft_sys::read_at(fd.as_fd(), &mut buffer, 0);
                false
            }
            // v1 tells before it has chosen whom to kill, so the count cannot be waited for.
            Some((fd, _)) => croft_sys::read(fd.as_fd(), &mut buffer[..8]).is_ok(),
            None => false,
        };
        let mut files = |source: Source<'_>| crate::update::read(groups, source);
        let killed = oom_kills(host, &mut files).map_err(malformed)?.unwrap_or(0);
        let more = killed > std::mem::replace(&mut self.killed, killed);
        let gone = groups.dir("memory", Version::V1).is_some_and(|dir| !dir.exists());
        Ok((more || told) && !gone)
    }
}

fn read(id: &str, groups: &Groups, host: &CgroupHost) -> Result<Event> {
    let mut files = |source: Source<'_>| crate::update::read(groups, source);
    let stats = Stats::read(host, &mut files).map_err(malformed)?;
    Ok(Event { kind: EventKind::Stats, id: id.to_owned(), data: Some(Box::new(stats)) })
}

pub(crate) fn malformed(error: croft_plan::cgroup::stats::ReadError<croft_sys::Error>) -> Error {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        text = format!("{text}: {source}");
    }
    Error::refused("events", text)
}
