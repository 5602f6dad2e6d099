//! Acts: one match, each step one call. Nothing is chosen here.

mod groups;
mod ids;
mod mounts;
mod nodes;
mod process;
mod terminal;

use croft_plan::handshake::Failure;
use croft_plan::step::Step;

use crate::error::Reason;
use crate::undo::UndoStack;
use crate::world::World;

pub use groups::{empty_group, refuse_in_use, remove_group};
pub use process::home_of;

/// Why a step failed.
#[derive(Debug)]
pub struct Cause {
    /// In words.
    pub reason: String,
    /// The kernel's error number, where it was the kernel that refused.
    pub errno: Option<i32>,
}

impl From<croft_sys::Error> for Cause {
    fn from(e: croft_sys::Error) -> Self {
        Cause { reason: e.to_string(), errno: Some(e.errno().raw_os_error()) }
    }
}

impl From<croft_sys::mount::FilesystemError> for Cause {
    fn from(e: croft_sys::mount::FilesystemError) -> Self {
        Cause { reason: e.to_string(), errno: Some(e.error.errno().raw_os_error()) }
    }
}

impl From<std::io::Error> for Cause {
    fn from(e: std::io::Error) -> Self {
        Cause { errno: e.raw_os_error(), reason: Reason::from(e).to_string() }
    }
}

impl Cause {
    /// A reason that is not the kernel's.
    pub fn because(reason: impl Into<String>) -> Self {
        Cause { reason: reason.into(), errno: None }
    }
}

/// The outcome of one step.
pub type Outcome = Result<(), Cause>;

/// Performs the steps in order; the first that fails ends it.
pub fn apply(steps: &[Step], world: &mut World) -> Result<(), Failure> {
    steps.iter().try_for_each(|step| one(step, world))
}

/// Performs the steps in order and stacks what undoes them.
pub fn apply_undoably(steps: &[Step], world: &mut World, undo: &mut UndoStack) -> Result<(), Failure> {
    for step in steps {
        let outcome = one(step, world);
        // A step that fails half way may have left something too. But a group that could not be made cleans up after
        // itself: it may be somebody else's, and its undo would kill what is in it.
        if outcome.is_ok() || !matches!(step, Step::MakeGroup { .. }) {
            undo.extend(step.undo());
        }
        outcome?;
    }
    Ok(())
}

fn one(step: &Step, world: &mut World) -> Result<(), Failure> {
    crate::fault::point(step).and_then(|()| perform(step, world)).map_err(|cause| Failure {
        step: step.to_string(),
        reason: cause.reason,
        errno: cause.errno,
    })
}

fn perform(step: &Step, world: &mut World) -> Outcome {
    match step {
        Step::MakeGroup { hierarchy, dir, fill } => groups::make(hierarchy, dir, fill),
        Step::EnableControllers { hierarchy, dir, controllers, required } => {
            groups::enable(hierarchy, dir, controllers, required)
        }
        Step::WriteGroup { dir, write } => groups::write(dir, write),
        Step::MoveProcesses { from, to } => groups::move_processes(from, to),
        Step::FilterDevices { dir, program } => groups::filter_devices(dir, program),
        Step::OpenGroup { slot, dir } => groups::open(world, *slot, dir),
        Step::JoinGroup { slot } => Ok(croft_sys::cgroup::join_v1(world.fd(*slot)?)?),
        Step::StartScope { unit, properties, .. } => crate::systemd::start_scope(world, unit, properties),
        Step::ChangeScope { unit, properties } => crate::systemd::change_scope(unit, properties),
        Step::MakeResctrlGroup { dir, schemata, .. } => groups::make_resctrl(dir, schemata),
        Step::JoinResctrlGroup { dir } => groups::join_resctrl(world, dir),
        Step::OpenNamespace { slot, kind, path } => ids::open_namespace(world, *slot, *kind, path),
        Step::Join { slot, kind } => Ok(croft_sys::ns::setns(world.fd(*slot)?, kind.flag())?),
        Step::Unshare { kinds } => {
            Ok(croft_sys::ns::unshare(kinds.iter().fold(0, |flags, kind| flags | kind.flag()))?)
        }
        Step::NewTimeNamespace { offsets } => ids::new_time_namespace(world, offsets),
        Step::WriteIdMaps { uids, gids, by } => ids::write_maps(world, uids, gids, by),
        Step::SetOomScoreAdj { value } => process::set_oom_score_adj(world, *value),
        Step::NewIdmap { slot, uids, gids } => ids::new_idmap(world, *slot, uids, gids),
        Step::OpenTree { slot, path, depth, change, idmap } => {
            mounts::open_tree(world, *slot, path, *depth, mounts::Changed { change, idmap: *idmap })
        }
        Step::MoveNetDevice { name, inside } => process::move_net_device(world, name, inside),
        Step::BecomeRoot => ids::become_root(),
        Step::NewKeyring { name, label } => process::new_keyring(world, name, label.as_deref()),
        Step::LoopbackUp => process::loopback_up(),
        Step::PropagateAll { propagation } => {
            Ok(croft_sys::mount::set_propagation_of_all(mounts::propagation_flag(*propagation))?)
        }
        Step::AttachRoot { slot } => mounts::attach_root(world, *slot),
        Step::AttachRootAt { slot, dir } => mounts::attach_root_at(world, *slot, dir),
        Step::Mount { slot, fstype, source, parameters, target, kind, change, copy_up } => {
            let new = mounts::New { fstype, source, parameters, change, copy_up: *copy_up };
            mounts::mount(world, *slot, new, target, *kind)
        }
        Step::Attach { slot, target } => mounts::attach(world, *slot, target),
        Step::ChangeMount { target, change } => mounts::change_mount(world, target, change),
        Step::MakeNode { device } => nodes::node(world, device),
        Step::MakeLink { to, path } => nodes::link(world, to, path),
        Step::NewTerminal { devpts, size, console, owner } => {
            terminal::open(world, *devpts, *size, *console, *owner)
        }
        Step::PivotRoot => mounts::pivot(world),
        Step::Chroot => mounts::chroot(world),
        Step::SetHostname { name } => process::set_hostname(name),
        Step::SetDomainname { name } => process::set_domainname(name),
        Step::WriteSysctl { path, value } => process::write_sysctl(world, path, value),
        Step::Mask { base, path } => mounts::mask(world, *base, path),
        Step::Protect { base, path } => mounts::protect(world, *base, path),
        Step::SetRlimit { limit } => process::set_rlimit(world, limit),
        Step::SetScheduler { scheduler } => process::set_scheduler(scheduler),
        Step::SetIoPriority { priority } => process::set_io_priority(priority),
        Step::SetAffinity { cpus } => process::set_affinity(cpus),
        Step::SetMemoryPolicy { policy } => process::set_memory_policy(policy),
        Step::SetPersonality { personality } => process::set_personality(personality),
        Step::SetNoNewPrivileges => Ok(croft_sys::prctl::set_no_new_privs()?),
        Step::SetApparmorProfile { profile } => process::set_apparmor_profile(world, profile),
        Step::SetSelinuxLabel { label } => process::set_selinux_label(world, label),
        Step::FindProgram { program } => process::find_program(world, program),
        Step::LoadFilter { filter } => process::load_filter(world, filter),
        Step::LimitBounding { keep } => process::limit_bounding(*keep),
        Step::SetUser { user, groups } => process::set_user(user, *groups),
        Step::OwnStreams { uid } => process::own_streams(*uid),
        Step::ChangeDirectory { path, missing } => process::change_directory(world, path, *missing),
        Step::SetCapabilities { capabilities } => process::set_capabilities(capabilities),
    }
}
