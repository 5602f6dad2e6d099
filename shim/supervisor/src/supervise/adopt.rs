//! What an earlier supervisor left: what runs goes on, what ended meanwhile is told, what was half made is taken back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use croft_engine::state::check_id;
use croft_plan::lifecycle;
use croft_sys::epoll::Interest;
use croft_sys::proc::Proc;
use croft_sys::{socket, wait};

use crate::frames::Output;
use crate::holder::Holder;
use crate::protocol::{EventKind, IoKind, Status};
use crate::supervise::log::{LogWriter, uncompressed};
use crate::supervise::operations::{Operation, Verb};
use crate::supervise::process::{Identity, Key, Process, Record};
use crate::supervise::requests::is_record;
use crate::supervise::token::Token;
use crate::supervise::{Context, Error, Supervisor, complain, say};

/// Gives the holder a copy of everything that a process could miss.
pub(super) fn hold(holder: &Holder, process: &Process) {
    let outputs = Output::BOTH.into_iter().filter_map(|output| {
        let stream = process.outputs[output.index()].as_ref()?;
        Some((output.name(), stream.fd.as_ref()?))
    });
    let others = [("stdin", process.input.fd.as_ref()), ("pidfd", process.pidfd.as_ref())];
    for (what, fd) in outputs.chain(others.into_iter().filter_map(|(what, fd)| Some((what, fd?)))) {
        if let Err(error) = holder.put(&process.key.held(what), fd.as_fd()) {
            complain(&format!("let the holder hold the {what} of {}", process.key), &error);
        }
    }
}

/// What the holder holds, by name.
type Held = BTreeMap<String, OwnedFd>;

impl Supervisor {
    /// Takes over what is recorded in the root.
    pub(super) fn adopt(&mut self) -> Result<(), Error> {
        let mut held = self.holder.fetch().on(|| "fetch what the holder holds".into())?;
        let containers = self.options.root.join("containers");
        for id in names(&containers).on(|| format!("read {}", containers.display()))? {
            let folder = containers.join(&id);
            if !is_record(&folder) {
                // Its making or removal ended half way.
                let _ = std::fs::remove_dir_all(&folder);
                continue;
            }
            self.adopt_one(Key { id: id.clone(), exec: None }, &mut held);
            for exec in names(&folder.join("execs")).unwrap_or_default() {
                self.adopt_one(Key { id: id.clone(), exec: Some(exec) }, &mut held);
            }
        }
        for name in held.keys() {
            // Of what was removed just before the end.
            let _ = self.holder.forget(name);
        }
        self.sweep();
        Ok(())
    }

