//! What this host can do, as plain data. engine::facts fills it; this crate only reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::cgroup::CgroupHost;

/// The host as the plan sees it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The effective user id of the runtime.
    pub euid: u32,
    /// The effective group id of the runtime.
    pub egid: u32,
    /// The runtime's effective capabilities, as bits.
    pub capabilities: u64,
    /// The highest capability number that the kernel knows.
    pub last_capability: u32,
    /// The control group hierarchies.
    pub cgroups: CgroupHost,
    /// The runtime's own group in the cgroup2 hierarchy, such as `/user.slice`.
    pub own_group: PathBuf,
    /// Every v1 hierarchy: mount point to the controllers (or `name=systemd`) that it has.
    pub v1_hierarchies: BTreeMap<PathBuf, Vec<String>>,
    /// Where an ordinary user may make groups: the delegated cgroup2 folder above its own group.
    pub delegated: Delegation,
    /// `newuidmap` and `newgidmap`, with which an ordinary user maps its sub-ids.
    pub id_map_programs: Option<(PathBuf, PathBuf)>,
    /// Which security module labels processes.
    pub lsm: Lsm,
    /// The resctrl file system (Intel RDT), where mounted.
    pub resctrl: Option<PathBuf>,
}

/// Where the runtime may make cgroup2 groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delegation {
    /// Anywhere: it is root.
    Everything,
    /// Below this group, which its user owns.
    Below(PathBuf),
    /// Nowhere.
    Nothing,
}

/// The security module that takes labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lsm {
    /// Whether AppArmor is on.
    pub apparmor: bool,
    /// Whether SELinux is on.
    pub selinux: bool,
}

impl Facts {
    /// Whether the runtime is an ordinary user's.
    pub fn is_rootless(&self) -> bool {
        self.euid != 0
    }

    /// Whether the runtime has capability `number` in force.
    pub fn has_capability(&self, number: u32) -> bool {
        self.capabilities >> number & 1 == 1
    }
}
