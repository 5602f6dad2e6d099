//! `create`: from a bundle to a process that waits at its gate.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use crate::handover::Attach;
pub use croft_plan::build::{Driver, Keyring, RootSwitch};
use croft_plan::build::{Plan, Request, build};
use croft_plan::handshake::Failure;
use croft_plan::lifecycle::Status;
use croft_plan::spec::{Spec, SpecError};
use croft_sys::clone::Child;
use croft_sys::wait;

use crate::apply::{apply_undoably, refuse_in_use};
use crate::error::{Context, Error, Result};
use crate::gate::{self, Opener};
use crate::handover::{HandOver, check_console, check_preserved, write_pid_file};
use crate::report::OciState;
use crate::spawn::{Birth, KillOnDrop, spawn};
use crate::state::{FORMAT, ProcessRecord, Record, StateDir, StateRoot};
use crate::undo::UndoStack;
use crate::world::World;

/// What `create` and `run` are asked.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// The new container's id.
    pub id: String,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Where the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// Where a pidfd of the container's process is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Where its pid is written.
    pub pid_file: Option<PathBuf>,
    /// How the root is switched.
    pub root_switch: RootSwitch,
    /// Whether it gets a session keyring.
    pub keyring: Keyring,
    /// How many descriptors after standard error it inherits.
    pub preserve_fds: u32,
    /// Who makes its group.
    pub driver: Driver,
    /// Who opens the gate.
    pub starter: Starter,
    /// Whether the caller stays.
    pub attach: Attach,
    /// The file of a mount namespace for its process to be born in, of [`crate::base::make`].
    pub mount_base: Option<PathBuf>,
}

/// Who lets the container's process go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// A later `start`.
    Another,
    /// The caller of [`create`] itself, at once (`run`).
    Caller,
}

/// A container that was created.
#[derive(Debug)]
pub struct Created {
    /// Its process.
    pub child: Child,
    /// Its record.
    pub record: Record,
    /// Its folder, locked.
    pub dir: StateDir,
    /// What it was made from.
    pub spec: Spec,
    /// Opens its gate, when the caller is the starter.
    pub opener: Option<Opener>,
    /// The terminal's master, when it was not sent to a console socket.
    pub terminal: Option<OwnedFd>,
    /// What was ignored.
    pub warnings: Vec<String>,
}

/// Reads the bundle and decides: the spec, its bytes, and the plan. Nothing is changed.
///
/// # Errors
/// When the bundle, the spec or the host rules it out.
pub fn decide(
    root: &StateRoot,
    options: &CreateOptions,
    world: &World,
) -> Result<(Spec, Vec<u8>, Plan, Request)> {
    crate::state::check_id(&options.id)?;
    let bundle = options.bundle.canonicalize().map_err(|e| Error::file("open bundle", &options.bundle, e))?;
    let config = bundle.join("config.json");
    let bytes = std::fs::read(&config).map_err(|e| Error::file("read", &config, e))?;
    let spec = Spec::parse(&bytes)?;
    if options.starter == Starter::Caller && !spec.process.is_set() {
        return Err(SpecError::Missing("process").into());
    }
    let facts = crate::facts::gather(&world.proc)?;
    let request = Request {
        id: options.id.clone(),
        rootfs: rootfs(&bundle, &spec)?,
        mount_point: root.mount_point(&options.id),
        bundle,
        keyring: options.keyring,
        root_switch: options.root_switch,
        driver: options.driver,
        mount_base: options.mount_base.clone(),
    };
    let mut plan = build(&spec, &facts, &request)?;
    let passed = crate::handover::listen_fds();
    if passed > 0 {
        plan.exec.env.extend([format!("LISTEN_FDS={passed}"), "LISTEN_PID=1".to_owned()]);
    }
    Ok((spec, bytes, plan, request))
}

fn rootfs(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let path = bundle.join(&spec.root);
    let meta = std::fs::symlink_metadata(&path).map_err(|e| Error::file("open rootfs", &path, e))?;
    if meta.is_symlink() {
        return Err(Error::refused(
            format!("rootfs {}", path.display()),
            "is a symbolic link; name the folder itself",
        ));
    }
    if !meta.is_dir() {
        return Err(Error::refused(format!("rootfs {}", path.display()), "is not a folder"));
    }
    path.canonicalize().map_err(|e| Error::file("open rootfs", &path, e))
}

