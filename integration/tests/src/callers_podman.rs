//! Podman as the caller, through conmon: `podman --runtime PATH`.
use std::fs;

use anyhow::{Result, ensure};
use croft_harness::{Facility, Host, Output, Stage, Subject, Test};

const NEEDS: &[Facility] = &[Facility::Root, Facility::Packages(&["podman"])];
const NEEDS_TIME: &[Facility] = &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["podman"])];

pub const SUBJECT: Subject = Subject {
    name: "callers_podman",
    on_runc: &[],
    tests: &[
        Test { name: "run_gives_output_and_status", requires: NEEDS, run: run_gives_output_and_status },
        Test {
            name: "a_missing_program_is_127_and_a_bad_one_126",
            requires: NEEDS_TIME,
            run: a_missing_program,
        },
        Test { name: "exec_on_a_terminal", requires: NEEDS, run: exec_on_a_terminal },
        Test { name: "run_on_a_terminal", requires: NEEDS_TIME, run: run_on_a_terminal },
        Test { name: "stop_pause_kill_and_restart", requires: NEEDS_TIME, run: stop_pause_kill_and_restart },
        Test { name: "builds_an_image", requires: NEEDS_TIME, run: builds_an_image },
        Test { name: "limits_hold_and_change", requires: NEEDS, run: limits_hold_and_change },
        Test { name: "user_namespace_and_volume", requires: NEEDS, run: user_namespace_and_volume },
        Test {
            name: "bridge_network",
            requires: &[
                Facility::Root,
                Facility::Packages(&["podman", "containernetworking-plugins", "iptables"]),
            ],
            run: bridge_network,
        },
    ],
};

/// Podman with everything it keeps on a stage, and a busybox image called `box`.
struct Podman {
    stage: Stage,
}

impl Podman {
    fn new(host: &Host) -> Result<Self> {
        let podman = Self { stage: Stage::new(host)? };
        podman.ok(&["import", &podman.path("rootfs.tar"), "box"])?;
        Ok(podman)
    }

    fn path(&self, name: &str) -> String {
        self.stage.path(name).display().to_string()
    }

