//! Runs a program to its end within a time limit, keeping what it printed.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpid};

/// What a finished program printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How the program ended.
    pub status: ExitStatus,
    /// All of its standard output, with invalid UTF-8 replaced.
    pub stdout: String,
    /// All of its standard error, with invalid UTF-8 replaced.
    pub stderr: String,
}

impl Output {
    /// The exit status as a shell gives it: 128 + signal for a program that a signal ended.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// This output when the program ended with 0; else an error that carries everything it printed.
    pub fn success(self) -> Result<Self> {
        if !self.status.success() {
            bail!("{self}");
        }
        Ok(self)
    }

    /// The error message of a program that had to fail; an error when it succeeded.
    pub fn failure(self) -> Result<String> {
        if self.status.success() {
            bail!("had to fail: {self}");
        }
        Ok(self.stderr)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.command, self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim_end().is_empty() {
                write!(f, "\n--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Runs `command` to its end, in a process group of its own, with no input unless the caller set one.
///
/// The output goes through files, not pipes: a detached container keeps the caller's stdio, and a pipe would
/// then never reach its end. Past `limit` the whole process group is killed and the error says what was printed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    command.stdin(Stdio::null());
    run_with_input(command, limit)
}

/// As [`run`], with the standard input that the caller has set on `command`.
pub fn run_with_input(command: &mut Command, limit: Duration) -> Result<Output> {
    run_onto(command, [tempfile::tempfile()?, tempfile::tempfile()?], limit)
}

/// As [`run`], with the standard output and error in these two files, made anew, which stay.
pub fn run_into(command: &mut Command, files: &[PathBuf; 2], limit: Duration) -> Result<Output> {
    let open = |path: &PathBuf| {
        let made = File::options().read(true).write(true).create(true).truncate(true).open(path);
        made.with_context(|| format!("make {}", path.display()))
    };
    command.stdin(Stdio::null());
    run_onto(command, [open(&files[0])?, open(&files[1])?], limit)
}

fn run_onto(command: &mut Command, [mut stdout, mut stderr]: [File; 2], limit: Duration) -> Result<Output> {
    let text = describe(command);
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
    let mut child = command.spawn().with_context(|| format!("start {text}"))?;
    let limit = patience(limit);
    let ended = wait(&mut child, limit)?;
    let (stdout, stderr) = (read_all(&mut stdout)?, read_all(&mut stderr)?);
    match ended {
        Some(status) => Ok(Output { command: text, status, stdout, stderr }),
        None => bail!("{text}: still running after {limit:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"),
    }
}

/// A time limit on this host: where the processor is emulated, everything takes longer.
pub fn patience(limit: Duration) -> Duration {
    const EMULATED: u32 = 6;
    if crate::facility::emulated() { limit * EMULATED } else { limit }
}

/// Waits for `child` at most `limit`. `None` when it had to be killed, with its process group.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    if ends_within(pid, limit)? {
        return Ok(Some(child.wait()?));
    }
    // The group may be gone, or never have been one: the child itself is killed in any case.
    let _ = kill_process_group(pid, Signal::KILL);
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Whether the process ends within `limit`. It stays a zombie if it is a child of the caller.
pub fn ends_within(pid: Pid, limit: Duration) -> Result<bool> {
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(true),
        Err(e) => return Err(e).with_context(|| format!("pidfd of process {pid:?}")),
    };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("time limit")?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("poll of a pidfd"),
        }
    }
}

/// Waits for the end of `holder`, a child that holds a pid namespace whose first process was killed.
///
/// A process of the namespace whose parent was outside of it, an `nsenter` that a test had to kill, came to the suite: until its exit
/// status is taken the namespace does not end (`pid_namespaces(7)`).
pub fn end_of_namespace(holder: &mut Child) -> Result<()> {
    while !ends_within(Pid::from_child(holder), Duration::from_millis(20))? {
        for pid in strays()? {
            // Of those that still live nothing is taken.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
    holder.wait().map(drop).context("wait for the holder of a namespace")
}

/// Children of this process that are of a pid namespace below its own. None that it started itself is: those are `unshare` and
/// `nsenter`.
fn strays() -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        let children = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for pid in children.split_whitespace() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            if numbers.is_some_and(|numbers| numbers.split_whitespace().count() > 1) {
                found.extend(Pid::from_raw(pid.parse()?));
            }
        }
    }
    Ok(found)
}

/// The command line as one would type it, near enough to repeat by hand.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn read_all(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn keeps_output_and_status() {
        let out = run(&mut sh("echo out; echo err >&2; exit 3"), Duration::from_secs(10)).unwrap();
        assert_eq!((out.code(), out.stdout.as_str(), out.stderr.as_str()), (3, "out\n", "err\n"));
        assert!(out.clone().success().is_err());
        assert_eq!(out.failure().unwrap(), "err\n");
    }

    #[test]
    fn a_signal_counts_as_128_and_its_number() {
        assert_eq!(run(&mut sh("kill -TERM $$"), Duration::from_secs(10)).unwrap().code(), 143);
    }

    #[test]
    fn a_program_past_its_limit_is_killed_with_its_children() {
        let error = run(&mut sh("sleep 1000 & echo $!; wait"), Duration::from_millis(200)).unwrap_err();
        let text = error.to_string();
        let pid = text.lines().find_map(|l| l.parse().ok()).and_then(Pid::from_raw).unwrap();
        assert!(ends_within(pid, Duration::from_secs(5)).unwrap(), "{text}");
    }

    #[test]
    fn a_namespace_ends_though_its_processes_came_to_the_suite() {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let unshare = ["--pid", "--fork", "--kill-child", "sh", "-c", "echo ready; sleep 1000 & wait"];
        let mut holder = Command::new("unshare").args(unshare).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 6];
        holder.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let first: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        let target = first.to_string();
        let nsenter = ["--target", &target, "--pid", "sh", "-c", "echo ready; exec sleep 1000"];
        let mut enters = Command::new("nsenter").args(nsenter).stdout(Stdio::piped()).spawn().unwrap();
        enters.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        enters.kill().unwrap();
        enters.wait().unwrap();
        rustix::process::kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
        end_of_namespace(&mut holder).unwrap();
    }

    #[test]
    fn does_not_wait_for_what_keeps_the_output_open() {
        let out = run(&mut sh("sleep 1000 & echo $!"), Duration::from_secs(10)).unwrap();
        let pid = Pid::from_raw(out.stdout.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
}
