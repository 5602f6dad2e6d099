//! Every refusal that needs no effect to find, with its reason.

use super::PlanError;
use crate::facts::Facts;
use crate::spec::{Capabilities, IdMapping, Idmap, Namespace, NamespaceKind, Spec, capability_name};

/// Kernel parameters of the ipc namespace (ipc_namespaces(7)).
const IPC: &[&str] = &[
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Refuses a spec that contradicts itself or that this host cannot satisfy.
pub(super) fn check(spec: &Spec, facts: &Facts) -> Result<(), PlanError> {
    let linux = &spec.linux;
    let has = |kind| linux.namespaces.contains_key(&kind);
    let no = PlanError::refused;
    if !has(NamespaceKind::Mount) && (linux.has_user_namespace() || facts.is_rootless()) {
        let why =
            "a user namespace needs a mount namespace beside it: mounts of the host's are not its to make";
        return Err(no("linux.namespaces", why));
    }
    if spec.hostname.is_some() && !has(NamespaceKind::Uts) {
        return Err(no("hostname", "unable to set hostname without a private uts namespace"));
    }
    if spec.domainname.is_some() && !has(NamespaceKind::Uts) {
        return Err(no("domainname", "unable to set domainname without a private uts namespace"));
    }
    if !linux.time_offsets.is_empty() && !linux.has_new(NamespaceKind::Time) {
        return Err(no("linux.timeOffsets", "need a new time namespace"));
    }
    if !linux.net_devices.is_empty() && !has(NamespaceKind::Network) {
        return Err(no("linux.netDevices", "need a network namespace other than the runtime's"));
    }
    user_namespace(spec, facts)?;
    id_ranges("linux.uidMappings", &linux.uid_mappings)?;
    id_ranges("linux.gidMappings", &linux.gid_mappings)?;
    for mount in &spec.mounts {
        let Idmap::Mapped { uids, gids, .. } = &mount.idmap else { continue };
        let at = format!("mounts[{}]", mount.destination.display());
        id_ranges(&format!("{at}.uidMappings"), uids)?;
        id_ranges(&format!("{at}.gidMappings"), gids)?;
    }
    capabilities(&spec.process.capabilities)?;
    security_labels(spec, facts)?;
    for key in linux.sysctl.keys() {
        sysctl(key, spec)?;
    }
    resctrl(spec, facts)
}

/// What the kernel would answer EINVAL to; see user_namespaces(7), "Defining user and group ID mappings".
fn id_ranges(property: &str, ranges: &[IdMapping]) -> Result<(), PlanError> {
    /// UID_GID_MAP_MAX_EXTENTS of the kernel.
    const MOST: usize = 340;
    let refuse = |why: String| Err(PlanError::refused(property, why));
    if ranges.len() > MOST {
        return refuse(format!("has {} ranges; the kernel takes {MOST}", ranges.len()));
    }
    let end = |first: u32, size: u32| u64::from(first) + u64::from(size);
    for (at, range) in ranges.iter().enumerate() {
        let IdMapping { container, host, size } = *range;
        if size == 0 {
            return refuse(format!("the range {container}:{host}:0 is empty"));
        }
        // The last id, 2^32 - 1, stands for "no id".
        if end(container, size) > u64::from(u32::MAX) || end(host, size) > u64::from(u32::MAX) {
            return refuse(format!("the range {container}:{host}:{size} goes beyond the last id"));
        }
        let overlap =
            |a: u32, b: u32, b_size: u32| u64::from(a) < end(b, b_size) && u64::from(b) < end(a, size);
        for other in &ranges[..at] {
            if overlap(container, other.container, other.size) || overlap(host, other.host, other.size) {
                return refuse(format!(
                    "the ranges {}:{}:{} and {container}:{host}:{size} overlap",
                    other.container, other.host, other.size
                ));
            }
        }
    }
    Ok(())
}

/// capset(2) takes no effective capability that is not permitted.
fn capabilities(sets: &Capabilities) -> Result<(), PlanError> {
    let missing = sets.effective & !sets.permitted;
    match (0..64).find(|n| missing >> n & 1 == 1).and_then(capability_name) {
        Some(name) => {
            let why = format!("{name} cannot be in force: process.capabilities.permitted lacks it");
            Err(PlanError::refused("process.capabilities.effective", why))
        }
        None => Ok(()),
    }
}

fn user_namespace(spec: &Spec, facts: &Facts) -> Result<(), PlanError> {
    let linux = &spec.linux;
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    match linux.namespaces.get(&NamespaceKind::User) {
        Some(Namespace::New) if linux.uid_mappings.is_empty() => {
            return Err(PlanError::refused("linux.uidMappings", "a new user namespace needs uid mappings"));
        }
        Some(Namespace::New) if linux.gid_mappings.is_empty() => {
            return Err(PlanError::refused("linux.gidMappings", "a new user namespace needs gid mappings"));
        }
        None if mapped => {
            let why = "id mappings need a user namespace in linux.namespaces";
            return Err(PlanError::refused("linux.uidMappings", why));
        }
        None if facts.is_rootless() => {
            let why = "an ordinary user's container needs a user namespace (see croft-oci spec --rootless)";
            return Err(PlanError::refused("linux.namespaces", why));
        }
        _ => {}
    }
    for mount in &spec.mounts {
        let Idmap::Mapped { uids, .. } = &mount.idmap else { continue };
        if facts.is_rootless() {
            let why = "an ordinary user cannot map the ids of a mount: the kernel lets only the owner of its file system do so";
            return Err(PlanError::refused(format!("mounts[{}]", mount.destination.display()), why));
        }
        if uids.is_empty() && !linux.has_new_user_namespace() {
            let why = "an id-mapped mount needs mappings, its own or those of a new user namespace";
            return Err(PlanError::refused(format!("mounts[{}]", mount.destination.display()), why));
        }
    }
    Ok(())
}

fn security_labels(spec: &Spec, facts: &Facts) -> Result<(), PlanError> {
    if spec.process.apparmor_profile.as_deref().is_some_and(|p| p != "unconfined") && !facts.lsm.apparmor {
        return Err(PlanError::refused("process.apparmorProfile", "AppArmor is not enabled on this host"));
    }
    if spec.process.selinux_label.is_some() && !facts.lsm.selinux {
        return Err(PlanError::refused("process.selinuxLabel", "SELinux is not enabled on this host"));
    }
    Ok(())
}

/// The path below /proc/sys of a parameter that is written with dots or with slashes. As in sysctl(8), the first
/// separator decides which of the two it is: `net.ipv4.conf.eth0/1.forwarding` has a dot in a device's name.
pub(super) fn sysctl_path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_owned(),
    }
}