/// Creates a container.
///
/// # Errors
/// For the first thing that fails; nothing is left behind then.
pub fn create(root: &StateRoot, options: &CreateOptions) -> Result<Created> {
    check_preserved(options.preserve_fds)?;
    let mut world = World::new().on(|| "open /proc".into())?;
    let (spec, bytes, plan, request) = decide(root, options, &world)?;
    check_console(options.attach, spec.process.terminal, options.console_socket.as_deref())?;
    let mut warnings = plan.warnings.clone();
    let dir = root.make(&options.id)?;
    let path = dir.path().to_owned();
    match make(options, spec, &bytes, &plan, &request, &mut world, dir) {
        Ok(mut created) => {
            warnings.append(&mut created.warnings);
            created.warnings = warnings;
            Ok(created)
        }
        Err(error) => {
            let _ = std::fs::remove_dir_all(&path);
            Err(error)
        }
    }
}

fn make(
    options: &CreateOptions,
    spec: Spec,
    bytes: &[u8],
    plan: &Plan,
    request: &Request,
    world: &mut World,
    dir: StateDir,
) -> Result<Created> {
    let mut record = record(options, plan, request);
    // Before anything is recorded: delete kills what is in the recorded groups.
    groups_are_free(plan)?;
    // The intent goes before the first effect: what a crash leaves is found by it.
    dir.save(&record)?;
    dir.save_config(bytes)?;
    let to = HandOver::connect(options.console_socket.as_deref(), options.pidfd_socket.as_deref())?;
    let mut undo = UndoStack::default();
    let step = |f| Error::Step(f);
    let warnings = crate::filter::prepare(&plan.process, world)
        .map_err(|cause| Error::refused("linux.seccomp", cause.reason.trim_start_matches("seccomp: ")))?;
    apply_undoably(&plan.host, world, &mut undo).map_err(step)?;
    let (gate, opener) = match options.starter {
        Starter::Another => (gate::make(dir.path())?, None),
        Starter::Caller => gate::make_private().map(|(gate, opener)| (gate, Some(opener)))?,
    };
    let intent = record.clone();
    let state = |pid: i32, status: Status| OciState::of(&intent, &spec, pid, status).to_json();
    let birth = Birth { gate: Some(gate), state: state(0, Status::Creating), preserve: options.preserve_fds };
    let guard = KillOnDrop::new(spawn(plan, world, birth)?);
    let spawned = guard.get();
    let pid = spawned.child.pid;
    record.process = Some(process_record(world, pid)?);
    if record.groups.v2.is_none() {
        // Without a group nothing else leads delete to the process of a runtime that was killed. A process that is not
        // recorded yet ends by itself, when nobody answers it.
        dir.save(&record)?;
    }
    // All this while init makes its mounts.
    spawned.begin(plan, world)?;
    record.complete = true;
    let ready = dir.prepare(&record)?;
    let received = spawned.shake_hands(plan, world, &state)?;
    if !wait::is_alive(spawned.child.pidfd.as_fd()).on(|| "look at the container's process".into())? {
        return Err(Error::InitDied("it was killed, perhaps by its own system call filter".into()));
    }
    to.send(plan, spawned.child.pidfd.as_fd(), &received, &state(pid, Status::Creating))?;
    if let Some(file) = &options.pid_file {
        write_pid_file(file, pid)?;
    }
    dir.commit(ready)?;
    if opener.is_none() {
        spawned.recorded()?;
    }
    let terminal = if options.console_socket.is_some() { None } else { received.terminal };
    undo.keep();
    let child = guard.keep().child;
    Ok(Created { child, record, dir, spec, opener, terminal, warnings })
}

/// What is recorded of a process.
fn process_record(world: &World, pid: i32) -> Result<ProcessRecord> {
    let stat = world.proc.stat(pid).on(|| "read the container's process".into())?;
    Ok(ProcessRecord { pid, start_time: stat.start_time })
}

/// Refuses groups that have processes.
fn groups_are_free(plan: &Plan) -> Result<()> {
    let groups = &plan.groups;
    for group in groups.v2.iter().chain(&groups.v1).filter(|group| group.dir.exists()) {
        let step = || format!("make cgroup {}", group.dir.display());
        refuse_in_use(&group.dir).map_err(|cause| {
            Error::Step(Failure { step: step(), reason: cause.reason, errno: cause.errno })
        })?;
    }
    Ok(())
}

fn record(options: &CreateOptions, plan: &Plan, request: &Request) -> Record {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Record {
        format: FORMAT,
        id: options.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        process: None,
        complete: false,
        created: (now.as_secs(), now.subsec_nanos()),
        owner: croft_sys::credentials::user().1,
        groups: plan.groups.clone(),
        keyring: options.keyring,
        swap: None,
        undo: plan.host.iter().filter_map(|s| s.undo()).collect(),
    }
}
