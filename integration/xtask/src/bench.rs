//! `cargo xtask bench`: how fast croft-oci and croftd are beside their peers.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use croft_bench::{Depth, Options, Place};

/// Measure croft-oci beside crun, runc, bubblewrap and the bare system calls, and print tables in markdown.
///
/// Exits with 1 when a target is not reached.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// A minute's worth, to see whether something got much worse.
    #[arg(long, global = true)]
    quick: bool,
    /// In the virtual machine with the unified hierarchy, where crun runs.
    #[arg(long)]
    vm: bool,
    /// Measure this croft-oci instead of the one of this checkout.
    #[arg(long, value_name = "PATH", conflicts_with = "vm")]
    program: Option<PathBuf>,
    /// Measure this other croft-oci as well.
    #[arg(long, value_name = "PATH", conflicts_with = "vm")]
    beside: Option<PathBuf>,
}

/// What else can be measured.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum What {
    /// croft and croftd beside Podman, Docker and ctr: runs, many containers, answers, memory.
    Daemon,
    /// What croft's networks cost: a start, many published ports, throughput.
    Network,
}

/// Measures and prints.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let depth = if arguments.quick { Depth::Quick } else { Depth::Full };
    match arguments.what {
        Some(What::Daemon) => return croft_bench::run_daemon(depth),
        Some(What::Network) => return croft_bench::run_network(depth),
        None => {}
    }
    croft_bench::run(&Options {
        depth,
        place: if arguments.vm { Place::Guest } else { Place::Here },
        program: arguments.program,
        beside: arguments.beside,
    })
}
