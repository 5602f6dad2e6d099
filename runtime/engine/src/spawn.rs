//! Cloning the container's process, and the host's part of the handshake.

use std::os::fd::{AsFd, OwnedFd};

use croft_plan::build::{Groups, Plan};
use croft_plan::handshake::{Event, Expect, Failure, FromHost, FromInit, LONGEST, State};
use croft_plan::lifecycle::Status;
use croft_plan::spec::{HookPoint, NamespaceKind};
use croft_plan::step::Slot;
use croft_sys::clone::{Child, Parent, Side, clone3};
use croft_sys::wait::{self, Exit};
use croft_sys::{cgroup, ns, prctl, socket};

use crate::apply::apply;
use crate::error::{Context, Error, Result};
use crate::gate::Gate;
use crate::init::{self, Init};
use crate::world::World;

/// A container's process that waits at its gate, or has become its program.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub child: Child,
    /// The connection to it, until it is at the gate.
    host: OwnedFd,
    /// Whether it waits at a gate.
    waits: bool,
}

/// Kills and reaps a new process unless what it was made for has succeeded.
#[derive(Debug)]
pub struct KillOnDrop {
    spawned: Option<Spawned>,
}

impl KillOnDrop {
    /// Watches over `spawned`.
    pub fn new(spawned: Spawned) -> Self {
        Self { spawned: Some(spawned) }
    }

    /// The process.
    pub fn get(&self) -> &Spawned {
        self.spawned.as_ref().expect("only keep empties it, and takes the guard")
    }

    /// Lets it live.
    pub fn keep(mut self) -> Spawned {
        self.spawned.take().expect("only keep empties it, and takes the guard")
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(spawned) = self.spawned.take() {
            wait::kill_and_reap(spawned.child.pidfd.as_fd());
        }
    }
}

/// What the host gets from init during the handshake.
#[derive(Debug, Default)]
pub struct Received {
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
    /// The filter's listener.
    pub listener: Option<OwnedFd>,
}

/// What the clone needs beside the plan.
#[derive(Debug)]
pub struct Birth {
    /// Where init waits.
    pub gate: Option<Gate>,
    /// The state for hooks that init runs; its pid is not known yet.
    pub state: Vec<u8>,
    /// Descriptors from 3 on that the program inherits.
    pub preserve: u32,
}

/// Clones the container's process. It runs the plan's steps on its own from here on.
///
/// # Errors
/// When the clone, or joining a namespace for it, fails.
pub fn spawn(plan: &Plan, world: &mut World, birth: Birth) -> Result<Spawned> {
    let group = match &plan.spawn.group {
        Some(dir) => Some(cgroup::open(dir).on(|| format!("open cgroup {}", dir.display()))?),
        None => None,
    };
    let (host, theirs) = socket::packet_pair().on(|| "make a socket".into())?;
    hide_from_ptrace()?;
    let own = join_around(plan, world)?;
    let flags = plan.spawn.new.iter().fold(0, |flags, kind| flags | kind.flag());
    let between = !plan.spawn.between.is_empty();
    let cloned = clone3(if between { 0 } else { flags }, group.as_ref().map(AsFd::as_fd), Parent::Caller);
    let cloned = cloned.on(|| "clone the container's process".into());
    let child = match cloned {
        Err(error) => {
            own.go_back()?;
            return Err(error);
        }
        Ok(Side::Parent(child)) => child,
        Ok(Side::Child) => {
            drop(host);
            if between {
                stage(plan, world, flags, &theirs);
            }
            let init =
                Init { plan, host: theirs, gate: birth.gate, state: birth.state, preserve: birth.preserve };
            init::run(init, world)
        }
    };
    drop(theirs);
    world.holder = None;
    let waits = birth.gate.is_some();
    drop(birth);
    own.go_back()?;
    let child = if between { take_grandchild(child, &host)? } else { child };
    world.child = Some(child.pid);
    Ok(Spawned { child, host, waits })
}

/// Makes the runtime, and so its child until that has become its program, something that nobody else may ptrace or look
/// into: a process in a pid namespace that is joined could otherwise take the child's descriptors and its memory, which are
/// the host's (CVE-2016-9962).
///
/// Files of /proc/PID belong to root then, so an ordinary user's runtime could not write the maps: there init itself does
/// this, once the runtime is done with it.
fn hide_from_ptrace() -> Result<()> {
    if croft_sys::credentials::user().1 != 0 {
        return Ok(());
    }
    prctl::set_dumpable(prctl::Dumpable::No).on(|| "hide the process from ptrace".into())
}

