//! Signals: their names and numbers, the mask of a thread, the dispositions of a process, signalfd(2).
//!
//! The kernel's own 64-bit sets are used throughout: glibc hides signals 32 and 33 from its callers, and a container must not
//! inherit those blocked or ignored either.

use crate::{Error, Result};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The highest signal number of Linux (`_NSIG` on every architecture but MIPS).
pub const LAST: i32 = 64;

/// The first real-time signal that a program may use: the C libraries keep 32 and 33 for themselves, and so `SIGRTMIN` is 34.
pub const RTMIN: i32 = 34;

/// The names without their "SIG", by number. Aliases come after the name that [`name`] gives.
const NAMES: [(&str, i32); 34] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The number of the signal that `text` names, in any case of letters: "KILL", "SIGKILL", "9", "SIGRTMIN+3", "RTMAX-1".
/// 0, which kill(2) takes as a mere question, is one of the numbers. `None`: there is no such signal.
pub fn parse(text: &str) -> Option<i32> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (0..=LAST).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse::<i32>().ok().filter(|offset| *offset <= LAST - RTMIN),
        false => None,
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return if rest.is_empty() { Some(RTMIN) } else { Some(RTMIN + offset(rest.strip_prefix('+')?)?) };
    }
    let rest = name.strip_prefix("RTMAX")?;
    if rest.is_empty() { Some(LAST) } else { Some(LAST - offset(rest.strip_prefix('-')?)?) }
}

/// The name of a signal as people write it: "SIGTERM", "SIGRTMIN+3", or the number where it has none.
pub fn name(number: i32) -> String {
    if let Some((name, _)) = NAMES.iter().find(|(_, known)| *known == number) {
        return format!("SIG{name}");
    }
    match number {
        RTMIN => "SIGRTMIN".to_owned(),
        LAST => "SIGRTMAX".to_owned(),
        _ if (RTMIN..LAST).contains(&number) => format!("SIGRTMIN+{}", number - RTMIN),
        _ => number.to_string(),
    }
}

/// A set of signals, as the kernel keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Set(u64);

impl Set {
    /// No signal.
    pub const EMPTY: Set = Set(0);
    /// Every signal.
    pub const ALL: Set = Set(u64::MAX);

    /// The set of these signals.
    ///
    /// # Panics
    /// If one is not from 1 to [`LAST`].
    pub fn of(signals: &[i32]) -> Set {
        signals.iter().fold(Set::EMPTY, |set, signal| {
            assert!((1..=LAST).contains(signal), "signal {signal} does not exist");
            Set(set.0 | 1 << (signal - 1))
        })
    }

    /// Whether `signal` is in the set.
    pub fn contains(self, signal: i32) -> bool {
        (1..=LAST).contains(&signal) && self.0 & (1 << (signal - 1)) != 0
    }
}

/// How many bytes the kernel's set of signals has, which the calls below must name.
const SET_SIZE: usize = size_of::<u64>();

/// Makes `set` the blocked signals of this thread, and gives those it replaces: pass them back to restore. SIGKILL and SIGSTOP
/// are never blocked.
pub fn set_blocked(set: Set) -> Result<Set> {
    let mut before = Set::EMPTY;
    // SAFETY: rt_sigprocmask reads and writes SET_SIZE bytes at the two pointers; both are a u64 that lives across the call.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const set.0,
            &raw mut before.0,
            SET_SIZE,
        )
    };
    Error::check("rt_sigprocmask", returned)?;
    Ok(before)
}

/// Gives every signal its default disposition. A handler would not outlive execve(2), but an ignored signal stays ignored
/// (Rust's runtime ignores SIGPIPE), and what the caller of the runtime ignored is not the container's affair.
pub fn reset_handlers() -> Result<()> {
    // The kernel's struct sigaction is at most handler, flags, restorer and mask; all zero is SIG_DFL with no flag.
    let default = [0u64; 4];
    for signal in (1..=LAST).filter(|signal| *signal != libc::SIGKILL && *signal != libc::SIGSTOP) {
        // SAFETY: rt_sigaction reads one struct sigaction, no larger than `default`, and writes none as the third is null.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SET_SIZE,
            )
        };
        Error::check("rt_sigaction", returned)?;
    }
    Ok(())
}

