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

/// Sends signal number `signal` to every process of the group that process `leader` leads. ESRCH: there is none.
pub fn signal_group(leader: i32, signal: i32) -> Result<()> {
    if leader < 1 {
        return Err(Error::new("kill", rustix::io::Errno::SRCH));
    }
    // SAFETY: two integers; the kernel checks them.
    let returned = unsafe { libc::kill(-leader, signal) };
    Error::check("kill", returned.into()).map(drop)
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

/// `struct pidfd_info` of linux/pidfd.h as it was first (`PIDFD_INFO_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl =
    ((3u64 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xFF << 8) | 11) as libc::Ioctl;

/// `PIDFD_INFO_EXIT`: the status of a process that has been reaped (Linux 6.15).
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// How the process behind `pidfd` ended, whoever reaped it: known once it was, and as long as this descriptor, opened before, is
/// held. `None`: it has not been reaped yet, or the kernel is older than 6.15.
pub fn exit_of_reaped(pidfd: BorrowedFd<'_>) -> Option<Exit> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the kernel reads and writes as many bytes as the number of the call encodes, which is the size of this struct of
    // plain integers; it lives across the call. A kernel without the call refuses it and touches nothing.
    let returned = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (returned == 0 && info.mask & PIDFD_INFO_EXIT != 0).then(|| exit_of_status(info.exit_code))
}

/// What a status as of wait(2) means.
pub fn exit_of_status(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code(status >> 8 & 0xff),
        signal => Exit::Signal(signal),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn statuses_are_understood() {
        assert_eq!(exit_of_status(0x0700), Exit::Code(7));
        assert_eq!(exit_of_status(0x89), Exit::Signal(9));
    }

    #[test]
    fn a_signal_reaches_the_whole_group() {
        use std::os::unix::process::{CommandExt, ExitStatusExt};
        let mut shell = std::process::Command::new("sh");
        let mut child = shell.args(["-c", "sleep 1000; exit 7"]).process_group(0).spawn().unwrap();
        signal_group(child.id() as i32, libc::SIGKILL).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(signal_group(0, 0).unwrap_err().errno(), rustix::io::Errno::SRCH);
    }

    #[test]
    fn the_status_of_a_process_that_another_reaped_is_known() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = pidfd_open(child.id() as i32).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7));
        match exit_of_reaped(pidfd.as_fd()) {
            Some(exit) => assert_eq!(exit, Exit::Code(7)),
            None => crate::testing::skipped("exit_of_reaped", "PIDFD_INFO_EXIT needs Linux 6.15"),
        }
    }
}
