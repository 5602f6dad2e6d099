//! Boots a Debian kernel with the unified cgroup v2 hierarchy in QEMU and runs a command there.
//!
//! The machine is emulated in software, so that it runs where KVM is missing; it starts in under five seconds. It has no
//! network, its disk forgets everything, and any number of machines run at once. [`Vm::run`] does it all: the image is
//! built when it is missing, the command's output is passed on while it runs, and nothing stays behind.

mod image;
mod interrupts;
mod job;
mod qemu;
mod session;
mod workdir;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::cache;

pub use image::Image;

/// What process 1 in the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// A small script; the command runs in the root cgroup, with all controllers for its children. Starts in seconds.
    Shell,
    /// systemd; the command runs in a delegated unit of its own.
    Systemd,
}

/// What the guest may do with a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read, whoever it is in the guest.
    ReadOnly,
    /// Read and write, as the user that runs the machine.
    ReadWrite,
}

/// A folder of the host that the guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// A name of letters, digits, `-` and `_`, at most 32.
    name: String,
    dir: PathBuf,
    access: Access,
    at: PathBuf,
}

impl Share {
    /// The folder `dir`, in the guest at `/NAME`.
    ///
    /// # Errors
    /// `name` is not one, or there is no such folder.
    pub fn new(name: &str, dir: &Path, access: Access) -> Result<Share> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_name =
            (1..=32).contains(&name.len()) && name.bytes().all(is_allowed) && !name.starts_with('-');
        ensure!(is_name, "share {}: {name:?} is not a name of letters, digits, - and _", dir.display());
        ensure!(!qemu::PORTS.contains(&name), "share {}: the name {name} is taken", dir.display());
        let real = dir.canonicalize().with_context(|| format!("share {}", dir.display()))?;
        ensure!(real.is_dir(), "share {}: not a folder", dir.display());
        Ok(Share { name: name.to_owned(), dir: real, access, at: Path::new("/").join(name) })
    }
}

/// A machine: what it has, and how long it may take.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Process 1.
    pub init: Init,
    /// The guest's memory.
    pub memory_mib: u32,
    /// The guest's processors.
    pub cpus: u32,
    /// Folders of the host; no two of one name.
    pub shares: Vec<Share>,
    /// Paths in the guest that show a second time, as (what, where).
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Kernel modules to load before the command; most load by themselves when they are used.
    pub modules: Vec<String>,
    /// The command's environment, besides PATH, HOME, LANG and TERM.
    pub environment: Vec<(String, OsString)>,
    /// The folder in which the command starts.
    pub folder: PathBuf,
    /// The time from the start of the machine to the end of the command.
    pub limit: Duration,
}

/// Where the command's output goes while it runs.
pub struct Streams<'a> {
    /// The command's standard output.
    pub stdout: &'a mut dyn Write,
    /// The command's standard error.
    pub stderr: &'a mut dyn Write,
}

impl fmt::Debug for Streams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Streams")
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended: its exit status, or 128 and the number of the signal that ended it.
    Exited(u8),
    /// The limit passed; the machine is stopped.
    TimedOut,
    /// This process got SIGINT, SIGTERM or SIGHUP, whose number this is; the machine is stopped.
    Interrupted(u8),
}

impl Vm {
    /// A machine with 1 GiB of memory, two processors, nothing shared, and ten minutes.
    #[expect(clippy::new_without_default, reason = "the values are a choice, not an empty state")]
    pub fn new() -> Vm {
        Vm {
            init: Init::Shell,
            memory_mib: 1024,
            cpus: 2,
            shares: Vec::new(),
            binds: Vec::new(),
            modules: vec!["overlay".to_owned()],
            environment: Vec::new(),
            folder: PathBuf::from("/root"),
            limit: Duration::from_secs(600),
        }
    }

    /// Shares the project read-only: the checkout at `/src`, where the command then starts, and the folder with what is
    /// built at `/target`. Both also show at the host's own paths, which are compiled into the tests.
    pub fn share_project(&mut self, checkout: &Path, target: &Path) -> Result<()> {
        let source = Share::new("src", checkout, Access::ReadOnly)?;
        let target = target.canonicalize().with_context(|| format!("share {}", target.display()))?;
        self.binds.push((source.at.clone(), source.dir.clone()));
        match target.strip_prefix(&source.dir) {
            Ok(inside) => self.binds.push((source.at.join(inside), PathBuf::from("/target"))),
            Err(_) => {
                let share = Share::new("target", &target, Access::ReadOnly)?;
                self.binds.push((share.at.clone(), target));
                self.shares.push(share);
            }
        }
        self.folder = source.at.clone();
        self.shares.push(source);
        Ok(())
    }

    /// Shares the host's cache read-only where the guest's own would be, with the root filesystems and the runtimes
    /// to compare with that are in it: what the harness finds there on the host, it finds in the guest. Those
    /// runtimes know their libraries by the host's path, so it shows there as well.
    pub fn share_cache(&mut self) -> Result<()> {
        let share = Share::new("cache", &cache::root()?, Access::ReadOnly)?;
        for path in BTreeSet::from([Path::new("/root/.cache/croft"), &share.dir]) {
            self.binds.push((share.at.clone(), path.to_owned()));
        }
        self.shares.push(share);
        Ok(())
    }

    /// Boots the machine, runs the command there as root and waits for its end.
    ///
    /// # Errors
    /// The image cannot be built, the machine does not start or ends on its own (the error then shows its console),
    /// or a stream cannot be written.
    pub fn run(&self, command: &[OsString], mut streams: Streams) -> Result<Outcome> {
        session::run(self, command, &mut streams)
    }
}
