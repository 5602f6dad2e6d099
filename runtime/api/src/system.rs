//! croftd and its host.

use serde::{Deserialize, Serialize};

/// What croftd says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Devices that containers can have by name, of the CDI specifications that can be read: `vendor.com/class=name`.
    #[serde(default)]
    pub cdi: Vec<String>,
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

/// What has become of what no record accounts for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Fixed {
    /// What was taken away, or put back where it was missing.
    pub fixed: Vec<Finding>,
    /// What is still so: what runs, volumes, and what could not be taken away. `why` says which.
    pub left: Vec<Finding>,
}

/// Where the disk went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Images: packed and unpacked layers, downloads that were cut off. Those that a container is made from are active.
    pub images: Used,
    /// The containers' writable layers. Those that run are active.
    pub containers: Used,
    /// Volumes. Those that a container has are active.
    pub volumes: Used,
    /// The containers' logs.
    pub logs: Used,
}

/// What one kind of thing takes of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Used {
    /// How many there are.
    pub count: u64,
    /// How many of them somebody needs.
    pub active: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// Bytes of those that nobody needs.
    pub reclaimable: u64,
}

impl Used {
    /// Counts one more.
    pub fn add(&mut self, bytes: u64, active: bool) {
        self.count += 1;
        self.active += u64::from(active);
        self.bytes += bytes;
        self.reclaimable += if active { 0 } else { bytes };
    }
}

/// Asks for the removal of what nobody needs: containers that do not run, and what no image and no container needs of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Prune {
    /// Whether images with names go too that no container is made from, and volumes with names if volumes go.
    pub all: bool,
    /// Whether volumes go too that no container has.
    pub volumes: bool,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PrunedSystem {
    /// The names of containers.
    pub containers: Vec<String>,
    /// The names of volumes.
    pub volumes: Vec<String>,
    /// The names of images.
    pub images: Vec<String>,
    /// Bytes of the disk that were theirs.
    pub bytes: u64,
}
