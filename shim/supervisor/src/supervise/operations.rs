//! croft-oci at work: short-lived children, a few at a time, of which the loop hears again when they have ended.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use croft_sys::proc::Proc;
use croft_sys::{rlimit, signal, socket, tty, wait};

use crate::frames::Output;
use crate::protocol::{EventKind, Failure, FailureKind, IoKind, Reply, Status};
use crate::supervise::process::{Ended, Identity, Process};
use crate::supervise::token::Token;
use crate::supervise::{Supervisor, adopt, complain, now, say};

/// What croft-oci is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Makes a container.
    Create,
    /// Starts it.
    Start,
    /// Makes a further process.
    Exec,
    /// Sends a signal to all processes of a container.
    KillAll,
    /// Removes a container.
    Delete,
}

impl Verb {
    /// Whether the end of a process is told only after it.
    pub fn makes(self) -> bool {
        matches!(self, Verb::Create | Verb::Start | Verb::Exec)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Start => "start",
            Verb::Exec => "exec",
            Verb::KillAll => "kill",
            Verb::Delete => "delete",
        }
    }
}

/// One run of croft-oci.
#[derive(Debug)]
pub struct Operation {
    /// What for.
    pub verb: Verb,
    /// On which process.
    pub process: u32,
    /// Who asked: connection and call. Nobody: an earlier supervisor left something half made.
    pub caller: Option<(u32, u64)>,
    /// The socket that the terminal comes to.
    pub console: Option<Console>,
    /// The log, from which a failure is read.
    pub log: PathBuf,
}

/// A socket that a terminal's controller is sent to.
#[derive(Debug)]
pub struct Console {
    listener: OwnedFd,
    path: PathBuf,
}

impl Console {
    /// Listens at `path`.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn listen(path: PathBuf) -> io::Result<Self> {
        Ok(Self { listener: socket::listen_stream(&path)?, path })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal that croft-oci, which has ended, has sent.
    fn terminal(&self) -> io::Result<OwnedFd> {
        let none = || io::Error::other("croft-oci sent no terminal");
        let connection = socket::accept(self.listener.as_fd())?.ok_or_else(none)?;
        let (_, fds) = socket::receive(connection.as_fd(), &mut [0; 64])?;
        fds.into_iter().find(|fd| tty::is_terminal(fd.as_fd())).ok_or_else(none)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The runs of croft-oci.
#[derive(Debug)]
pub struct Operations {
    most: usize,
    running: HashMap<i32, Operation>,
    /// Until when each of them may take, and those that took longer.
    limits: HashMap<i32, Instant>,
    late: HashSet<i32>,
    waiting: VecDeque<(Operation, Command)>,
    /// Children that ended before it was known whose they were.
    reaped: HashMap<i32, wait::Exit>,
    count: u64,
}

impl Operations {
    /// None yet, and `most` at a time.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            running: HashMap::new(),
            limits: HashMap::new(),
            late: HashSet::new(),
            waiting: VecDeque::new(),
            reaped: HashMap::new(),
            count: 0,
        }
    }

    /// Whether `pid` is a croft-oci of ours.
    pub fn is_running(&self, pid: i32) -> bool {
        self.running.contains_key(&pid)
    }

    /// Whether the file at `path` is the log of a run.
    pub fn is_used(&self, path: &Path) -> bool {
        let waiting = self.waiting.iter().map(|(operation, _)| operation);
        self.running.values().chain(waiting).any(|operation| operation.log == path)
    }

    /// Keeps the status of a child that nobody knows, as long as a croft-oci may still tell whose it is.
    pub fn remember(&mut self, pid: i32, exit: wait::Exit) {
        if !self.running.is_empty() {
            self.reaped.insert(pid, exit);
        }
    }

    /// Kills the croft-oci `pid`, with its hooks, whose time was over at `at`; it may have ended before that, and another one
    /// may have its number.
    pub fn end_late(&mut self, pid: i32, at: Instant) {
        if self.limits.get(&pid) == Some(&at) {
            self.late.insert(pid);
            let _ = wait::signal_group(pid, 9);
        }
    }

