//! seccomp(2): loading a compiled filter, what this kernel can do, and the listener's side of user notification.

use crate::{Error, Result};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of a classic BPF program (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// What to do.
    pub code: u16,
    /// How many instructions to leave out if a test is true.
    pub jt: u8,
    /// How many instructions to leave out if a test is false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The most instructions that the kernel takes in one program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

bitflags::bitflags! {
    /// How to load a filter (`SECCOMP_FILTER_FLAG_*`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct FilterFlags: libc::c_ulong {
        /// All threads of the process get the filter.
        const TSYNC = libc::SECCOMP_FILTER_FLAG_TSYNC;
        /// Every action but allow is logged.
        const LOG = libc::SECCOMP_FILTER_FLAG_LOG;
        /// The mitigation of Speculative Store Bypass stays off.
        const SPEC_ALLOW = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        /// A listener for `SECCOMP_RET_USER_NOTIF` is wanted.
        const NEW_LISTENER = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        /// Only a fatal signal interrupts a call that the listener has received.
        const WAIT_KILLABLE_RECV = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    }
}

/// Puts this thread under `program`, for good, and gives the listener if [`FilterFlags::NEW_LISTENER`] asks for one (close-on-exec).
///
/// The thread needs no_new_privs or CAP_SYS_ADMIN in its user namespace (EACCES).
pub fn load(program: &[SockFilter], flags: FilterFlags) -> Result<Option<OwnedFd>> {
    let len =
        u16::try_from(program.len()).map_err(|_| Error::new("seccomp SET_MODE_FILTER", Errno::INVAL))?;
    let mut raw = flags.bits();
    if flags.contains(FilterFlags::TSYNC) {
        // Without it a thread that cannot follow is told by a thread id, which a listener's number could be taken for.
        raw |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
    }
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel reads one sock_fprog and through it `len` instructions, laid out as SockFilter is; both live across the
    // call and neither is written.
    let returned =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, raw, &raw const program) };
    let number = Error::check("seccomp SET_MODE_FILTER", returned)?;
    if !flags.contains(FilterFlags::NEW_LISTENER) {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the kernel returns an fd that it has just made for us alone; fds fit an i32.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number as i32) }))
}

/// Whether this kernel knows `action` (a `SECCOMP_RET_*`, its data left out).
pub fn knows_action(action: u32) -> Result<bool> {
    // SAFETY: GET_ACTION_AVAIL reads one u32, which lives across the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    match Error::check("seccomp GET_ACTION_AVAIL", returned) {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == Errno::OPNOTSUPP => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether this kernel knows all of `flags`. Loads nothing.
pub fn knows_flags(flags: FilterFlags) -> Result<bool> {
    let mut raw = flags.bits();
    if flags.contains(FilterFlags::WAIT_KILLABLE_RECV) {
        raw |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER; // the kernel refuses it alone
    }
    if raw & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 && flags.contains(FilterFlags::TSYNC) {
        raw |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
    }
    let nothing = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel looks at the flags first (EINVAL) and fails with EFAULT at the null pointer, which it never follows.
    let returned = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, raw, nothing) };
    match Error::check("seccomp SET_MODE_FILTER", returned) {
        Err(error) if error.errno() == Errno::FAULT => Ok(true),
        Err(error) if error.errno() == Errno::INVAL => Ok(false),
        Err(error) => Err(error),
        Ok(_) => Err(Error::new("seccomp SET_MODE_FILTER", Errno::INVAL)),
    }
}

/// A system call that waits for the listener's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Names this call in what follows. Reused after the call's end: see [`is_valid`].
    pub id: u64,
    /// The calling thread, as the listener's pid namespace sees it; 0 if it does not.
    pub pid: u32,
    /// The call's number.
    pub nr: i32,
    /// The architecture of the call (`AUDIT_ARCH_*`).
    pub arch: u32,
    /// Where in the program it is made.
    pub instruction_pointer: u64,
    /// The arguments. Pointers point into the caller's memory, which may change under the reader's eyes.
    pub args: [u64; 6],
}

/// What becomes of a call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It returns this, without being made.
    Value(i64),
    /// It fails with this, without being made.
    Error(Errno),
    /// It is made after all. No security rests on this: the caller may have changed what the pointers point at.
    Continue,
}

/// Waits for a call. `None`: one came, and its caller was killed or interrupted before it could be read.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Option<Notification>> {
    let mut raw = std::mem::MaybeUninit::<libc::seccomp_notif>::zeroed();
    loop {
        // SAFETY: NOTIF_RECV wants one seccomp_notif, all zero, and writes it; the ioctl's number carries its size, so that a
        // kernel with another size refuses the call.
        let returned =
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, raw.as_mut_ptr()) };
        match Error::check("ioctl SECCOMP_IOCTL_NOTIF_RECV", returned.into()) {
            Ok(_) => break,
            Err(error) if error.errno() == Errno::INTR => {}
            Err(error) if error.errno() == Errno::NOENT => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    // SAFETY: it was zeroed, then filled by the kernel; it holds only integers, for which all bits are valid.
    let raw = unsafe { raw.assume_init() };
    Ok(Some(Notification {
        id: raw.id,
        pid: raw.pid,
        nr: raw.data.nr,
        arch: raw.data.arch,
        instruction_pointer: raw.data.instruction_pointer,
        args: raw.data.args,
    }))
}

