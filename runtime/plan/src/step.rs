//! The whole vocabulary of effects: what a container is made of, one step at a time.
//!
//! A step says everything that is needed to perform it; none looks at its neighbours. Descriptors that one step opens and
//! another uses have a [`Slot`], which both name. Each step prints as one line, and says what undoes it.

mod text;

use std::path::PathBuf;

use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};

use crate::cgroup::Write;
use crate::devices::Insn;
use crate::spec::{
    Attributes, Capabilities, ConsoleSize, Device, IdMapping, NamespaceKind, Propagation, Rlimit, TimeOffset,
    User,
};

/// The name of a descriptor that a plan's steps share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u16);

/// One mount or a whole tree of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// This mount alone.
    One,
    /// It and all below.
    Recursive,
}

/// Changes to a mount: attributes, then those of all below, then propagation in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountChange {
    /// For the mount alone.
    pub attributes: Attributes,
    /// For it and all below.
    pub recursive: Attributes,
    /// In order.
    pub propagation: Vec<(Propagation, Depth)>,
}

/// Where a path inside the container begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// At the root folder.
    Root,
    /// At the mount in this slot: for paths in /proc and /sys, which then are found whatever is done to the folders above.
    Mount(Slot),
}

/// What may stand in the way of a mount's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Links are followed inside the root; a missing folder or file is made.
    Any,
    /// A plain folder without a link on the way: for /proc and /sys (CVE-2019-19921, CVE-2023-27561).
    PlainDirectory,
}

/// A system call filter's source: engine compiles it, with a cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The profile.
    pub profile: Box<oci::LinuxSeccomp>,
}

impl Filter {
    /// Where the filter's listener goes, and what is sent with it.
    pub fn listener(&self) -> Option<(PathBuf, String)> {
        let path = self.profile.listener_path().clone()?;
        Some((path, self.profile.listener_metadata().clone().unwrap_or_default()))
    }
}

