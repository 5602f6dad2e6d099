//! User namespaces that only describe a mapping of ids, for idmapped mounts; see `MOUNT_ATTR_IDMAP` in mount_setattr(2).
//!
//! Unlike [`crate::clone::clone3`] this may be called in a process with threads: the child makes a few system calls and ends.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Call, Error, Result};
use crate::proc::Proc;

/// Ids that are mapped in one piece, users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first id in the namespace: for a mount, on the disk.
    pub inside: u32,
    /// The id in the caller's namespace that it stands for: for a mount, what is seen.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// Makes a user namespace with these maps. It lives as long as the descriptor or a mount that uses it.
pub fn namespace(proc: &Proc, ranges: &[Range]) -> Result<OwnedFd> {
    let (wait, go) = crate::pipe()?;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers, for which all zeroes is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // No signal at its end: a caller that reaps all its children shall not come upon this one.
    args.flags = libc::CLONE_NEWUSER as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // SAFETY: args lives over the call and its pidfd points to a live int. Without CLONE_VM the child has its own copy of our memory.
    // Of the caller's threads only this one exists in it, so it must not take a lock: see below for all that it does.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        let mut byte = 0u8;
        let kept = wait.as_raw_fd() as libc::c_uint;
        // SAFETY: close_range, read and _exit are safe after a fork of a process with threads (plain system calls, no lock); the
        // descriptors are the child's own copies, which nothing in it uses later, and the buffer is one live byte. All writing ends go
        // first, so that the read ends when the caller's does, even by the caller's death: its own, and those of calls in other
        // threads, whose children would otherwise wait for this one while it waits for them.
        unsafe {
            if kept > 0 {
                libc::syscall(libc::SYS_close_range, 0, kept - 1, 0);
            }
            libc::syscall(libc::SYS_close_range, kept + 1, libc::c_uint::MAX, 0);
            libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0)
        }
    }
    Error::check("clone3", pid)?;
    // SAFETY: the kernel stored a new descriptor in pidfd, which nobody else owns.
    let child = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let text: String = ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.size)).collect();
    let mapped = ["uid_map", "gid_map"]
        .iter()
        .try_for_each(|map| proc.write(&format!("{pid}/{map}"), text.as_bytes()));
    let namespace = mapped.and_then(|()| proc.open_namespace(&pid.to_string(), "user"));
    drop(go);
    // SAFETY: siginfo_t is plain data, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: info is live and of the right type. __WALL, since a child without an end signal is not waited for otherwise.
    let wait_for = || unsafe {
        libc::waitid(
            libc::P_PIDFD,
            child.as_raw_fd() as libc::id_t,
            &raw mut info,
            libc::WEXITED | libc::__WALL,
        )
    };
    rustix::io::retry_on_intr(retrying(wait_for)).call("waitid")?;
    namespace
}

/// A call through libc as one that rustix can retry.
fn retrying(
    mut call: impl FnMut() -> libc::c_int,
) -> impl FnMut() -> std::result::Result<(), rustix::io::Errno> {
    move || if call() == 0 { Ok(()) } else { Err(Error::last("waitid").errno()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_process_with_threads_makes_a_mapping() {
        if crate::credentials::user().1 != 0 {
            return crate::testing::skipped("a_process_with_threads_makes_a_mapping", "needs root");
        }
        let proc = Proc::open().unwrap();
        let made = namespace(&proc, &[Range { inside: 0, outside: 100_000, size: 65536 }]).unwrap();
        assert_eq!(crate::ns::kind(made.as_fd()).unwrap(), libc::CLONE_NEWUSER);
        let wrong = namespace(&proc, &[Range { inside: 0, outside: 0, size: 0 }]);
        assert_eq!(wrong.unwrap_err().errno(), rustix::io::Errno::INVAL);
    }

    #[test]
    fn many_threads_do_not_wait_for_each_other() {
        const THREADS: u32 = 8;
        if crate::credentials::user().1 != 0 {
            return crate::testing::skipped("many_threads_do_not_wait_for_each_other", "needs root");
        }
        let (done, ends) = std::sync::mpsc::channel();
        for thread in 0..THREADS {
            let done = done.clone();
            std::thread::spawn(move || {
                let proc = Proc::open().unwrap();
                for _ in 0..100 {
                    let range = Range { inside: 0, outside: 100_000 * (thread + 1), size: 65536 };
                    namespace(&proc, &[range]).unwrap();
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..THREADS {
            ends.recv_timeout(std::time::Duration::from_secs(60)).expect("a thread waits for another");
        }
    }
}
