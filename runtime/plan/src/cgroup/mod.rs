//! Resource limits are tables: `linux.resources` and this host's cgroups -> ordered (controller, file, value) writes.
//!
//! Each property is a [`Knob`]: the file that enforces it on v1, the one on v2, and what a kernel needs to have them.
//! A knob is placed in whichever hierarchy has its controller on this host, so one list may write to both and there
//! is no "v1 mode". A property that no hierarchy here can enforce is refused, by the name of the file it lacks; runc
//! leaves some of those out in silence (swappiness, realtime and leafWeight on cgroup2), but the runtime-spec
//! (config-linux.md, "unified") wants an error. Values mean what they mean to runc 1.4: 0 is "leave as it is" for
//! most, -1 is "no limit".
//!
//! Devices are not here: see [`crate::devices`].

mod block_io;
mod cpu;
mod cpuset;
mod current;
mod host;
mod hugetlb;
mod memory;
mod network;
mod pids;
mod prepass;
mod rdma;
mod refusal;
pub mod stats;
mod table;
mod unified;

use std::collections::BTreeSet;
use std::fmt;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

pub use cpu::weight_of_shares;
pub use current::{Current, Files, Source};
pub use host::{CgroupHost, DeviceFilter, Mounts, Swap, V2Mount, huge_page_sizes, mounts};
pub use prepass::prepass;
pub use refusal::Refusal;
pub(crate) use table::{At, Knob, Table};

/// The controller name under which the core files of cgroup2 (`cgroup.procs`, `cgroup.max.depth`) are written.
pub const CORE: &str = "cgroup";

/// Which of the two cgroup interfaces a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    /// One hierarchy per controller, cgroups-v1.
    V1,
    /// The unified hierarchy, cgroup2.
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V1 => "v1",
            Version::V2 => "v2",
        })
    }
}

/// One value to write into one file of the container's group. The folder is the caller's to know: the group in the
/// hierarchy of (controller, version). On v2 that is one folder for all controllers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The property that asks for it, as the spec names it below `linux.resources`.
    pub property: String,
    /// The controller, by the name that this version has for it (`blkio` on v1, `io` on v2).
    pub controller: String,
    /// The version of the hierarchy.
    pub version: Version,
    /// The file's name in the group's folder. Never has a slash.
    pub file: String,
    /// What to write, in one write(2), without a newline.
    pub value: String,
    /// What to do when the file is not there.
    pub on_missing: OnMissing,
}

/// What to do when the file of a [`Write`] is not there (ENOENT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnMissing {
    /// Fail with [`Write::missing`].
    Refuse {
        /// What would provide the file.
        needs: String,
    },
    /// Go on: without the file the group already does what the value asks for.
    Skip,
    /// Do this write in its place.
    Instead(Box<Write>),
}

impl Write {
    /// The refusal for a file that is not there.
    pub fn missing(&self) -> Refusal {
        let needs = match &self.on_missing {
            OnMissing::Refuse { needs } => needs.clone(),
            OnMissing::Skip | OnMissing::Instead(_) => "nothing".to_owned(),
        };
        Refusal::Missing {
            property: self.property.clone(),
            controller: self.controller.clone(),
            version: self.version,
            file: self.file.clone(),
            needs,
        }
    }
}

impl fmt::Display for Write {
    /// One line of a plan: `cgroup v2 memory: memory.max = 1073741824`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {} {}: {} = {}", self.version, self.controller, self.file, self.value)?;
        match &self.on_missing {
            OnMissing::Refuse { .. } => Ok(()),
            OnMissing::Skip => f.write_str(", if there"),
            OnMissing::Instead(write) => write!(f, ", else {} = {}", write.file, write.value),
        }
    }
}

/// The writes for one `linux.resources`, in order, and what the user should be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writes {
    /// The writes. All of them come before the first process joins the group.
    pub writes: Vec<Write>,
    /// One line each, for the log.
    pub warnings: Vec<String>,
}

impl Writes {
    /// The controllers that these writes need in hierarchies of this version: on v2 to be enabled in the parents'
    /// `cgroup.subtree_control`, on v1 the groups to be made.
    pub fn controllers(&self, version: Version) -> BTreeSet<&str> {
        let of_version = self.writes.iter().filter(|w| w.version == version);
        of_version.map(|w| w.controller.as_str()).filter(|c| *c != CORE).collect()
    }
}

/// The files that a group must have a value in before a process can join it. When the folder is made, each that is
/// empty is filled with its parent's value, from the hierarchy's root down (cpusets(7): a v1 cpuset starts empty).
pub fn filled_from_parent(controller: &str, version: Version) -> &'static [&'static str] {
    match (controller, version) {
        ("cpuset", Version::V1) => &["cpuset.cpus", "cpuset.mems"],
        _ => &[],
    }
}

/// The writes that give a new group these resources, in order.
///
/// # Errors
/// [`Refusal`] for the first resource that this host cannot give.
pub fn writes(resources: &LinuxResources, host: &CgroupHost) -> Result<Writes, Refusal> {
    update(resources, host, &Current::new_group())
}

/// The writes that change an existing group by these resources, in an order that the kernel accepts from the values
/// that `current` holds. What the resources leave out stays as it is.
///
/// # Errors
/// [`Refusal`] for the first resource that this host cannot give.
pub fn update(resources: &LinuxResources, host: &CgroupHost, current: &Current) -> Result<Writes, Refusal> {
    let mut table = Table::new(host, current);
    cpuset::write(resources, &mut table)?;
    memory::write(resources, &mut table)?;
    cpu::write(resources, &mut table)?;
    pids::write(resources, &mut table)?;
    block_io::write(resources, &mut table)?;
    hugetlb::write(resources, &mut table)?;
    network::write(resources, &mut table)?;
    rdma::write(resources, &mut table)?;
    // Last, as in runc: what the user names by file has the last word over what we convert.
    unified::write(resources, &mut table)?;
    Ok(table.finish())
}