    fn words(&self, args: &[&str]) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        for (option, folder) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
            ("--network-config-dir", "networks"),
        ] {
            words.extend([option.to_owned(), self.path(folder)]);
        }
        words.extend(["--cgroup-manager", "cgroupfs", "--events-backend", "file"].map(str::to_owned));
        words.extend(["--storage-driver", "overlay", "--runtime"].map(str::to_owned));
        words.push(self.stage.runtime().display().to_string());
        words.extend(args.iter().map(|&arg| arg.to_owned()));
        words
    }

    fn podman(&self, args: &[&str]) -> Result<Output> {
        let words = self.words(args);
        self.stage.run("podman", &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn on_terminal(&self, args: &[&str], input: &str) -> Result<Output> {
        let words = self.words(args);
        self.stage.run_on_terminal("podman", &words.iter().map(String::as_str).collect::<Vec<_>>(), input)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        Ok(self.podman(args)?.success()?.stdout)
    }

    /// `run` without a network, in the stage's cgroup.
    fn run(&self, options: &[&str], program: &[&str]) -> Result<Output> {
        let parent = format!("--cgroup-parent=/{}", self.stage.name());
        let mut words = vec!["run", "--network=none", &parent];
        words.extend(options);
        words.push("box");
        words.extend(program);
        self.podman(&words)
    }
}

fn run_gives_output_and_status(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    let out = podman.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!(out.code() == 7 && out.stdout == "out\n" && out.stderr == "err\n", "{out}");
    podman.stage.called(&["create", "start", "delete"])
}

fn a_missing_program(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    let out = podman.run(&["--rm"], &["no-such-program"])?;
    ensure!(out.code() == 127, "{out}");
    let out = podman.run(&["--rm"], &["/etc/passwd"])?;
    ensure!(out.code() == 126, "{out}");
    ensure!(podman.ok(&["ps", "--all", "--quiet"])?.is_empty(), "a container that never ran is left");
    Ok(())
}

fn exec_on_a_terminal(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    podman.run(&["--detach", "--name", "first"], &["sleep", "1000"])?.success()?;
    let out = podman.on_terminal(&["exec", "--tty", "first", "tty"], "")?.success()?;
    ensure!(out.stdout.trim().starts_with("/dev/pts/"), "{out}");
    let out = podman.podman(&["exec", "first", "sh", "-c", "exit 5"])?;
    ensure!(out.code() == 5, "{out}");
    let out = podman.podman(&["exec", "first", "no-such-program"])?;
    ensure!(out.code() == 127, "{out}");
    podman.stage.called(&["exec", "--console-socket", "--process", "--pid-file"])
}

fn run_on_a_terminal(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    let parent = format!("--cgroup-parent=/{}", podman.stage.name());
    let words = ["run", "--rm", "--interactive", "--tty", "--network=none", &parent, "box", "sh"];
    let out = podman.on_terminal(&words, "tty; exit 9\n")?;
    ensure!(out.code() == 9 && out.stdout.contains("/dev/pts/0"), "{out}");
    podman.stage.called(&["create", "--console-socket"])
}

fn stop_pause_kill_and_restart(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    let script = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done";
    podman.run(&["--detach", "--name", "first"], &["sh", "-c", script])?.success()?;
    let status = |format: &str| podman.ok(&["inspect", "--format", format, "first"]);
    podman.ok(&["pause", "first"])?;
    ensure!(status("{{.State.Status}}")? == "paused\n");
    podman.ok(&["unpause", "first"])?;
    podman.ok(&["stop", "--time", "30", "first"])?;
    ensure!(status("{{.State.Status}} {{.State.ExitCode}}")? == "exited 9\n");
    ensure!(podman.ok(&["logs", "first"])? == "up\nbye\n");
    podman.ok(&["start", "first"])?;
    podman.ok(&["kill", "--signal", "KILL", "first"])?;
    podman.ok(&["wait", "first"])?;
    ensure!(status("{{.State.ExitCode}}")? == "137\n");
    podman.ok(&["start", "first"])?;
    podman.ok(&["rm", "--force", "--time", "0", "first"])?;
    podman.stage.called(&["create", "start", "pause", "resume", "kill", "delete"])
}

fn builds_an_image(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    fs::create_dir(podman.stage.path("context"))?;
    let recipe = "FROM box\nRUN echo built > /made\nUSER user\nCMD [\"sh\", \"-c\", \"cat /made; id -u\"]\n";
    fs::write(podman.stage.path("context/Containerfile"), recipe)?;
    let parent = format!("--cgroup-parent=/{}", podman.stage.name());
    podman.ok(&["build", "--network=none", &parent, "--tag", "made", &podman.path("context")])?;
    podman.stage.called(&["create"])?;
    let out = podman.ok(&["run", "--rm", "--network=none", &parent, "made"])?;
    ensure!(out == "built\n1000\n", "{out}");
    Ok(())
}

fn limits_hold_and_change(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    let limits = ["--memory=32m", "--memory-swap=32m", "--pids-limit=20"];
    let options: Vec<&str> = limits.iter().copied().chain(["--detach", "--name", "first"]).collect();
    podman.run(&options, &["sleep", "1000"])?.success()?;
    let files = match host.is_unified() {
        true => ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"],
        false => ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max"],
    };
    let out = podman.ok(&["exec", "first", "cat", files[0], files[1]])?;
    ensure!(out == "33554432\n20\n", "{out}");
    Ok(())
}

fn user_namespace_and_volume(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    fs::create_dir(podman.stage.path("volume"))?;
    let volume = format!("{}:/volume", podman.path("volume"));
    let options = ["--rm", "--uidmap=0:100000:65536", "--gidmap=0:100000:65536", "--volume", &volume];
    let out =
        podman.run(&options, &["sh", "-c", "cat /proc/self/uid_map; stat -c %u /volume /bin/busybox"])?;
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    ensure!(words == ["0", "100000", "65536", "65534", "0"], "{out}");
    Ok(())
}

fn bridge_network(host: &Host) -> Result<()> {
    let podman = Podman::new(host)?;
    let parent = format!("--cgroup-parent=/{}", podman.stage.name());
    let out =
        podman.ok(&["run", "--rm", &parent, "box", "ip", "-o", "-4", "address", "show", "dev", "eth0"])?;
    ensure!(out.contains("10.88."), "{out}");
    Ok(())
}
