//! Looks at the host and fills `plan::facts`. Looking changes nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use croft_plan::cgroup::{self, CgroupHost, DeviceFilter, Swap, V2Mount};
use croft_plan::facts::{Delegation, Facts, Lsm};
use croft_sys::credentials;
use croft_sys::proc::Proc;

use crate::error::{Context, Error, Result};

/// CAP_SYS_ADMIN and CAP_BPF, either of which may load a device filter.
const BPF_CAPABILITIES: u64 = 1 << 21 | 1 << 39;

/// Gathers the facts of this host.
///
/// # Errors
/// As [`gather`].
pub fn of_this_host() -> Result<Facts> {
    gather(&Proc::open().on(|| "open /proc".into())?)
}

/// Gathers the facts.
///
/// # Errors
/// When /proc is not procfs, or the host has no cgroup2 mount.
pub fn gather(proc: &Proc) -> Result<Facts> {
    let own = proc.read("self/cgroup").on(|| "read the own cgroup".into())?;
    let (_, euid) = credentials::user();
    let (effective, ..) = credentials::capabilities().on(|| "read capabilities".into())?;
    let mounts = cgroup_mounts(proc, &own)?;
    let Some(v2) = mounts.v2 else {
        let why =
            "no cgroup2 is mounted on this host; mount it: mount -t cgroup2 none /sys/fs/cgroup/unified";
        return Err(Error::refused("cgroups", why));
    };
    let own_group = own_group(&own);
    let delegated = delegation(euid, &v2, &own_group);
    let base = match &delegated {
        Delegation::Below(group) => v2.join(group.strip_prefix("/").unwrap_or(group)),
        _ => v2.clone(),
    };
    let controllers = std::fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    let cgroups = CgroupHost {
        v2: V2Mount { mount: v2, controllers: controllers.split_whitespace().map(str::to_owned).collect() },
        v1: if euid == 0 { mounts.v1.clone() } else { BTreeMap::new() },
        device_filter: if effective & BPF_CAPABILITIES != 0 {
            DeviceFilter::Ebpf
        } else {
            DeviceFilter::NoEbpf
        },
        swap: swap(),
        huge_pages: huge_pages(),
    };
    Ok(Facts {
        euid,
        egid: credentials::group(),
        capabilities: effective,
        last_capability: last_capability(proc),
        own_group,
        v1_hierarchies: by_hierarchy(&cgroups.v1),
        cgroups,
        delegated,
        id_map_programs: id_map_programs(euid),
        lsm: lsm(),
        resctrl: resctrl(),
    })
}

/// The mounts of the hierarchies that are in `own`, the text of /proc/self/cgroup. A host's are made when it boots and stand first, and
/// what comes after them is read only if one is missing: the list has a line for each container, and the kernel takes as long to write
/// a few hundred as all of a start.
fn cgroup_mounts(proc: &Proc, own: &str) -> Result<cgroup::Mounts> {
    let failed = || "read the mounts".to_owned();
    let file = proc.open_file("self/mountinfo", croft_sys::OFlags::RDONLY).on(failed)?;
    let mut found = cgroup::Mounts::default();
    // As much at a time as the kernel writes at a time.
    for line in BufReader::with_capacity(4096, std::fs::File::from(file)).split(b'\n') {
        let line = line.map_err(|e| Error::file("read", Path::new("/proc/self/mountinfo"), e))?;
        found.add(&String::from_utf8_lossy(&line));
        if found.has_all(own) {
            break;
        }
    }
    Ok(found)
}

/// The group of the line `0::/path` of /proc/self/cgroup.
fn own_group(text: &str) -> PathBuf {
    let line = text.lines().find_map(|l| l.strip_prefix("0::"));
    PathBuf::from(line.unwrap_or("/").trim_end_matches(" (deleted)"))
}

/// The nearest group above the own one that this user may make groups in. The own group has a process in it, the runtime, so
/// that no controller could be enabled below it: what is delegated is looked for from its parent up.
fn delegation(euid: u32, mount: &Path, own: &Path) -> Delegation {
    if euid == 0 {
        return Delegation::Everything;
    }
    let owned = |group: &&Path| {
        let dir = mount.join(group.strip_prefix("/").unwrap_or(group));
        let mine = |file: &str| std::fs::metadata(dir.join(file)).is_ok_and(|m| m.uid() == euid);
        mine("") && mine("cgroup.procs") && mine("cgroup.subtree_control")
    };
    let found = own.parent().into_iter().chain([own]).find(owned);
    found.map_or(Delegation::Nothing, |group| Delegation::Below(group.to_owned()))
}

fn by_hierarchy(v1: &BTreeMap<String, PathBuf>) -> BTreeMap<PathBuf, Vec<String>> {
    let mut map: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for (controller, mount) in v1 {
        map.entry(mount.clone()).or_default().push(controller.clone());
    }
    map
}

fn last_capability(proc: &Proc) -> u32 {
    proc.read("sys/kernel/cap_last_cap").ok().and_then(|t| t.trim().parse().ok()).unwrap_or(40)
}

fn swap() -> Swap {
    if Path::new("/proc/swaps").exists() { Swap::Accounted } else { Swap::NotAccounted }
}

fn huge_pages() -> std::collections::BTreeSet<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    cgroup::huge_page_sizes(names.iter().map(String::as_str))
}

fn id_map_programs(euid: u32) -> Option<(PathBuf, PathBuf)> {
    if euid == 0 {
        return None;
    }
    let find = |name: &str| {
        ["/usr/bin", "/bin", "/usr/local/bin"]
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|p| p.exists())
    };
    Some((find("newuidmap")?, find("newgidmap")?))
}

fn lsm() -> Lsm {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    Lsm { apparmor: enabled.starts_with('Y'), selinux: Path::new("/sys/fs/selinux/enforce").exists() }
}

/// Where resctrl is mounted (Documentation/filesystems/resctrl.rst: there and nowhere else).
fn resctrl() -> Option<PathBuf> {
    const PLACE: &str = "/sys/fs/resctrl";
    /// Of linux/magic.h.
    const RDTGROUP_SUPER_MAGIC: i64 = 0x0765_5821;
    let is_mounted = croft_sys::fs::statfs(PLACE).is_ok_and(|found| found.f_type == RDTGROUP_SUPER_MAGIC);
    is_mounted.then(|| PathBuf::from(PLACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_what_these_tests_run_on() {
        let facts = gather(&Proc::open().unwrap()).unwrap();
        assert!(facts.cgroups.v2.mount.join("cgroup.procs").exists());
        assert!(facts.last_capability >= 40);
    }

    #[test]
    fn own_group_is_the_line_of_hierarchy_0() {
        assert_eq!(own_group("3:cpu:/x\n0::/user.slice/a\n"), PathBuf::from("/user.slice/a"));
    }
}
