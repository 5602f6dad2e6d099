//! The attacks behind the published escapes of runc, crun and youki, done to the runtime under test.
//!
//! Each says in its first two lines what the attack was. An attack that works is an error that begins with "attack succeeded";
//! `cargo xtask prove-security` takes the defences away one by one (`integration/security/*.patch`) and waits for just that.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use tempfile::TempDir;

mod capabilities;
mod cgroups;
mod descriptors;
mod masks;
mod procfs;
mod runtime_binary;
mod targets;

macro_rules! attacks {
    ($($name:ident: $run:path),* $(,)?) => {
        &[$(Test { name: stringify!($name), requires: &[Facility::Root], run: $run }),*]
    };
}

pub const SUBJECT: Subject = Subject {
    name: "attacks",
    // Debian bookworm's runc, 1.1.5 with the patch for CVE-2024-21626, is open to what was published after it.
    on_runc: &[
        (
            "cve_2023_25809",
            OnRunc::Fails(
                "1.1.5 closes it for an ordinary user's runtime; a user namespace of root's still gets a writable group",
            ),
        ),
        (
            "cve_2023_27561",
            OnRunc::Races(
                "1.1.5 looks whether /proc is a link before it mounts and masks there, and not while",
            ),
        ),
        ("cve_2024_45310", OnRunc::Races("fixed in runc 1.1.14")),
        (
            "cve_2025_27612",
            OnRunc::Fails("`exec --cap` of 1.1.5 panics where the container has no capabilities"),
        ),
        ("cve_2025_31133", OnRunc::Fails("fixed in runc 1.2.8 and 1.3.3")),
        ("cve_2025_52565", OnRunc::Fails("fixed in runc 1.2.8 and 1.3.3")),
        ("cve_2025_62161", OnRunc::Races("the same as CVE-2025-31133: fixed in runc 1.2.8 and 1.3.3")),
        ("cve_2026_41579", OnRunc::Fails("fixed in runc 1.3.6")),
    ],
    tests: attacks![
        cve_2016_9962: descriptors::cve_2016_9962,
        cve_2019_5736: runtime_binary::cve_2019_5736,
        cve_2019_16884: procfs::cve_2019_16884,
        cve_2019_19921: procfs::cve_2019_19921,
        cve_2021_30465: targets::cve_2021_30465,
        cve_2022_27650: capabilities::cve_2022_27650,
        cve_2022_29162: capabilities::cve_2022_29162,
        cve_2023_25809: cgroups::cve_2023_25809,
        cve_2023_27561: procfs::cve_2023_27561,
        cve_2023_28642: procfs::cve_2023_28642,
        cve_2024_21626: descriptors::cve_2024_21626,
        cve_2024_45310: targets::cve_2024_45310,
        cve_2025_27612: capabilities::cve_2025_27612,
        cve_2025_31133: masks::cve_2025_31133,
        cve_2025_52565: masks::cve_2025_52565,
        cve_2025_52881: procfs::cve_2025_52881,
        cve_2025_54867: procfs::cve_2025_54867,
        cve_2025_62161: masks::cve_2025_62161,
        cve_2025_62596: procfs::cve_2025_62596,
        cve_2026_41579: targets::cve_2026_41579,
    ],
};

/// How long a race is tried.
const RACE: Duration = Duration::from_secs(6);

/// The attack has worked: the test fails, and `prove-security` is content.
fn succeeded(what: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("attack succeeded: {what}")
}

/// A folder of the host's that no container may reach, with a file `secret` in it.
fn host_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("croft-host-").tempdir()?;
    fs::write(folder.path().join("secret"), "the host's own\n")?;
    Ok(folder)
}

/// An error when there is more in the host's folder than its secret.
fn untouched(host: &Path) -> Result<()> {
    for entry in fs::read_dir(host)? {
        let name = entry?.file_name();
        if name != "secret" {
            return Err(succeeded(format_args!("{} was made on the host", host.join(name).display())));
        }
    }
    match fs::read_to_string(host.join("secret"))?.as_str() {
        "the host's own\n" => Ok(()),
        other => Err(succeeded(format_args!("the host's file reads {other:?} now"))),
    }
}

