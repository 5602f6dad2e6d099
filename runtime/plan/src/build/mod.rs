//! Decides: a spec and facts in, a plan out. Pure.

mod birth;
mod check;
mod devices;
mod exec;
mod groups;
mod mounts;
mod process;
mod scope;
mod update;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use exec::{ExecRequest, build_exec};
pub use groups::{Driver, Group, Groups, resource_steps};
pub use update::{Update, build_update};

use serde::{Deserialize, Serialize};

use crate::cgroup::Refusal;
use crate::facts::Facts;
use crate::spec::{Hooks, Namespace, NamespaceKind, Propagation, Spec, Terminal};
use crate::step::{IdMapper, MountChange, Slot, Step};

/// What the caller asked for beside the spec.
#[derive(Debug, Clone)]
pub struct Request {
    /// The container's id.
    pub id: String,
    /// The bundle, absolute and without links.
    pub bundle: PathBuf,
    /// The root folder, absolute and without links.
    pub rootfs: PathBuf,
    /// Where the root is mounted when the container has no mount namespace: a folder that nobody else uses.
    pub mount_point: PathBuf,
    /// Whether the container's process gets a session keyring of its own.
    pub keyring: Keyring,
    /// How the root is switched.
    pub root_switch: RootSwitch,
    /// Who makes the control group.
    pub driver: Driver,
    /// A mount namespace with few mounts, as croft_engine::base makes it, for the container's process to be born in: its file.
    pub mount_base: Option<PathBuf>,
}

/// Whether a session keyring is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keyring {
    /// One of its own.
    New,
    /// The caller's (`--no-new-keyring`).
    Inherited,
}

/// How the container gets its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootSwitch {
    /// pivot_root(2).
    Pivot,
    /// chroot(2) (`--no-pivot`): for a host that runs from an initial ramfs.
    Chroot,
}

/// How the container's process comes to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spawn {
    /// The cgroup2 group that it is born in.
    pub group: Option<PathBuf>,
    /// Namespaces that the runtime joins for the moment of the clone.
    pub around: Vec<(Slot, NamespaceKind)>,
    /// Namespaces that a short-lived process between joins first, since the runtime could not come back from them.
    pub between: Vec<(Slot, NamespaceKind)>,
    /// Namespaces that are new.
    pub new: Vec<NamespaceKind>,
}

/// What runs at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// Whose home folder is looked up where the environment has none.
    pub uid: u32,
}

/// Everything that will be done.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// By the runtime, before the clone.
    pub host: Vec<Step>,
    /// The clone.
    pub spawn: Spawn,
    /// By the runtime, once the container's process waits.
    pub parent: Vec<Step>,
    /// By the container's process: namespaces and mounts.
    pub mounts: Vec<Step>,
    /// By the container's process, after the runtime's hooks: the root and all else that can fail.
    pub root: Vec<Step>,
    /// By the runtime, before the container's process gives up its rights.
    pub limits: Vec<Step>,
    /// By the container's process: who it is and what it may do.
    pub process: Vec<Step>,
    /// Its program.
    pub exec: Exec,
    /// Hooks, by point.
    pub hooks: Hooks,
    /// Its control groups.
    pub groups: Groups,
    /// Whether a new user namespace waits for its maps.
    pub maps: bool,
    /// Whether the container's process sends a terminal's master.
    pub terminal: bool,
    /// The system call filter's listener: where its descriptor goes, and what is sent with it.
    pub listener: Option<(PathBuf, String)>,
    /// What was ignored, in words for the user.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether the runtime has something to do before the container's process gives up its rights: then that says so and waits.
    pub fn waits_with_its_rights(&self) -> bool {
        self.terminal || !self.limits.is_empty()
    }
}

/// A plan that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A limit that this host cannot give.
    #[error(transparent)]
    Resource(#[from] Refusal),
    /// Anything else that this host or the spec itself rules out.
    #[error("{property}: {why}")]
    Refused {
        /// The property of the configuration.
        property: String,
        /// Why not, and what to do.
        why: String,
    },
}

impl PlanError {
    pub(crate) fn refused(property: impl Into<String>, why: impl Into<String>) -> Self {
        PlanError::Refused { property: property.into(), why: why.into() }
    }
}

/// Collects steps and hands out slots.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) facts: &'a Facts,
    pub(crate) request: &'a Request,
    pub(crate) plan: Plan,
    /// Slots of new file systems that hold masked paths, by where they are mounted.
    pub(crate) kernel_mounts: BTreeMap<PathBuf, Slot>,
    /// The slot of the devpts that is mounted on /dev/pts.
    pub(crate) devpts: Option<Slot>,
    /// Clones of the host's mounts; who makes them is decided last.
    pub(crate) trees: Vec<Step>,
    next: u16,
}

