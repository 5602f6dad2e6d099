//! `exec`: a further process in a container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use croft_plan::build::{ExecRequest, Plan, build_exec};
use croft_plan::facts::Facts;
use croft_plan::lifecycle::{Status, Verb};
use croft_plan::spec::{NamespaceKind, Process, Spec, Terminal, parse_capability, parse_process};
use croft_plan::step::{Filter, Groups, Slot};
use croft_sys::clone::Child;
use croft_sys::{cgroup, prctl, wait};

use crate::apply::apply;
use crate::error::{Context, Error, Result};
use crate::handover::{Attach, HandOver, check_console, check_preserved, write_pid_file};
use crate::report::OciState;
use crate::spawn::{Birth, KillOnDrop, spawn};
use crate::state::{Container, StateRoot};
use crate::world::World;

/// What `exec` is asked.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// The container.
    pub id: String,
    /// What to run.
    pub process: Wanted,
    /// Whether the caller waits for its end.
    pub attach: Attach,
    /// Where its terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// Where a pidfd of it is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Where its pid is written.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after standard error it inherits.
    pub preserve_fds: u32,
    /// Groups below the container's own to run in: `PATH`, or `CONTROLLER[,CONTROLLER]:PATH`.
    pub groups: Vec<String>,
    /// What to do about a paused container.
    pub paused: Paused,
}

/// What to run.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// What this file says, in the form of `process` in config.json, with a terminal in any case or as it says.
    File(PathBuf, Tty),
    /// The container's own process with changes.
    Like(Box<Changes>),
}

/// Whether a terminal is asked for on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tty {
    /// It is.
    Asked,
    /// It is not.
    NotAsked,
}

/// What differs from the container's own process.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Whether it has a terminal.
    pub tty: Tty,
    /// The working folder.
    pub cwd: Option<PathBuf>,
    /// Variables beside the container's.
    pub env: Vec<String>,
    /// User id, and group id where given.
    pub user: Option<(u32, Option<u32>)>,
    /// Supplementary groups beside the container's.
    pub additional_gids: Vec<u32>,
    /// Capabilities beside the container's, as bits.
    pub capabilities: u64,
    /// Whether it may never gain privileges although the container's process may.
    pub no_new_privileges: bool,
    /// The AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// The SELinux label.
    pub selinux_label: Option<String>,
}

/// What to do about a paused container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// Refuse: the new process would be frozen at birth.
    Refuse,
    /// Go on; the new process waits for `resume` (`--ignore-paused`).
    Allow,
}

/// A further process.
#[derive(Debug)]
pub struct Executed {
    /// The process.
    pub child: Child,
    /// Its terminal's master, when that was not sent to a console socket.
    pub terminal: Option<OwnedFd>,
    /// What was ignored.
    pub warnings: Vec<String>,
}

/// Runs a further process in a container. It runs its program when this returns.
///
/// # Errors
/// When the container's state does not allow it, or the process cannot be made; then there is none.
pub fn exec(root: &StateRoot, options: &ExecOptions) -> Result<Executed> {
    check_preserved(options.preserve_fds)?;
    let mut world = World::new().on(|| "open /proc".into())?;
    let verb = if options.paused == Paused::Allow { Verb::ExecIgnoringPause } else { Verb::Exec };
    // Locked until the process runs: a delete waits, and finds it in the container's groups.
    let mut container = root.open_for(&options.id, verb, &world.proc)?;
    if container.status == Status::Paused {
        // It runs only after a resume, which needs the lock. A delete meanwhile kills it with the group, or removes the group
        // before it is born there.
        container.dir.unlock();
    }
    let spec = Spec::parse(&container.dir.config()?)?;
    if !spec.linux.namespaces.contains_key(&NamespaceKind::Mount) {
        let why = "the container has no mount namespace, and its root is that of its own process alone";
        return Err(Error::refused("exec", why));
    }
    let (mut wanted, mut warnings) = wanted(options, &spec)?;
    check_console(options.attach, wanted.terminal, options.console_socket.as_deref())?;
    if let (Terminal::New(_), Attach::Foreground) = (wanted.terminal, options.attach) {
        let size = crate::foreground::HostTerminal::find()?.size();
        wanted.terminal = Terminal::New(size.or(match wanted.terminal {
            Terminal::New(size) => size,
            Terminal::None => None,
        }));
    }
    let facts = crate::facts::gather(&world.proc)?;
    let plan = plan(options, &container, &spec, &wanted, &facts, &mut world)?;
    warnings.extend(plan.warnings.clone());
    let filter = crate::filter::prepare(&plan.process, &mut world);
    warnings.extend(filter.map_err(|cause| Error::refused("linux.seccomp", cause.reason))?);
    let (child, terminal) = run(options, &container, &spec, &plan, &mut world)?;
    Ok(Executed { child, terminal, warnings })
}

