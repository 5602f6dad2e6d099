//! What a filter would do to the runtime's own init, which still has calls to make after loading it.

use super::interpret::{Arguments, Attempt, outcomes};
use croft_sys::seccomp::SockFilter;

/// The architecture of this machine's own calls (`AUDIT_ARCH_*` of linux/audit.h).
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
pub(super) const NATIVE: u32 = 0xc000_00f3;

/// A system call that init makes under the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Waiting at the gate.
    Read,
    /// Saying why the program could not be executed.
    Write,
    /// Letting go of the gate.
    Close,
    /// Executing the program by its path.
    Execve,
    /// Executing the program by an fd.
    Execveat,
    /// Giving up.
    ExitGroup,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 6] =
        [Call::Read, Call::Write, Call::Close, Call::Execve, Call::Execveat, Call::ExitGroup];

    /// Its name in a profile.
    pub fn name(self) -> &'static str {
        match self {
            Call::Read => "read",
            Call::Write => "write",
            Call::Close => "close",
            Call::Execve => "execve",
            Call::Execveat => "execveat",
            Call::ExitGroup => "exit_group",
        }
    }

    fn number(self) -> u32 {
        let number = match self {
            Call::Read => libc::SYS_read,
            Call::Write => libc::SYS_write,
            Call::Close => libc::SYS_close,
            Call::Execve => libc::SYS_execve,
            Call::Execveat => libc::SYS_execveat,
            Call::ExitGroup => libc::SYS_exit_group,
        };
        number as u32
    }

    /// Whether it may wait for a listener: only for the execution is one surely there.
    fn may_be_notified(self) -> bool {
        matches!(self, Call::Execve | Call::Execveat)
    }
}

/// A call that init needs and a filter refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Which call.
    pub call: Call,
    /// What the filter does to it (`SECCOMP_RET_*` with its data).
    pub action: u32,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let data = self.action & libc::SECCOMP_RET_DATA;
        let call = self.call.name();
        match self.action & libc::SECCOMP_RET_ACTION_FULL {
            libc::SECCOMP_RET_KILL_PROCESS => write!(f, "{call} kills the process"),
            libc::SECCOMP_RET_KILL_THREAD => write!(f, "{call} kills the thread"),
            libc::SECCOMP_RET_TRAP => write!(f, "{call} sends SIGSYS"),
            libc::SECCOMP_RET_ERRNO => {
                write!(f, "{call} fails: {}", std::io::Error::from_raw_os_error(data as i32))
            }
            libc::SECCOMP_RET_TRACE => write!(f, "{call} waits for a tracer that is not there"),
            libc::SECCOMP_RET_USER_NOTIF => write!(f, "{call} waits for a listener that is not there yet"),
            other => write!(f, "{call} meets the action {other:#x}"),
        }
    }
}

/// Those of `calls` that `program` refuses whatever their arguments are, with what it does to them. A call that it refuses for
/// some arguments only is not among them.
pub fn refused(program: &[SockFilter], calls: &[Call]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for call in calls {
        let attempt = Attempt { number: call.number(), architecture: NATIVE, arguments: Arguments::Unknown };
        // A program that cannot be followed is the kernel's to judge.
        let Ok(actions) = outcomes(program, attempt) else { continue };
        let passes = |action: &u32| match action & libc::SECCOMP_RET_ACTION_FULL {
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG => true,
            libc::SECCOMP_RET_USER_NOTIF => call.may_be_notified(),
            _ => false,
        };
        if !actions.iter().any(passes)
            && let Some(action) = actions.first()
        {
            refusals.push(Refusal { call: *call, action: *action });
        }
    }
    refusals
}