impl Builder<'_> {
    pub(crate) fn slot(&mut self) -> Slot {
        self.next += 1;
        Slot(self.next)
    }

    /// How a mount of the host passes events on to the container before its own options: as a slave, so that the
    /// container takes part in what the host mounts and the host sees nothing of the container.
    pub(crate) fn base_propagation(&self) -> Propagation {
        match self.spec.linux.rootfs_propagation {
            None => Propagation::Slave,
            // What is unbindable cannot be attached below something shared; the root becomes so at the end.
            Some((Propagation::Unbindable, _)) => Propagation::Private,
            Some((propagation, _)) => propagation,
        }
    }
}

/// Makes the plan for `create`.
///
/// # Errors
/// When this host cannot do what the spec asks, or the spec contradicts itself.
pub fn build(spec: &Spec, facts: &Facts, request: &Request) -> Result<Plan, PlanError> {
    check::check(spec, facts)?;
    let mut warnings = spec.warnings.clone();
    if spec.linux.mount_label.is_some() && !facts.lsm.selinux {
        warnings.push("ignored linux.mountLabel: SELinux is not enabled on this host".to_owned());
    }
    let plan = Plan { warnings, hooks: spec.hooks.clone(), ..Plan::default() };
    let mut b = Builder {
        spec,
        facts,
        request,
        plan,
        kernel_mounts: BTreeMap::new(),
        devpts: None,
        trees: Vec::new(),
        next: 0,
    };
    groups::add(&mut b)?;
    groups::add_resctrl(&mut b);
    namespaces(&mut b);
    birth::add(&mut b);
    id_maps(&mut b)?;
    b.plan.mounts.extend(keyring(spec, request));
    mounts::add(&mut b)?;
    devices::add(&mut b);
    place_trees(&mut b);
    b.plan.terminal = spec.process.terminal != Terminal::None;
    mounts::add_root_switch(&mut b);
    names_and_sysctls(&mut b);
    mounts::add_masks(&mut b);
    process::add(&mut b);
    Ok(b.plan)
}

fn namespaces(b: &mut Builder<'_>) {
    let linux = &b.spec.linux;
    let path_of = |(kind, namespace): (&NamespaceKind, &Namespace)| match namespace {
        Namespace::Path(path) => Some((*kind, path.clone())),
        Namespace::New => None,
    };
    let joined: Vec<_> = linux.namespaces.iter().filter_map(path_of).collect();
    // The runtime can come back from the others. An ordinary user could not even go there.
    let apart = |kind: &NamespaceKind| matches!(kind, NamespaceKind::User | NamespaceKind::Mount);
    let between = b.facts.is_rootless() || joined.iter().any(|(kind, _)| apart(kind));
    for (kind, path) in joined {
        let slot = b.slot();
        b.plan.host.push(Step::OpenNamespace { slot, kind, path });
        let list = if between { &mut b.plan.spawn.between } else { &mut b.plan.spawn.around };
        list.push((slot, kind));
    }
    if linux.has_new(NamespaceKind::Time) {
        let offsets = linux.time_offsets.iter().map(|(c, o)| (c.clone(), *o)).collect();
        b.plan.mounts.push(Step::NewTimeNamespace { offsets });
    }
    if linux.has_user_namespace() {
        b.plan.mounts.push(Step::BecomeRoot);
    }
    let joins: Vec<Step> =
        b.plan.groups.v1.iter().filter_map(|g| g.slot).map(|slot| Step::JoinGroup { slot }).collect();
    b.plan.mounts.extend(joins);
    let (born, left): (Vec<_>, Vec<_>) = NamespaceKind::ALL
        .into_iter()
        .filter(|kind| linux.has_new(*kind) && *kind != NamespaceKind::Time)
        .partition(|kind| is_born_in(*kind, linux));
    b.plan.spawn.new = born;
    if !left.is_empty() {
        b.plan.mounts.push(Step::Unshare { kinds: left });
    }
    if linux.has_new(NamespaceKind::Network) {
        b.plan.mounts.push(Step::LoopbackUp);
    }
    for (name, inside) in &linux.net_devices {
        b.plan.parent.push(Step::MoveNetDevice { name: name.clone(), inside: inside.clone() });
    }
    if let Some(value) = b.spec.process.oom_score_adj {
        b.plan.parent.push(Step::SetOomScoreAdj { value });
    }
}

