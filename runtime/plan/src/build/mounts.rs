//! Mounts, the root, and what is hidden in it.

use std::path::{Path, PathBuf};

use super::{Builder, PlanError, RootSwitch, propagate};
use crate::spec::{Attributes, Idmap, Mount, MountKind, NamespaceKind, Propagation, clean};
use crate::step::{Base, Depth, MountChange, Slot, Step, Target};

const RDONLY: u64 = 0x01;

/// File systems whose superblock belongs to the kernel or to the namespace: read-only is said of the mount alone.
pub(super) const KERNEL: &[&str] = &["proc", "sysfs", "tmpfs", "mqueue", "devpts", "cgroup", "cgroup2"];

pub(super) fn add(b: &mut Builder<'_>) -> Result<(), PlanError> {
    let base = b.base_propagation();
    let root = b.slot();
    let own = b.spec.linux.namespaces.contains_key(&NamespaceKind::Mount);
    if own {
        // Nothing of the old tree stays, and pivot_root(2) refuses a root whose parent is shared.
        b.plan.mounts.push(Step::PropagateAll { propagation: Propagation::Slave });
    }
    let mut change = propagate(base);
    if base == Propagation::Shared {
        // It refuses a shared root as well: that one is shared at the end, what is mounted below it from the start.
        change.propagation.push((Propagation::Private, Depth::One));
    }
    b.trees.push(Step::OpenTree {
        slot: root,
        path: b.request.rootfs.clone(),
        depth: Depth::Recursive,
        change,
        idmap: None,
    });
    if own {
        b.plan.mounts.push(Step::AttachRoot { slot: root });
    } else {
        // The mounts are the runtime's own: they are in a place of croft's, from which delete takes them.
        b.trees.push(Step::AttachRootAt { slot: root, dir: b.request.mount_point.clone() });
    }
    for mount in &b.spec.mounts {
        match mount.kind {
            MountKind::Bind { recursive } => bind(b, mount, recursive),
            MountKind::Filesystem => filesystem(b, mount),
            MountKind::Cgroup => cgroup(b, mount),
            MountKind::Remount => {
                let change = change_of(mount);
                b.plan.mounts.push(Step::ChangeMount { target: mount.destination.clone(), change });
            }
        }
    }
    Ok(())
}

fn depth(recursive: bool) -> Depth {
    if recursive { Depth::Recursive } else { Depth::One }
}

fn change_of(mount: &Mount) -> MountChange {
    let options = &mount.options;
    MountChange {
        attributes: options.attributes,
        recursive: options.recursive,
        propagation: options.propagation.iter().map(|(p, recursive)| (*p, depth(*recursive))).collect(),
    }
}

fn bind(b: &mut Builder<'_>, mount: &Mount, recursive: bool) {
    let mut change = change_of(mount);
    change.propagation.insert(0, (b.base_propagation(), Depth::Recursive));
    // What is mounted below the host's /sys, the cgroup file systems above all, would stay writable (CVE-2023-25809).
    if recursive && change.attributes.set & RDONLY != 0 && clean(&mount.source).starts_with("/sys") {
        change.recursive.set |= RDONLY;
    }
    let idmap = idmap(b, mount);
    let slot = b.slot();
    let own = clones_itself(b) && idmap.is_none();
    let list = if own { &mut b.plan.mounts } else { &mut b.trees };
    list.push(Step::OpenTree {
        slot,
        path: b.request.bundle.join(&mount.source),
        depth: depth(recursive),
        change,
        idmap,
    });
    b.plan.mounts.push(Step::Attach { slot, target: mount.destination.clone() });
}

/// Whether the container's process clones its binds itself, each in its turn: a mount table is in the order in which mounts
/// were made, not attached, and callers compare it with the spec's list (OCI runtime-tools). Not in a user namespace, where the
/// process may not reach all that the host does; nor when a bind shall stay a peer of the host's mount.
fn clones_itself(b: &Builder<'_>) -> bool {
    let linux = &b.spec.linux;
    linux.has_new(NamespaceKind::Mount)
        && !linux.has_user_namespace()
        && b.base_propagation() != Propagation::Shared
}

