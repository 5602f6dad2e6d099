//! A daemon with threads that runs already: it is killed at an effectful system call of any of its threads, or that call fails.
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{entry, go_on, is_effectful};

/// What happens at the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The daemon is killed before the kernel does it.
    Kill,
    /// The kernel does not do it, and says so by this number.
    Fail(rustix::io::Errno),
}

/// What was seen of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its calls that count, up to the blow.
    pub calls: usize,
    /// The number of the call at which the blow fell, if it did.
    pub struck: Option<u64>,
}

/// Calls that do not fail because of the disk or the kernel's objects, or of which the standard library takes for granted that they work.
const NEVER_FAIL: &[i64] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_vfork,
    libc::SYS_prctl,
    libc::SYS_kill,
    libc::SYS_flock,
];

/// Does `act` while the daemon `pid` is watched; the blow falls on its effectful system call number `at` (from 1), whichever thread makes
/// it. Only its own calls count, not those of programs that it starts, and not what it writes to its log or to its own other threads.
///
/// # Errors
/// When it cannot be watched, or `act` fails.
pub fn while_acting<T>(
    pid: u32,
    blow: Blow,
    at: Option<usize>,
    act: impl FnOnce() -> Result<T>,
) -> Result<(T, Seen)> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ready, attached) = channel();
        let (over, seen) = (&over, Seen { calls: 0, struck: None });
        let watch = scope.spawn(move || {
            let mut watcher = Watcher { pid, blow, at, seen, threads: BTreeSet::new(), failing: None };
            watcher.attach()?;
            // Who waits for it goes on in any case.
            let _ = ready.send(());
            watcher.watch(over)
        });
        // An error here comes out of the thread below.
        let _ = attached.recv();
        let done = act();
        over.store(true, Ordering::SeqCst);
        // It stops for this, which wakes the watcher, and ignores it. It may be dead.
        let _ = kill(pid, Signal::SIGURG);
        let seen = watch.join().expect("a watcher does not panic")?;
        Ok((done?, seen))
    })
}

#[derive(Debug)]
struct Watcher {
    pid: Pid,
    blow: Blow,
    at: Option<usize>,
    seen: Seen,
    threads: BTreeSet<Pid>,
    /// The thread whose call is failing.
    failing: Option<Pid>,
}

/// The tracees of this thread alone: the suite has other children.
const OWN: WaitPidFlag = WaitPidFlag::__WALL.union(WaitPidFlag::__WNOTHREAD);

impl Watcher {
    /// Traces every thread. One that a thread makes meanwhile is found by looking again.
    fn attach(&mut self) -> Result<()> {
        loop {
            let before = self.threads.len();
            for entry in fs::read_dir(format!("/proc/{}/task", self.pid)).context("threads of the daemon")? {
                let name = entry?.file_name();
                let thread = Pid::from_raw(name.to_string_lossy().parse()?);
                if self.threads.contains(&thread) {
                    continue;
                }
                let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
                match ptrace::seize(thread, options) {
                    // Gone again, or traced since its making.
                    Err(Errno::ESRCH | Errno::EPERM) => {}
                    other => {
                        other.context("trace a thread")?;
                        ptrace::interrupt(thread).context("interrupt a thread")?;
                    }
                }
                self.threads.insert(thread);
            }
            if self.threads.len() == before {
                return Ok(());
            }
        }
    }

    fn watch(mut self, over: &AtomicBool) -> Result<Seen> {
        loop {
            let status = match waitpid(None, Some(OWN)) {
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => return Ok(self.seen),
                other => other.context("wait for a thread")?,
            };
            let Some(thread) = status.pid() else { continue };
            match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    self.threads.remove(&thread);
                    continue;
                }
                _ => self.threads.insert(thread),
            };
            match status {
                WaitStatus::Stopped(_, Signal::SIGURG) if over.load(Ordering::SeqCst) => {
                    let _ = ptrace::detach(thread, None);
                    self.threads.remove(&thread);
                    self.let_go();
                    return Ok(self.seen);
                }
                WaitStatus::Stopped(_, signal) => go_on(thread, Some(signal))?,
                WaitStatus::PtraceSyscall(_) => {
                    self.call(thread)?;
                    go_on(thread, None)?;
                }
                _ => go_on(thread, None)?,
            }
        }
    }

    fn call(&mut self, thread: Pid) -> Result<()> {
        if self.failing == Some(thread) {
            self.failing = None;
            if let (Blow::Fail(errno), Ok(mut registers)) = (self.blow, ptrace::getregs(thread)) {
                registers.rax = (-i64::from(errno.raw_os_error())).cast_unsigned();
                ptrace::setregs(thread, registers).context("make a call fail")?;
            }
            return Ok(());
        }
        let counts = |registers: &libc::user_regs_struct| is_effectful(registers) && self.counts(registers);
        let Some(mut registers) = entry(thread)?.filter(counts) else { return Ok(()) };
        if self.seen.struck.is_some() {
            return Ok(());
        }
        self.seen.calls += 1;
        if self.at != Some(self.seen.calls) {
            return Ok(());
        }
        self.seen.struck = Some(registers.orig_rax);
        match self.blow {
            Blow::Kill => kill(self.pid, Signal::SIGKILL).context("kill the daemon"),
            Blow::Fail(_) => {
                // There is no such call: the kernel does nothing.
                registers.orig_rax = u64::MAX;
                self.failing = Some(thread);
                ptrace::setregs(thread, registers).context("take a call away")
            }
        }
    }

    fn counts(&self, registers: &libc::user_regs_struct) -> bool {
        let number = registers.orig_rax.cast_signed();
        if matches!(self.blow, Blow::Fail(_)) && NEVER_FAIL.contains(&number) {
            return false;
        }
        if ![libc::SYS_write, libc::SYS_writev].contains(&number) {
            return true;
        }
        let target = fs::read_link(format!("/proc/{}/fd/{}", self.pid, registers.rdi));
        let is_own = target.is_ok_and(|to| to.to_string_lossy().contains("eventfd"));
        registers.rdi > 2 && !is_own
    }

    /// Leaves all threads to themselves.
    fn let_go(&mut self) {
        for thread in std::mem::take(&mut self.threads) {
            if ptrace::interrupt(thread).is_err() {
                continue;
            }
            let signal = match waitpid(thread, Some(OWN)) {
                Ok(WaitStatus::Stopped(_, signal)) if signal != Signal::SIGTRAP => Some(signal),
                _ => None,
            };
            // It may have ended.
            let _ = ptrace::detach(thread, signal);
        }
    }
}