fn sysctl(key: &str, spec: &Spec) -> Result<(), PlanError> {
    let refuse = |why: &str| Err(PlanError::refused(format!("linux.sysctl[{key}]"), why));
    let path = sysctl_path(key);
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return refuse("is not the name of a kernel parameter");
    }
    let needs = |kind: NamespaceKind, why: &str| {
        if spec.linux.namespaces.contains_key(&kind) { Ok(()) } else { refuse(why) }
    };
    if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        needs(NamespaceKind::Ipc, "is not allowed without an ipc namespace: it would change the host's")
    } else if path.starts_with("net/") {
        needs(
            NamespaceKind::Network,
            "is not allowed without a network namespace: it would change the host's",
        )
    } else if path == "kernel/domainname" {
        needs(NamespaceKind::Uts, "is not allowed without a uts namespace: it would change the host's")
    } else if path == "kernel/hostname" {
        refuse("is set by the hostname property")
    } else {
        refuse("is not in a separate kernel namespace: it would change the host")
    }
}

fn resctrl(spec: &Spec, facts: &Facts) -> Result<(), PlanError> {
    let Some(rdt) = &spec.linux.intel_rdt else { return Ok(()) };
    if facts.resctrl.is_none() {
        let why = "the resctrl file system is not mounted, or this CPU has no resource control";
        return Err(PlanError::refused("linux.intelRdt", why));
    }
    if rdt.clos_id().as_deref().is_some_and(|id| id.is_empty() || id == "." || id == ".." || id.contains('/'))
    {
        return Err(PlanError::refused("linux.intelRdt.closID", "must be one folder's name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_separators() {
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