/// What the runtime is in itself while it is in the namespaces that its child shall be born in.
#[derive(Debug, Default)]
struct Own {
    namespaces: Vec<(NamespaceKind, OwnedFd)>,
    /// Where it is among the mounts, when it has left those.
    place: Option<ns::Place>,
}

/// Joins what the child shall be born in.
fn join_around(plan: &Plan, world: &World) -> Result<Own> {
    let mut own = Own::default();
    for (slot, kind) in &plan.spawn.around {
        let file = match kind {
            NamespaceKind::Pid => "pid_for_children",
            NamespaceKind::Time => "time_for_children",
            other => other.file(),
        };
        let here = world
            .proc
            .open_namespace("self", file)
            .on(|| format!("open the own {} namespace", kind.name()))?;
        if *kind == NamespaceKind::Mount {
            own.place = Some(ns::Place::own().on(|| "open the own root and working folder".into())?);
        }
        own.namespaces.push((*kind, here));
        join(world, *slot, *kind)?;
    }
    Ok(own)
}

fn join(world: &World, slot: Slot, kind: NamespaceKind) -> Result<()> {
    world
        .fd(slot)
        .and_then(|fd| ns::setns(fd, kind.flag()))
        .on(|| format!("join the {} namespace", kind.name()))
}

impl Own {
    /// Goes back: whatever the runtime does next, to go on or to undo, is meant for its own namespaces.
    fn go_back(self) -> Result<()> {
        for (kind, fd) in self.namespaces {
            ns::setns(fd.as_fd(), kind.flag())
                .on(|| format!("go back to the own {} namespace", kind.name()))?;
        }
        self.place.map_or(Ok(()), |place| place.go_back()).on(|| "go back to the own working folder".into())
    }
}

/// The process between: joins namespaces that the runtime could not come back from and clones init as the runtime's child.
/// It returns in init only.
fn stage(plan: &Plan, world: &World, flags: i32, theirs: &OwnedFd) {
    let report = |why: String, errno: Option<i32>| -> ! {
        let failure = Failure { step: "join namespaces".into(), reason: why, errno };
        let text = serde_json::to_vec(&FromInit::Failed(failure)).unwrap_or_default();
        let _ = croft_sys::write(theirs.as_fd(), &text);
        std::process::exit(1)
    };
    for (slot, kind) in &plan.spawn.between {
        if let Err(e) = world.fd(*slot).and_then(|fd| ns::setns(fd, kind.flag())) {
            report(format!("join the {} namespace: {e}", kind.name()), Some(e.errno().raw_os_error()));
        }
    }
    match clone3(flags, None, Parent::Grandparent) {
        Ok(Side::Child) => {}
        Ok(Side::Parent(child)) => {
            // The number may mean nothing to the runtime, which may be in another pid namespace: the descriptor does.
            let sent = socket::send(theirs.as_fd(), b"child", &[child.pidfd.as_fd()]);
            std::process::exit(if sent.is_ok() { 0 } else { 1 })
        }
        Err(e) => report(format!("clone the container's process: {e}"), Some(e.errno().raw_os_error())),
    }
}

fn take_grandchild(stage: Child, host: &OwnedFd) -> Result<Child> {
    let mut buffer = vec![0; LONGEST];
    let (n, mut fds) =
        socket::receive(host.as_fd(), &mut buffer).on(|| "hear from the process between".into())?;
    let exit = wait::wait(stage.pidfd.as_fd()).on(|| "wait for the process between".into())?;
    if let Ok(FromInit::Failed(failure)) = serde_json::from_slice(&buffer[..n]) {
        return Err(Error::Init(failure));
    }
    let Some(pidfd) = fds.pop() else {
        return Err(Error::InitDied(format!("the process between: {exit:?}")));
    };
    let pid = wait::pid_of(pidfd.as_fd()).on(|| "read the pid of the container's process".into())?;
    Ok(Child { pidfd, pid })
}

impl Spawned {
    /// Does what the host has to do beside init, unless init has to be given its ids first: then it is done in the handshake.
    ///
    /// # Errors
    /// What one of the host's steps failed at.
    pub fn begin(&self, plan: &Plan, world: &mut World) -> Result<()> {
        if plan.maps { Ok(()) } else { apply(&plan.parent, world).map_err(Error::Step) }
    }

