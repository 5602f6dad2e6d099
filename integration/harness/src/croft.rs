//! croftd, croft-shim and croft on a stage, as their tests use them.
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::build::{self, Build};
use crate::host::Host;
use crate::process::Output;
use crate::stage::{COMMAND_LIMIT, Daemon, Stage};

/// A croftd of its own on a stage, with a busybox image called `box`.
#[derive(Debug)]
pub struct Croft {
    /// Namespaces and a folder. Dropped first: with its namespaces end croftd, the supervisor and the containers.
    pub stage: Stage,
    daemon: Option<Daemon>,
    /// The daemon.
    pub croftd: PathBuf,
    shim: PathBuf,
    options: Vec<String>,
    runtime: PathBuf,
    /// The command line.
    pub program: PathBuf,
}

/// A host whose rules do not see what stays on a bridge, as where nobody has loaded br_netfilter, which some kernels have built in: packets
/// take the way then that they take on most hosts.
pub const UNFILTERED_BRIDGES: &str =
    "for file in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $file ] || echo 0 > $file; done";

impl Croft {
    /// Starts it and imports the image.
    pub fn new(host: &Host) -> Result<Self> {
        Self::with_options(host, &[])
    }

    /// As [`Croft::new`], of a croftd with further options.
    pub fn with_options(host: &Host, options: &[&str]) -> Result<Self> {
        let stage = Stage::new(host)?;
        let runtime = stage.runtime();
        Self::begin(stage, runtime, build::daemon(Build::Debug)?, options)
    }

    /// As [`Croft::new`], with the programs as a user gets them, and nobody who notes how the runtime is called.
    pub fn as_installed(host: &Host) -> Result<Self> {
        Self::begin(Stage::new(host)?, host.runtime.clone(), build::daemon(Build::Release)?, &[])
    }

    /// As [`Croft::new`], with this program in the place of the runtime under test.
    pub fn with_runtime(host: &Host, runtime: PathBuf) -> Result<Self> {
        Self::begin(Stage::new(host)?, runtime, build::daemon(Build::Debug)?, &[])
    }

    /// As [`Croft::new`], without the image.
    pub fn without_images(host: &Host) -> Result<Self> {
        let stage = Stage::new(host)?;
        let runtime = stage.runtime();
        Self::empty(stage, runtime, build::daemon(Build::Debug)?, &[])
    }

    fn begin(stage: Stage, runtime: PathBuf, programs: [PathBuf; 3], options: &[&str]) -> Result<Self> {
        let new = Self::empty(stage, runtime, programs, options)?;
        new.ok(&["image", "import", &new.path("rootfs.tar"), "box"])?;
        Ok(new)
    }

    fn empty(
        stage: Stage,
        runtime: PathBuf,
        [croftd, shim, program]: [PathBuf; 3],
        options: &[&str],
    ) -> Result<Self> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        stage.run("sh", &["-ec", UNFILTERED_BRIDGES])?.success()?;
        let mut new = Self { stage, daemon: None, croftd, shim, runtime, options, program };
        new.start()?;
        Ok(new)
    }

    /// A path in the stage's folder.
    pub fn path(&self, name: &str) -> String {
        self.stage.path(name).display().to_string()
    }

    /// Starts croftd, after [`Croft::kill`].
    pub fn start(&mut self) -> Result<()> {
        self.start_as(&[], &[])
    }

    /// Starts it with further options, by a command that becomes croftd, where one is given.
    pub fn start_as(&mut self, by: &[&str], options: &[&str]) -> Result<()> {
        let shim = self.shim.display().to_string();
        let init = self.shim.with_file_name("croft-init").display().to_string();
        let args = [
            ("--root", self.path("lib")),
            ("--state", "/run/croft".to_owned()),
            ("--host-state", "/run/croft-host".to_owned()),
            ("--runtime", self.runtime.display().to_string()),
            ("--shim", shim),
            ("--init", init),
            ("--cgroup", self.stage.name().to_owned()),
        ];
        let mut args: Vec<&str> = args.iter().flat_map(|(option, value)| [*option, value.as_str()]).collect();
        args.extend(self.options.iter().map(String::as_str));
        let croftd = self.croftd.display().to_string();
        let words = [by, &[croftd.as_str()], &args, options].concat();
        let (program, args) = words.split_first().context("there is croftd")?;
        self.daemon = Some(self.stage.start_daemon(program, args)?);
        Ok(())
    }

    /// Runs croft. What is not about networks has none: not every host that runs these tests can have one.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        let mut args = args.to_vec();
        if matches!(args.first(), Some(&"run" | &"create")) && !args.contains(&"--network") {
            args.splice(1..1, ["--network", "none"]);
        }
        self.stage.run(&self.program.display().to_string(), &args)
    }

    /// What croft prints, where it succeeds.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?.success();
        Ok(output.with_context(|| self.stage.daemon_log())?.stdout)
    }

    /// The status and the words of a croft that fails.
    pub fn fails(&self, args: &[&str]) -> Result<(i32, String)> {
        let output = self.run(args)?;
        let code = output.code();
        Ok((code, output.failure()?))
    }

    /// All that is known of a container.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let all: Value = serde_json::from_str(&self.ok(&["inspect", name])?)?;
        Ok(all[0].clone())
    }

    /// croftd's process, by the number that the suite knows it by.
    pub fn pid(&self) -> Result<u32> {
        self.daemon.as_ref().context("there is no croftd")?.pid()
    }

    /// SIGKILL in the middle of whatever it does.
    pub fn kill(&mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("a pid is above 0")?;
        kill_process(pid, Signal::KILL)?;
        self.killed()
    }

    /// Waits for the end of a croftd that was killed.
    pub fn killed(&mut self) -> Result<()> {
        self.daemon.take().context("there is no croftd")?.ended()
    }

    /// SIGTERM, as systemd ends a service, and its end.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal("-TERM")?;
        self.daemon.take().context("there is a croftd")?.ended()
    }

    /// Sends croftd a signal.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let info: Value = serde_json::from_str(&self.ok(&["system", "info"])?)?;
        self.stage.run("kill", &[signal, &info["pid"].to_string()])?.success().map(drop)
    }

    /// Fails when a container is there, or anything that `croft system check` does not account for.
    pub fn nothing_is_left(&self) -> Result<()> {
        ensure!(self.ok(&["ps", "--all", "--quiet"])?.is_empty(), "a container is left");
        self.ok(&["system", "check"]).map(drop)
    }

    /// Waits until a container's output has `words`.
    pub fn wait_for_log(&self, name: &str, words: &str) -> Result<()> {
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            let log = self.ok(&["logs", name])?;
            if log.contains(words) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{name} did not say {words}:\n{log}");
        }
    }

    /// The events, once a container has ended for the `times`th time.
    pub fn run_until(&self, name: &str, times: usize) -> Result<String> {
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            let events = self.ok(&["events", "--since", "0", "--no-follow"])?;
            if events.matches(&format!(" exit {name} ")).count() >= times {
                return Ok(events);
            }
            ensure!(Instant::now() < deadline, "{name} did not end {times} times:\n{events}");
        }
    }
}
