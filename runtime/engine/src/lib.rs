//! Effects: gathers facts, applies the steps of a plan, undoes them; one OCI verb a file.
//!
//! Start with `create`; the container's side is `init`.

mod apply;
pub mod base;
mod cache;
pub mod counters;
pub mod create;
pub mod delete;
mod device_filter;
pub mod error;
pub mod events;
pub mod exec;
pub mod facts;
mod fault;
pub mod features;
mod filter;
pub mod foreground;
mod gate;
pub mod handover;
mod hooks;
mod init;
mod keyring;
pub mod kill;
mod listener;
pub mod pause;
pub mod program;
pub mod ps;
mod relay;
pub mod report;
pub mod rootfs_file;
mod sched;
pub mod seccomp;
mod spawn;
pub mod start;
pub mod state;
pub mod status;
mod subgroup;
mod systemd;
mod undo;
pub mod update;
pub mod world;

/// What an error says of a file system whose owners the kernel cannot map for a mount.
pub const NO_IDMAP: &str = "cannot be id-mapped";

pub use croft_sys::memory::use_one_arena;
pub use error::{Error, Result};

/// The caller's effective user and group.
pub fn own_ids() -> (u32, u32) {
    (croft_sys::credentials::user().1, croft_sys::credentials::group())
}

/// Whether the caller is root.
pub fn is_root() -> bool {
    croft_sys::credentials::user().1 == 0
}
