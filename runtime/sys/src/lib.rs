//! Kernel calls for croft, one file per facility: mechanism, no policy. The only crate with `unsafe`.
//!
//! Descriptors are `OwnedFd` and `BorrowedFd`; errors name the call. EINTR is retried here and nowhere else.

pub mod bpf;
pub mod cgroup;
pub mod clone;
pub mod credentials;
pub mod error;
pub mod event;
pub mod exec;
pub mod keyring;
pub mod lsm;
pub mod mount;
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

pub use error::{Call, Error, Result};
pub use rustix::fs::{Mode, OFlags};
pub use rustix::io::Errno;