    /// A number for the names of files.
    pub fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

impl Supervisor {
    /// A croft-oci command with its log, and nothing for its streams.
    pub(super) fn runtime(&self, log: &Path) -> Command {
        let mut command = Command::new(&self.options.runtime);
        command.arg("--root").arg(&self.options.runtime_root);
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // With its hooks, it can be killed as one.
        command.process_group(0);
        command
    }

    /// Runs croft-oci, or lets it wait for its turn.
    pub(super) fn operate(&mut self, operation: Operation, command: Command) {
        if let Some(process) = self.processes.get_mut(&operation.process)
            && operation.verb != Verb::KillAll
        {
            process.busy = Some(operation.verb);
        }
        self.operations.waiting.push_back((operation, command));
        self.start_operations();
    }

    fn start_operations(&mut self) {
        while self.operations.running.len() < self.operations.most {
            let Some((operation, mut command)) = self.operations.waiting.pop_front() else { return };
            // A limit that this process needs is none that a container should have.
            let own = rlimit::set(None, rlimit::Resource::Nofile, self.descriptors);
            // A child is born with this thread's blocked signals. SIGTERM in this moment ends the supervisor without a word, which
            // costs no more than SIGKILL; SIGCHLD is lost.
            let blocked = signal::set_blocked(self.unblocked);
            let spawned = command.spawn();
            if let Ok(blocked) = blocked {
                let _ = signal::set_blocked(blocked);
            }
            self.look_for_ends = true;
            if let Ok(own) = own {
                let _ = rlimit::set(None, rlimit::Resource::Nofile, own);
            }
            // The container's ends of its pipes go with it.
            drop(command);
            match spawned {
                Ok(child) => {
                    let pid = child.id() as i32;
                    self.made_by(&operation, pid);
                    self.operations.running.insert(pid, operation);
                    let until = Instant::now() + self.options.limit;
                    self.operations.limits.insert(pid, until);
                    self.timers.push(Reverse((until, Token::Operation(pid.cast_unsigned()))));
                }
                Err(error) => {
                    let why = format!("run {}: {error}", self.options.runtime.display());
                    self.failed(operation, FailureKind::Supervisor, why);
                }
            }
        }
    }

    /// Records which croft-oci makes a process: whoever finds it half made ends that first.
    fn made_by(&mut self, operation: &Operation, pid: i32) {
        if !matches!(operation.verb, Verb::Create | Verb::Exec) {
            return;
        }
        let Some(process) = self.processes.get_mut(&operation.process) else { return };
        process.record.maker = identity(pid);
        if let Err(error) = process.save() {
            complain(&format!("record {}", process.key), &error);
        }
    }

    /// A croft-oci has ended.
    pub(super) fn operation_ended(&mut self, pid: i32, exit: wait::Exit) {
        let Some(operation) = self.operations.running.remove(&pid) else { return };
        self.operations.limits.remove(&pid);
        let was_late = self.operations.late.remove(&pid);
        match exit {
            wait::Exit::Code(0) => self.succeeded(operation),
            wait::Exit::Code(code) => {
                let why = last_error(&operation.log).unwrap_or_else(|| format!("it ended with {code}"));
                self.failed(operation, FailureKind::Runtime, why);
            }
            wait::Exit::Signal(signal) => {
                // It had no time to clean up after itself.
                if let Some(process) = self.processes.get_mut(&operation.process) {
                    process.torn = true;
                }
                let why = match was_late {
                    true => format!("croft-oci did not end within {:?} and was killed", self.options.limit),
                    false => format!("signal {signal} killed it"),
                };
                self.failed(operation, FailureKind::Runtime, why);
            }
        }
        if self.operations.running.is_empty() {
            self.operations.reaped.clear();
        }
        self.start_operations();
    }

