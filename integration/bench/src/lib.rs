//! `cargo xtask bench`: croft-oci beside crun, runc, bubblewrap and the floor, in one run; with `daemon`, croft beside Podman and Docker.
//!
//! Every figure is a ratio within one run: the contenders take turns in rotating order, at the highest priority, so that
//! what else the machine does hits all of them. Start at [`run`]; `floor/floor.c` is what a start costs at least.
#![forbid(unsafe_code)]

mod case;
mod cold;
mod contender;
mod cost;
mod daemon;
mod exec;
mod floor;
mod guest;
mod many;
mod profile;
mod report;
mod target;
mod timing;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use croft_harness::debian::{self, ensure_packages};
use croft_harness::{build, host};

use crate::case::Lab;
use crate::contender::Contender;
use crate::report::Report;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Enough to see whether something got much worse: a minute.
    Quick,
    /// What the README's table is made from.
    Full,
}

/// Which host is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This one.
    Here,
    /// The virtual machine with the unified hierarchy, which crun runs on.
    Guest,
}

/// What is asked of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much.
    pub depth: Depth,
    /// Where.
    pub place: Place,
    /// A croft-oci to measure instead of the one of this checkout, to compare two builds.
    pub program: Option<PathBuf>,
    /// A further croft-oci to measure beside it.
    pub beside: Option<PathBuf>,
}

/// Measures and prints. Exits with 1 when a target is not reached.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.place == Place::Guest {
        prepare()?;
        return guest::run(options.depth);
    }
    let program = match &options.program {
        Some(program) => program.canonicalize().with_context(|| format!("{}", program.display()))?,
        None => build::croft_oci()?,
    };
    let _priority = Priority::highest();
    let lab = Lab::new(program, options.beside.clone(), &debian::peers()?, floor::program()?)?;
    let mut report = Report::new(&lab.host, "croft-oci")?;
    cold::measure(&lab, options.depth, &mut report)?;
    exec::measure(&lab, options.depth, &mut report)?;
    many::measure(&lab, options.depth, &mut report)?;
    cost::measure(&lab, &mut report)?;
    print!("{}", report.markdown());
    Ok(if report.reached() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures croftd and prints. Exits with 1 when a target is not reached.
pub fn run_daemon(depth: Depth) -> Result<ExitCode> {
    daemon::run(depth)
}

/// Measures croftd's networks and prints. Exits with 1 when a target is not reached.
pub fn run_network(depth: Depth) -> Result<ExitCode> {
    daemon::network::run(depth)
}

/// The highest priority for this process and what it starts: the machine does other things too, and no contender shall lose
/// its turn to them. Best effort.
struct Priority;

impl Priority {
    /// Takes it, until this is dropped.
    fn highest() -> Self {
        let _ = rustix::process::nice(-20);
        // Where the scheduler groups processes by session, the priority within the session's group alone changes nothing
        // (sched(7), "The autogroup feature").
        let _ = std::fs::write(AUTOGROUP, "-20");
        Priority
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        // The session is the caller's and goes on.
        let _ = std::fs::write(AUTOGROUP, "0");
    }
}

const AUTOGROUP: &str = "/proc/self/autogroup";

/// Builds and fetches what the virtual machine cannot.
fn prepare() -> Result<()> {
    build::croft_oci()?;
    floor::program()?;
    floor::peak()?;
    profile::docker_program()?;
    debian::peers().map(drop)
}

/// A folder for what the bench builds.
fn folder() -> Result<PathBuf> {
    let folder = host::target_folder()?.join("bench");
    // The virtual machine sees it read-only, with everything in it.
    if !folder.is_dir() {
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    Ok(folder)
}

/// Whether something can be built and installed here: not in the virtual machine, which has no cargo.
fn can_build() -> bool {
    std::env::var_os("CARGO").is_some()
}

/// Debian packages that the bench needs, where they can be installed.
fn ensure(packages: &[&str]) -> Result<()> {
    if can_build() { ensure_packages(packages) } else { Ok(()) }
}

/// The contenders that are OCI runtimes.
fn runtimes(lab: &Lab) -> Vec<&Contender> {
    lab.contenders.iter().filter(|c| c.is_runtime()).collect()
}