    /// Goes on from [`Spawned::begin`] through the handshake until init is at its gate, or has become its program.
    ///
    /// # Errors
    /// What init or one of the host's steps failed at.
    pub fn shake_hands(
        &self,
        plan: &Plan,
        world: &mut World,
        state: &dyn Fn(i32, Status) -> Vec<u8>,
    ) -> Result<Received> {
        let expect = Expect {
            maps: plan.maps,
            hooks: init::has_runtime_hooks(plan),
            ready: init::is_awaited(plan, self.waits),
            listener: world.filter.as_ref().is_some_and(crate::filter::wants_listener),
            gate: self.waits,
        };
        let mut received = Received::default();
        let mut at = State::Born;
        while at != State::Gated {
            let (event, terminal) = self.hear()?;
            received.terminal = terminal.or(received.terminal);
            at = at
                .next(&event, expect)
                .map_err(|e| Error::InitDied(self.describe(&plan.groups, &e.to_string())))?;
            let Event::Said(message) = event else { break };
            match message {
                FromInit::MapMe => {
                    apply(&plan.parent, world).map_err(Error::Step)?;
                    self.say(FromHost::Mapped)?;
                }
                FromInit::RunHooks => {
                    // By its definition prestart comes when `start` was called, so what it is told of is created.
                    let told = [
                        (HookPoint::Prestart, Status::Created),
                        (HookPoint::CreateRuntime, Status::Creating),
                    ];
                    for (point, status) in told {
                        crate::hooks::run(plan.hooks.at(point), point, &state(self.child.pid, status))?;
                    }
                    self.say(FromHost::HooksDone)?;
                }
                FromInit::Ready => {
                    apply(&plan.limits, world).map_err(Error::Step)?;
                    self.say(FromHost::Proceed)?;
                }
                FromInit::Listener(number) => {
                    let fetched = wait::pidfd_getfd(self.child.pidfd.as_fd(), number);
                    received.listener = Some(fetched.on(|| "fetch the filter's listener".into())?);
                    self.say(FromHost::ListenerTaken)?;
                }
                // It goes on at `recorded`.
                FromInit::Gated => {}
                FromInit::Failed(failure) => return Err(Error::Init(failure)),
            }
        }
        Ok(received)
    }

    /// Tells init that it is recorded: it outlives the runtime from here on.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn recorded(&self) -> Result<()> {
        self.say(FromHost::Recorded)
    }

    fn hear(&self) -> Result<(Event, Option<OwnedFd>)> {
        let mut buffer = vec![0; LONGEST];
        let (n, mut fds) = socket::receive(self.host.as_fd(), &mut buffer).on(|| "hear from init".into())?;
        if n == 0 {
            return Ok((Event::Closed, None));
        }
        let message = serde_json::from_slice(&buffer[..n]);
        let message = message.map_err(|e| Error::InitDied(format!("it said what is no message: {e}")))?;
        Ok((Event::Said(message), fds.pop()))
    }

    fn say(&self, message: FromHost) -> Result<()> {
        let text = serde_json::to_vec(&message).unwrap_or_default();
        // Init may have failed at the same moment; what it said is read next.
        match socket::send(self.host.as_fd(), &text, &[]) {
            Err(e) if e.errno() == croft_sys::Errno::PIPE => Ok(()),
            other => other.on(|| "speak to init".into()),
        }
    }

    /// What became of init, for an error about its silence.
    fn describe(&self, groups: &Groups, why: &str) -> String {
        let gone =
            croft_sys::wait_readable_for(self.child.pidfd.as_fd(), Some(std::time::Duration::from_secs(1)));
        match gone {
            Ok(true) => match wait::wait(self.child.pidfd.as_fd()) {
                Ok(Exit::Signal(9)) if was_out_of_memory(groups) => {
                    "container init was OOM-killed (memory limit too low?)".to_owned()
                }
                Ok(Exit::Signal(number)) => format!("killed by {}", croft_sys::signal::name(number)),
                Ok(Exit::Code(status)) => format!("exit status {status}"),
                Err(_) => why.to_owned(),
            },
            _ => why.to_owned(),
        }
    }
}

/// Whether the kernel has killed in one of the groups for want of memory.
fn was_out_of_memory(groups: &Groups) -> bool {
    let killed = |text: String| {
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.is_some_and(|count| count.trim() != "0")
    };
    let dirs = groups.v2.iter().chain(&groups.v1).map(|group| &group.dir);
    let mut files = dirs.flat_map(|dir| ["memory.events", "memory.oom_control"].map(|file| dir.join(file)));
    files.any(|file| std::fs::read_to_string(file).is_ok_and(killed))
}