fn idmap(b: &mut Builder<'_>, mount: &Mount) -> Option<(Slot, Depth)> {
    let Idmap::Mapped { recursive, uids, gids } = &mount.idmap else { return None };
    let linux = &b.spec.linux;
    let (uids, gids) = if uids.is_empty() {
        (linux.uid_mappings.clone(), linux.gid_mappings.clone())
    } else {
        (uids.clone(), gids.clone())
    };
    let slot = b.slot();
    b.trees.push(Step::NewIdmap { slot, uids, gids });
    Some((slot, depth(*recursive)))
}

fn filesystem(b: &mut Builder<'_>, mount: &Mount) {
    let mut parameters: Vec<(String, Option<String>)> =
        mount.options.superblock.iter().map(|flag| ((*flag).to_owned(), None)).collect();
    parameters.extend(mount.options.data.clone());
    if mount.options.attributes.set & RDONLY != 0 && !KERNEL.contains(&mount.fstype.as_str()) {
        parameters.push(("ro".to_owned(), None));
    }
    if b.facts.lsm.selinux
        && let Some(label) = &b.spec.linux.mount_label
        && ["tmpfs", "devpts", "mqueue"].contains(&mount.fstype.as_str())
    {
        parameters.push(("context".to_owned(), Some(label.clone())));
    }
    let slot = b.slot();
    let is_kernel_view = ["proc", "sysfs"].contains(&mount.fstype.as_str());
    if is_kernel_view {
        b.kernel_mounts.insert(mount.destination.clone(), slot);
    }
    if mount.fstype == "devpts" && mount.destination == Path::new("/dev/pts") {
        b.devpts = Some(slot);
    }
    b.plan.mounts.push(Step::Mount {
        slot,
        fstype: mount.fstype.clone(),
        source: source_name(mount),
        parameters,
        target: mount.destination.clone(),
        kind: if is_kernel_view { Target::PlainDirectory } else { Target::Any },
        change: change_of(mount),
        copy_up: mount.options.copy_up,
    });
}

fn source_name(mount: &Mount) -> String {
    if mount.source.as_os_str().is_empty() {
        mount.fstype.clone()
    } else {
        mount.source.to_string_lossy().into_owned()
    }
}

/// A new mount of the kernel's with nothing but a change.
fn plain(slot: Slot, fstype: &str, target: PathBuf, change: MountChange) -> Step {
    Step::Mount {
        slot,
        fstype: fstype.to_owned(),
        source: fstype.to_owned(),
        parameters: Vec::new(),
        target,
        kind: Target::Any,
        change,
        copy_up: false,
    }
}

/// The container's view of its groups: the cgroup2 mount, or on a hybrid host a tmpfs with a folder per hierarchy.
fn cgroup(b: &mut Builder<'_>, mount: &Mount) {
    let target = mount.destination.clone();
    let change = change_of(mount);
    let v1: Vec<_> = b.plan.groups.v1.clone();
    if v1.is_empty() {
        unified(b, target, change);
        return;
    }
    let tmpfs = b.slot();
    let mut top = plain(tmpfs, "tmpfs", target.clone(), without_read_only(&change));
    if let Step::Mount { parameters, .. } = &mut top {
        parameters.push(("mode".to_owned(), Some("755".to_owned())));
    }
    b.plan.mounts.push(top);
    for group in v1 {
        let Some(name) = group.hierarchy.file_name() else { continue };
        let inside = target.join(name);
        if b.spec.linux.has_new(NamespaceKind::Cgroup) {
            let slot = b.slot();
            let mut step = plain(slot, "cgroup", inside.clone(), change.clone());
            if let Step::Mount { parameters, .. } = &mut step {
                *parameters = group.controllers.iter().flat_map(|c| v1_parameters(c)).collect();
            }
            b.plan.mounts.push(step);
        } else {
            bind_group(b, group.dir.clone(), inside.clone(), change.clone());
        }
        // Several controllers share a hierarchy, as in cpu,cpuacct: each has its name as a link.
        for controller in
            group.controllers.iter().filter(|c| *c != &*name.to_string_lossy() && !c.contains('='))
        {
            b.plan.mounts.push(Step::MakeLink {
                to: name.to_string_lossy().into_owned(),
                path: target.join(controller),
            });
        }
    }
    unified(b, target.join("unified"), change.clone());
    if change.attributes.set & RDONLY != 0 {
        let attributes = Attributes { set: RDONLY, clear: 0 };
        b.plan
            .mounts
            .push(Step::ChangeMount { target, change: MountChange { attributes, ..Default::default() } });
    }
}

