//! `cargo xtask demo`: the main job on real input. It asks nothing and leaves nothing but what it built and cached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use croft_harness::config::default_config;
use croft_harness::debian;
use serde_json::json;

use croft_harness::build;

use crate::packages;

/// Runs a Debian container by croft-oci and shows what it sees.
///
/// Installs the packages that are missing, builds croft-oci, makes a Debian root filesystem (cached), and leaves no
/// container, mount or control group behind.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// What the container's shell shows.
const SCRIPT: &str = r#"
echo "I am $(hostname), $(. /etc/os-release; echo "$PRETTY_NAME"), kernel $(uname -r)"
echo "processes:      $(cd /proc && echo [0-9]*) (this shell is $$)"
echo "network:        $(cd /sys/class/net && echo *)"
echo "mounts:         $(wc -l < /proc/self/mountinfo), root: $(awk '$5 == "/" {print $6}' /proc/self/mountinfo)"
echo "capabilities:   $(awk '/CapEff/ {print $2}' /proc/self/status)"
echo "open files:     $(ulimit -n)"
echo "processes max:  $(cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null)"
echo "memory max:     $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null) bytes"
echo "group:          $(grep ^0:: /proc/self/cgroup)"
touch /etc/motd 2>/dev/null || echo "root folder:    read-only"
head -c1 /dev/kmsg 2>/dev/null || echo "host devices:   out of reach"
mount -t tmpfs none /mnt 2>/dev/null || echo "mount:          not permitted"
"#;

/// Runs the demo.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    packages::for_demo()?;
    let croft_oci = build::croft_oci()?;
    let rootfs = debian::rootfs("bookworm")?;
    let scratch = tempfile::tempdir().context("make a scratch folder")?;
    let bundle = scratch.path().join("bundle");
    make_bundle(&bundle, &rootfs)?;
    let demo = Demo { croft_oci: croft_oci.clone(), bundle, state: scratch.path().join("state") };
    demo.title("the plan, before anything is done (its first lines)");
    let plan = demo.output(&["plan"])?;
    let lines: Vec<&str> = plan.lines().collect();
    lines.iter().take(6).for_each(|line| println!("{line}"));
    println!("  ... {} lines more", lines.len().saturating_sub(6));
    demo.title("croft-oci run: a shell in a Debian root filesystem");
    demo.run(&["run", "croft-demo"])?;
    demo.title("create, state, start, list, delete");
    demo.set_program(&["sleep", "60"])?;
    demo.run(&["create", "croft-demo"])?;
    demo.run(&["state", "croft-demo"])?;
    demo.run(&["start", "croft-demo"])?;
    demo.run(&["list"])?;
    demo.run(&[
        "exec",
        "croft-demo",
        "/bin/sh",
        "-c",
        "echo exec: inside $(hostname), beside $(cat /proc/1/comm)",
    ])?;
    demo.run(&["delete", "--force", "croft-demo"])?;
    demo.run(&["list"])?;
    drop(demo);
    crate::demo_daemon::show(&croft_oci, &rootfs)?;
    nothing_is_left()?;
    println!("\nNothing is left: no container, no mount, no control group.");
    Ok(ExitCode::SUCCESS)
}

/// The bundle and the runtime.
struct Demo {
    croft_oci: PathBuf,
    bundle: PathBuf,
    state: PathBuf,
}

impl Demo {
    fn title(&self, text: &str) {
        println!("\n== {text}");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.croft_oci);
        command.arg("--root").arg(&self.state).args(args).current_dir(&self.bundle);
        command
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        println!("$ croft-oci {}", args.join(" "));
        let status = self.command(args).status().context("run croft-oci")?;
        ensure!(status.success(), "croft-oci {}: {status}", args.join(" "));
        Ok(())
    }

    fn output(&self, args: &[&str]) -> Result<String> {
        println!("$ croft-oci {}", args.join(" "));
        let out = self.command(args).output().context("run croft-oci")?;
        ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    fn set_program(&self, args: &[&str]) -> Result<()> {
        let path = self.bundle.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        config["process"]["args"] = json!(args);
        Ok(fs::write(path, config.to_string())?)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", "croft-demo"]).output();
    }
}

fn make_bundle(bundle: &Path, rootfs: &Path) -> Result<()> {
    fs::create_dir(bundle)?;
    let mut config = default_config(&["/bin/bash", "-c", SCRIPT]);
    config["root"]["path"] = json!(rootfs);
    config["hostname"] = json!("croft-demo");
    config["linux"]["resources"]["memory"] = json!({"limit": 256 << 20});
    config["linux"]["resources"]["pids"] = json!({"limit": 64});
    // The container sees its own groups, and no other.
    let namespaces = config["linux"]["namespaces"].as_array_mut().context("the default has namespaces")?;
    namespaces.push(json!({"type": "cgroup"}));
    let mounts = config["mounts"].as_array_mut().context("the default has mounts")?;
    mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]}));
    Ok(fs::write(bundle.join("config.json"), config.to_string())?)
}

fn nothing_is_left() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains("croft-demo"), "a mount is left");
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let left = hierarchy.path().join("croft/croft-demo");
        ensure!(!left.exists(), "{} is left", left.display());
    }
    Ok(())
}
