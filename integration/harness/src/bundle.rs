//! A bundle in a temporary folder, and the runtime's verbs on the container made from it.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::build;
use crate::config::default_config;
use crate::host::Host;
use crate::process::{self, Output};
use crate::rootfs;

/// How long a verb of the runtime may take in a test.
pub const VERB_LIMIT: Duration = Duration::from_secs(20);

/// A folder with `config.json` and a busybox `rootfs`, a container id and a state root of its own.
///
/// Dropping it deletes the container by force, then the folder.
#[derive(Debug)]
pub struct Bundle {
    folder: TempDir,
    state: TempDir,
    runtime: PathBuf,
    id: String,
    globals: Vec<String>,
    /// The configuration; written to `config.json` before every verb that reads it.
    pub config: Value,
}

impl Bundle {
    /// A bundle whose container runs `args` with the default configuration ([`default_config`]).
    pub fn new(host: &Host, args: &[&str]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", host.marker, NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix(&format!("{id}-")).tempdir().context("bundle folder")?;
        let state =
            tempfile::Builder::new().prefix(&format!("{id}-state-")).tempdir().context("state root")?;
        // With a user namespace the container's root is another user here, and has to reach its root filesystem.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .context("mode of the bundle folder")?;
        rootfs::busybox(&folder.path().join("rootfs"))?;
        let mut config = default_config(args);
        config["linux"]["cgroupsPath"] = format!("/{id}").into();
        Ok(Self { folder, state, runtime: host.runtime.clone(), id, globals: Vec::new(), config })
    }

    /// A bundle whose container runs a shell script.
    pub fn shell(host: &Host, script: &str) -> Result<Self> {
        Self::new(host, &["/bin/sh", "-c", script])
    }

    /// A bundle whose container runs the probe with `args`: see [`Bundle::probed`].
    pub fn probe(host: &Host, args: &[&str]) -> Result<Self> {
        let words: Vec<&str> = std::iter::once("/probe").chain(args.iter().copied()).collect();
        let bundle = Self::new(host, &words)?;
        bundle.add_probe()?;
        Ok(bundle)
    }

    /// Puts the probe into the root filesystem as `/probe`, for `exec`.
    pub fn add_probe(&self) -> Result<()> {
        let program = build::probe()?;
        fs::copy(&program, self.rootfs().join("probe"))
            .with_context(|| format!("copy {}", program.display()))?;
        Ok(())
    }

    /// Changes the configuration.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Adds options before the verb: `--systemd-cgroup`, `--debug`.
    #[must_use]
    pub fn globals(mut self, options: &[&str]) -> Self {
        self.globals.extend(options.iter().map(|&o| o.to_owned()));
        self
    }

