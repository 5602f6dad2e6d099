//! dockerd as the caller, through containerd's shim: croft-oci as its default runtime.
use std::fs;

use anyhow::{Context, Result, ensure};
use croft_harness::stage::Daemon;
use croft_harness::{Facility, Host, Output, Stage, Subject, Test};
use serde_json::json;

const NEEDS: &[Facility] = &[Facility::Root, Facility::Packages(&["docker.io"])];
const NEEDS_TIME: &[Facility] = &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["docker.io"])];

pub const SUBJECT: Subject = Subject {
    name: "callers_docker",
    on_runc: &[],
    tests: &[
        Test { name: "run_gives_output_and_status", requires: NEEDS, run: run_gives_output_and_status },
        Test { name: "exec_and_run_on_a_terminal", requires: NEEDS_TIME, run: exec_and_run_on_a_terminal },
        Test { name: "stop_pause_kill_and_restart", requires: NEEDS_TIME, run: stop_pause_kill_and_restart },
        Test { name: "builds_an_image", requires: NEEDS_TIME, run: builds_an_image },
        Test { name: "limits_hold_and_change", requires: NEEDS_TIME, run: limits_hold_and_change },
    ],
};

/// A dockerd with everything it keeps on a stage, and a busybox image called `box`.
struct Docker {
    stage: Stage,
    socket: String,
    // Last: the daemon is there as long as the stage.
    _daemon: Daemon,
}

impl Docker {
    fn new(host: &Host) -> Result<Self> {
        let stage = Stage::new(host)?;
        let socket = format!("unix://{}", stage.path("docker.sock").display());
        let settings = json!({
            "data-root": stage.path("data"), "exec-root": "/run/docker-exec", "pidfile": "/run/docker.pid",
            "hosts": [socket], "iptables": false, "ip6tables": false, "bridge": "none",
            "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": format!("/{}", stage.name()),
            "runtimes": { "tested": { "path": stage.runtime() } }, "default-runtime": "tested",
            "storage-driver": "overlay2", "log-level": "warn",
        });
        let file = stage.path("daemon.json");
        fs::write(&file, settings.to_string())?;
        let daemon = stage.start_daemon("dockerd", &["--config-file", &file.display().to_string()])?;
        let docker = Self { stage, socket, _daemon: daemon };
        let archive = docker.stage.path("rootfs.tar").display().to_string();
        docker.ok(&["import", &archive, "box"])?;
        Ok(docker)
    }

    fn docker(&self, args: &[&str]) -> Result<Output> {
        let words: Vec<&str> = ["--host", &self.socket].into_iter().chain(args.iter().copied()).collect();
        self.stage.run("docker", &words)
    }

    fn on_terminal(&self, args: &[&str], input: &str) -> Result<Output> {
        let words: Vec<&str> = ["--host", &self.socket].into_iter().chain(args.iter().copied()).collect();
        self.stage.run_on_terminal("docker", &words, input)
    }

    /// What a command that has to succeed prints; the daemon's log comes with the error.
    fn ok(&self, args: &[&str]) -> Result<String> {
        let done = self.docker(args)?.success();
        Ok(done.with_context(|| format!("dockerd said:\n{}", self.stage.daemon_log()))?.stdout)
    }

    fn run(&self, options: &[&str], program: &[&str]) -> Result<Output> {
        let words: Vec<&str> =
            ["run", "--network=none"].iter().chain(options).chain(&["box"]).chain(program).copied().collect();
        self.docker(&words)
    }
}

fn run_gives_output_and_status(host: &Host) -> Result<()> {
    let docker = Docker::new(host)?;
    let out = docker.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!(out.code() == 7 && out.stdout == "out\n" && out.stderr == "err\n", "{out}");
    docker.stage.called(&["create", "start", "delete"])?;
    let out = docker.run(&["--rm"], &["no-such-program"])?;
    ensure!(out.code() == 127 && out.stderr.contains("executable file not found in $PATH"), "{out}");
    let out = docker.run(&["--rm"], &["/etc/passwd"])?;
    ensure!(out.code() == 126 && out.stderr.contains("permission denied"), "{out}");
    Ok(())
}

