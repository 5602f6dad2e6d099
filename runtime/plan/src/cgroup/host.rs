//! What this host has of cgroups, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Version;

/// What this host has of cgroups. Filled by `engine::facts`; [`CgroupHost::from_mountinfo`] makes the mounts of it.
///
/// A controller is in one hierarchy only: the kernel gives a controller that is bound to a v1 mount to no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupHost {
    /// The cgroup2 mount. A host without one is refused before any table is asked.
    pub v2: V2Mount,
    /// Mount point of each v1 controller, by controller (`cpu`, `cpuacct`, `name=systemd`). Empty on a unified host.
    pub v1: BTreeMap<String, PathBuf>,
    /// How devices are filtered on cgroup2.
    pub device_filter: DeviceFilter,
    /// Whether swap is accounted (`memory.memsw.*` on v1, `memory.swap.*` on v2).
    pub swap: Swap,
    /// Sizes of huge pages that this kernel has, as cgroup files spell them (`2MB`), from [`huge_page_sizes`].
    pub huge_pages: BTreeSet<String>,
}

/// The cgroup2 mount of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V2Mount {
    /// Where cgroup2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
    pub mount: PathBuf,
    /// The controllers that can be enabled below the container's parent group: `cgroup.controllers` of its root, or
    /// of the delegated group when rootless.
    pub controllers: BTreeSet<String>,
}

/// Whether `BPF_CGROUP_DEVICE` programs can be attached here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceFilter {
    /// `bpf(2)` takes them: CONFIG_CGROUP_BPF, and the right to load one (CAP_BPF or CAP_SYS_ADMIN).
    Ebpf,
    /// It does not.
    NoEbpf,
}

/// Whether swap is accounted per group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// The files are there.
    Accounted,
    /// They are not: a kernel without CONFIG_SWAP (before 6.1 CONFIG_MEMCG_SWAP), or booted with `swapaccount=0`.
    NotAccounted,
}

/// The cgroup mounts of one mountinfo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts {
    /// The cgroup2 mount point, if there is one.
    pub v2: Option<PathBuf>,
    /// The mount point of each v1 controller and named hierarchy.
    pub v1: BTreeMap<String, PathBuf>,
}

/// The cgroup mounts that `/proc/self/mountinfo` lists (proc_pid_mountinfo(5)). Of several mounts of one hierarchy
/// the first counts. Lines that are not understood are passed over: a mountinfo has lines of every kind.
pub fn mounts(mountinfo: &str) -> Mounts {
    let mut found = Mounts::default();
    mountinfo.lines().for_each(|line| found.add(line));
    found
}

impl Mounts {
    /// Counts the mount of one line of a mountinfo, if it is of cgroups.
    pub fn add(&mut self, line: &str) {
        let Some((before, after)) = line.split_once(" - ") else { return };
        let Some(point) = before.split(' ').nth(4).map(unescape) else { return };
        let mut after = after.split(' ');
        match (after.next(), after.nth(1)) {
            (Some("cgroup2"), _) => {
                self.v2.get_or_insert_with(|| PathBuf::from(&point));
            }
            (Some("cgroup"), Some(options)) => {
                for option in options.split(',').filter(|o| is_v1_hierarchy(o)) {
                    self.v1.entry(option.to_owned()).or_insert_with(|| PathBuf::from(&point));
                }
            }
            _ => {}
        }
    }

    /// Whether all hierarchies are there that `/proc/self/cgroup` lists (cgroups(7)).
    pub fn has_all(&self, own_groups: &str) -> bool {
        let mut hierarchies = own_groups.lines().filter_map(|line| line.split(':').nth(1));
        hierarchies.all(|controllers| match controllers {
            "" => self.v2.is_some(),
            some => some.split(',').all(|name| self.v1.contains_key(name)),
        })
    }
}

