//! A place apart where a caller of the runtime runs: Podman, dockerd or containerd with private state.
//!
//! A stage has a mount, network and pid namespace of its own with an empty /run, and a folder. Everything started on it
//! ends with it, and its cgroups go too. The caller is given a runtime that first notes how it was called, so that a
//! test can show that the runtime under test, and no other, did the work.
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::host::Host;
use crate::process::{self, Output};
use crate::{relay, rootfs};

/// How long a command of a caller may take: in the virtual machine they are many times slower.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// The first process of the pid namespace: it reaps, as an init does, since callers wait for their orphans to go.
const INIT: &str = "mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/lock && ip link set lo up && echo ready \
                    && { sleep infinity & wait; }";

/// Namespaces, a folder and a recording runtime.
#[derive(Debug)]
pub struct Stage {
    holder: Child,
    init: Pid,
    folder: TempDir,
    name: String,
    hierarchies: Vec<PathBuf>,
}

impl Stage {
    /// Sets it up, with a busybox root filesystem as the folder `rootfs` and as the archive `rootfs.tar`.
    pub fn new(host: &Host) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-stage-{}", host.marker, NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix(&name).tempdir().context("folder of a stage")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        rootfs::busybox(&folder.path().join("rootfs"))?;
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(folder.path().join("rootfs"))
            .arg("-cf")
            .arg(folder.path().join("rootfs.tar"))
            .arg(".");
        process::run(&mut tar, COMMAND_LIMIT)?.success()?;
        recording_runtime(&host.runtime, folder.path())?;
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--mount-proc"])
            .args(["--kill-child", "sh", "-c", INIT])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("holder.log"))?)
            .process_group(0)
            .spawn()
            .context("start unshare")?;
        let said = || fs::read_to_string(folder.path().join("holder.log")).unwrap_or_default();
        let init = ready(&mut holder).with_context(|| format!("set up a stage: {}", said()))?;
        let hierarchies = host.hierarchies().into_iter().map(Path::to_owned).collect();
        Ok(Self { holder, init, folder, name, hierarchies })
    }

    /// A word for the names of what the caller makes: a cgroup parent, a containerd namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path in the stage's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The runtime to give to the caller: notes its arguments and becomes the runtime under test.
    pub fn runtime(&self) -> PathBuf {
        self.path("runtime")
    }

    /// Its network namespace.
    pub fn network(&self) -> Result<File> {
        relay::network_of(&self.init.as_raw_nonzero().to_string())
    }

    /// How the runtime was called so far, one line a call.
    pub fn calls(&self) -> Result<String> {
        fs::read_to_string(self.path("calls")).context("the runtime was never called")
    }

    /// An error unless the runtime was called with each of these verbs.
    pub fn called(&self, verbs: &[&str]) -> Result<()> {
        let calls = self.calls()?;
        for verb in verbs {
            ensure!(
                calls.split_whitespace().any(|word| word == *verb),
                "the runtime was not asked to {verb}:\n{calls}"
            );
        }
        Ok(())
    }

    /// A program on the stage.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.init.as_raw_nonzero()))
            .args(["--mount", "--net", "--pid", "--", program])
            .env("HOME", self.folder.path());
        command
    }

    /// Runs a program on the stage to its end, whether it succeeds or not.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        process::run(self.command(program).args(args), COMMAND_LIMIT)
    }

    /// As [`Stage::run`], with a terminal as its standard streams, on which `input` is typed.
    pub fn run_on_terminal(&self, program: &str, args: &[&str], input: &str) -> Result<Output> {
        let quoted: Vec<String> = std::iter::once(&program).chain(args).map(|word| quote(word)).collect();
        let typed = self.path("typed");
        fs::write(&typed, input)?;
        let mut script = self.command("script");
        script.args(["--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"]);
        script.stdin(File::open(&typed)?);
        process::run_with_input(&mut script, COMMAND_LIMIT)
    }

    /// Starts a daemon that says by `NOTIFY_SOCKET` when it is ready (sd_notify(3)); its output goes to `daemon.log`.
    pub fn start_daemon(&self, program: &str, args: &[&str]) -> Result<Daemon> {
        let path = self.path("notify");
        // A daemon before this one may have had it.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("bind {}", path.display()))?;
        let log = File::create(self.path("daemon.log"))?;
        let mut command = self.command(program);
        command.args(args).env("NOTIFY_SOCKET", &path).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).process_group(0).spawn();
        let daemon = Daemon { child: child.with_context(|| format!("start {program}"))? };
        let deadline = Instant::now() + COMMAND_LIMIT;
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(length) if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") => {
                    return Ok(daemon);
                }
                Ok(_) => {}
                Err(e) => bail!("{program} did not become ready: {e}\n{}", self.daemon_log()),
            }
        }
    }

    /// What the daemon has printed.
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }
}

/// A daemon of a stage; dropping it kills it. What it started ends with the stage.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// The daemon's process, by the number that the suite knows it by.
    pub fn pid(&self) -> Result<u32> {
        only_child(self.child.id()).context("nsenter has no child")
    }

    /// Waits for its end, which something on the stage has brought about. nsenter is left to reap it: a zombie that came to the suite
    /// would keep the stage's pid namespace from ending.
    pub fn ended(mut self) -> Result<()> {
        let status = process::wait(&mut self.child, COMMAND_LIMIT)?;
        status.map(drop).context("the daemon did not end")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // nsenter waits for the daemon and does not pass the signal on: the stage's end is what ends the daemon.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Stage {
    /// The end of the first process ends all others of its pid namespace before `unshare` sees it; then cgroups are empty.
    fn drop(&mut self) {
        let _ = kill_process(self.init, Signal::KILL);
        let _ = process::end_of_namespace(&mut self.holder);
        for root in &self.hierarchies {
            remove_cgroups(&root.join(&self.name));
        }
    }
}

/// Waits for the line that says that the stage is set up; gives its first process.
fn ready(holder: &mut Child) -> Result<Pid> {
    let mut line = String::new();
    let stdout = holder.stdout.take().context("the holder's output is a pipe")?;
    BufReader::new(stdout).read_line(&mut line)?;
    if line != "ready\n" {
        bail!("unshare, mount or ip failed");
    }
    let init = only_child(holder.id()).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    init.context("unshare has no child")
}

fn only_child(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn recording_runtime(runtime: &Path, folder: &Path) -> Result<()> {
    let path = folder.join("runtime");
    let calls = quote(&folder.join("calls").to_string_lossy());
    let script =
        format!("#!/bin/sh\necho \"$*\" >>{calls}\nexec {} \"$@\"\n", quote(&runtime.to_string_lossy()));
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("recording runtime")
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn remove_cgroups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    // Not there on hierarchies that the runtime made no group on.
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_comes_through_a_shell_as_it_was() {
        let word = "it's \"$HOME\" `x`; \\";
        let out = process::run(
            Command::new("sh").args(["-c", &format!("printf %s {}", quote(word))]),
            COMMAND_LIMIT,
        );
        assert_eq!(out.unwrap().stdout, word);
    }
}
