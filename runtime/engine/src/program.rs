//! The runtime's own program, sealed; see croft_sys::exec.

pub use croft_sys::exec::{fexecve, is_on_read_only_mount as is_sealed, own_program as own, seal};

/// What the kernel answers to an ordinary user that makes a mount.
pub const NOT_PERMITTED: croft_sys::Errno = croft_sys::Errno::PERM;
