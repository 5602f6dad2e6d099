//! What a client asks, one function a request. An answer that is not there yet comes later, from whoever has it.

use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use croft_engine::state::check_id;
use croft_sys::wait;

use crate::protocol::{
    Failure, FailureKind, Io, IoKind, Log, PACKET_LIMIT, Reply, Request, State, Status, WhenFull,
};
use crate::supervise::log::LogWriter;
use crate::supervise::operations::{Console, Operation, Verb, make_pipes};
use crate::supervise::process::{Key, Process, Record};
use crate::supervise::{Phase, Supervisor, adopt};

/// The smallest ring: a terminal's line, a pipe's page.
const LEAST_RING: u32 = 4096;

/// The largest ring.
const MOST_RING: u32 = 16 << 20;

/// The most bytes of the process of an exec: the kernel takes no larger arguments and environment (execve(2)).
const MOST_PROCESS: u64 = 8 << 20;

const SIGKILL: i32 = 9;

/// The answer, if it is known at once.
type Answer = Result<Option<Reply>, Failure>;

/// Who asked: connection and call.
type Caller = (u32, u64);

fn failure(kind: FailureKind, what: impl Into<String>, why: impl Into<String>) -> Failure {
    Failure { kind, what: what.into(), why: why.into() }
}

impl Supervisor {
    /// Does what a client asks. `None`: the answer comes later.
    pub(super) fn request(
        &mut self,
        connection: u32,
        number: u64,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Option<Reply> {
        let caller = (connection, number);
        let answer = match request {
            Request::Create { id, bundle, io, log } => {
                let key = Key { id, exec: None };
                self.create(caller, key, Record::new(bundle, io, log))
            }
            Request::Exec { id, exec, io, log } => {
                self.exec(caller, Key { id, exec: Some(exec) }, io, log, fds)
            }
            Request::Start { id } => self.start(caller, id),
            Request::Kill { id, signal, all: true, .. } => self.kill_all(caller, id, signal),
            Request::Kill { id, exec, signal, .. } => self.kill(Key { id, exec }, signal),
            Request::Delete { id, exec: None, force } => self.delete(caller, id, force),
            Request::Delete { id, exec, force } => self.delete_exec(caller, Key { id, exec }, force),
            Request::Resize { id, exec, size } => self.find(Key { id, exec }).and_then(|n| {
                let done = self.resize(n, size).map(|()| Some(Reply::Done));
                done.map_err(|e| failure(FailureKind::State, "resize", e.to_string()))
            }),
            Request::CloseStdin { id, exec } => self.find(Key { id, exec }).map(|n| {
                self.end_input(n, None);
                Some(Reply::Done)
            }),
            Request::Attach { id, exec, stdout, stderr } => {
                self.find(Key { id, exec }).and_then(|n| self.attach(n, stdout, stderr)).map(|(reply, fd)| {
                    self.reply_with(connection, number, reply, fd);
                    None
                })
            }
            Request::Wait { id, exec } => self.wait_for(caller, Key { id, exec }),
            Request::State { id, exec } => self.find(Key { id, exec }).map(|n| self.state(n)),
            Request::List { after } => Ok(Some(self.list(after))),
            Request::Stop => self.stop(caller),
            // Both were answered before.
            Request::Hello { .. } | Request::Events { .. } => Ok(Some(Reply::Done)),
        };
        answer.unwrap_or_else(|failure| Some(Reply::Failed(failure)))
    }

    fn find(&self, key: Key) -> Result<u32, Failure> {
        let found = self.names.get(&key).copied();
        found.ok_or_else(|| {
            failure(FailureKind::NotFound, key.to_string(), "this supervisor has none of that name")
        })
    }

    fn idle(&self, n: u32, what: &str) -> Result<&Process, Failure> {
        let gone = || failure(FailureKind::NotFound, what, "it has gone");
        let process = self.processes.get(&n).ok_or_else(gone)?;
        match process.busy {
            None => Ok(process),
            Some(_) => {
                let why = "another request on it is under way; ask again after that";
                Err(failure(FailureKind::State, format!("{what} {}", process.key), why))
            }
        }
    }

    fn create(&mut self, caller: Caller, key: Key, mut record: Record) -> Answer {
        let containers = self.names.keys().filter(|key| key.exec.is_none()).count();
        if containers >= self.options.containers {
            let why = format!("this supervisor has {containers} already, which is its limit: use another");
            return Err(failure(FailureKind::State, format!("create {key}"), why));
        }
        if !record.bundle.is_absolute() {
            let why = format!("bundle {}: has to be an absolute path", record.bundle.display());
            return Err(failure(FailureKind::Request, format!("create {key}"), why));
        }
        check(&key, &mut record.io)?;
        let bundle = record.bundle.clone();
        // By its place among this process's files: no descriptor of it is inherited, by croft-oci or by what that runs.
        let base = self.mount_base.as_ref();
        let base = base.map(|fd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
        self.make(caller, Verb::Create, key, record, |command| {
            command.arg("--bundle").arg(bundle);
            if let Some(base) = base {
                command.arg("--mount-base").arg(base);
            }
            Ok(())
        })
    }

    fn exec(&mut self, caller: Caller, key: Key, mut io: Io, log: Option<Log>, fds: Vec<OwnedFd>) -> Answer {
        let what = format!("exec of {key}");
        let container = self.find(Key { id: key.id.clone(), exec: None })?;
        let status = self.processes.get(&container).map(|process| process.record.status);
        if !matches!(status, Some(Status::Running | Status::Created)) {
            return Err(failure(FailureKind::State, what, "the container does not run: start it first"));
        }
        check(&key, &mut io)?;
        let Some(file) = fds.into_iter().next() else {
            let why = "a file with the process has to go beside the request";
            return Err(failure(FailureKind::Request, what, why));
        };
        let text = read_process(&file).map_err(|e| failure(FailureKind::Request, what, e.to_string()))?;
        let bundle = self.processes.get(&container).map(|process| process.record.bundle.clone());
        let record = Record::new(bundle.unwrap_or_default(), io, log);
        let path = key.folder(&self.options.root).join("exec.json");
        self.make(caller, Verb::Exec, key, record, |command| {
            std::fs::write(&path, text)?;
            command.arg("--detach").arg("--process").arg(path);
            if io.kind == IoKind::Terminal {
                command.arg("--tty");
            }
            Ok(())
        })
    }

    /// Lets croft-oci make a process: the intent is recorded, its streams are made and held, then it is run.
    fn make(
        &mut self,
        caller: Caller,
        verb: Verb,
        key: Key,
        record: Record,
        arguments: impl FnOnce(&mut std::process::Command) -> io::Result<()>,
    ) -> Answer {
        if self.names.contains_key(&key) {
            return Err(failure(FailureKind::Exists, key.to_string(), "exists already; delete it first"));
        }
        let folder = key.folder(&self.options.root);
        let failed = |e: io::Error| failure(FailureKind::Supervisor, format!("make {key}"), e.to_string());
        let mut process = Process::new(key.clone(), folder.clone(), record);
        let count = self.operations.count();
        let log = self.options.root.join(format!("oci.{count}.log"));
        let mut command = self.runtime(&log);
        command.arg(match verb {
            Verb::Exec => "exec",
            _ => "create",
        });
        command.arg("--pid-file").arg(folder.join("pid"));
        let prepare = || {
            if let Some(log) = &process.record.log {
                let opened = LogWriter::open(log.clone());
                let opened =
                    opened.map_err(|e| io::Error::other(format!("open log {}: {e}", log.path.display())));
                process.log = Some(Box::new(opened?));
            }
            std::fs::create_dir_all(&folder)?;
            process.save()?;
            arguments(&mut command)?;
            make_pipes(&mut process, &mut command)?;
            let terminal = process.record.io.kind == IoKind::Terminal;
            // A short name of its own: a socket's path has 107 bytes at most.
            let path = self.options.root.join(format!("tty.{count}"));
            let console = if terminal { Some(Console::listen(path)?) } else { None };
            if let Some(console) = &console {
                command.arg("--console-socket").arg(console.path());
            }
            Ok(console)
        };
        let console = match prepare() {
            Ok(console) => console,
            Err(error) => {
                let _ = std::fs::remove_dir_all(&folder);
                return Err(failed(error));
            }
        };
        command.arg(&key.id);
        adopt::hold(&self.holder, &process);
        let n = self.number();
        self.names.insert(key, n);
        let promised = process.record.io.when_full == WhenFull::WaitForClient { promised: true };
        self.processes.insert(n, process);
        if promised {
            self.await_client(n);
        }
        self.watch_outputs(n);
        self.operate(Operation { verb, process: n, caller: Some(caller), console, log }, command);
        Ok(None)
    }

    /// Runs croft-oci on a container that is there.
    fn run_on(&mut self, caller: Caller, verb: Verb, n: u32, arguments: &[&str]) -> Answer {
        let log = self.options.root.join(format!("oci.{}.log", self.operations.count()));
        let mut command = self.runtime(&log);
        command.args(arguments);
        self.operate(Operation { verb, process: n, caller: Some(caller), console: None, log }, command);
        Ok(None)
    }

    fn start(&mut self, caller: Caller, id: String) -> Answer {
        let n = self.find(Key { id: id.clone(), exec: None })?;
        let process = self.idle(n, "start")?;
        if process.record.status != Status::Created {
            let why = format!("it is {:?}, and only a created one can be started", process.record.status);
            return Err(failure(FailureKind::State, format!("start {}", process.key), why.to_lowercase()));
        }
        match self.start_here(caller, n) {
            true => Ok(None),
            // By an earlier start that was given up, or an earlier supervisor, and unseen.
            false if adopt::is_started(&self.states, &id) => {
                self.started(n);
                Ok(Some(Reply::Done))
            }
            false => self.run_on(caller, Verb::Start, n, &["start", &id]),
        }
    }

    fn kill_all(&mut self, caller: Caller, id: String, signal: i32) -> Answer {
        let n = self.find(Key { id: id.clone(), exec: None })?;
        self.run_on(caller, Verb::KillAll, n, &["kill", "--all", &id, &signal.to_string()])
    }

    fn kill(&mut self, key: Key, signal: i32) -> Answer {
        let what = format!("send signal {signal} to {key}");
        let n = self.find(key)?;
        let pidfd = self.processes.get(&n).and_then(|process| process.pidfd.as_ref());
        let Some(pidfd) = pidfd else {
            return Err(failure(FailureKind::State, what, "it has ended, or does not run yet"));
        };
        let sent = wait::pidfd_signal(pidfd.as_fd(), signal);
        sent.map(|()| Some(Reply::Done)).map_err(|e| failure(FailureKind::State, what, e.to_string()))
    }

    fn delete(&mut self, caller: Caller, id: String, force: bool) -> Answer {
        let n = self.find(Key { id: id.clone(), exec: None })?;
        if let Some(process) = self.processes.get_mut(&n)
            && force
            && process.busy == Some(Verb::Create)
        {
            process.deleters.push(caller);
            self.break_off(n);
            return Ok(None);
        }
        let process = self.idle(n, "delete")?;
        if !force && process.record.status != Status::Stopped {
            let why = "it has not ended; kill it and wait, or delete it by force";
            return Err(failure(FailureKind::State, format!("delete {}", process.key), why));
        }
        match force {
            true => self.run_on(caller, Verb::Delete, n, &["delete", "--force", &id]),
            false => self.run_on(caller, Verb::Delete, n, &["delete", &id]),
        }
    }

    fn delete_exec(&mut self, caller: Caller, key: Key, force: bool) -> Answer {
        let n = self.find(key)?;
        let process = self.idle(n, "delete")?;
        if process.record.status == Status::Stopped {
            self.forget(n);
            return Ok(Some(Reply::Done));
        }
        if !force {
            let why = "it has not ended; kill it and wait, or delete it by force";
            return Err(failure(FailureKind::State, format!("delete {}", process.key), why));
        }
        if let Some(pidfd) = &process.pidfd {
            // It may have ended this moment: that is told all the same.
            let _ = wait::pidfd_signal(pidfd.as_fd(), SIGKILL);
        }
        if let Some(process) = self.processes.get_mut(&n) {
            process.deleters.push(caller);
        }
        Ok(None)
    }

    fn wait_for(&mut self, caller: Caller, key: Key) -> Answer {
        let n = self.find(key)?;
        let Some(process) = self.processes.get_mut(&n) else { return Ok(None) };
        match process.record.exit {
            Some(exit) => Ok(Some(Reply::Exited(exit))),
            None => {
                process.waiters.push(caller);
                Ok(None)
            }
        }
    }

    fn state(&self, n: u32) -> Option<Reply> {
        self.processes.get(&n).map(|process| Reply::State(process.state()))
    }

    fn list(&self, after: Option<(String, Option<String>)>) -> Reply {
        let from = match after {
            Some((id, exec)) => Bound::Excluded(Key { id, exec }),
            None => Bound::Unbounded,
        };
        let mut processes: Vec<State> = Vec::new();
        // Room for the rest of the packet.
        let mut room = PACKET_LIMIT - 1024;
        for (_, n) in self.names.range((from, Bound::Unbounded)) {
            let Some(state) = self.processes.get(n).map(Process::state) else { continue };
            let length = serde_json::to_vec(&state).map_or(0, |text| text.len() + 1);
            let Some(left) = room.checked_sub(length) else {
                return Reply::List { processes, more: true };
            };
            room = left;
            processes.push(state);
        }
        Reply::List { processes, more: false }
    }

    fn stop(&mut self, (connection, number): Caller) -> Answer {
        if let Some(key) = self.names.keys().next() {
            let why =
                format!("{key} is left; delete it first, or end the supervisor with SIGTERM and let it run");
            return Err(failure(FailureKind::State, "stop the supervisor", why));
        }
        self.reply(connection, number, Reply::Done);
        self.flush_all();
        self.phase = Phase::Finished;
        Ok(None)
    }
}

/// Refuses a name that could be no folder, and streams that could not work.
fn check(key: &Key, io: &mut Io) -> Result<(), Failure> {
    let refused = |why: String| failure(FailureKind::Request, format!("make {key}"), why);
    for name in [Some(&key.id), key.exec.as_ref()].into_iter().flatten() {
        check_id(name).map_err(|e| refused(e.to_string()))?;
    }
    if io.kind == IoKind::Null {
        return Ok(());
    }
    if io.ring > MOST_RING {
        return Err(refused(format!("a ring of {} bytes: {MOST_RING} at most", io.ring)));
    }
    if io.ring == 0 && io.when_full != WhenFull::Forget {
        return Err(refused("a ring of no bytes is always full: the process would wait for ever".into()));
    }
    io.ring = io.ring.max(LEAST_RING);
    Ok(())
}

/// Reads the process that goes beside an exec: a file, as reading anything else could wait.
fn read_process(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let file = std::fs::File::from(file.try_clone()?);
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > MOST_PROCESS {
        return Err(io::Error::other(format!(
            "the process has to be in a file of {MOST_PROCESS} bytes at most"
        )));
    }
    let mut text = vec![0; meta.len() as usize];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

/// Whether `path` is a folder of a process.
pub(super) fn is_record(path: &Path) -> bool {
    path.join("process.json").exists()
}
