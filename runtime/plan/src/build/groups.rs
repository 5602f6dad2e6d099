//! Which control groups the container gets, in which hierarchies, and what is written there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use super::{Builder, PlanError, scope};
use crate::cgroup::{self, Refusal, Version};
use crate::devices;
use crate::facts::Delegation;
use crate::spec::{MountKind, clean};
use crate::step::{Slot, Step};

/// Who makes the container's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// We do, in cgroupfs.
    Cgroupfs,
    /// systemd does (`--systemd-cgroup`).
    Systemd,
}

/// One group of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The hierarchy's mount point.
    pub hierarchy: PathBuf,
    /// The group's folder.
    pub dir: PathBuf,
    /// The controllers of a v1 hierarchy; empty for cgroup2.
    pub controllers: Vec<String>,
    /// The slot in which the plan opens it for joining.
    #[serde(skip)]
    pub slot: Option<Slot>,
}

/// All groups of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// In the cgroup2 hierarchy.
    pub v2: Option<Group>,
    /// In v1 hierarchies.
    pub v1: Vec<Group>,
    /// The systemd unit that holds them.
    pub unit: Option<String>,
}

impl Groups {
    /// The folder of the group that holds this controller's files in this version.
    pub fn dir(&self, controller: &str, version: Version) -> Option<&Path> {
        match version {
            Version::V2 => self.v2.as_ref().map(|g| g.dir.as_path()),
            Version::V1 => {
                let has = |g: &&Group| g.controllers.iter().any(|c| c == controller);
                self.v1.iter().find(has).map(|g| g.dir.as_path())
            }
        }
    }
}

/// A path below `mount`, which `path` names as if `mount` were `/`.
fn below(mount: &Path, path: &Path) -> PathBuf {
    let clean = clean(path);
    mount.join(clean.strip_prefix("/").unwrap_or(&clean))
}

pub(super) fn add(b: &mut Builder<'_>) -> Result<(), PlanError> {
    let mut resources = b.spec.linux.resources.clone();
    if b.facts.delegated == Delegation::Nothing {
        return without_groups(b, &resources);
    }
    if b.facts.is_rootless() {
        // The kernel lets only root filter devices; in its user namespace the container can make no node anyway.
        resources.set_devices(None);
    }
    let mut writes = cgroup::writes(&resources, &b.facts.cgroups)?;
    b.plan.warnings.append(&mut writes.warnings);
    let mut program = None;
    if !b.facts.is_rootless() {
        match device_filter(b)? {
            devices::Filter::Nothing => {}
            devices::Filter::Ebpf(instructions) => program = Some(instructions),
            devices::Filter::V1(more) => writes.writes.extend(more),
        }
    }
    let path = place(b)?;
    let v2 = below(&b.facts.cgroups.v2.mount, &path);
    let hierarchy = b.facts.cgroups.v2.mount.clone();
    b.plan.spawn.group = Some(v2.clone());
    b.plan.groups.v2 =
        Some(Group { hierarchy: hierarchy.clone(), dir: v2.clone(), controllers: Vec::new(), slot: None });
    if let Some(unit) = b.plan.groups.unit.clone() {
        let (slice, _) = scope::names(b.spec.linux.cgroups_path.as_deref(), &b.request.id, b.facts)?;
        let properties = scope::properties(&b.request.id, &slice, &writes);
        b.plan.host.push(Step::StartScope { unit, slice, dir: v2.clone(), properties });
    } else {
        b.plan.host.push(Step::MakeGroup { hierarchy: hierarchy.clone(), dir: v2.clone(), fill: Vec::new() });
    }
    let controllers: Vec<String> = b.facts.cgroups.v2.controllers.iter().cloned().collect();
    if !controllers.is_empty() {
        let required = writes.controllers(Version::V2).into_iter().map(str::to_owned).collect();
        b.plan.host.push(Step::EnableControllers { hierarchy, dir: v2.clone(), controllers, required });
    }
    add_v1(b, &path, &writes.controllers(Version::V1));
    b.plan.host.extend(resource_steps(&b.plan.groups, &writes));
    // The kernel checks the program while init makes the mounts, and long before anything of the container's runs.
    b.plan.parent.extend(program.map(|program| Step::FilterDevices { dir: v2, program }));
    Ok(())
}

/// The writes of a plan as steps, each in the folder of its group.
pub fn resource_steps(groups: &Groups, writes: &cgroup::Writes) -> Vec<Step> {
    let step = |w: &cgroup::Write| {
        let dir = groups.dir(&w.controller, w.version)?.to_owned();
        Some(Step::WriteGroup { dir, write: w.clone() })
    };
    writes.writes.iter().filter_map(step).collect()
}

/// The spec's rules and then runc's defaults, so that a container whose spec denies everything still has its nodes.
fn device_filter(b: &Builder<'_>) -> Result<devices::Filter, PlanError> {
    let linux = &b.spec.linux;
    let mut rules = devices::rules(linux.resources.devices().as_deref().unwrap_or_default())?;
    rules.extend(devices::defaults(linux.devices.iter().filter_map(|d| d.path.to_str())));
    let allowance = devices::Allowance::of(&rules)?;
    Ok(devices::filter(&allowance, &b.facts.cgroups)?)
}