/// Whether an option of a v1 mount names a controller or a named hierarchy, and is not an option in the plain sense.
fn is_v1_hierarchy(option: &str) -> bool {
    const OPTIONS: &[&str] =
        &["rw", "ro", "none", "noprefix", "clone_children", "xattr", "cpuset_v2_mode", "favordynmods"];
    !OPTIONS.contains(&option) && !option.starts_with("release_agent=")
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// The names that cgroup files use for the huge pages listed in `/sys/kernel/mm/hugepages` (`hugepages-2048kB` is
/// `2MB`): the kernel's `mem_fmt` in mm/hugetlb_cgroup.c. Names of another form are passed over.
pub fn huge_page_sizes<'a>(folder_names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let size = |name: &str| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(match kib {
            kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
            kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
            kib => format!("{kib}KB"),
        })
    };
    folder_names.into_iter().filter_map(size).collect()
}

impl CgroupHost {
    /// A host with the mounts of this mountinfo and the controllers of this `cgroup.controllers`, that filters devices
    /// by eBPF and accounts swap; the rest is for the caller to fill in. `None` without a cgroup2 mount.
    pub fn from_mountinfo(mountinfo: &str, controllers: &str) -> Option<CgroupHost> {
        let Mounts { v2, v1 } = mounts(mountinfo);
        let controllers = controllers.split_whitespace().map(str::to_owned).collect();
        Some(CgroupHost {
            v2: V2Mount { mount: v2?, controllers },
            v1,
            device_filter: DeviceFilter::Ebpf,
            swap: Swap::Accounted,
            huge_pages: BTreeSet::new(),
        })
    }

    /// Whether this hierarchy has the controller here. Core files of cgroup2 (`cgroup.*`) are always there.
    pub fn has(&self, controller: &str, version: Version) -> bool {
        match version {
            Version::V1 => self.v1.contains_key(controller),
            Version::V2 => controller == super::CORE || self.v2.controllers.contains(controller),
        }
    }

    /// The mount point of the hierarchy that holds this controller's files in this version.
    pub fn mount_point(&self, controller: &str, version: Version) -> Option<&Path> {
        match version {
            Version::V1 => self.v1.get(controller).map(PathBuf::as_path),
            Version::V2 => Some(&self.v2.mount),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_share_a_mount_and_escapes_and_later_mounts() {
        let mountinfo = "\
            34 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:29 / /elsewhere rw shared:3 master:1 - cgroup none rw,cpu,cpuacct\n\
            36 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,release_agent=/x,name=systemd\n\
            37 31 0:31 / /a\\040b rw - cgroup2 cgroup2 rw,nsdelegate\n\
            38 31 0:31 / /again rw - cgroup2 cgroup2 rw\n\
            nonsense\n\
            39 31 0:32 / /tmp rw - tmpfs cgroup rw\n";
        let found = mounts(mountinfo);
        let v1 = [("cpu", "/sys/fs/cgroup/cpu,cpuacct"), ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct")];
        let named = [("name=systemd", "/sys/fs/cgroup/systemd")];
        let v1 = v1
            .into_iter()
            .chain(named)
            .map(|(name, point)| (name.to_owned(), PathBuf::from(point)))
            .collect();
        assert_eq!(found, Mounts { v2: Some(PathBuf::from("/a b")), v1 });
        assert_eq!(CgroupHost::from_mountinfo("", "cpu"), None);
        assert!(found.has_all("2:cpu,cpuacct:/a:b\n1:name=systemd:/\n0::/x\n"));
        assert!(!found.has_all("3:memory:/\n0::/\n"));
        assert!(!Mounts::default().has_all("0::/\n"));
    }

    #[test]
    fn huge_pages_are_named_as_in_cgroup_files() {
        let folders = [
            "hugepages-64kB",
            "hugepages-2048kB",
            "hugepages-1048576kB",
            "hugepages-16777216kB",
            "x",
            "hugepages-",
        ];
        let names: Vec<_> = huge_page_sizes(folders).into_iter().collect();
        assert_eq!(names, ["16GB", "1GB", "2MB", "64KB"]);
    }
}