    fn succeeded(&mut self, mut operation: Operation) {
        let _ = std::fs::remove_file(&operation.log);
        let n = operation.process;
        match operation.verb {
            Verb::Create | Verb::Exec => match self.made(&mut operation) {
                Ok(pid) => {
                    self.answer(&operation, Reply::Running { pid });
                    if self.processes.get(&n).is_some_and(|process| !process.deleters.is_empty()) {
                        // It was to be broken off, and was quicker.
                        return self.unmake(n);
                    }
                }
                Err(error) => return self.failed(operation, FailureKind::Supervisor, error.to_string()),
            },
            Verb::Start => {
                self.started(n);
                self.answer(&operation, Reply::Done);
            }
            Verb::KillAll => self.answer(&operation, Reply::Done),
            Verb::Delete => {
                self.forget_container(n);
                self.answer(&operation, Reply::Done);
            }
        }
        // It may have ended at once.
        self.finish(n);
    }

    fn answer(&mut self, operation: &Operation, reply: Reply) {
        if let Some((connection, number)) = operation.caller {
            self.reply(connection, number, reply);
        }
    }

    /// A process was made: its pid.
    fn made(&mut self, operation: &mut Operation) -> io::Result<i32> {
        let n = operation.process;
        let gone = || io::Error::other("it has gone");
        let process = self.processes.get_mut(&n).ok_or_else(gone)?;
        let file = process.folder.join("pid");
        let pid: i32 = std::fs::read_to_string(&file)?.trim().parse().map_err(io::Error::other)?;
        let _ = std::fs::remove_file(&file);
        let _ = std::fs::remove_file(process.folder.join("exec.json"));
        if let Some(exit) = self.operations.reaped.remove(&pid) {
            process.record.process = Some(Identity { pid, start_time: 0 });
            process.ended = Some(Ended { status: Some(exit.status()), at: now() });
        } else {
            // It is a child of this process and not reaped, so the pid is its own.
            process.pidfd = Some(wait::pidfd_open(pid)?);
            process.record.process = identity(pid);
        }
        if let Some(console) = operation.console.take() {
            give_terminal(process, console.terminal()?)?;
        }
        process.busy = None;
        process.record.maker = None;
        let (kind, status) = match operation.verb {
            Verb::Create => (EventKind::Created, Status::Created),
            _ => (EventKind::Started, Status::Running),
        };
        process.record.status = status;
        process.save()?;
        adopt::hold(&self.holder, process);
        let key = process.key.clone();
        self.watch_outputs(n);
        self.event(&key, kind);
        Ok(pid)
    }

    pub(super) fn started(&mut self, n: u32) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        process.busy = None;
        process.record.status = Status::Running;
        if let Err(error) = process.save() {
            complain(&format!("record the start of {}", process.key), &error);
        }
        let key = process.key.clone();
        self.event(&key, EventKind::Started);
    }

    /// A container is gone, and its further processes with it.
    fn forget_container(&mut self, n: u32) {
        let Some(process) = self.processes.get(&n) else { return };
        let key = process.key.clone();
        let names = self.names.iter().filter(|(name, _)| name.id == key.id);
        let numbers: Vec<u32> = names.map(|(_, n)| *n).collect();
        // The further ones first: their folders are in the container's.
        for n in numbers.into_iter().rev() {
            if let Some(process) = self.processes.get_mut(&n) {
                process.busy = None;
            }
            if self.processes.get(&n).is_some_and(|p| p.record.exit.is_none() && p.record.process.is_some()) {
                // croft-oci has killed it; whoever waits is told so, although its reaping comes later.
                self.ended(n, Some(super::ends::KILLED));
            }
            self.forget(n);
        }
        self.event(&key, EventKind::Deleted);
    }

    fn failed(&mut self, operation: Operation, kind: FailureKind, why: String) {
        let _ = std::fs::remove_file(&operation.log);
        let n = operation.process;
        let Some(process) = self.processes.get_mut(&n) else { return };
        let what = format!("{} of {}", operation.verb.name(), process.key);
        if operation.verb != Verb::KillAll {
            process.busy = None;
        }
        match operation.verb {
            // One that croft-oci does not know any more is as gone as it should be.
            Verb::Delete if !self.is_known(n) => {
                self.forget_container(n);
                return self.answer(&operation, Reply::Done);
            }
            Verb::Create | Verb::Exec => self.unmake(n),
            _ => {}
        }
        match operation.caller {
            Some((connection, number)) => {
                self.reply(connection, number, Reply::Failed(Failure { kind, what, why }));
            }
            None => say(format_args!("{what}: {why}")),
        }
        self.finish(n);
    }

