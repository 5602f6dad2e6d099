//! `clone3(2)`: a child born in new namespaces and, with cgroup v2, in its cgroup.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};

pub use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS,
};

/// `CLONE_NEWTIME`: libc's constant collides with a signal mask in `clone(2)`, so it is given here for clone3 and unshare.
pub const CLONE_NEWTIME: i32 = 0x80;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Whose child the new process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The caller's.
    Caller,
    /// The caller's own parent's (`CLONE_PARENT`): the new process is the caller's sibling.
    Grandparent,
}

/// A child that was made by [`clone3`].
#[derive(Debug)]
pub struct Child {
    /// Refers to the child for as long as it is held, even after its death.
    pub pidfd: OwnedFd,
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
}

/// Which side of the fork the caller is on.
#[derive(Debug)]
pub enum Side {
    /// The caller.
    Parent(Child),
    /// The new process.
    Child,
}

unsafe extern "C" {
    /// glibc: non-zero while the process has never had a second thread or all others have ended.
    static __libc_single_threaded: libc::c_char;
}

/// Makes a child in the new namespaces `flags` (`CLONE_NEW*`) and, if `cgroup` is given, in that cgroup v2 folder.
///
/// # Errors
/// `EBUSY` when the calling process has more than one thread: a fork of it could hold another thread's locks.
/// Otherwise as in clone3(2).
pub fn clone3(flags: i32, cgroup: Option<BorrowedFd<'_>>, parent: Parent) -> Result<Side> {
    // SAFETY: a plain byte that glibc defines (since 2.32) and only it writes, on thread creation; we have one thread or refuse.
    if unsafe { __libc_single_threaded } == 0 {
        return Err(Error::new("clone3 in a process with threads", rustix::io::Errno::BUSY));
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers, for which all zeroes is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u32 as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    match parent {
        Parent::Caller => args.exit_signal = libc::SIGCHLD as u64,
        Parent::Grandparent => args.flags |= libc::CLONE_PARENT as u64,
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args lives over the call and its pidfd points to a live int. Without CLONE_VM the child has its own copy of
    // our memory, and we are single-threaded (checked above), so no lock is held by a thread that the child lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(Error::last("clone3")),
        0 => Ok(Side::Child),
        pid => {
            // SAFETY: the kernel stored a new descriptor in pidfd, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent(Child { pidfd, pid: pid as i32 }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_threaded_process() {
        // The test harness itself runs tests on threads, so this process is a threaded one.
        let error = clone3(0, None, Parent::Caller).unwrap_err();
        assert_eq!(error.errno(), rustix::io::Errno::BUSY);
    }
}
