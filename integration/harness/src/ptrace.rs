//! Runs a program under ptrace(2) and kills it, or a child of it, at an effectful system call.
mod attached;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

pub use attached::{Blow, Seen, while_acting};

use crate::process::{describe, patience};

/// Whose system calls are counted, and who is killed at one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The program, at its own.
    Program,
    /// The program, at those of the processes that it clones.
    ProgramOfChild,
    /// One of the processes that the program clones, at its own.
    Child,
}

/// How long a program may take that is traced.
const LIMIT: Duration = Duration::from_secs(30);

/// How a traced run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program was killed as it, or its child, entered this system call.
    Killed(u64),
    /// A child of it was killed as it entered this system call, and the program ended by itself with this status.
    ChildKilled(u64, i32),
    /// It ended by itself with this status, after this many effectful system calls.
    Exited(i32, usize),
}

/// The system calls that change something outside the memory of the caller (x86-64).
const EFFECTFUL: &[i64] = &[
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_utimensat,
    libc::SYS_add_key,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_clone,
    libc::SYS_vfork,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_ftruncate,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_bpf,
    libc::SYS_seccomp,
    libc::SYS_prctl,
    libc::SYS_capset,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setsid,
    libc::SYS_prlimit64,
    libc::SYS_keyctl,
    libc::SYS_flock,
];

/// Runs `command` with its output in a new file `output`, and kills the victim on entry to effectful system call number `at`
/// (from 1); without `at` the program runs to its end.
///
/// # Errors
/// When it cannot be traced, or does not end in time.
pub fn run(command: &Command, output: &Path, victim: Victim, at: Option<usize>) -> Result<End> {
    let (main, mut gate) = held_back(command, output)?;
    let watch = Watch::over(main);
    let mut options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
    if victim != Victim::Program {
        options |= Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
    }
    ptrace::seize(main, options).context("trace")?;
    ptrace::interrupt(main).context("interrupt")?;
    gate.write_all(b"\n")?;
    drop(gate);
    let mut tracer = Tracer {
        main,
        program: Path::new(command.get_program()).canonicalize().context("find the program")?,
        victim,
        at,
        count: 0,
        killed: None,
        traced: BTreeSet::new(),
        is_ours: false,
    };
    let end = loop {
        // Of all children: the program's own may have become ours.
        let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => continue,
            other => other.context("wait")?,
        };
        if let Some(end) = tracer.step(status)? {
            break end;
        }
    };
    tracer.let_go();
    if watch.has_bitten() {
        bail!("{}: still running after {LIMIT:?}", describe(command));
    }
    Ok(end)
}

/// Kills a program that takes too long: a wait for it cannot be cut short otherwise.
#[derive(Debug)]
struct Watch {
    over: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watch {
    fn over(pid: Pid) -> Self {
        let (over, end) = channel();
        let thread = thread::spawn(move || {
            let late = end.recv_timeout(patience(LIMIT)) == Err(RecvTimeoutError::Timeout);
            if late {
                let _ = kill(pid, Signal::SIGKILL);
            }
            late
        });
        Self { over, thread }
    }

    /// Whether it had to kill. It does not watch any more.
    fn has_bitten(self) -> bool {
        drop(self.over);
        self.thread.join().expect("the watch does not panic")
    }
}

/// Starts a shell that becomes the program once a line is written to it: there is time to trace it from its first call.
fn held_back(command: &Command, output: &Path) -> Result<(Pid, File)> {
    let file = File::create(output).with_context(|| format!("make {}", output.display()))?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read -r _; exec \"$0\" \"$@\" </dev/null"]);
    shell.arg(command.get_program()).args(command.get_args());
    let child =
        shell.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).spawn().context("start sh")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let gate = child.stdin.context("sh has no input")?;
    Ok((pid, File::from(OwnedFd::from(gate))))
}

#[derive(Debug)]
struct Tracer {
    main: Pid,
    program: PathBuf,
    victim: Victim,
    at: Option<usize>,
    count: usize,
    /// The system call at which a child was killed.
    killed: Option<u64>,
    /// Processes that have stopped for us and not ended.
    traced: BTreeSet<Pid>,
    /// Whether the shell has become the program.
    is_ours: bool,
}

