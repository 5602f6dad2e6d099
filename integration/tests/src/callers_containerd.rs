//! containerd as the caller: `ctr run` through runc's shim, with croft-oci as its BinaryName.
use anyhow::{Context, Result, ensure};
use croft_harness::stage::Daemon;
use croft_harness::{Facility, Host, Output, Stage, Subject, Test, containerd};

const NEEDS: &[Facility] = &[Facility::Root, Facility::Packages(&["containerd"])];

pub const SUBJECT: Subject = Subject {
    name: "callers_containerd",
    on_runc: &[],
    tests: &[
        Test { name: "run_gives_output_and_status", requires: NEEDS, run: run_gives_output_and_status },
        Test { name: "a_task_from_start_to_delete", requires: NEEDS, run: a_task_from_start_to_delete },
    ],
};

/// A containerd with everything it keeps on a stage.
struct Containerd {
    stage: Stage,
    _daemon: Daemon,
    /// Its client, and the options that come before a verb.
    ctr: Vec<String>,
}

impl Containerd {
    fn new(host: &Host) -> Result<Self> {
        let stage = Stage::new(host)?;
        let (daemon, ctr) = containerd::start(&stage)?;
        Ok(Self { stage, _daemon: daemon, ctr })
    }

    /// What follows the client's name, for a verb with its arguments.
    fn words<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        self.ctr[1..].iter().map(String::as_str).chain(args.iter().copied()).collect()
    }

    fn ctr(&self, args: &[&str]) -> Result<Output> {
        self.stage.run(&self.ctr[0], &self.words(args))
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        let done = self.ctr(args)?.success();
        Ok(done.with_context(|| format!("containerd said:\n{}", self.stage.daemon_log()))?.stdout)
    }

    /// `ctr run`: without an image nothing sets PATH.
    fn run(&self, options: &[&str], id: &str, program: &[&str]) -> Result<Output> {
        let (runtime, rootfs) = (self.stage.runtime().display().to_string(), self.stage.path("rootfs"));
        let group = format!("/{}/{id}", self.stage.name());
        let rootfs = rootfs.display().to_string();
        let mut words = vec!["run", "--runc-binary", &runtime, "--cgroup", &group, "--env", "PATH=/bin"];
        words.extend(options);
        words.extend(["--rootfs", &rootfs, id]);
        words.extend(program);
        self.ctr(&words)
    }
}

fn run_gives_output_and_status(host: &Host) -> Result<()> {
    let containerd = Containerd::new(host)?;
    let out = containerd.run(&["--rm"], "first", &["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!(out.code() == 7 && out.stdout == "out\n" && out.stderr == "err\n", "{out}");
    containerd.stage.called(&["create", "start", "delete"])?;
    let out = containerd.run(&["--rm"], "second", &["no-such-program"])?;
    ensure!(out.stderr.contains("executable file not found in $PATH"), "{out}");
    Ok(())
}

fn a_task_from_start_to_delete(host: &Host) -> Result<()> {
    let containerd = Containerd::new(host)?;
    let script = "trap 'exit 9' TERM; while :; do sleep 0.1; done";
    containerd.run(&["--detach"], "first", &["sh", "-c", script])?.success()?;
    let list = || containerd.ok(&["tasks", "list"]);
    ensure!(list()?.contains("RUNNING"), "{}", list()?);
    let out =
        containerd.ctr(&["tasks", "exec", "--exec-id", "a", "first", "sh", "-c", "echo inside; exit 5"])?;
    ensure!(out.code() == 5 && out.stdout == "inside\n", "{out}");
    let words = containerd.words(&["tasks", "exec", "--tty", "--exec-id", "b", "first", "tty"]);
    let out = containerd.stage.run_on_terminal(&containerd.ctr[0], &words, "")?;
    ensure!(out.stdout.contains("/dev/pts/"), "{out}");
    containerd.ok(&["tasks", "pause", "first"])?;
    ensure!(list()?.contains("PAUSED"), "{}", list()?);
    containerd.ok(&["tasks", "resume", "first"])?;
    ensure!(containerd.ok(&["tasks", "ps", "first"])?.lines().count() >= 2);
    let metrics = containerd.ok(&["tasks", "metrics", "first"])?;
    ensure!(metrics.contains("pids.current"), "{metrics}");
    containerd.ok(&["tasks", "kill", "--signal", "TERM", "first"])?;
    // It waits for the end, gives the status and deletes the task.
    let out = containerd.ctr(&["tasks", "attach", "first"])?;
    ensure!(out.code() == 9 && !list()?.contains("first"), "{out}\n{}", list()?);
    containerd.ok(&["containers", "delete", "first"])?;
    containerd.stage.called(&["create", "start", "exec", "pause", "resume", "ps", "kill", "delete"])
}
