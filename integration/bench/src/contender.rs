//! The programs that take turns, and their command lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use croft_harness::host::Host;

use crate::case::{Case, GroupMount, Lab, Network};

/// What kind of program a contender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An OCI runtime with runc's command line.
    Runtime,
    /// bwrap: namespaces and mounts, no groups and no state.
    Bubblewrap,
    /// The bare system calls.
    Floor,
}

/// A program that takes its turn.
#[derive(Debug, Clone)]
pub struct Contender {
    /// In the tables.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    kind: Kind,
    state: PathBuf,
}

impl Contender {
    /// A contender with a state folder of its own below `folder`.
    pub fn new(name: &str, program: &Path, kind: Kind, folder: &Path) -> Result<Self> {
        let program = program.canonicalize().with_context(|| format!("{name}: {}", program.display()))?;
        Ok(Self { name: name.to_owned(), program, kind, state: folder.join(name.replace(' ', "-")) })
    }

    /// Whether it knows runc's verbs.
    pub fn is_runtime(&self) -> bool {
        self.kind == Kind::Runtime
    }

    /// The command line of a verb.
    pub fn verb(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).args(words);
        command
    }

    /// `run`, in the foreground or detached.
    pub fn run(&self, bundle: &Path, options: &[&str], id: &str) -> Command {
        let mut command = self.verb(&["run"]);
        command.args(options).arg("--bundle").arg(bundle).arg(id);
        command
    }

    /// The command that runs `true` once in the manner of `case`; none where the contender cannot.
    pub fn cold(&self, lab: &Lab, case: &Case, id: &str) -> Option<Command> {
        match self.kind {
            Kind::Runtime => Some(self.run(&case.bundle, &[], id)),
            Kind::Floor => Some(self.floor(&lab.host, &lab.rootfs, case, id)),
            Kind::Bubblewrap => (case.groups == GroupMount::Absent && case.program.is_none())
                .then(|| self.bubblewrap(lab, case)),
        }
    }

    fn floor(&self, host: &Host, rootfs: &Path, case: &Case, id: &str) -> Command {
        let mut command = Command::new(&self.program);
        if case.network == Network::Callers {
            command.arg("-N");
        }
        if let Some(program) = &case.program {
            command.arg("-f").arg(program);
        }
        let group = |hierarchy: &Path| format!("{}:{id}", hierarchy.display());
        if case.groups == GroupMount::Mounted {
            command.arg("-c");
            let v1 = host.hierarchies().into_iter().filter(|h| Some(*h) != host.cgroup2.as_deref());
            v1.for_each(|hierarchy| {
                command.arg("-1").arg(group(hierarchy));
            });
        }
        let v2 = host.cgroup2.as_deref().unwrap_or(Path::new("/sys/fs/cgroup"));
        command.arg("-2").arg(group(v2)).arg("-r").arg(rootfs).arg("/bin/true");
        command
    }

    fn bubblewrap(&self, lab: &Lab, case: &Case) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
        if case.network == Network::Own {
            command.arg("--unshare-net");
        }
        command.arg("--bind").arg(&lab.rootfs).args([
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--mqueue",
            "/dev/mqueue",
        ]);
        command.args(["--ro-bind", "/sys", "/sys", "--new-session", "/bin/true"]);
        command
    }
}
