//! `cargo xtask conformance`: the validation programs of OCI runtime-tools.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use croft_conformance::{Detail, Inside, Options, Reach};

/// Run the validation programs of OCI runtime-tools against croft-oci, runc and crun, and print one table.
///
/// Exits with 1 when croft-oci fails a program that a peer passes on the same host, or one without a reason.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A runtime to run them against on this host, instead of croft-oci and its peers. Repeatable.
    #[arg(long, value_name = "PATH")]
    runtime: Vec<PathBuf>,
    /// Only programs whose name holds this.
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// On this host alone, not in the virtual machine too.
    #[arg(long)]
    here: bool,
    /// Print what each failing program complains about.
    #[arg(short, long)]
    verbose: bool,
    /// Run the named programs and leave the results in a folder: how the virtual machine is asked.
    #[arg(long, hide = true, requires_all = ["out", "programs"])]
    inside: bool,
    #[arg(long, hide = true)]
    out: Option<PathBuf>,
    #[arg(long, hide = true)]
    programs: Option<PathBuf>,
    #[arg(long, hide = true)]
    program: Vec<String>,
}

/// Runs the programs and prints the table.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    if arguments.inside {
        croft_conformance::run_inside(&Inside {
            programs: arguments.programs.context("no folder of programs")?,
            out: arguments.out.context("no folder for the results")?,
            runtimes: arguments.runtime,
            chosen: arguments.program,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let detail = if arguments.verbose { Detail::Complaints } else { Detail::Table };
    let reach = if arguments.here { Reach::Here } else { Reach::Everywhere };
    croft_conformance::run(&Options { runtimes: arguments.runtime, only: arguments.only, reach, detail })
}
