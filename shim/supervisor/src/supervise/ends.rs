//! Processes that end: reaped, recorded, told.

use std::cmp::Reverse;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use croft_plan::cgroup::Version;
use croft_sys::proc::Proc;
use croft_sys::wait;

use crate::frames::Output;
use crate::protocol::{EventKind, Exit, Reply, Status, WhenFull};
use crate::supervise::process::{Ended, Key};
use crate::supervise::token::Token;
use crate::supervise::{Supervisor, complain, now};

/// How long a process of an earlier supervisor may stay a zombie: its new parent reaps it soon, or never.
const ZOMBIE: Duration = Duration::from_secs(5);

/// The status of a process that SIGKILL ended.
pub(super) const KILLED: i32 = 128 + 9;

impl Supervisor {
    /// Reaps every child that has ended.
    pub(super) fn reap(&mut self) {
        let mut runtimes = Vec::new();
        loop {
            match wait::reap_any() {
                Ok(Some((pid, exit))) if self.operations.is_running(pid) => runtimes.push((pid, exit)),
                Ok(Some((pid, exit))) => self.reaped(pid, exit),
                Ok(None) => break,
                Err(error) => return complain("reap", &error.into()),
            }
        }
        // After the others: the process that a croft-oci made may have ended before it.
        for (pid, exit) in runtimes {
            self.operation_ended(pid, exit);
        }
    }

    fn reaped(&mut self, pid: i32, exit: wait::Exit) {
        if self.compressions.ended(pid) {
            return;
        }
        let found = self.processes.iter().find(|(_, process)| {
            let is_it = process.record.process.is_some_and(|identity| identity.pid == pid);
            is_it && !process.foreign && process.record.exit.is_none()
        });
        match found.map(|(n, _)| *n) {
            Some(n) => self.ended(n, Some(exit.status())),
            // Its croft-oci has not told yet whose it is; or it was an orphan of a container.
            None => self.operations.remember(pid, exit),
        }
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, n: u32, status: Option<i32>) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        if process.record.exit.is_none() && process.ended.is_none() {
            process.ended = Some(Ended { status, at: now() });
        }
        self.finish(n);
    }

    /// Tells the end of a process, unless croft-oci is still making or starting it.
    pub(super) fn finish(&mut self, n: u32) {
        let Some(process) = self.processes.get(&n) else { return };
        let Some(ended) = process.ended else { return };
        if process.busy.as_ref().is_some_and(|verb| verb.makes()) {
            return;
        }
        self.read_last(n);
        let event = self.journal.last() + 1;
        let Some(process) = self.processes.get_mut(&n) else { return };
        let kills = out_of_memory(&self.states, &process.key.id);
        let oom = kills && (process.key.exec.is_none() || ended.status == Some(KILLED));
        let exit = Exit { status: ended.status, at: ended.at, oom };
        process.ended = None;
        process.give_up = None;
        process.record.exit = Some(exit);
        process.record.exit_event = event;
        process.record.status = Status::Stopped;
        // On disk before anybody is told.
        if let Err(error) = process.save() {
            complain(&format!("record the end of {}", process.key), &error);
        }
        let pidfd = process.pidfd.take();
        if process.foreign
            && let Some(pidfd) = &pidfd
        {
            let _ = self.poll.remove(pidfd.as_fd());
        }
        let _ = self.holder.forget(&process.key.held("pidfd"));
        let (key, waiters) = (process.key.clone(), std::mem::take(&mut process.waiters));
        let (is_further, wanted) = (process.key.exec.is_some(), !process.deleters.is_empty());
        self.close_input(n);
        self.event(&key, EventKind::Exited(exit));
        for (connection, number) in waiters {
            self.reply(connection, number, Reply::Exited(exit));
        }
        self.pump_all(n);
        if is_further && wanted {
            self.forget(n);
        }
    }

    /// The pidfd of a process that is no child of this one has something to say.
    pub(super) fn foreign_ready(&mut self, n: u32) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        let (Some(pidfd), true, None) = (&process.pidfd, process.foreign, process.record.exit) else {
            return;
        };
        if wait::is_alive(pidfd.as_fd()).unwrap_or(true) {
            return;
        }
        let zombie = || {
            let identity = process.record.process?;
            let proc = Proc::open().ok()?;
            let same = proc.stat(identity.pid).is_ok_and(|stat| stat.start_time == identity.start_time);
            same.then(|| proc.status_of_zombie(identity.pid)).flatten().map(wait::exit_of_status)
        };
        let exit = wait::exit_of_reaped(pidfd.as_fd()).or_else(zombie);
        let give_up = *process.give_up.get_or_insert(Instant::now() + ZOMBIE);
        match exit {
            Some(exit) => self.ended(n, Some(exit.status())),
            None if Instant::now() >= give_up => self.ended(n, None),
            // Its parent reaps it, which the pidfd tells; or never does.
            None => self.timers.push(Reverse((give_up, Token::Process(n)))),
        }
    }

    /// Takes a process that has ended out of everything, and removes what was recorded of it. Clients that wait for the rest of its output
    /// still get that.
    pub(super) fn forget(&mut self, n: u32) {
        self.close_input(n);
        let has_clients = self.processes.get(&n).is_some_and(|process| {
            matches!(process.record.io.when_full, WhenFull::WaitForClient { .. })
                && !process.attached.is_empty()
        });
        match has_clients {
            true => self.read_last(n),
            false => self.end_outputs(n),
        }
        let Some(process) = self.processes.get_mut(&n) else { return };
        process.forgotten = true;
        self.names.remove(&process.key);
        remove(&process.folder, &process.key);
        if let Some(pidfd) = process.pidfd.take() {
            if process.foreign {
                let _ = self.poll.remove(pidfd.as_fd());
            }
            let _ = self.holder.forget(&process.key.held("pidfd"));
        }
        if has_clients {
            // The names may soon be those of another process.
            for output in Output::BOTH {
                let _ = self.holder.forget(&process.key.held(output.name()));
            }
        }
        for (connection, number) in std::mem::take(&mut process.deleters) {
            self.reply(connection, number, Reply::Done);
        }
        if has_clients {
            // Those that have everything go by themselves.
            return self.pump_all(n);
        }
        let clients = self.processes.get(&n).map(|process| process.attached.clone()).unwrap_or_default();
        clients.into_iter().for_each(|a| self.detach(a));
        self.processes.remove(&n);
    }
}

/// Removes the folder of a process. The record goes first: what is left without one is swept away at the next start.
fn remove(folder: &Path, key: &Key) {
    let _ = std::fs::remove_file(folder.join("process.json"));
    if let Err(error) = std::fs::remove_dir_all(folder) {
        complain(&format!("remove what was recorded of {key}"), &error);
    }
}

/// Whether the kernel has killed a process of the container for want of memory.
fn out_of_memory(states: &croft_engine::state::StateRoot, id: &str) -> bool {
    let Ok(proc) = Proc::open() else { return false };
    let Ok(container) = states.peek(id, &proc) else { return false };
    let groups = &container.record.groups;
    let kills = |version: Version, file: &str| {
        let text = std::fs::read_to_string(groups.dir("memory", version)?.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
    };
    let count = kills(Version::V1, "memory.oom_control").or_else(|| kills(Version::V2, "memory.events"));
    count.is_some_and(|count| count > 0)
}