/// One effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make a control group's folder, and those above it that are missing.
    MakeGroup {
        /// The hierarchy's mount point.
        hierarchy: PathBuf,
        /// The group's folder, below that.
        dir: PathBuf,
        /// Files that must be filled from the parent before a process can join (v1 cpuset).
        fill: Vec<String>,
    },
    /// Allow controllers in every group from the hierarchy's root down to the parent of `dir`.
    EnableControllers {
        /// The hierarchy's mount point.
        hierarchy: PathBuf,
        /// The group's folder.
        dir: PathBuf,
        /// The controllers; one that cannot be enabled is fatal only if `required` has it.
        controllers: Vec<String>,
        /// Those that a limit needs.
        required: Vec<String>,
    },
    /// Write a limit.
    WriteGroup {
        /// The group's folder.
        dir: PathBuf,
        /// What to write.
        write: Write,
    },
    /// Move every process of a group and of those below it into a group of another hierarchy.
    MoveProcesses {
        /// The group that lists them.
        from: PathBuf,
        /// The group that they join.
        to: PathBuf,
    },
    /// Filter the group's access to devices by eBPF.
    FilterDevices {
        /// The group's folder.
        dir: PathBuf,
        /// The program.
        program: Vec<Insn>,
    },
    /// Open a v1 group so that the container's process can move itself in.
    OpenGroup {
        /// Where it is kept.
        slot: Slot,
        /// The group's folder.
        dir: PathBuf,
    },
    /// Move the calling process into the v1 group of a slot.
    JoinGroup {
        /// The open group.
        slot: Slot,
    },
    /// Ask systemd for a scope that holds the container.
    StartScope {
        /// The unit's name.
        unit: String,
        /// The slice above it.
        slice: String,
        /// Its group's folder.
        dir: PathBuf,
        /// What systemd is to know of it.
        properties: Vec<(String, Property)>,
    },
    /// Tell systemd the new limits of a scope: it writes what it knows again whenever its units are loaded again.
    ChangeScope {
        /// The unit's name.
        unit: String,
        /// What changes.
        properties: Vec<(String, Property)>,
    },
    /// Put the container into a resctrl group.
    MakeResctrlGroup {
        /// The group's folder.
        dir: PathBuf,
        /// Whether it is the container's own, to be removed with it.
        own: bool,
        /// Lines for `schemata`.
        schemata: Vec<String>,
    },
    /// Put the container's process into a resctrl group.
    JoinResctrlGroup {
        /// The group's folder.
        dir: PathBuf,
    },
    /// Open a namespace by its file.
    OpenNamespace {
        /// Where it is kept.
        slot: Slot,
        /// Its kind.
        kind: NamespaceKind,
        /// The file.
        path: PathBuf,
    },
    /// Join the namespace of a slot.
    Join {
        /// The open namespace.
        slot: Slot,
        /// Its kind.
        kind: NamespaceKind,
    },
    /// Leave into new namespaces.
    Unshare {
        /// Which.
        kinds: Vec<NamespaceKind>,
    },
    /// Leave into a new time namespace with these clocks.
    NewTimeNamespace {
        /// Clock name and offset.
        offsets: Vec<(String, TimeOffset)>,
    },
    /// Write the id maps of the new user namespace.
    WriteIdMaps {
        /// User ids.
        uids: Vec<IdMapping>,
        /// Group ids.
        gids: Vec<IdMapping>,
        /// By whom.
        by: IdMapper,
    },
    /// Give the container's process its weight against the OOM killer.
    SetOomScoreAdj {
        /// -1000 to 1000.
        value: i32,
    },
    /// Make a user namespace with these maps and keep it, for an id-mapped mount.
    NewIdmap {
        /// Where it is kept.
        slot: Slot,
        /// User ids.
        uids: Vec<IdMapping>,
        /// Group ids.
        gids: Vec<IdMapping>,
    },
    /// Clone a mount of the host into a detached one.
    OpenTree {
        /// Where it is kept.
        slot: Slot,
        /// The file or folder on the host.
        path: PathBuf,
        /// How much.
        depth: Depth,
        /// What is changed at once.
        change: MountChange,
        /// The user namespace that maps its ids.
        idmap: Option<(Slot, Depth)>,
    },
    /// Move a network device into the container's namespace.
    MoveNetDevice {
        /// Its name on the host.
        name: String,
        /// Its name inside.
        inside: String,
    },
    /// Take root's ids in the new user namespace.
    BecomeRoot,
    /// Join a new session keyring.
    NewKeyring {
        /// Its name.
        name: String,
        /// Its SELinux label.
        label: Option<String>,
    },
    /// Bring the loopback device up.
    LoopbackUp,
    /// Set the propagation of every mount.
    PropagateAll {
        /// How.
        propagation: Propagation,
    },
    /// Attach the root folder's tree over `/` and start resolving below it.
    AttachRoot {
        /// The tree.
        slot: Slot,
    },
    /// Attach the root folder's tree on a folder, which is made, and start resolving below it: in the runtime's own mount
    /// namespace, where the container has none.
    AttachRootAt {
        /// The tree.
        slot: Slot,
        /// The folder.
        dir: PathBuf,
    },
    /// Make and mount a new file system.
    Mount {
        /// Where the mount is kept for later steps.
        slot: Slot,
        /// The type.
        fstype: String,
        /// The source.
        source: String,
        /// Parameters of the superblock.
        parameters: Vec<(String, Option<String>)>,
        /// Where.
        target: PathBuf,
        /// What may be there.
        kind: Target,
        /// How.
        change: MountChange,
        /// Whether it starts with a copy of what it hides.
        copy_up: bool,
    },
    /// Attach a detached mount of the host.
    Attach {
        /// The tree.
        slot: Slot,
        /// Where.
        target: PathBuf,
    },
    /// Change what is mounted.
    ChangeMount {
        /// Where.
        target: PathBuf,
        /// How.
        change: MountChange,
    },
    /// Make a device node.
    MakeNode {
        /// What and where.
        device: Device,
    },
    /// Make a symbolic link where nothing is.
    MakeLink {
        /// Where it points.
        to: String,
        /// Where it is.
        path: PathBuf,
    },
    /// Open a terminal in the container's devpts, put it on /dev/console and the standard streams, and give its master away.
    NewTerminal {
        /// The devpts mount's slot, where the plan mounts one.
        devpts: Option<Slot>,
        /// Its size.
        size: Option<ConsoleSize>,
        /// Whether it is also put on /dev/console.
        console: bool,
        /// The user that it belongs to.
        owner: u32,
    },
    /// Make the attached root the root of the mount namespace.
    PivotRoot,
    /// Make the attached root the root by chroot.
    Chroot,
    /// Set the host name.
    SetHostname {
        /// The name.
        name: String,
    },
    /// Set the NIS domain name.
    SetDomainname {
        /// The name.
        name: String,
    },
    /// Write a kernel parameter.
    WriteSysctl {
        /// Its path below /proc/sys.
        path: String,
        /// What.
        value: String,
    },
    /// Hide a path, if it is there.
    Mask {
        /// Where the path begins.
        base: Base,
        /// The path.
        path: PathBuf,
    },
    /// Make a path read-only with all below, if it is there.
    Protect {
        /// Where the path begins.
        base: Base,
        /// The path.
        path: PathBuf,
    },
    /// Set a resource limit.
    SetRlimit {
        /// Which, and what.
        limit: Rlimit,
    },
    /// Set the scheduling policy.
    SetScheduler {
        /// The policy.
        scheduler: oci::Scheduler,
    },
    /// Set the I/O priority.
    SetIoPriority {
        /// The priority.
        priority: oci::LinuxIOPriority,
    },
    /// Bind to CPUs.
    SetAffinity {
        /// A list such as `0-3,7`.
        cpus: String,
    },
    /// Set the NUMA memory policy.
    SetMemoryPolicy {
        /// The policy.
        policy: oci::LinuxMemoryPolicy,
    },
    /// Set the execution domain.
    SetPersonality {
        /// The domain and its flags.
        personality: oci::LinuxPersonality,
    },
    /// Never gain privileges by exec.
    SetNoNewPrivileges,
    /// Exec under an AppArmor profile.
    SetApparmorProfile {
        /// The profile.
        profile: String,
    },
    /// Exec under an SELinux label.
    SetSelinuxLabel {
        /// The label.
        label: String,
    },
    /// Check that the program is there and can be run.
    FindProgram {
        /// Its name or path.
        program: String,
    },
    /// Load the system call filter.
    LoadFilter {
        /// What.
        filter: Filter,
    },
    /// Limit the bounding set.
    LimitBounding {
        /// What is kept, as bits.
        keep: u64,
    },
    /// Take the user's ids and umask, keeping capabilities.
    SetUser {
        /// Who.
        user: User,
        /// Whether supplementary groups may be set.
        groups: Groups,
    },
    /// Give the standard streams to the user, so that they can be opened by name too; devices belong to others.
    OwnStreams {
        /// Who.
        uid: u32,
    },
    /// Enter the working folder.
    ChangeDirectory {
        /// Where.
        path: PathBuf,
        /// What to do where it is not there.
        missing: Missing,
    },
    /// Take the final capabilities.
    SetCapabilities {
        /// All five sets.
        capabilities: Capabilities,
    },
}

