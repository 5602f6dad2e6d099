//! Waiting for many fds: epoll(7). For a few, [`crate::event`] is simpler.

use crate::error::{Call, Error, Result};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// What to wait for on an fd. Hang-ups and errors are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Readable,
    /// Room to write.
    Writable,
    /// Either.
    Both,
    /// Only the other side's going away.
    HangUp,
    /// Something to read, or the end, told once each time that it changes (edge-triggered).
    Changes,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::Readable => EventFlags::IN,
            Interest::Writable => EventFlags::OUT,
            Interest::Both => EventFlags::IN | EventFlags::OUT,
            Interest::HangUp => EventFlags::empty(),
            Interest::Changes => EventFlags::IN | EventFlags::ET,
        }
    }
}

/// One fd that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// What the fd was added with.
    pub token: u64,
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
    /// The other side is gone, or the fd has an error to report.
    pub hung_up: bool,
}

/// A set of fds to wait for.
///
/// An fd leaves the set by [`Epoll::remove`] alone: closing it does not, as long as another process has a copy of it.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl Epoll {
    /// An empty set.
    pub fn new() -> Result<Self> {
        Ok(Self {
            fd: epoll::create(CreateFlags::CLOEXEC).call("epoll_create1")?,
            events: Vec::with_capacity(64),
        })
    }

    /// Adds `fd`; `token` is what [`Epoll::wait`] gives for it.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<()> {
        epoll::add(&self.fd, fd, EventData::new_u64(token), interest.flags()).call("epoll_ctl add")
    }

    /// Changes what is waited for on `fd`.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<()> {
        epoll::modify(&self.fd, fd, EventData::new_u64(token), interest.flags()).call("epoll_ctl modify")
    }

    /// Takes `fd` out.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        epoll::delete(&self.fd, fd).call("epoll_ctl delete")
    }

    /// Waits until an fd is ready or `timeout` is over (`None`: for ever), and puts into `ready` those that are. A signal ends the
    /// wait with none.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = timeout.and_then(|t| rustix::event::Timespec::try_from(t).ok());
        match epoll::wait(&self.fd, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(Error::new("epoll_wait", errno)),
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                hung_up: flags.intersects(EventFlags::HUP | EventFlags::ERR),
            }
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn tells_what_is_ready_by_token_until_it_is_removed() {
        let mut set = Epoll::new().unwrap();
        let (reader, writer) = crate::pipe().unwrap();
        set.add(reader.as_fd(), 7, Interest::Readable).unwrap();
        let mut ready = Vec::new();
        set.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert_eq!(ready, []);
        crate::write(writer.as_fd(), b"x").unwrap();
        set.wait(None, &mut ready).unwrap();
        assert_eq!(ready, [Ready { token: 7, readable: true, writable: false, hung_up: false }]);
        drop(writer);
        set.wait(None, &mut ready).unwrap();
        assert!(ready[0].hung_up);
        set.remove(reader.as_fd()).unwrap();
        set.wait(Some(Duration::ZERO), &mut ready).unwrap();
        assert_eq!(ready, []);
    }
}