/// The process that is asked for.
fn wanted(options: &ExecOptions, spec: &Spec) -> Result<(Process, Vec<String>)> {
    match &options.process {
        Wanted::File(path, tty) => {
            let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
            let (mut process, warnings) = parse_process(&bytes, &spec.process)?;
            if *tty == Tty::Asked && process.terminal == Terminal::None {
                process.terminal = Terminal::New(None);
            }
            Ok((process, warnings))
        }
        Wanted::Like(changes) => Ok((changed(&spec.process, changes)?, Vec::new())),
    }
}

fn changed(own: &Process, changes: &Changes) -> Result<Process> {
    if changes.args.is_empty() {
        return Err(Error::refused("COMMAND", "process args cannot be empty"));
    }
    let mut process = own.clone();
    process.args = changes.args.clone();
    process.env.extend(changes.env.iter().cloned());
    process.terminal = if changes.tty == Tty::Asked { Terminal::New(None) } else { Terminal::None };
    if let Some(cwd) = &changes.cwd {
        if !cwd.is_absolute() {
            return Err(Error::refused("--cwd", "must be an absolute path"));
        }
        process.cwd = cwd.clone();
    }
    if let Some((uid, gid)) = changes.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    process.user.additional_gids.extend(&changes.additional_gids);
    let (sets, more) = (&mut process.capabilities, changes.capabilities);
    sets.bounding |= more;
    sets.effective |= more;
    sets.permitted |= more;
    if sets.inheritable != 0 {
        // The ambient set takes only what is inheritable too; the plan keeps to that.
        sets.ambient |= more;
    }
    process.no_new_privileges |= changes.no_new_privileges;
    process.apparmor_profile = changes.apparmor_profile.clone().or(process.apparmor_profile);
    process.selinux_label = changes.selinux_label.clone().or(process.selinux_label);
    Ok(process)
}

/// The capabilities of these names as bits, and the names that are none.
pub fn capability_bits(names: &[String]) -> (u64, Vec<String>) {
    let mut unknown = Vec::new();
    let bits = names.iter().fold(0, |bits, name| match parse_capability(name) {
        Some(number) => bits | 1 << number,
        None => {
            unknown.push(name.clone());
            bits
        }
    });
    (bits, unknown)
}

fn plan(
    options: &ExecOptions,
    container: &Container,
    spec: &Spec,
    wanted: &Process,
    facts: &Facts,
    world: &mut World,
) -> Result<Plan> {
    let not_running = || Error::WrongState {
        id: options.id.clone(),
        status: Status::Stopped,
        why: "container not running",
    };
    let pid = container.record.process.ok_or_else(not_running)?.pid;
    let namespaces = open_namespaces(pid, world)?;
    let denied = world.proc.read(&format!("{pid}/setgroups")).is_ok_and(|text| text.trim() == "deny");
    let (group, v1) = groups(options, container, pid, world)?;
    // What was read by the pid is the container's if its process still lives: a pid is not used again before that.
    let alive = container.pidfd.as_ref().map(|fd| wait::is_alive(fd.as_fd()));
    if !alive.transpose().on(|| "look at the container's process".into())?.unwrap_or(false) {
        return Err(not_running());
    }
    let profile = spec.linux.seccomp.clone();
    let request = ExecRequest {
        id: options.id.clone(),
        namespaces,
        group,
        v1,
        filter: profile.map(|profile| Filter { profile: Box::new(profile) }),
        keyring: container.record.keyring,
        supplementary: if denied { Groups::Denied } else { Groups::Set },
    };
    Ok(build_exec(wanted, facts, &request)?)
}