/// Answers the call `id`. ENOENT: it is no longer waiting.
pub fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<()> {
    let mut raw = libc::seccomp_notif_resp { id, val: 0, error: 0, flags: 0 };
    match answer {
        Answer::Value(value) => raw.val = value,
        Answer::Error(errno) => raw.error = -errno.raw_os_error(),
        Answer::Continue => raw.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    }
    // SAFETY: NOTIF_SEND reads one seccomp_notif_resp, which lives across the call.
    let returned = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut raw) };
    Error::check("ioctl SECCOMP_IOCTL_NOTIF_SEND", returned.into())?;
    Ok(())
}

/// Whether the call `id` still waits. Ask after opening anything by the caller's pid: only then was it still that process.
pub fn is_valid(listener: BorrowedFd<'_>, id: u64) -> Result<bool> {
    // SAFETY: NOTIF_ID_VALID reads one u64, which lives across the call.
    let returned =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
    match Error::check("ioctl SECCOMP_IOCTL_NOTIF_ID_VALID", returned.into()) {
        Ok(_) => Ok(true),
        Err(error) if error.errno() == Errno::NOENT => Ok(false),
        Err(error) => Err(error),
    }
}

/// Which number a given fd gets in the caller's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The lowest free one.
    Lowest,
    /// This one; what was there is closed, as by dup2(2).
    At(u32),
}

/// Whether an execve(2) of the caller closes the given fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExec {
    /// It stays open.
    Keep,
    /// It is closed.
    Close,
}

/// Whether giving the fd also answers the call, with the fd's number as its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The call goes on waiting.
    Wait,
    /// The call returns the number, in the same step (Linux 5.14).
    Return,
}

/// An fd to give to a waiting caller.
#[derive(Debug, Clone, Copy)]
pub struct Gift<'fd> {
    /// What to give.
    pub fd: BorrowedFd<'fd>,
    /// Where it goes.
    pub place: Place,
    /// What an execve(2) does to it.
    pub on_exec: OnExec,
    /// What follows.
    pub then: Then,
}

