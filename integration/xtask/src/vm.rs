//! `cargo xtask vm`: runs a command in a virtual machine with the unified cgroup v2 hierarchy.

use std::ffi::OsString;
use std::io::{stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use croft_vm::{Access, Init, Outcome, Share, Streams, Vm};

use crate::project;

/// Runs a command in a virtual machine with the unified cgroup v2 hierarchy.
///
/// The checkout is at /src in the guest, where the command starts, the target folder at /target, and the cache of root
/// filesystems at /root/.cache/croft, all read-only.
/// Exits with the command's status; 124: over the time limit; 125: the machine failed.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Boot with systemd as process 1 and run the command as one of its units.
    #[arg(long)]
    systemd: bool,
    /// The guest's memory.
    #[arg(long, value_name = "MiB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// The guest's processors.
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// A folder for the guest to read, at /NAME there.
    #[arg(long, value_name = "NAME=DIR", value_parser = parse_share)]
    share: Vec<(String, PathBuf)>,
    /// A folder for the guest to read and write, at /out there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// An environment variable for the command; without a value, this process's own.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A kernel module to load before the command.
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// The time limit, with the boot.
    #[arg(long, value_name = "S", default_value_t = 600)]
    timeout: u64,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

fn parse_share(text: &str) -> Result<(String, PathBuf)> {
    let (name, dir) = text.split_once('=').context("not of the form NAME=DIR")?;
    Ok((name.to_owned(), PathBuf::from(dir)))
}

/// The exit status when the command did not end within its time, as with timeout(1).
const TIMED_OUT: u8 = 124;
/// The exit status when there was no machine for the command, as with timeout(1) and env(1).
const NO_MACHINE: u8 = 125;

/// Boots, runs, passes the output on and returns the command's status.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let vm = machine(arguments)?;
    let streams = Streams { stdout: &mut stdout().lock(), stderr: &mut stderr().lock() };
    Ok(ExitCode::from(match vm.run(&arguments.command, streams) {
        Ok(Outcome::Exited(status)) => status,
        Ok(Outcome::Interrupted(signal)) => 128 + signal,
        Ok(Outcome::TimedOut) => {
            eprintln!("xtask: the command was stopped after {} s", arguments.timeout);
            TIMED_OUT
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            NO_MACHINE
        }
    }))
}

fn machine(arguments: &Arguments) -> Result<Vm> {
    let mut vm = Vm::new();
    if arguments.systemd {
        vm.init = Init::Systemd;
    }
    vm.memory_mib = arguments.memory;
    vm.cpus = arguments.cpus;
    vm.limit = Duration::from_secs(arguments.timeout);
    vm.modules.extend(arguments.module.iter().cloned());
    vm.share_project(&project::checkout()?, &project::target()?)?;
    vm.share_cache()?;
    for (name, dir) in &arguments.share {
        vm.shares.push(Share::new(name, dir, Access::ReadOnly)?);
    }
    if let Some(dir) = &arguments.out {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        vm.shares.push(Share::new("out", dir, Access::ReadWrite)?);
    }
    for variable in &arguments.env {
        vm.environment.push(match variable.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.into()),
            None => match std::env::var_os(variable) {
                Some(value) => (variable.clone(), value),
                None => bail!("pass {variable} to the command: it is not set"),
            },
        });
    }
    Ok(vm)
}