    /// Removes what was only used while a croft-oci ran.
    fn sweep(&self) {
        for entry in std::fs::read_dir(&self.options.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let running = name.starts_with("oci.") && self.operations.is_used(&entry.path());
            if (name.starts_with("oci.") || name.starts_with("tty.")) && !running {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn adopt_one(&mut self, key: Key, held: &mut Held) {
        let folder = key.folder(&self.options.root);
        let record = match Record::load(&folder) {
            Ok(record) => record,
            Err(error) => return complain(&format!("take over {key}"), &error),
        };
        let n = self.number();
        let mut process = Process::new(key.clone(), folder, record);
        process.foreign = true;
        if let Err(error) = reopen(&mut process, held) {
            complain(&format!("reopen the streams of {key}"), &error);
        }
        if let Some(log) = &process.record.log {
            let left = uncompressed(log).unwrap_or_default();
            left.into_iter().for_each(|path| self.compressions.add(path));
        }
        self.names.insert(key, n);
        self.processes.insert(n, process);
        self.log_rest(n);
        self.await_client(n);
        self.watch_outputs(n);
        self.go_on(n, held);
    }

    /// Looks at where a process stands, and goes on from there.
    fn go_on(&mut self, n: u32, held: &mut Held) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        if let Some(maker) = process.record.maker {
            // Its croft-oci may still be at work: with nobody to tell.
            if let Some(pidfd) = open_again(maker) {
                end_runtime(maker.pid, &pidfd);
            }
        }
        if process.record.status == Status::Creating {
            return self.take_back(n);
        }
        let key = process.key.clone();
        if let Some(exit) = process.record.exit {
            if process.record.exit_event > self.journal.last() {
                self.event(&key, EventKind::Exited(exit));
            }
            return;
        }
        let pidfd = held.remove(&key.held("pidfd")).or_else(|| process.record.process.and_then(open_again));
        let Some(pidfd) = pidfd else { return self.ended(n, None) };
        let token = Token::Process(n).number();
        if let Err(error) = self.poll.add(pidfd.as_fd(), token, Interest::Changes) {
            complain(&format!("watch {key}"), &error.into());
        }
        process.pidfd = Some(pidfd);
        if process.record.status == Status::Created && is_started(&self.states, &key.id) {
            self.started(n);
        }
        self.foreign_ready(n);
    }

    /// Logs what was read but not logged any more.
    fn log_rest(&mut self, n: u32) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        for output in Output::BOTH {
            let (Some(stream), Some(log)) = (&mut process.outputs[output.index()], &mut process.log) else {
                continue;
            };
            let mut at = stream.ring.logged().max(stream.ring.start());
            while at < stream.ring.end() {
                let count = match stream.ring.read(at, &mut self.buffer) {
                    Ok(count) if count > 0 => count,
                    _ => break,
                };
                if let Err(error) = log.write(output, &self.buffer[..count], &mut self.scratch) {
                    complain(&format!("log the output of {}", process.key), &error);
                }
                at += count as u64;
            }
            stream.ring.set_logged(at - log.waiting(output) as u64);
        }
    }

    /// Undoes the half of a making.
    fn take_back(&mut self, n: u32) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        if let Some(exec) = &process.key.exec {
            say(format_args!("process {exec} of container {} was half made", process.key.id));
            let pid = std::fs::read_to_string(process.folder.join("pid")).ok();
            let pidfd = pid.and_then(|pid| wait::pidfd_open(pid.trim().parse().ok()?).ok());
            if let Some(pidfd) = pidfd {
                let _ = wait::pidfd_signal(pidfd.as_fd(), 9);
            }
            return self.forget(n);
        }
        let id = process.key.id.clone();
        let log = self.options.root.join(format!("oci.{}.log", self.operations.count()));
        let mut command = self.runtime(&log);
        command.args(["delete", "--force", &id]);
        self.operate(Operation { verb: Verb::Delete, process: n, caller: None, console: None, log }, command);
    }
}

/// Opens the streams and the log of a process from what was held.
fn reopen(process: &mut Process, held: &mut Held) -> io::Result<()> {
    let io = process.record.io;
    if let Some(log) = &process.record.log {
        process.log = Some(Box::new(LogWriter::open(log.clone())?));
    }
    process.input.fd = held.remove(&process.key.held("stdin"));
    for output in Output::BOTH {
        let has = match io.kind {
            IoKind::Null => false,
            IoKind::Pipes { .. } => true,
            IoKind::Terminal => output == Output::Stdout,
        };
        if !has {
            continue;
        }
        let fd = held.remove(&process.key.held(output.name()));
        if let Some(fd) = &fd {
            socket::set_waiting(fd.as_fd(), socket::Waiting::NonBlocking)?;
        }
        process.open_output(output, fd)?;
    }
    Ok(())
}

/// The process of a recorded identity, if it still is that one.
fn open_again(identity: Identity) -> Option<OwnedFd> {
    let pidfd = wait::pidfd_open(identity.pid).ok()?;
    // Opened first, compared then: the pid cannot change hands between.
    let stat = Proc::open().and_then(|proc| proc.stat(identity.pid)).ok()?;
    (stat.start_time == identity.start_time).then_some(pidfd)
}

/// Kills a croft-oci that works for nobody, with its hooks, and waits until it is gone: what it made has to be found whole.
fn end_runtime(pid: i32, pidfd: &OwnedFd) {
    let _ = wait::signal_group(pid, 9);
    let _ = wait::pidfd_signal(pidfd.as_fd(), 9);
    let limit = std::time::Duration::from_secs(5);
    let _ = croft_sys::wait_readable_for(pidfd.as_fd(), Some(limit));
}

pub(super) fn is_started(states: &croft_engine::state::StateRoot, id: &str) -> bool {
    let Ok(proc) = Proc::open() else { return false };
    let status = states.peek(id, &proc).map(|container| container.status);
    matches!(status, Ok(lifecycle::Status::Running | lifecycle::Status::Paused))
}

/// The names in a folder that can be ids; none if there is no such folder.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| check_id(name).is_ok()).collect();
    names.sort();
    Ok(names)
}
