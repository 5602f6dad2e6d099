//! `linux.seccomp` of a spec becomes a BPF program.
//!
//! ```text
//! profile ── cache::find ──────────────────────────────┐ found: the same key, whole and unchanged
//!    │ not found                                       │
//!    ├─ compile: libseccomp makes a binary tree        ├──> Compiled ──> croft_sys::seccomp::load
//!    ├─ enosys: a prologue for calls newer than it     │        └──> check: what init itself needs
//!    └─ cache::keep ───────────────────────────────────┘
//! ```
//!
//! Making a program of Docker's default profile takes milliseconds, finding it microseconds.

mod cache;
mod check;
mod compile;
mod enosys;
mod interpret;
#[cfg(test)]
mod tests;

pub use check::{Call, Refusal, refused};
pub use interpret::{Arguments, Attempt, Malformed, outcomes};

use croft_sys::seccomp::{FilterFlags, SockFilter};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};
use std::path::Path;

/// A profile that is ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// What the kernel takes.
    pub program: Vec<SockFilter>,
    /// What was left out, and why; for the log.
    pub warnings: Vec<String>,
    /// Whether some rule notifies, so that loading gives a listener.
    pub listener: bool,
    /// How it is to be loaded.
    pub flags: FilterFlags,
}

/// Why a profile cannot be made into a program.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// `SCMP_ACT_NOTIFY` for whatever has no rule: the runtime itself would wait for the listener.
    #[error("seccomp: SCMP_ACT_NOTIFY cannot be the default action")]
    NotifyByDefault,
    /// `SCMP_ACT_NOTIFY` for the call with which the runtime hands the listener over.
    #[error(
        "seccomp: SCMP_ACT_NOTIFY cannot be the action of {0}: the runtime needs it to hand the listener over"
    )]
    NotifyOf(String),
    /// A rule notifies, and nobody is there to be notified.
    #[error("seccomp: SCMP_ACT_NOTIFY is the action of {0}, and listenerPath is not set")]
    NoListener(String),
    /// An errno where the action returns none (runtime-spec, config-linux.md: "the runtime MUST print and error and fail").
    #[error("seccomp: {subject}: action {action} takes no errno, and {errno} is given")]
    UnwantedErrno {
        /// Whose action.
        subject: String,
        /// Which action.
        action: String,
        /// What was given.
        errno: u32,
    },
    /// An errno that the kernel cannot return.
    #[error("seccomp: {subject}: errno {errno} is more than {most}")]
    LargeErrno {
        /// Whose action.
        subject: String,
        /// What was given.
        errno: u32,
        /// The largest there is.
        most: u32,
    },
    /// A condition on an argument that no call has.
    #[error("seccomp: {call}: argument {index} does not exist, a system call has 0 to 5")]
    NoSuchArgument {
        /// Whose rule.
        call: String,
        /// Which argument.
        index: usize,
    },
    /// A rule for the empty name.
    #[error("seccomp: a rule names a system call \"\"")]
    EmptyName,
    /// An architecture that libseccomp does not take beside the others.
    #[error("seccomp: add architecture {name}")]
    Architecture {
        /// As the spec writes it.
        name: String,
        /// Its reason.
        source: libseccomp::error::SeccompError,
    },
    /// A rule that libseccomp does not take, for instance since it contradicts another.
    #[error("seccomp: add the rule for {call}")]
    Rule {
        /// The rule's system call.
        call: String,
        /// Its reason.
        source: libseccomp::error::SeccompError,
    },
    /// Anything else that libseccomp refused to do.
    #[error("seccomp: {op}")]
    Library {
        /// What it was asked.
        op: &'static str,
        /// Its reason.
        source: libseccomp::error::SeccompError,
    },
    /// libseccomp's program could not be taken from it.
    #[error("seccomp: {op}")]
    Export {
        /// What was tried.
        op: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// More than the kernel takes.
    #[error("seccomp: the program has {0} instructions, and the kernel takes {most}", most = croft_sys::seccomp::MAX_INSTRUCTIONS)]
    TooLong(usize),
}

/// Makes the program of `profile`, or takes it from `cache`, a folder that is made if it is missing. One that is not ours alone to
/// write is not used, which a warning says.
pub fn program(profile: &LinuxSeccomp, cache: Option<&Path>) -> Result<Compiled, SeccompError> {
    let key = cache::key(profile);
    let mut warnings = Vec::new();
    let folder = cache.and_then(|path| match cache::Folder::open(path) {
        Ok(folder) => Some(folder),
        Err(reason) => {
            warnings.push(format!("seccomp: the cache {} is not used: {reason}", path.display()));
            None
        }
    });
    let found = folder.as_ref().and_then(|folder| folder.find(&key));
    let entry = match found {
        Some(entry) => entry,
        None => {
            let entry = compile::compile(profile)?;
            if let Some(Err(reason)) = folder.as_ref().map(|folder| folder.keep(&key, &entry)) {
                warnings.push(format!("seccomp: the program is not kept in the cache: {reason}"));
            }
            entry
        }
    };
    warnings.splice(0..0, entry.warnings);
    let listener = notifies(profile);
    Ok(Compiled { program: entry.program, warnings, listener, flags: flags(profile, listener) })
}

/// What is worth keeping of a compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    program: Vec<SockFilter>,
    warnings: Vec<String>,
}

fn notifies(profile: &LinuxSeccomp) -> bool {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    rules.iter().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
}

/// The flags of the profile. One that names none at all, not even the empty list, gets SPEC_ALLOW, as with runc: since Linux 5.16
/// that is what a filter gets anyway, and before it the mitigation slows down the whole container.
fn flags(profile: &LinuxSeccomp, listener: bool) -> FilterFlags {
    let mut flags = match profile.flags() {
        None => FilterFlags::SPEC_ALLOW,
        Some(names) => names.iter().fold(FilterFlags::empty(), |flags, name| {
            flags
                | match name {
                    LinuxSeccompFilterFlag::SeccompFilterFlagLog => FilterFlags::LOG,
                    LinuxSeccompFilterFlag::SeccompFilterFlagTsync => FilterFlags::TSYNC,
                    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FilterFlags::SPEC_ALLOW,
                    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                        FilterFlags::WAIT_KILLABLE_RECV
                    }
                }
        }),
    };
    // The kernel refuses to wait for a listener that cannot be.
    flags.set(FilterFlags::NEW_LISTENER, listener);
    if !listener {
        flags.remove(FilterFlags::WAIT_KILLABLE_RECV);
    }
    flags
}