/// What to do about a folder that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make it.
    Make,
    /// Fail.
    Fail,
}

/// Whether setgroups(2) may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// It may.
    Set,
    /// The user namespace denies it: an ordinary user mapped its own group alone.
    Denied,
}

/// Who writes id maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMapper {
    /// The runtime itself.
    Runtime,
    /// The runtime, for its own id only, with setgroups denied.
    OwnId,
    /// newuidmap(1) and newgidmap(1).
    Programs {
        /// The path of newuidmap.
        newuidmap: PathBuf,
        /// The path of newgidmap.
        newgidmap: PathBuf,
    },
}

/// The value of a unit's property, in the types of systemd's D-Bus interface (org.freedesktop.systemd1(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    /// `s`.
    Text(String),
    /// `b`.
    Flag(bool),
    /// `t`; the greatest means no limit.
    Number(u64),
    /// `ay`: a set of small numbers, the bit of 0 first.
    Set(Vec<u8>),
}

/// What takes a step back. It is recorded with the container, for `delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undo {
    /// Kill what is in the group and remove its folder.
    RemoveGroup {
        /// The hierarchy's mount point.
        hierarchy: PathBuf,
        /// The folder.
        dir: PathBuf,
    },
    /// Kill what is in the scope and stop it.
    StopScope {
        /// The unit.
        unit: String,
        /// Its group's folder.
        dir: PathBuf,
    },
    /// Unmount the folder with all that is mounted below it, and remove it.
    Unmount {
        /// The folder.
        dir: PathBuf,
    },
    /// Remove the resctrl group.
    RemoveResctrlGroup {
        /// The folder.
        dir: PathBuf,
    },
}

impl Step {
    /// What takes this step back, if it leaves anything on the host that does not go with the container's processes.
    pub fn undo(&self) -> Option<Undo> {
        match self {
            Step::MakeGroup { hierarchy, dir, .. } => {
                Some(Undo::RemoveGroup { hierarchy: hierarchy.clone(), dir: dir.clone() })
            }
            Step::StartScope { unit, dir, .. } => {
                Some(Undo::StopScope { unit: unit.clone(), dir: dir.clone() })
            }
            Step::AttachRootAt { dir, .. } => Some(Undo::Unmount { dir: dir.clone() }),
            Step::MakeResctrlGroup { dir, own: true, .. } => {
                Some(Undo::RemoveResctrlGroup { dir: dir.clone() })
            }
            _ => None,
        }
    }
}
