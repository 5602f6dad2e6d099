//! Pure: an OCI runtime spec and facts about the host become a list of steps.

pub mod build;
pub mod cgroup;
pub mod devices;
pub mod facts;
pub mod handshake;
pub mod lifecycle;
pub mod spec;
pub mod step;