/// Whether the container's process is born in its new namespace of this kind, rather than leaving into it.
fn is_born_in(kind: NamespaceKind, linux: &crate::spec::Linux) -> bool {
    match kind {
        NamespaceKind::User | NamespaceKind::Pid => true,
        // Its root is where the process is at that moment, so the process is in all its groups first.
        NamespaceKind::Cgroup => false,
        // The runtime moves devices into it while the process waits for its maps.
        NamespaceKind::Network if !linux.net_devices.is_empty() => true,
        // What the kernel makes along with them, such as the root of the message queues, belongs to whom the process is then:
        // it is to be root of its user namespace first.
        _ => !linux.has_user_namespace(),
    }
}

/// Who clones the host's mounts. The runtime does, before anything of the container is there, also from folders that the
/// container's root cannot enter. An ordinary user may not, but its process in a user namespace of its own may, in the copy of
/// the mounts that it has.
fn place_trees(b: &mut Builder<'_>) {
    let trees = std::mem::take(&mut b.trees);
    if !b.facts.is_rootless() {
        return b.plan.host.extend(trees);
    }
    let attach = |step: &Step| matches!(step, Step::AttachRoot { .. });
    let at = b.plan.mounts.iter().position(attach).unwrap_or(b.plan.mounts.len());
    b.plan.mounts.splice(at..at, trees);
}

fn id_maps(b: &mut Builder<'_>) -> Result<(), PlanError> {
    let linux = &b.spec.linux;
    if !linux.has_new_user_namespace() {
        return Ok(());
    }
    let (uids, gids) = (linux.uid_mappings.clone(), linux.gid_mappings.clone());
    let own = |list: &[crate::spec::IdMapping], id: u32| matches!(list, [m] if m.host == id && m.size == 1);
    let by = if !b.facts.is_rootless() {
        IdMapper::Runtime
    } else if own(&uids, b.facts.euid) && own(&gids, b.facts.egid) {
        IdMapper::OwnId
    } else if let Some((newuidmap, newgidmap)) = b.facts.id_map_programs.clone() {
        IdMapper::Programs { newuidmap, newgidmap }
    } else {
        let why = "needs newuidmap and newgidmap, which are not installed (package uidmap)";
        return Err(PlanError::refused("linux.uidMappings", why));
    };
    b.plan.maps = true;
    b.plan.parent.insert(0, Step::WriteIdMaps { uids, gids, by });
    Ok(())
}

fn keyring(spec: &Spec, request: &Request) -> Option<Step> {
    (request.keyring == Keyring::New).then(|| Step::NewKeyring {
        name: format!("_ses.{}", request.id),
        label: spec.process.selinux_label.clone(),
    })
}

fn names_and_sysctls(b: &mut Builder<'_>) {
    let root = &mut b.plan.root;
    root.extend(b.spec.hostname.clone().map(|name| Step::SetHostname { name }));
    root.extend(b.spec.domainname.clone().map(|name| Step::SetDomainname { name }));
    for (key, value) in &b.spec.linux.sysctl {
        root.push(Step::WriteSysctl { path: check::sysctl_path(key), value: value.clone() });
    }
}

/// The change that makes a mount pass events on as `propagation` says, and nothing else.
pub(crate) fn propagate(propagation: Propagation) -> MountChange {
    MountChange { propagation: vec![(propagation, crate::step::Depth::Recursive)], ..Default::default() }
}

impl std::fmt::Display for Plan {
    /// One line a step, under a heading for who performs it and when.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut part = |title: &str, steps: &[Step]| -> std::fmt::Result {
            if steps.is_empty() {
                return Ok(());
            }
            writeln!(f, "{title}:")?;
            for step in steps {
                writeln!(f, "  {step}")?;
                if let Some(undo) = step.undo() {
                    writeln!(f, "    undo: {undo}")?;
                }
            }
            Ok(())
        };
        part("host", &self.host)?;
        part("parent", &self.parent)?;
        part("init, mounts", &self.mounts)?;
        part("init, root", &self.root)?;
        part("parent, limits", &self.limits)?;
        part("init, process", &self.process)?;
        let names = |list: &[NamespaceKind]| list.iter().map(|k| k.name()).collect::<Vec<_>>().join(" ");
        write!(f, "spawn: new {}", names(&self.spawn.new))?;
        for (word, list) in [("around", &self.spawn.around), ("between", &self.spawn.between)] {
            for (slot, kind) in list {
                write!(f, ", {word} {} {slot}", kind.name())?;
            }
        }
        if let Some(group) = &self.spawn.group {
            write!(f, ", into {}", group.display())?;
        }
        writeln!(f, "\nexec: {:?}", self.exec.args)?;
        self.warnings.iter().try_for_each(|w| writeln!(f, "warning: {w}"))
    }
}