/// Gives an fd to the process whose call `id` waits, and says which number it got there.
pub fn give_fd(listener: BorrowedFd<'_>, id: u64, gift: Gift<'_>) -> Result<u32> {
    let mut raw = libc::seccomp_notif_addfd {
        id,
        flags: 0,
        srcfd: gift.fd.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: 0,
    };
    if let Place::At(number) = gift.place {
        raw.flags |= libc::SECCOMP_ADDFD_FLAG_SETFD as u32;
        raw.newfd = number;
    }
    if gift.then == Then::Return {
        raw.flags |= libc::SECCOMP_ADDFD_FLAG_SEND as u32;
    }
    if gift.on_exec == OnExec::Close {
        raw.newfd_flags = libc::O_CLOEXEC as u32;
    }
    loop {
        // SAFETY: NOTIF_ADDFD reads one seccomp_notif_addfd, which lives across the call; srcfd is borrowed and so is open.
        let returned =
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const raw) };
        match Error::check("ioctl SECCOMP_IOCTL_NOTIF_ADDFD", returned.into()) {
            Ok(number) => return Ok(number as u32),
            Err(error) if error.errno() == Errno::INTR => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;
    use std::os::fd::AsFd;

    const LOAD_NR: SockFilter = SockFilter { code: 0x20, jt: 0, jf: 0, k: 0 };

    fn give(action: u32) -> SockFilter {
        SockFilter { code: 0x06, jt: 0, jf: 0, k: action }
    }

    /// `action` for the call `nr`, allow for all others.
    fn only(nr: libc::c_long, action: u32) -> [SockFilter; 4] {
        let equal = SockFilter { code: 0x15, jt: 0, jf: 1, k: nr as u32 };
        [LOAD_NR, equal, give(action), give(libc::SECCOMP_RET_ALLOW)]
    }

    #[test]
    fn a_loaded_filter_decides() {
        in_child(|| {
            crate::prctl::set_no_new_privs().unwrap();
            let program = only(libc::SYS_getppid, libc::SECCOMP_RET_ERRNO | libc::EXDEV as u32);
            assert!(load(&program, FilterFlags::TSYNC | FilterFlags::SPEC_ALLOW).unwrap().is_none());
            // SAFETY: getppid takes nothing.
            let returned = unsafe { libc::syscall(libc::SYS_getppid) };
            assert_eq!(Error::check("getppid", returned).unwrap_err().errno(), Errno::XDEV);
            assert!(rustix::process::getpid().as_raw_nonzero().get() > 0);
        });
    }

    #[test]
    fn an_invalid_program_is_refused() {
        in_child(|| {
            crate::prctl::set_no_new_privs().unwrap();
            assert_eq!(load(&[LOAD_NR], FilterFlags::empty()).unwrap_err().errno(), Errno::INVAL);
            let long = vec![give(libc::SECCOMP_RET_ALLOW); 70_000];
            assert_eq!(load(&long, FilterFlags::empty()).unwrap_err().errno(), Errno::INVAL);
        });
    }

    #[test]
    fn the_kernel_tells_what_it_knows() {
        assert!(knows_action(libc::SECCOMP_RET_KILL_PROCESS).unwrap());
        assert!(knows_action(libc::SECCOMP_RET_USER_NOTIF).unwrap());
        assert!(!knows_action(0x1234_0000).unwrap());
        assert!(knows_flags(FilterFlags::all()).unwrap());
        assert!(knows_flags(FilterFlags::WAIT_KILLABLE_RECV).unwrap());
        assert!(!knows_flags(FilterFlags::from_bits_retain(1 << 30)).unwrap());
    }

    /// A child that makes two calls under a notifying filter, and its listener, fetched from it.
    #[test]
    fn a_listener_answers_and_gives_fds() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let source = rustix::fs::memfd_create("gift", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&source, b"hello").unwrap();
        // SAFETY: fork needs nothing; the child below makes only system calls and leaves by _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: _exit does not return.
            unsafe { libc::_exit(notified(writer.as_fd())) }
        }
        let mut number = [0u8; 4];
        assert_eq!(rustix::io::read(&reader, &mut number).unwrap(), 4);
        let child = rustix::process::Pid::from_raw(pid).unwrap();
        let pidfd = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty()).unwrap();
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let listener = rustix::process::pidfd_getfd(&pidfd, i32::from_ne_bytes(number), flags).unwrap();

        let first = receive(listener.as_fd()).unwrap().unwrap();
        assert_eq!((first.pid, i64::from(first.nr), first.args[0]), (pid as u32, libc::SYS_getpgid, 7));
        assert!(is_valid(listener.as_fd(), first.id).unwrap());
        let gift =
            Gift { fd: source.as_fd(), place: Place::At(40), on_exec: OnExec::Close, then: Then::Wait };
        assert_eq!(give_fd(listener.as_fd(), first.id, gift).unwrap(), 40);
        answer(listener.as_fd(), first.id, Answer::Value(4711)).unwrap();
        let second = receive(listener.as_fd()).unwrap().unwrap();
        answer(listener.as_fd(), second.id, Answer::Error(Errno::XDEV)).unwrap();
        assert!(!is_valid(listener.as_fd(), second.id + 1000).unwrap());
        let third = receive(listener.as_fd()).unwrap().unwrap();
        answer(listener.as_fd(), third.id, Answer::Continue).unwrap();
        let fourth = receive(listener.as_fd()).unwrap().unwrap();
        let gift =
            Gift { fd: source.as_fd(), place: Place::Lowest, on_exec: OnExec::Keep, then: Then::Return };
        let lowest = give_fd(listener.as_fd(), fourth.id, gift).unwrap();
        assert!(lowest > 2);

        let mut status = 0;
        // SAFETY: pid is our child, status a place for one int.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(libc::WEXITSTATUS(status), 0, "the child saw step {} go wrong", libc::WEXITSTATUS(status));
    }

    /// What the child does; returns the number of the step that went wrong.
    fn notified(writer: BorrowedFd<'_>) -> i32 {
        // SAFETY: getpgid takes one number.
        let ask = || unsafe { libc::syscall(libc::SYS_getpgid, 7) };
        let errno = || std::io::Error::last_os_error().raw_os_error();
        let program = only(libc::SYS_getpgid, libc::SECCOMP_RET_USER_NOTIF);
        let flags = FilterFlags::NEW_LISTENER | FilterFlags::WAIT_KILLABLE_RECV;
        let Ok(Some(listener)) = crate::prctl::set_no_new_privs().and_then(|()| load(&program, flags)) else {
            return 1;
        };
        if rustix::io::write(writer, &listener.as_raw_fd().to_ne_bytes()) != Ok(4) {
            return 2;
        }
        if ask() != 4711 {
            return 3;
        }
        // SAFETY: lseek takes numbers only.
        if unsafe { libc::lseek(40, 0, libc::SEEK_CUR) } != 5 {
            return 4;
        }
        if (ask(), errno()) != (-1, Some(libc::EXDEV)) {
            return 5;
        }
        // Pid 7 is not ours to know, so the call itself may fail; what matters is that the kernel made it.
        if ask() == -1 && errno() == Some(libc::ENOSYS) {
            return 6;
        }
        let given = ask();
        // SAFETY: as above.
        if unsafe { libc::lseek(given as i32, 0, libc::SEEK_CUR) } != 5 {
            return 7;
        }
        0
    }
}