/// Opens the namespaces of process `pid` that are not the caller's own.
fn open_namespaces(pid: i32, world: &mut World) -> Result<Vec<(Slot, NamespaceKind)>> {
    let mut opened = Vec::new();
    for (slot, kind) in (1..).map(Slot).zip(NamespaceKind::ALL) {
        let open = |pid: &str| match world.proc.open_namespace(pid, kind.file()) {
            // A kernel without this kind.
            Err(e) if e.errno() == croft_sys::Errno::NOENT => Ok(None),
            other => other.map(Some).on(|| format!("open the {} namespace of {pid}", kind.name())),
        };
        let inode = |fd: &OwnedFd| {
            croft_sys::fs::fstat(fd)
                .map(|s| (s.st_dev, s.st_ino))
                .map_err(|e| Error::file("look at the namespace", std::path::Path::new(kind.file()), e))
        };
        let Some(own) = open("self")? else { continue };
        let Some(its) = open(&pid.to_string())? else {
            return Err(Error::refused("exec", "container not running"));
        };
        if inode(&own)? != inode(&its)? {
            world.keep(slot, its);
            opened.push((slot, kind));
        }
    }
    Ok(opened)
}

/// The cgroup2 group and the v1 groups for the new process.
fn groups(
    options: &ExecOptions,
    container: &Container,
    pid: i32,
    world: &World,
) -> Result<(Option<PathBuf>, Vec<PathBuf>)> {
    let own = &container.record.groups;
    let asked = crate::subgroup::Subgroups::parse(&options.groups)?;
    let mut v1 = Vec::new();
    for group in &own.v1 {
        v1.push(asked.below(&group.dir, &group.controllers)?);
    }
    asked.check_known(own)?;
    let Some(group) = &own.v2 else { return Ok((None, v1)) };
    let dir = asked.below(&group.dir, &[])?;
    if dir != group.dir {
        return Ok((Some(dir), v1));
    }
    // A container that has made groups of its own allows no process beside them (cgroup v2's rule of no internal
    // processes): then the new one goes where the container's first process is.
    let divided = cgroup::open(&dir).and_then(|fd| cgroup::read(fd.as_fd(), "cgroup.subtree_control"));
    if divided.is_ok_and(|text| !text.trim().is_empty()) {
        let text = world.proc.read(&format!("{pid}/cgroup")).on(|| "read the container's group".into())?;
        let place = text.lines().find_map(|line| line.strip_prefix("0::/"));
        if let Some(place) = place {
            return Ok((Some(group.hierarchy.join(place)), v1));
        }
    }
    Ok((Some(dir), v1))
}

fn run(
    options: &ExecOptions,
    container: &Container,
    spec: &Spec,
    plan: &Plan,
    world: &mut World,
) -> Result<(Child, Option<OwnedFd>)> {
    let to = HandOver::connect(options.console_socket.as_deref(), options.pidfd_socket.as_deref())?;
    if !crate::is_root() {
        // As spawn does for root: no process of the container may look into the new one, which holds descriptors of the
        // host, until it is the program (CVE-2016-9962). An ordinary user's runtime writes no map here.
        prctl::set_dumpable(prctl::Dumpable::No).on(|| "hide the process from ptrace".into())?;
    }
    apply(&plan.host, world).map_err(Error::Step)?;
    let state = |pid, status| OciState::of(&container.record, spec, pid, status).to_json();
    let birth = Birth { gate: None, state: Vec::new(), preserve: options.preserve_fds };
    let guard = KillOnDrop::new(spawn(plan, world, birth)?);
    guard.get().begin(plan, world)?;
    let received = guard.get().shake_hands(plan, world, &state)?;
    let pid = guard.get().child.pid;
    to.send(plan, guard.get().child.pidfd.as_fd(), &received, &state(pid, Status::Running))?;
    if let Some(file) = &options.pid_file {
        write_pid_file(file, pid)?;
    }
    let terminal = if options.console_socket.is_some() { None } else { received.terminal };
    Ok((guard.keep().child, terminal))
}
