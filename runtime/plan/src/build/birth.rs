//! Where the container's process is born: in the runtime's mount namespace, or in one with few mounts.
//!
//! A new mount namespace begins as a copy of the one that its maker is in, and the container's process lets go of the copies
//! once it has its root. A host has a mount or more for every container that runs, so both take longer with each of them. A
//! supervisor therefore keeps a namespace that has next to nothing to copy.

use std::path::Path;

use super::mounts::KERNEL;
use super::{Builder, Request, RootSwitch};
use crate::facts::Facts;
use crate::spec::{HookPoint, Mount, MountKind, NamespaceKind, Spec};
use crate::step::Step;

/// CAP_SYS_CHROOT, without which nobody joins a mount namespace (setns(2)).
const SYS_CHROOT: u32 = 18;

/// The hooks that run while the container's process has not switched its root: they may look for the host's tree there.
const EARLY_HOOKS: &[HookPoint] =
    &[HookPoint::Prestart, HookPoint::CreateRuntime, HookPoint::CreateContainer];

/// Has the runtime join the namespace that it was given for the moment of the clone, where nothing speaks against it.
///
/// After all other namespaces: a failure to join one of those finds the runtime among its own mounts, to undo what it did.
pub(super) fn add(b: &mut Builder<'_>) {
    let Some(base) = base(b.spec, b.facts, b.request) else { return };
    let slot = b.slot();
    b.plan.host.push(Step::OpenNamespace { slot, kind: NamespaceKind::Mount, path: base.to_owned() });
    b.plan.spawn.around.push((slot, NamespaceKind::Mount));
}

/// The namespace with few mounts, when there is one and the container's process needs nothing of the host's tree.
fn base<'a>(spec: &Spec, facts: &Facts, request: &'a Request) -> Option<&'a Path> {
    let linux = &spec.linux;
    let may_join = !facts.is_rootless() && facts.has_capability(SYS_CHROOT);
    // Without a user namespace the process clones its binds itself, in the host's tree.
    let is_given_its_binds = linux.has_new(NamespaceKind::Mount) && linux.has_user_namespace();
    let is_plain = linux.rootfs_propagation.is_none() && request.root_switch == RootSwitch::Pivot;
    let is_seen_by_hooks = EARLY_HOOKS.iter().any(|point| !spec.hooks.at(*point).is_empty());
    let can = may_join && is_given_its_binds && is_plain && !is_seen_by_hooks;
    request.mount_base.as_deref().filter(|_| can && !spec.mounts.iter().any(names_a_path))
}

/// Whether the container's process makes a file system that may be of a path of the host's, such as an overlay or a disk.
fn names_a_path(mount: &Mount) -> bool {
    mount.kind == MountKind::Filesystem && !KERNEL.contains(&mount.fstype.as_str())
}
