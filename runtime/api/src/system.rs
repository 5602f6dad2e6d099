//! croftd and its host.

use serde::{Deserialize, Serialize};

/// What croftd says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Info {
    /// croftd's version.
    pub version: String,
    /// croftd's process.
    pub pid: u32,
    /// Versions of the API that it answers.
    pub api: Vec<String>,
    /// Where it keeps what survives a reboot.
    pub root: String,
    /// Where it keeps what does not.
    pub state: String,
    /// How many containers it has.
    pub containers: usize,
    /// How many of them run.
    pub running: usize,
    /// How many images it has.
    pub images: usize,
    /// The kernel.
    pub kernel: String,
    /// `unified` or `hybrid` control groups.
    pub cgroups: String,
}

/// Something that no record accounts for, or a record of something that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Finding {
    /// What it is: `mount`, `cgroup`, `snapshot`, `ids`, `folder`, ...
    pub what: String,
    /// Which.
    pub name: String,
    /// Why it should not be so.
    pub why: String,
}
