//! Pure: an OCI runtime spec and facts about the host become a list of steps.

pub mod cgroup;
pub mod devices;