impl Tracer {
    fn step(&mut self, status: WaitStatus) -> Result<Option<End>> {
        if let Some(pid) = status.pid() {
            if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                self.traced.remove(&pid);
            } else {
                self.traced.insert(pid);
            }
        }
        match status {
            WaitStatus::Exited(pid, code) if pid == self.main => {
                return Ok(Some(self.exited(code)));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == self.main => {
                return Ok(Some(self.exited(128 + signal as i32)));
            }
            WaitStatus::PtraceSyscall(pid) => match (self.entered(pid)?, self.victim) {
                (Some(number), Victim::Child) => {
                    kill(pid, Signal::SIGKILL).context("kill")?;
                    (self.at, self.killed) = (None, Some(number));
                }
                (Some(number), _) => return self.kill(pid, number).map(Some),
                (None, _) => go_on(pid, None)?,
            },
            WaitStatus::PtraceEvent(pid, _, event) => {
                // The exec of the shell itself may be seen too.
                self.is_ours |= event == libc::PTRACE_EVENT_EXEC
                    && fs::read_link(format!("/proc/{}/exe", self.main)).is_ok_and(|exe| exe == self.program);
                go_on(pid, None)?;
            }
            WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal))?,
            _ => {}
        }
        Ok(None)
    }

    fn exited(&self, status: i32) -> End {
        match self.killed {
            Some(number) => End::ChildKilled(number, status),
            None => End::Exited(status, self.count),
        }
    }

    /// The number of the system call that `pid` enters, if that is the one to kill at.
    fn entered(&mut self, pid: Pid) -> Result<Option<u64>> {
        let counts = (pid == self.main) == (self.victim == Victim::Program);
        if !self.is_ours || !counts {
            return Ok(None);
        }
        let Some(registers) = entry(pid)?.filter(is_effectful) else { return Ok(None) };
        self.count += 1;
        Ok((self.at == Some(self.count)).then_some(registers.orig_rax))
    }

    /// Kills the program. What it has cloned goes on by itself, untraced.
    fn kill(&mut self, at: Pid, number: u64) -> Result<End> {
        kill(self.main, Signal::SIGKILL).context("kill")?;
        if at != self.main {
            let _ = ptrace::detach(at, None);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)).context("wait")? {
                WaitStatus::Signaled(pid, ..) | WaitStatus::Exited(pid, _) if pid == self.main => break,
                WaitStatus::PtraceSyscall(pid)
                | WaitStatus::PtraceEvent(pid, ..)
                | WaitStatus::Stopped(pid, _) => {
                    let _ = ptrace::detach(pid, None);
                    self.traced.remove(&pid);
                }
                WaitStatus::StillAlive => bail!("the killed program does not end"),
                _ => {}
            }
        }
        self.traced.remove(&at);
        Ok(End::Killed(number))
    }

    /// Leaves those that live on to themselves.
    fn let_go(&mut self) {
        for pid in std::mem::take(&mut self.traced).into_iter().filter(|pid| *pid != self.main) {
            if ptrace::interrupt(pid).is_ok() {
                let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
                let _ = ptrace::detach(pid, None);
            }
        }
    }
}

/// The registers of a process that has stopped on entry to a system call. It may have been killed meanwhile.
fn entry(pid: Pid) -> Result<Option<libc::user_regs_struct>> {
    let (stop, registers) = match (ptrace::syscall_info(pid), ptrace::getregs(pid)) {
        (Err(Errno::ESRCH), _) | (_, Err(Errno::ESRCH)) => return Ok(None),
        (stop, registers) => (stop.context("look at a stop")?, registers.context("read registers")?),
    };
    Ok((stop.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then_some(registers))
}

fn is_effectful(registers: &libc::user_regs_struct) -> bool {
    let number = registers.orig_rax;
    let makes = i32::try_from(registers.rdx).unwrap_or(0) & (libc::O_CREAT | libc::O_TRUNC) != 0;
    (number == libc::SYS_openat as u64 && makes) || EFFECTFUL.iter().any(|known| *known as u64 == number)
}

/// Lets a stopped process go on to its next stop. It may have been killed meanwhile.
fn go_on(pid: Pid, signal: Option<Signal>) -> Result<()> {
    let signal = signal.filter(|s| !matches!(s, Signal::SIGTRAP | Signal::SIGSTOP));
    match ptrace::syscall(pid, signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => other.context("go on"),
    }
}
