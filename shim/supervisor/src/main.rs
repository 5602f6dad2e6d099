//! `croft-shim`: the supervisor of many containers.

#![deny(clippy::print_stderr, reason = "eprintln! panics where the file system of the log is full")]

#[cfg(test)]
mod man;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use croft_shim::supervise::{MOST_CONTAINERS, Options, Supervisor, compress};

/// Looks after containers: runs croft-oci, holds terminals and pipes, writes logs, records how they end.
#[derive(Debug, Parser)]
#[command(
    name = "croft-shim",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    serve: Option<Serve>,
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Folder of its state, on a tmpfs; one supervisor at a time looks after it
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where clients connect
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The croft-oci program
    #[arg(long, value_name = "PATH")]
    runtime: PathBuf,
    /// Folder of croft-oci's own state
    #[arg(long, value_name = "DIR", default_value = "/run/croft-oci")]
    runtime_root: PathBuf,
    /// The most containers
    #[arg(long, value_name = "N", default_value_t = MOST_CONTAINERS)]
    containers: usize,
    /// The most croft-oci processes at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    parallel: usize,
    /// Seconds that a croft-oci process, or a start without one, may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

/// What it runs of itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// Hold descriptors for a supervisor, on a listening socket as standard input
    #[command(hide = true)]
    Holder,
    /// Compress a full log file
    #[command(hide = true)]
    Compress {
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A full log is no reason for another status.
            let _ = writeln!(std::io::stderr(), "croft-shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match (cli.part, cli.serve) {
        (Some(Part::Holder), _) => {
            let listener = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
            croft_shim::holder::run(&listener).context("hold descriptors")
        }
        (Some(Part::Compress { file }), _) => {
            compress(&file).with_context(|| format!("compress {}", file.display()))
        }
        (None, Some(serve)) => {
            let options = Options {
                root: serve.root,
                socket: serve.socket,
                runtime: serve.runtime,
                runtime_root: serve.runtime_root,
                containers: serve.containers,
                parallel: serve.parallel,
                limit: Duration::from_secs(serve.limit),
            };
            Ok(Supervisor::new(options)?.run()?)
        }
        (None, None) => anyhow::bail!("--root, --socket and --runtime are needed: see --help"),
    }
}
