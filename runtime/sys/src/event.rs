//! Waiting for several fds at once: poll(2).

use crate::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// What to wait for on an fd. Hang-ups and errors are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end; for a pidfd: the process is dead.
    Readable,
    /// Room to write.
    Writable,
    /// Only the other side's going away.
    HangUp,
    /// A control file whose content has changed since it was last read, such as `memory.events`: POLLPRI.
    Changed,
}

/// What an fd is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
    /// The other side is gone. There may still be something to read.
    pub hung_up: bool,
    /// Its content has changed ([`Interest::Changed`]).
    pub changed: bool,
    /// The fd has an error to report.
    pub failed: bool,
}

/// Waits until one of `sources` is ready or `timeout` is over (`None`: for ever), and says for each what it is ready for, in
/// their order; after the timeout none is ready. Signals do not end the wait.
pub fn wait(sources: &[(BorrowedFd<'_>, Interest)], timeout: Option<Duration>) -> Result<Vec<Readiness>> {
    let mut fds: Vec<PollFd<'_>> =
        sources.iter().map(|(fd, interest)| PollFd::from_borrowed_fd(*fd, flags(*interest))).collect();
    let end = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // A duration that no clock can hold is as good as for ever.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(_) => return Ok(fds.iter().map(|fd| readiness(fd.revents())).collect()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("poll", errno)),
        }
    }
}

fn flags(interest: Interest) -> PollFlags {
    match interest {
        Interest::Readable => PollFlags::IN,
        Interest::Writable => PollFlags::OUT,
        Interest::HangUp => PollFlags::empty(),
        Interest::Changed => PollFlags::PRI,
    }
}

fn readiness(flags: PollFlags) -> Readiness {
    Readiness {
        readable: flags.contains(PollFlags::IN),
        writable: flags.contains(PollFlags::OUT),
        hung_up: flags.contains(PollFlags::HUP),
        changed: flags.contains(PollFlags::PRI),
        failed: flags.intersects(PollFlags::ERR | PollFlags::NVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn tells_which_fd_is_ready() {
        let (empty, _keep) = rustix::pipe::pipe().unwrap();
        let (full, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        let ready = wait(
            &[
                (empty.as_fd(), Interest::Readable),
                (full.as_fd(), Interest::Readable),
                (writer.as_fd(), Interest::Writable),
            ],
            None,
        )
        .unwrap();
        assert_eq!(ready[0], Readiness::default());
        assert_eq!(ready[1], Readiness { readable: true, ..Readiness::default() });
        assert_eq!(ready[2], Readiness { writable: true, ..Readiness::default() });
    }

    #[test]
    fn tells_that_the_other_side_is_gone() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(writer);
        let ready = wait(&[(reader.as_fd(), Interest::HangUp)], None).unwrap();
        assert_eq!(ready[0], Readiness { hung_up: true, ..Readiness::default() });
    }

    #[test]
    fn ends_at_the_timeout_with_nothing_ready() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let start = Instant::now();
        let ready = wait(&[(reader.as_fd(), Interest::Readable)], Some(Duration::from_millis(20))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(ready[0], Readiness::default());
    }
}