fn without_read_only(change: &MountChange) -> MountChange {
    let mut change = change.clone();
    change.attributes.set &= !RDONLY;
    change
}

fn v1_parameters(controller: &str) -> Vec<(String, Option<String>)> {
    match controller.strip_prefix("name=") {
        Some(name) => vec![("none".to_owned(), None), ("name".to_owned(), Some(name.to_owned()))],
        None => vec![(controller.to_owned(), None)],
    }
}

fn unified(b: &mut Builder<'_>, target: PathBuf, change: MountChange) {
    if b.spec.linux.has_new(NamespaceKind::Cgroup) {
        let slot = b.slot();
        b.plan.mounts.push(plain(slot, "cgroup2", target, change));
    } else if let Some(group) = b.plan.groups.v2.clone() {
        bind_group(b, group.dir, target, change);
    } else {
        // Without a group of its own the container sees the host's, and must not write there (CVE-2023-25809).
        let mount = b.facts.cgroups.v2.mount.clone();
        let mut change = change;
        change.attributes.set |= RDONLY;
        bind_group(b, mount, target, change);
    }
}

fn bind_group(b: &mut Builder<'_>, dir: PathBuf, target: PathBuf, mut change: MountChange) {
    let slot = b.slot();
    change.propagation.insert(0, (Propagation::Private, Depth::Recursive));
    b.trees.push(Step::OpenTree { slot, path: dir, depth: Depth::One, change, idmap: None });
    b.plan.mounts.push(Step::Attach { slot, target });
}

pub(super) fn add_root_switch(b: &mut Builder<'_>) {
    let own = b.spec.linux.namespaces.contains_key(&NamespaceKind::Mount);
    b.plan.root.push(match b.request.root_switch {
        RootSwitch::Pivot if own => Step::PivotRoot,
        _ => Step::Chroot,
    });
    let mut change = MountChange::default();
    if b.spec.root_readonly {
        change.attributes.set = RDONLY;
    }
    if let Some((propagation, recursive)) = b.spec.linux.rootfs_propagation {
        change.propagation.push((propagation, depth(recursive)));
    }
    if change != MountChange::default() {
        b.plan.root.push(Step::ChangeMount { target: PathBuf::from("/"), change });
    }
}

pub(super) fn add_masks(b: &mut Builder<'_>) {
    let linux = &b.spec.linux;
    let based = |path: &PathBuf| {
        let held = b.kernel_mounts.iter().find_map(|(at, slot)| {
            let inside = path.strip_prefix(at).ok().filter(|p| !p.as_os_str().is_empty())?;
            Some((Base::Mount(*slot), inside.to_owned()))
        });
        held.unwrap_or_else(|| (Base::Root, path.clone()))
    };
    let protected = linux.readonly_paths.iter().map(|path| {
        let (base, path) = based(path);
        Step::Protect { base, path }
    });
    let masked = linux.masked_paths.iter().map(|path| {
        let (base, path) = based(path);
        Step::Mask { base, path }
    });
    let steps: Vec<Step> = protected.chain(masked).collect();
    b.plan.root.extend(steps);
}
