//! Processes by pidfd: opening, signalling, waiting. See pidfd_open(2), pidfd_send_signal(2), waitid(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::error::{Call, Error, Result};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The status as a shell gives it: 128 + n for signal n.
    pub fn status(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Opens a descriptor for the process `pid`, which must be alive or an unreaped zombie.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(Error::new("pidfd_open", rustix::io::Errno::SRCH))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).call("pidfd_open")
}

/// Sends signal number `signal` (0 only checks; real-time signals are allowed) to the process.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: the call takes three integers and a null siginfo, which means "as kill(2)".
    let r = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
    };
    if r == 0 { Ok(()) } else { Err(Error::last("pidfd_send_signal")) }
}

/// Whether the process behind `pidfd` still runs: false once it is a zombie or gone.
pub fn is_alive(pidfd: BorrowedFd<'_>) -> Result<bool> {
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut fds, Some(&zero)).call("poll pidfd")? == 0)
}

/// Waits for the end of the child behind `pidfd` and reaps it.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(exit_of(&status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::new("waitid", e)),
        }
    }
}

/// Reaps one child that has ended, whichever it is: its pid and how it ended. `None`: none has.
pub fn reap_any() -> Result<Option<(i32, Exit)>> {
    match rustix::io::retry_on_intr(|| rustix::process::wait(rustix::process::WaitOptions::NOHANG)) {
        Ok(Some((pid, status))) => {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Code(255),
            };
            Ok(Some((pid.as_raw_nonzero().get(), exit)))
        }
        Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(e) => Err(Error::new("wait", e)),
    }
}

fn exit_of(status: &rustix::process::WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(255),
    }
}

/// Copies the descriptor numbered `number` out of the process behind `pidfd` (pidfd_getfd(2)).
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    // SAFETY: three integers; the kernel checks them.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(Error::last("pidfd_getfd"));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Kills the child and reaps it; for an undo, where a child that is gone already is fine.
pub fn kill_and_reap(pidfd: BorrowedFd<'_>) {
    let _ = pidfd_signal(pidfd, Signal::KILL.as_raw());
    let _ = wait(pidfd);
}

/// The pid of the process behind `pidfd` in the caller's pid namespace, from `/proc/self/fdinfo`.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Result<i32> {
    let text = crate::proc::Proc::open()?.read(&format!("self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")).and_then(|p| p.trim().parse().ok());
    pid.filter(|p| *p > 0).ok_or(Error::new("read the pid of a pidfd", rustix::io::Errno::SRCH))
}
