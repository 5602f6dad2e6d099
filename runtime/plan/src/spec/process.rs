//! `process`: the program, who it runs as and what it may do.

use std::path::PathBuf;

use oci_spec::runtime as oci;

use super::{Capabilities, SpecError};

/// A size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Whether the process has a terminal of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// It keeps the standard streams that it is given.
    None,
    /// It gets a new pseudo-terminal, of this size where one is given.
    New(Option<ConsoleSize>),
}

/// Who the process runs as, in the container's ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// File mode creation mask; the runtime's default is 0022.
    pub umask: Option<u32>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// One resource limit; see setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// The name, such as `RLIMIT_NOFILE`.
    pub name: String,
    /// The soft limit; `u64::MAX` is none.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// A process of a container: its own, or one that `exec` adds.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its terminal.
    pub terminal: Terminal,
    /// Who it runs as.
    pub user: User,
    /// The program and its arguments; empty only where the configuration has no `process`.
    pub args: Vec<String>,
    /// The environment, `NAME=value`.
    pub env: Vec<String>,
    /// The working folder, absolute.
    pub cwd: PathBuf,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Limits to set.
    pub rlimits: Vec<Rlimit>,
    /// Whether exec may never gain privileges.
    pub no_new_privileges: bool,
    /// The weight against it when memory runs out, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile to exec under.
    pub apparmor_profile: Option<String>,
    /// The SELinux label to exec under.
    pub selinux_label: Option<String>,
    /// I/O class and priority.
    pub io_priority: Option<oci::LinuxIOPriority>,
    /// Scheduling policy and its parameters.
    pub scheduler: Option<oci::Scheduler>,
    /// CPUs before and after the move into the cgroup; used by `exec` only.
    pub exec_cpu_affinity: Option<oci::ExecCPUAffinity>,
}

impl Process {
    /// What stands for a `process` that is not there: nothing to run, and no right. By the spec a container can be created
    /// without one.
    pub(super) fn unset() -> Self {
        Process {
            terminal: Terminal::None,
            user: User::default(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: "/".into(),
            capabilities: Capabilities::default(),
            rlimits: Vec::new(),
            no_new_privileges: false,
            oom_score_adj: None,
            apparmor_profile: None,
            selinux_label: None,
            io_priority: None,
            scheduler: None,
            exec_cpu_affinity: None,
        }
    }

    /// Whether the configuration has a `process`.
    pub fn is_set(&self) -> bool {
        !self.args.is_empty()
    }

    pub(super) fn resolve(raw: &oci::Process) -> Result<Self, SpecError> {
        let args = raw.args().clone().unwrap_or_default();
        if args.is_empty() {
            return Err(SpecError::Missing("process.args"));
        }
        if !raw.cwd().is_absolute() {
            let why = "must be an absolute path";
            return Err(SpecError::invalid("process.cwd", raw.cwd().display(), why));
        }
        let env = raw.env().clone().unwrap_or_default();
        for text in args.iter().chain(&env) {
            if text.contains('\0') {
                return Err(SpecError::invalid("process.args or process.env", text, "has a NUL byte"));
            }
        }
        let oom_score_adj = raw.oom_score_adj();
        if oom_score_adj.is_some_and(|n| !(-1000..=1000).contains(&n)) {
            let value = oom_score_adj.unwrap_or_default();
            return Err(SpecError::invalid("process.oomScoreAdj", value, "must be from -1000 to 1000"));
        }
        let user = raw.user();
        Ok(Process {
            terminal: terminal(raw)?,
            user: User {
                uid: user.uid(),
                gid: user.gid(),
                umask: user.umask(),
                additional_gids: user.additional_gids().clone().unwrap_or_default(),
            },
            args,
            env,
            cwd: raw.cwd().clone(),
            capabilities: Capabilities::resolve(raw.capabilities().as_ref()),
            rlimits: rlimits(raw)?,
            no_new_privileges: raw.no_new_privileges().unwrap_or(false),
            oom_score_adj,
            apparmor_profile: raw.apparmor_profile().clone().filter(|s| !s.is_empty()),
            selinux_label: raw.selinux_label().clone().filter(|s| !s.is_empty()),
            io_priority: *raw.io_priority(),
            scheduler: raw.scheduler().clone(),
            exec_cpu_affinity: raw.exec_cpu_affinity().clone(),
        })
    }
}

fn terminal(raw: &oci::Process) -> Result<Terminal, SpecError> {
    if !raw.terminal().unwrap_or(false) {
        return Ok(Terminal::None);
    }
    let Some(size) = raw.console_size() else { return Ok(Terminal::New(None)) };
    let side = |n: u64| {
        u16::try_from(n).map_err(|_| SpecError::invalid("process.consoleSize", n, "is more than 65535"))
    };
    Ok(Terminal::New(Some(ConsoleSize { height: side(size.height())?, width: side(size.width())? })))
}

fn rlimits(raw: &oci::Process) -> Result<Vec<Rlimit>, SpecError> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for r in raw.rlimits().iter().flatten() {
        let name = r.typ().to_string();
        if limits.iter().any(|l| l.name == name) {
            return Err(SpecError::invalid("process.rlimits", name, "is there twice"));
        }
        if r.soft() > r.hard() {
            return Err(SpecError::invalid("process.rlimits", name, "has a soft limit above the hard one"));
        }
        limits.push(Rlimit { name, soft: r.soft(), hard: r.hard() });
    }
    Ok(limits)
}