    /// Whether croft-oci has a container of this name.
    fn is_known(&self, n: u32) -> bool {
        let Some(process) = self.processes.get(&n) else { return false };
        let Ok(proc) = Proc::open() else { return true };
        let found = self.states.peek(&process.key.id, &proc);
        !matches!(found, Err(croft_engine::Error::NotFound(_)))
    }

    /// Breaks off what croft-oci is doing with a process: it fails then.
    pub(super) fn break_off(&mut self, n: u32) {
        let place = self.operations.waiting.iter().position(|(operation, _)| operation.process == n);
        if let Some((operation, _)) = place.and_then(|place| self.operations.waiting.remove(place)) {
            return self.failed(operation, FailureKind::State, "it was deleted before its turn came".into());
        }
        let running = self.operations.running.iter().filter(|(_, operation)| operation.process == n);
        for pid in running.map(|(pid, _)| *pid) {
            // Its hooks are in its group. That it has ended this moment is as good.
            let _ = wait::signal_group(pid, 9);
        }
    }

    /// Takes back what was made for a process that is not to be.
    fn unmake(&mut self, n: u32) {
        let Some(process) = self.processes.get(&n) else { return };
        if let Some(pidfd) = &process.pidfd {
            // It was made, and something after that failed.
            let _ = wait::pidfd_signal(pidfd.as_fd(), 9);
        }
        if process.key.exec.is_none() && (process.pidfd.is_some() || process.torn) {
            let log = self.options.root.join(format!("oci.{}.log", self.operations.count()));
            let mut command = self.runtime(&log);
            let id = self.processes.get(&n).map(|process| process.key.id.clone()).unwrap_or_default();
            command.args(["delete", "--force", &id]);
            let operation = Operation { verb: Verb::Delete, process: n, caller: None, console: None, log };
            return self.operate(operation, command);
        }
        self.forget(n);
    }
}

/// Makes `controller` the streams of a process.
fn give_terminal(process: &mut Process, controller: OwnedFd) -> io::Result<()> {
    socket::set_waiting(controller.as_fd(), socket::Waiting::NonBlocking)?;
    process.input.fd = Some(controller.try_clone()?);
    process.open_output(Output::Stdout, Some(controller))
}

/// The pid with its start time; that of a process that has just gone is 0.
pub(super) fn identity(pid: i32) -> Option<Identity> {
    let start_time = Proc::open().and_then(|proc| proc.stat(pid)).map_or(0, |stat| stat.start_time);
    Some(Identity { pid, start_time })
}

/// What a croft-oci that failed said last.
fn last_error(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let entries = text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let errors = entries.filter(|entry| entry["level"] == "error");
    errors.filter_map(|entry| entry["msg"].as_str().map(str::to_owned)).next()
}

/// The pipes of a process: croft-oci's ends go into `command`, the others into `process`.
///
/// # Errors
/// When there are no more descriptors.
pub(super) fn make_pipes(process: &mut Process, command: &mut Command) -> io::Result<()> {
    let IoKind::Pipes { stdin } = process.record.io.kind else { return Ok(()) };
    let own = |fd: OwnedFd| socket::set_waiting(fd.as_fd(), socket::Waiting::NonBlocking).map(|()| fd);
    if stdin {
        let (reader, writer) = croft_sys::pipe()?;
        process.input.fd = Some(own(writer)?);
        command.stdin(reader);
    }
    for output in Output::BOTH {
        let (reader, writer) = croft_sys::pipe()?;
        process.open_output(output, Some(own(reader)?))?;
        match output {
            Output::Stdout => command.stdout(writer),
            Output::Stderr => command.stderr(writer),
        };
    }
    Ok(())
}