fn without_groups(b: &mut Builder<'_>, resources: &oci::LinuxResources) -> Result<(), PlanError> {
    let property = match cgroup::writes(resources, &b.facts.cgroups) {
        Ok(writes) => writes.writes.first().map(|write| write.property.clone()),
        Err(Refusal::Nowhere { property, .. } | Refusal::Missing { property, .. }) => Some(property),
        Err(other) => return Err(other.into()),
    };
    if let Some(property) = property {
        let why = "no cgroup is delegated to this user: start it with systemd-run --user --scope -p Delegate=yes, or drop the limit";
        return Err(PlanError::refused(format!("linux.resources.{property}"), why));
    }
    Ok(())
}

/// Cache and memory bandwidth: a group of the container's own, or one that `closID` names; with lines to write, or as it is.
pub(super) fn add_resctrl(b: &mut Builder<'_>) {
    let (Some(rdt), Some(root)) = (&b.spec.linux.intel_rdt, &b.facts.resctrl) else { return };
    let dir = root.join(rdt.clos_id().as_deref().unwrap_or(&b.request.id));
    let single = [rdt.l3_cache_schema(), rdt.mem_bw_schema()];
    let lines = rdt.schemata().iter().flatten().chain(single.into_iter().flatten());
    let schemata: Vec<String> = lines.cloned().collect();
    let own = rdt.clos_id().is_none();
    if own || !schemata.is_empty() {
        b.plan.host.push(Step::MakeResctrlGroup { dir: dir.clone(), own, schemata });
    }
    b.plan.parent.push(Step::JoinResctrlGroup { dir: dir.clone() });
    if rdt.enable_monitoring().unwrap_or(false) {
        let dir = dir.join("mon_groups").join(&b.request.id);
        b.plan.host.push(Step::MakeResctrlGroup { dir: dir.clone(), own: true, schemata: Vec::new() });
        b.plan.parent.push(Step::JoinResctrlGroup { dir });
    }
}

/// The group's path below the hierarchies' roots.
fn place(b: &mut Builder<'_>) -> Result<PathBuf, PlanError> {
    let id = b.request.id.clone();
    let asked = b.spec.linux.cgroups_path.clone();
    if b.request.driver == Driver::Systemd {
        let (slice, unit) = scope::names(asked.as_deref(), &id, b.facts)?;
        let path = scope::slice_folder(&slice, b.facts)?.join(&unit);
        b.plan.groups.unit = Some(unit);
        return Ok(path);
    }
    Ok(match (&b.facts.delegated, asked) {
        (Delegation::Below(group), None) => group.join(format!("croft-{id}")),
        (Delegation::Below(group), Some(asked)) => {
            group.join(clean(asked.as_ref()).strip_prefix("/").unwrap_or(Path::new(&id)))
        }
        (_, None) => Path::new("croft").join(id),
        (_, Some(asked)) => PathBuf::from(asked),
    })
}

/// The v1 controllers whose counters containerd, Docker and Podman show of a container.
const ACCOUNTING: [&str; 4] = ["blkio", "cpuacct", "memory", "pids"];

/// v1 groups cost time, so they are made only in hierarchies that a limit needs; in those that count when a caller names
/// the group's path, for there it looks the counters up; or in all when the container mounts its groups: a v1 mount
/// without a group of its own would show the host's root.
fn add_v1(b: &mut Builder<'_>, path: &Path, needed: &BTreeSet<&str>) {
    let shown = b.spec.mounts.iter().any(|m| m.kind == MountKind::Cgroup);
    let counted = b.spec.linux.cgroups_path.is_some() && !b.facts.is_rootless();
    let wanted = |c: &str| needed.contains(c) || (counted && ACCOUNTING.contains(&c));
    for (hierarchy, controllers) in b.facts.v1_hierarchies.clone() {
        if !shown && !controllers.iter().any(|c| wanted(c)) {
            continue;
        }
        let dir = below(&hierarchy, path);
        let fill = controllers.iter().flat_map(|c| cgroup::filled_from_parent(c, Version::V1));
        let fill = fill.map(|f| (*f).to_owned()).collect();
        let slot = b.slot();
        b.plan.host.push(Step::MakeGroup { hierarchy: hierarchy.clone(), dir: dir.clone(), fill });
        b.plan.host.push(Step::OpenGroup { slot, dir: dir.clone() });
        b.plan.groups.v1.push(Group { hierarchy, dir, controllers, slot: Some(slot) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_stays_below_its_hierarchy() {
        assert_eq!(below(Path::new("/cg"), Path::new("/../../etc")), PathBuf::from("/cg/etc"));
        assert_eq!(below(Path::new("/cg"), Path::new("a/b")), PathBuf::from("/cg/a/b"));
    }
}
