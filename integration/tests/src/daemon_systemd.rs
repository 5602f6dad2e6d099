//! croftd as systemd's service, with the units that come with it: started by its socket, restarted, reloaded and ended. Containers and their
//! supervisor go on through all of that.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::{Facility, Host, OnRunc, Output, Subject, Test, build, process, rootfs};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// It installs units and a configuration file where a user's may be.
const NEEDS: &[Facility] =
    &[Facility::Root, Facility::Systemd, Facility::UnifiedCgroups, Facility::Disposable];

pub const SUBJECT: Subject = Subject {
    name: "daemon_systemd",
    on_runc: &[("*", OURS)],
    tests: &[Test { name: "containers_go_on_through_all_of_it", requires: NEEDS, run: service }],
};

const LIMIT: Duration = Duration::from_secs(60);
const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd");

/// croftd as the units expect it, with a group that may use it.
struct Installed {
    files: Vec<String>,
    groups: String,
}

impl Installed {
    fn new(host: &Host) -> Result<Self> {
        let [croftd, shim, croft] = build::daemon(build::Build::Debug)?;
        let groups = fs::read_to_string("/etc/group")?;
        fs::write("/etc/group", format!("{groups}croft:x:990:\n"))?;
        let mut new = Self { files: Vec::new(), groups };
        for (name, program) in [("croftd", &croftd), ("croft", &croft)] {
            let place = format!("/usr/bin/{name}");
            symlink(program, &place).with_context(|| format!("make {place}"))?;
            new.files.push(place);
        }
        for unit in ["croftd.service", "croftd.socket"] {
            let place = format!("/run/systemd/system/{unit}");
            fs::copy(Path::new(UNITS).join(unit), &place).with_context(|| format!("make {place}"))?;
            new.files.push(place);
        }
        fs::create_dir_all("/etc/croft")?;
        let text = fs::read_to_string(Path::new(UNITS).join("croftd.toml"))?;
        // They are not beside croftd, as they are where packages put them.
        let text = format!(
            "{text}runtime = {:?}\nshim = {shim:?}\ninit = {:?}\n",
            host.runtime,
            shim.with_file_name("croft-init")
        );
        fs::write(CONFIG, text)?;
        new.files.push(CONFIG.to_owned());
        systemctl(&["daemon-reload"])?;
        Ok(new)
    }
}

const CONFIG: &str = "/etc/croft/croftd.toml";

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = systemctl(&["stop", "croftd.socket", "croftd.service"]);
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        let _ = fs::write("/etc/group", &self.groups);
        let _ = systemctl(&["daemon-reload"]);
    }
}

fn systemctl(words: &[&str]) -> Result<Output> {
    process::run(Command::new("systemctl").args(words), LIMIT)?.success()
}

/// A property of the service.
fn property(name: &str) -> Result<String> {
    let shown = systemctl(&["show", "--value", "--property", name, "croftd.service"])?;
    Ok(shown.stdout.trim().to_owned())
}

/// croft, as a user calls it.
fn croft(words: &[&str]) -> Result<String> {
    Ok(process::run(Command::new("/usr/bin/croft").args(words), LIMIT)?
        .success()
        .with_context(|| property("StatusErrno").unwrap_or_default())?
        .stdout)
}

/// What must stay as it is: the container's process and the supervisor's, each with the time of its start.
fn running() -> Result<(String, String)> {
    let all: Value = serde_json::from_str(&croft(&["inspect", "stays"])?)?;
    ensure!(all[0]["state"] == "running", "{all}");
    let pid = all[0]["pid"].to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("a parent")?.trim();
    let name = fs::read_to_string(format!("/proc/{parent}/comm"))?;
    ensure!(name.trim() == "croft-shim", "its parent is {name}");
    Ok((born(&pid)?, born(parent)?))
}

/// A process, so that another one of its number is not taken for it (proc_pid_stat(5): field 22).
fn born(pid: &str) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    Ok(format!("{pid} since {}", after_name.split_whitespace().nth(19).unwrap_or_default()))
}

