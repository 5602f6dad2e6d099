//! Kernel calls for croft, one file per facility: mechanism, no policy. The only crate with `unsafe`.
//!
//! Descriptors are `OwnedFd` and `BorrowedFd`; errors name the call. EINTR is retried here and nowhere else.

pub mod cgroup;
pub mod clone;
pub mod credentials;
pub mod error;
pub mod exec;
pub mod mount;
pub mod ns;
pub mod path;
pub mod proc;
pub mod socket;
pub mod wait;

pub use error::{Call, Error, Result};
pub use rustix::fs::{Mode, OFlags};
pub use rustix::io::Errno;
