//! The runtime's own program, sealed; see croft_sys::exec.

pub use croft_sys::exec::{
    CLONING, belongs_to_the_system, fexecve, is_sealed, own_program as own, seal, seal_copy,
};

/// What the kernel answers to an ordinary user that makes a mount.
pub const NOT_PERMITTED: croft_sys::Errno = croft_sys::Errno::PERM;