/// A signal taken from a signalfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Which signal.
    pub signal: i32,
    /// Who sent it, 0 if the kernel did; for SIGCHLD the child.
    pub pid: u32,
}

/// An fd from which the signals of `set` are read; it is non-blocking and closed on exec. Block them first ([`set_blocked`]), or
/// they go their usual way.
pub fn signalfd(set: Set) -> Result<OwnedFd> {
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    // SAFETY: signalfd4 reads SET_SIZE bytes at the pointer to a living u64; -1 asks for a new fd.
    let returned = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set.0, SET_SIZE, flags) };
    let number = Error::check("signalfd4", returned)?;
    // SAFETY: the kernel has just made this fd for us and nobody else knows it; fds fit an i32.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// The next pending signal of a signalfd, `None` if there is none.
pub fn read_signal(signalfd: BorrowedFd<'_>) -> Result<Option<Received>> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    loop {
        // SAFETY: read writes at most SIZE bytes to `info`, which has exactly that many.
        let read = unsafe { libc::read(signalfd.as_raw_fd(), info.as_mut_ptr().cast(), SIZE) };
        match Error::check("read", read as libc::c_long) {
            Ok(_) if read as usize == SIZE => break,
            Ok(_) => return Err(Error::new("read", Errno::IO)),
            Err(error) if error.errno() == Errno::INTR => {}
            Err(error) if error.errno() == Errno::AGAIN => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    // SAFETY: a signalfd fills the whole struct, every bit pattern of which is valid (it holds only integers).
    let info = unsafe { info.assume_init() };
    Ok(Some(Received { signal: info.ssi_signo as i32, pid: info.ssi_pid }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;
    use std::os::fd::AsFd;

    #[test]
    fn names_and_numbers_as_people_write_them() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("9", 9),
            ("0", 0),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMIN+30", 64),
            ("SIGRTMAX", 64),
            ("RTMAX-1", 63),
            ("CLD", libc::SIGCHLD),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in
            ["", "SIG", "SIGSIGKILL", "65", "-9", "+9", "RTMIN+31", "RTMIN-1", "RTMIN+", "RTMAX+1", "NOPE"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_name_is_read_back() {
        for number in 0..=LAST {
            assert_eq!(parse(&name(number)), Some(number));
        }
        assert_eq!(name(15), "SIGTERM");
    }

    #[test]
    fn blocking_holds_signals_back_and_restoring_lets_them_in() {
        in_child(|| {
            let before = set_blocked(Set::ALL).unwrap();
            let blocked = set_blocked(before).unwrap();
            assert!(blocked.contains(libc::SIGTERM) && blocked.contains(33));
            assert!(!blocked.contains(libc::SIGKILL));
            let mask = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let mask = mask.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
            assert_eq!(u64::from_str_radix(mask, 16).unwrap(), before.0);
        });
    }

    #[test]
    fn ignored_signals_become_default() {
        in_child(|| {
            // SAFETY: SIG_IGN is a valid disposition and no handler of ours.
            unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
            reset_handlers().unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let of = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim();
            assert_eq!((of("SigIgn:"), of("SigCgt:")), ("0000000000000000", "0000000000000000"));
        });
    }

    #[test]
    fn a_signalfd_gives_what_was_sent() {
        in_child(|| {
            let set = Set::of(&[libc::SIGUSR1, 33]);
            set_blocked(set).unwrap();
            let fd = signalfd(set).unwrap();
            assert_eq!(read_signal(fd.as_fd()).unwrap(), None);
            let pid = std::process::id();
            for signal in [33, libc::SIGUSR1] {
                // SAFETY: kill takes numbers only; the target is this child, where the signal is blocked.
                assert_eq!(unsafe { libc::syscall(libc::SYS_kill, pid, signal) }, 0);
            }
            let first = read_signal(fd.as_fd()).unwrap();
            assert_eq!(first, Some(Received { signal: libc::SIGUSR1, pid }));
            assert_eq!(read_signal(fd.as_fd()).unwrap(), Some(Received { signal: 33, pid }));
            assert_eq!(read_signal(fd.as_fd()).unwrap(), None);
        });
    }
}
