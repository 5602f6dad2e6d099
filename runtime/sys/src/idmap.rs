//! User namespaces that only describe a mapping of ids, for idmapped mounts; see `MOUNT_ATTR_IDMAP` in mount_setattr(2).
//!
//! Unlike [`crate::clone::clone3`] this may be called in a process with threads: the child makes three system calls and ends.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Call, Error, Result};
use crate::proc::Proc;
use crate::signal;

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

/// The child's stack, in units of 16 bytes as its alignment wants: it makes three system calls.
const STACK: usize = 1024;

/// Makes a user namespace with these maps. It lives as long as the descriptor or a mount that uses it.
///
/// The child that is in it first has our memory and not a copy (`CLONE_VM`): copying the page tables of a process with 40 MB, and
/// taking them apart again at each of its next writes, took a millisecond.
pub fn namespace(proc: &Proc, ranges: &[Range]) -> Result<OwnedFd> {
    let (wait, go) = crate::pipe()?;
    let mut pidfd: libc::c_int = -1;
    let mut stack = vec![0u128; STACK];
    // A handler of ours that ran in the child would run on its small stack.
    let signals = signal::set_blocked(signal::Set::ALL)?;
    // SAFETY: the stack is live, aligned and large enough for `wait_for_end`, and is kept until the child has ended; its end is where it
    // begins, as it grows downwards. pidfd is a live int, which the kernel writes before this returns. No signal at the child's end: a
    // caller that reaps all its children shall not come upon this one.
    let pid = unsafe {
        libc::clone(
            wait_for_end,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::CLONE_NEWUSER | libc::CLONE_PIDFD,
            wait.as_raw_fd() as usize as *mut libc::c_void,
            &raw mut pidfd,
        )
    };
    let cloned = Error::check("clone", libc::c_long::from(pid));
    // Cannot fail: it is what was in force.
    let restored = signal::set_blocked(signals);
    cloned?;
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
    if let Err(error) = rustix::io::retry_on_intr(retrying(wait_for)).call("waitid") {
        // The child may still be on it.
        std::mem::forget(stack);
        return Err(error);
    }
    restored?;
    namespace
}

/// What the child does: waits until the writing end of the pipe is closed.
extern "C" fn wait_for_end(wait: *mut libc::c_void) -> libc::c_int {
    let wait = wait as usize as libc::c_uint;
    let mut byte = 0u8;
    // SAFETY: plain system calls: no lock, no memory but this stack. The descriptors are the child's own copies (no CLONE_FILES), and the
    // buffer is one live byte. libc's errno is that of the thread that made us, which only calls that fail write: these do not, on such
    // arguments and with all signals blocked. All writing ends go first, so that the read ends when the caller's does, even by the
    // caller's death: its own, and those of calls in other threads, whose children would otherwise wait for this one while it waits for
    // them.
    unsafe {
        if wait > 0 {
            libc::syscall(libc::SYS_close_range, 0, wait - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, wait + 1, libc::c_uint::MAX, 0);
        libc::read(wait as libc::c_int, (&raw mut byte).cast(), 1);
    }
    0
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