fn active() -> Result<String> {
    let (state, sub, pid) = (property("ActiveState")?, property("SubState")?, property("MainPID")?);
    ensure!(state == "active" && sub == "running", "{state} {sub}");
    ensure!(fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() == "croftd", "process {pid}");
    Ok(pid)
}

fn service(host: &Host) -> Result<()> {
    let folder = tempfile::tempdir()?;
    rootfs::busybox(&folder.path().join("rootfs"))?;
    let image = folder.path().join("rootfs").display().to_string();
    let tar = folder.path().join("rootfs.tar").display().to_string();
    process::run(Command::new("tar").args(["-C", &image, "-cf", &tar, "."]), LIMIT)?.success()?;
    let installed = Installed::new(host)?;

    // The first who asks starts it.
    systemctl(&["start", "croftd.socket"])?;
    ensure!(property("ActiveState")? == "inactive", "nobody has asked yet");
    croft(&["image", "import", &tar, "box"])?;
    let first = active()?;
    let socket = fs::metadata("/run/croft/croft.sock")?;
    ensure!(std::os::unix::fs::MetadataExt::gid(&socket) == 990, "the group may connect: {socket:?}");
    let run = ["run", "--detach", "--network", "none", "--name", "stays", "--memory", "64m", "box"];
    croft(&[&run[..], &["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]].concat())?;
    let before = running()?;
    let limit = || croft(&["exec", "stays", "cat", "/sys/fs/cgroup/memory.max"]);
    ensure!(limit()?.trim() == (64 << 20).to_string(), "{}", limit()?);
    let go_on = |after: &str| -> Result<()> {
        let now = running().with_context(|| format!("after {after}"))?;
        ensure!(now == before, "after {after}: {before:?} and now {now:?}");
        ensure!(limit()?.trim() == (64 << 20).to_string(), "after {after}: {}", limit()?);
        ensure!(croft(&["exec", "stays", "echo", "here"])? == "here\n", "after {after}");
        croft(&["system", "check"]).map(drop)
    };

    // Its options are read again by the same process.
    let text = fs::read_to_string(CONFIG)?;
    fs::write(CONFIG, format!("group = \"nogroup\"\n{text}"))?;
    systemctl(&["reload", "croftd"])?;
    ensure!(active()? == first, "a reload keeps the process");
    go_on("a reload")?;
    fs::write(CONFIG, "no such thing")?;
    systemctl(&["reload", "croftd"])?;
    ensure!(active()? == first, "nor does one with a wrong file end it");
    fs::write(CONFIG, &text)?;

    systemctl(&["daemon-reload"])?;
    go_on("systemd's own reload")?;
    systemctl(&["restart", "croftd"])?;
    let second = active()?;
    ensure!(second != first);
    go_on("a restart")?;

    systemctl(&["stop", "croftd"])?;
    ensure!(property("ActiveState")? == "inactive" && property("Result")? == "success");
    ensure!(!Path::new("/proc").join(&second).exists(), "it has ended");
    let gone_on = || -> Result<(String, String)> {
        let pid = |born: &str| born.split(' ').next().unwrap_or_default().to_owned();
        Ok((born(&pid(&before.0))?, born(&pid(&before.1))?))
    };
    ensure!(gone_on()? == before, "the container and its supervisor go on without it");
    // The socket is still there: who asks next starts it again.
    go_on("a stop")?;
    let third = active()?;

    systemctl(&["kill", "--kill-whom=main", "--signal=KILL", "croftd"])?;
    let deadline = Instant::now() + process::patience(LIMIT);
    while property("NRestarts")? == "0" || active().is_ok_and(|pid| pid == third) || active().is_err() {
        ensure!(Instant::now() < deadline, "it is not started again: {}", property("Result")?);
    }
    go_on("a crash")?;

    croft(&["stop", "stays"])?;
    croft(&["rm", "stays"])?;
    croft(&["rmi", "box"])?;
    croft(&["system", "check"])?;
    drop(installed);
    let groups = Path::new("/sys/fs/cgroup/croft");
    let left = || fs::read_dir(groups).into_iter().flatten().flatten();
    let left: Vec<_> = left().filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
