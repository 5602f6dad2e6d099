//! The second half of the demo: croftd with everything it keeps in a scratch folder, killed in the middle.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::build::{self, Build};
use croft_harness::process;

/// How long croftd may take to answer.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);

/// The control group of the demo's croftd.
const GROUP: &str = "croft-demo-daemon";

/// Packing a Debian root filesystem.
const PACK_LIMIT: Duration = Duration::from_secs(120);

/// Shows croftd with a root filesystem as an image.
pub fn show(croft_oci: &Path, rootfs: &Path) -> Result<()> {
    let [croftd, shim, croft] = build::daemon(Build::Debug)?;
    let scratch =
        tempfile::Builder::new().prefix("croft-demo-").tempdir().context("make a scratch folder")?;
    // Runs and their streams belong on a file system in memory.
    let state =
        tempfile::Builder::new().prefix("croft-demo-").tempdir_in("/run").context("make a folder in /run")?;
    let archive = scratch.path().join("debian.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(rootfs).args(["--one-file-system", "--xattrs", "-cf"]).arg(&archive).arg(".");
    process::run(&mut tar, PACK_LIMIT)?.success()?;
    let mut demo = Demo {
        programs: [croftd, shim, croft, croft_oci.to_owned()],
        root: scratch.path().to_owned(),
        state: state.path().to_owned(),
        daemon: None,
    };
    println!("\n== croftd, croft-shim and croft, in a scratch folder");
    demo.begin()?;
    demo.run(&["image", "import", &archive.display().to_string(), "debian:12"])?;
    demo.run(&["image", "ls"])?;
    let script = "echo I am $(id -un) on $(hostname), and root here is $(awk '{print $2}' /proc/self/uid_map) on the host";
    // The machine's own network is left as it is.
    let run = |options: &[&str], script: &str| {
        demo.run(&[&["run", "--network", "none"], options, &["debian:12", "sh", "-c", script]].concat())
    };
    run(&["--rm", "--hostname", "croft-demo"], script)?;
    let counts = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2; done";
    run(&["--detach", "--name", "croft-demo", "--memory", "64m"], counts)?;
    demo.run(&["ps"])?;
    println!("\n== croftd is killed with SIGKILL, and started again");
    demo.kill()?;
    demo.begin()?;
    demo.run(&["ps"])?;
    demo.run(&[
        "exec",
        "croft-demo",
        "sh",
        "-c",
        "echo exec: beside $(cat /proc/1/comm), process 1 as before",
    ])?;
    demo.run(&["stop", "--time", "0", "croft-demo"])?;
    demo.run(&["logs", "croft-demo"])?;
    demo.run(&["rm", "croft-demo"])?;
    demo.run(&["events", "--since", "0", "--no-follow"])?;
    demo.run(&["system", "check"])
}

/// The programs, and croftd while it runs.
struct Demo {
    programs: [PathBuf; 4],
    root: PathBuf,
    state: PathBuf,
    daemon: Option<Child>,
}

impl Demo {
    fn begin(&mut self) -> Result<()> {
        let [croftd, shim, _, runtime] = &self.programs;
        let mut command = Command::new(croftd);
        command.arg("--root").arg(self.root.join("lib")).arg("--state").arg(&self.state);
        command.arg("--host-state").arg("/run/croft-host").args(["--cgroup", GROUP]);
        command.arg("--runtime").arg(runtime).arg("--shim").arg(shim).stdin(Stdio::null());
        let log = std::fs::File::create(self.root.join("croftd.log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        println!("$ croftd --root SCRATCH --state SCRATCH &");
        let daemon = self.daemon.insert(command.spawn().context("start croftd")?);
        let end = Instant::now() + BEGIN_LIMIT;
        let socket = self.state.join("croft.sock");
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let said = || std::fs::read_to_string(self.root.join("croftd.log")).unwrap_or_default();
            ensure!(
                daemon.try_wait()?.is_none() && Instant::now() < end,
                "croftd does not answer:\n{}",
                said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("croftd runs")?;
        daemon.kill().context("kill croftd")?;
        daemon.wait().map(drop).context("wait for croftd")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.programs[2]);
        command.arg("--socket").arg(self.state.join("croft.sock")).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        println!("$ croft {}", args.join(" "));
        let status = self.command(args).status().context("run croft")?;
        ensure!(status.success(), "croft {}: {status}", args.join(" "));
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--force", "croft-demo"]).output();
        // Asked to end it takes the idle supervisor with it.
        if let Some(mut daemon) = self.daemon.take() {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = process::wait(&mut daemon, BEGIN_LIMIT);
        }
        // The group that its containers' groups were in is croftd's to keep, but not the demo's.
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
            let _ = std::fs::remove_dir(hierarchy.join(GROUP));
        }
    }
}