    /// The container's id, which is also the last part of its `cgroupsPath`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder that holds `config.json` and `rootfs`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The runtime under test, for a command line that [`Bundle::command`] does not make.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The container's root filesystem on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.folder().join("rootfs")
    }

    /// The runtime's `--root`.
    pub fn state_root(&self) -> &Path {
        self.state.path()
    }

    /// Writes `config.json`. The verbs that read it do so themselves.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.config)?;
        fs::write(self.folder().join("config.json"), text).context("write config.json")
    }

    /// The command line of a verb, to add options and run with [`process::run`]: the id comes last, from the caller.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.state_root()).args(&self.globals).arg(verb);
        command
    }

    /// Runs `verb options... id rest...` to its end, whether it succeeds or not.
    pub fn verb(&self, verb: &str, options: &[&str], rest: &[&str]) -> Result<Output> {
        process::run(self.command(verb).args(options).arg(&self.id).args(rest), VERB_LIMIT)
    }

    /// `run` in the foreground, whether it succeeds or not.
    pub fn run(&self) -> Result<Output> {
        self.run_with(&[])
    }

    /// `run` with more options.
    pub fn run_with(&self, options: &[&str]) -> Result<Output> {
        self.verb_on_bundle("run", options)
    }

    /// `run` in the foreground; an error with everything it printed unless it ended with 0. Gives its standard output.
    pub fn stdout(&self) -> Result<String> {
        Ok(self.run()?.success()?.stdout)
    }

    /// `run` in the foreground of a container whose program is the probe: what it saw.
    pub fn probed(&self) -> Result<Value> {
        seen(&self.run()?.success()?)
    }

    /// What the probe sees when `exec` runs it with these options. Needs [`Bundle::add_probe`].
    pub fn exec_probed(&self, options: &[&str], args: &[&str]) -> Result<Value> {
        let words: Vec<&str> = std::iter::once("/probe").chain(args.iter().copied()).collect();
        seen(&self.exec_with(options, &words)?.success()?)
    }

    /// `create`, whether it succeeds or not. The container's output goes to files that [`Bundle::output`] reads.
    pub fn create(&self) -> Result<Output> {
        self.create_with(&[])
    }

    /// `create` with more options.
    pub fn create_with(&self, options: &[&str]) -> Result<Output> {
        self.verb_on_bundle("create", options)
    }

    /// `start`, whether it succeeds or not.
    pub fn start(&self) -> Result<Output> {
        self.verb("start", &[], &[])
    }

    /// `create` and `start`; an error unless both succeed.
    pub fn started(&self) -> Result<()> {
        self.create()?.success()?;
        self.start()?.success()?;
        Ok(())
    }

    /// `exec` of `args`, whether it succeeds or not.
    pub fn exec(&self, args: &[&str]) -> Result<Output> {
        self.verb("exec", &[], args)
    }

    /// `exec` with options before the id.
    pub fn exec_with(&self, options: &[&str], args: &[&str]) -> Result<Output> {
        self.verb("exec", options, args)
    }

    /// What `state` prints.
    pub fn state(&self) -> Result<Value> {
        let out = self.verb("state", &[], &[])?.success()?;
        serde_json::from_str(&out.stdout).with_context(|| format!("state is not JSON: {}", out.stdout))
    }

    /// The status that `state` gives: `created`, `running`, `paused` or `stopped`.
    pub fn status(&self) -> Result<String> {
        Ok(self.state()?["status"].as_str().context("state has no status")?.to_owned())
    }

    /// The host's number of the container's first process.
    pub fn pid(&self) -> Result<i32> {
        let pid = self.state()?["pid"].as_i64().context("state has no pid")?;
        Ok(i32::try_from(pid)?)
    }

    /// `kill` with a signal.
    pub fn kill(&self, signal: &str) -> Result<Output> {
        self.verb("kill", &[], &[signal])
    }

    /// `delete`, whether it succeeds or not.
    pub fn delete(&self) -> Result<Output> {
        self.verb("delete", &[], &[])
    }

    /// Waits until the container's first process, `pid`, has ended; an error past `limit`.
    pub fn ended(&self, pid: i32, limit: Duration) -> Result<()> {
        let process = rustix::process::Pid::from_raw(pid).context("a pid is above 0")?;
        anyhow::ensure!(process::ends_within(process, limit)?, "process {pid} still runs after {limit:?}");
        Ok(())
    }

    /// What the container has written to its standard output and error since `create` or a detached `run`.
    pub fn output(&self) -> Result<(String, String)> {
        let read =
            |name: &str| fs::read_to_string(self.folder().join(name)).with_context(|| format!("read {name}"));
        Ok((read("stdout")?, read("stderr")?))
    }

    /// `create` and `run` keep the output in the bundle, where the detached container goes on writing.
    fn verb_on_bundle(&self, verb: &str, options: &[&str]) -> Result<Output> {
        self.save()?;
        let mut command = self.command(verb);
        command.arg("--bundle").arg(self.folder()).args(options).arg(&self.id);
        let files = [self.folder().join("stdout"), self.folder().join("stderr")];
        process::run_into(&mut command, &files, VERB_LIMIT)
    }
}

/// The JSON that the probe has printed: silence is an error, not an answer.
pub fn seen(out: &Output) -> Result<Value> {
    serde_json::from_str(&out.stdout).with_context(|| format!("the probe did not answer: {out}"))
}

impl Drop for Bundle {
    /// Best effort: the container may never have been made, and a failed test has already said what went wrong.
    fn drop(&mut self) {
        let _ = process::run(self.command("delete").arg("--force").arg(&self.id), VERB_LIMIT);
    }
}