/// Adds a bind of the host's folder `source` on `destination`.
fn bind(bundle: &mut Bundle, source: &Path, destination: &str) -> Result<()> {
    add_mount(
        bundle,
        json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind", "rw"] }),
    )
}

fn add_mount(bundle: &mut Bundle, mount: Value) -> Result<()> {
    bundle.config["mounts"].as_array_mut().context("mounts is a list")?.push(mount);
    Ok(())
}

/// Takes the mount on `destination` out of the configuration.
fn without_mount(bundle: &mut Bundle, destination: &str) -> Result<()> {
    let mounts = bundle.config["mounts"].as_array_mut().context("mounts is a list")?;
    mounts.retain(|m| m["destination"] != destination);
    Ok(())
}

/// Exchanges two names, as fast as it can, until it is dropped: the other container that shares the volume.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swapping {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                // A name may be missing for a moment, while the runtime makes it.
                let _ = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
                std::thread::yield_now();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs the bundle again and again for as long as a race is tried, and gives each output to `judge`. Some runs have to
/// succeed, or the race was not one.
fn race(bundle: &Bundle, mut judge: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let end = Instant::now() + RACE;
    let mut good = 0;
    let mut last = String::new();
    while Instant::now() < end {
        let out = bundle.run()?;
        if out.status.success() {
            good += 1;
        } else {
            last = out.to_string();
        }
        judge(&out.stdout)?;
    }
    anyhow::ensure!(good > 0, "no container came up during the race: {last}");
    Ok(())
}

/// The pid namespace of a running container, for another one to join.
fn join_pid_namespace(bundle: &mut Bundle, of: &Bundle) -> Result<()> {
    let path = format!("/proc/{}/ns/pid", of.pid()?);
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().context("namespaces is a list")?;
    for namespace in namespaces.iter_mut().filter(|n| n["type"] == "pid") {
        namespace["path"] = path.clone().into();
    }
    Ok(())
}

/// Ends a container that has joined another's pid namespace, and takes its exit status: that namespace's own first process
/// cannot end before this.
fn end(victim: Bundle) -> Result<()> {
    use rustix::process::{WaitOptions, wait};
    let pid = victim.pid()?;
    victim.kill("KILL")?.success()?;
    victim.ended(pid, Duration::from_secs(10))?;
    victim.delete()?.success()?;
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    Ok(())
}

/// Has a program in the container say lines to the test: a fifo in a folder that is shared with it as `/talk`.
struct Talk {
    folder: TempDir,
    fifo: fs::File,
    heard: String,
}

impl Talk {
    fn with(bundle: &mut Bundle) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("croft-talk-").tempdir()?;
        let path = folder.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, mode, 0)?;
        // Open for both, so that neither side waits for the other to open it.
        let fifo = fs::File::options().read(true).write(true).open(&path)?;
        bind(bundle, folder.path(), "/talk")?;
        fs::create_dir_all(bundle.rootfs().join("talk"))?;
        Ok(Self { folder, fifo, heard: String::new() })
    }

    /// The next line that begins with `word`, at most `limit` from now.
    fn hear(&mut self, word: &str, limit: Duration) -> Result<String> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use std::io::Read;
        let end = Instant::now() + limit;
        loop {
            while let Some((line, rest)) = self.heard.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.heard = rest;
                if line.starts_with(word) {
                    return Ok(line);
                }
            }
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
            let ready = poll(&mut [PollFd::new(&self.fifo, PollFlags::IN)], Some(&left))?;
            anyhow::ensure!(ready > 0, "the container did not say {word:?} within {limit:?}");
            let mut buffer = [0; 4096];
            let n = self.fifo.read(&mut buffer)?;
            self.heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    /// A file beside the fifo, which a program in the container can wait for.
    fn tell(&self, name: &str) -> Result<()> {
        Ok(fs::write(self.folder.path().join(name), "")?)
    }
}

/// The host of a test that uses a copy of the runtime, so that an attack that works harms the copy only.
fn with_copy_of_runtime(host: &Host, folder: &Path) -> Result<Host> {
    let copy = folder.join("croft-oci");
    fs::copy(&host.runtime, &copy).context("copy the runtime")?;
    Ok(Host { runtime: copy, ..host.clone() })
}
