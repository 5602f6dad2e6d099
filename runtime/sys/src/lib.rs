//! Kernel calls for croft, one file per facility: mechanism, no policy. The only crate with `unsafe`.
//!
//! Descriptors are `OwnedFd` and `BorrowedFd`; errors name the call. EINTR is retried here and nowhere else.

pub mod bpf;
pub mod cgroup;
pub mod clone;
pub mod credentials;
#[cfg(target_arch = "x86_64")]
mod entry;
pub mod epoll;
pub mod error;
pub mod event;
pub mod exec;
pub mod idmap;
pub mod keyring;
pub mod loopback;
pub mod lsm;
pub mod memory;
pub mod mount;
pub mod names;
pub mod netlink;
pub mod ns;
pub mod path;
pub mod prctl;
pub mod proc;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod tty;
pub mod wait;

#[cfg(test)]
pub(crate) mod testing;

pub use error::{Call, Error, Result, reason};
/// rustix's own module for calls on files: thin, safe and complete, so that nothing here repeats it.
pub use rustix::fs;
pub use rustix::fs::{Mode, OFlags};
pub use rustix::io::Errno;
pub use rustix::process::Pid;

use std::os::fd::{BorrowedFd, OwnedFd};

/// A pipe, closed on exec: the reading and the writing end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).call("pipe2")
}

/// One read(2).
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> std::result::Result<usize, Errno> {
    rustix::io::read(fd, buffer)
}

/// One pread(2).
pub fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> std::result::Result<usize, Errno> {
    rustix::io::pread(fd, buffer, offset)
}

/// One write(2).
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> std::result::Result<usize, Errno> {
    rustix::io::write(fd, bytes)
}

/// Makes `fd` the standard input, output and error of this process.
pub fn set_standard_streams(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::stdio::dup2_stdin(fd).call("dup2")?;
    rustix::stdio::dup2_stdout(fd).call("dup2")?;
    rustix::stdio::dup2_stderr(fd).call("dup2")
}

/// Waits until `fd` can be read or its other side is closed.
pub fn wait_readable(fd: BorrowedFd<'_>) -> Result<()> {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None)).call("poll").map(drop)
}

/// Makes the caller the leader of a new session, without a terminal.
pub fn new_session() -> Result<()> {
    rustix::process::setsid().call("setsid").map(drop)
}

/// Waits until `fd` can be read or its other side is closed, `limit` at most (`None`: for ever); whether that came to be.
pub fn wait_readable_for(fd: BorrowedFd<'_>, limit: Option<std::time::Duration>) -> Result<bool> {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let limit = limit
        .map(|l| rustix::event::Timespec { tv_sec: l.as_secs() as i64, tv_nsec: l.subsec_nanos().into() });
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, limit.as_ref())).call("poll").map(|n| n > 0)
}

/// Ends a connection in both directions: the peer sees its end although other copies of the descriptor are open.
pub fn shut(fd: BorrowedFd<'_>) {
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
}