fn exec_and_run_on_a_terminal(host: &Host) -> Result<()> {
    let docker = Docker::new(host)?;
    docker.run(&["--detach", "--name", "first"], &["sleep", "1000"])?.success()?;
    let out = docker.on_terminal(&["exec", "--tty", "first", "tty"], "")?.success()?;
    ensure!(out.stdout.contains("/dev/pts/"), "{out}");
    let out = docker.docker(&["exec", "first", "sh", "-c", "exit 5"])?;
    ensure!(out.code() == 5, "{out}");
    let out = docker.docker(&["exec", "first", "no-such-program"])?;
    ensure!(out.code() == 126 || out.code() == 127, "{out}");
    let top = docker.ok(&["top", "first"])?;
    ensure!(top.contains("sleep 1000"), "{top}");
    let out = docker.on_terminal(&["run", "--rm", "-it", "--network=none", "box", "sh"], "tty; exit 9\n")?;
    ensure!(out.code() == 9 && out.stdout.contains("/dev/pts/0"), "{out}");
    docker.stage.called(&["exec", "--process", "--console-socket", "--detach"])
}

fn stop_pause_kill_and_restart(host: &Host) -> Result<()> {
    let docker = Docker::new(host)?;
    let script = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done";
    docker.run(&["--detach", "--name", "first"], &["sh", "-c", script])?.success()?;
    let status = |format: &str| docker.ok(&["inspect", "--format", format, "first"]);
    docker.ok(&["pause", "first"])?;
    ensure!(status("{{.State.Status}}")? == "paused\n");
    docker.ok(&["unpause", "first"])?;
    docker.ok(&["stop", "--time", "30", "first"])?;
    ensure!(status("{{.State.Status}} {{.State.ExitCode}}")? == "exited 9\n");
    ensure!(docker.ok(&["logs", "first"])? == "up\nbye\n");
    docker.ok(&["start", "first"])?;
    docker.ok(&["kill", "first"])?;
    docker.ok(&["wait", "first"])?;
    ensure!(status("{{.State.ExitCode}}")? == "137\n");
    docker.ok(&["start", "first"])?;
    docker.ok(&["rm", "--force", "first"])?;
    docker.stage.called(&["create", "start", "pause", "resume", "kill", "delete"])
}

fn builds_an_image(host: &Host) -> Result<()> {
    let docker = Docker::new(host)?;
    fs::create_dir(docker.stage.path("context"))?;
    let recipe = "FROM box\nRUN echo built > /made\nUSER user\nCMD [\"sh\", \"-c\", \"cat /made; id -u\"]\n";
    fs::write(docker.stage.path("context/Dockerfile"), recipe)?;
    let context = docker.stage.path("context").display().to_string();
    docker.ok(&["build", "--network=none", "--tag", "made", &context])?;
    let out = docker.ok(&["run", "--rm", "--network=none", "made"])?;
    ensure!(out == "built\n1000\n", "{out}");
    Ok(())
}

fn limits_hold_and_change(host: &Host) -> Result<()> {
    let docker = Docker::new(host)?;
    let options = [
        "--detach",
        "--name=first",
        "--memory=32m",
        "--memory-swap=32m",
        "--pids-limit=20",
        "--cpu-shares=512",
    ];
    docker.run(&options, &["sleep", "1000"])?.success()?;
    let files = match host.is_unified() {
        true => ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"],
        false => ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max"],
    };
    let read = || docker.ok(&["exec", "first", "cat", files[0], files[1]]);
    ensure!(read()? == "33554432\n20\n", "{}", read()?);
    docker.ok(&["update", "--memory=64m", "--memory-swap=64m", "--pids-limit=30", "first"])?;
    ensure!(read()? == "67108864\n30\n", "{}", read()?);
    let stats = docker.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "first"])?;
    ensure!(stats.contains("/ 64MiB 1"), "{stats}");
    docker.stage.called(&["update"])
}
