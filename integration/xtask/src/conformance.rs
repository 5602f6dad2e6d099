//! `cargo xtask conformance`: the validation programs of OCI runtime-tools.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use croft_conformance::{Detail, Options};

/// Run the validation programs of OCI runtime-tools against croft-oci, runc and crun, and print one table.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A runtime to run them against, instead of croft-oci and its peers. Repeatable.
    #[arg(long, value_name = "PATH")]
    runtime: Vec<PathBuf>,
    /// Only programs whose name holds this.
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// Print what each failing program complains about.
    #[arg(short, long)]
    verbose: bool,
}

/// Runs the programs and prints the table.
pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let detail = if arguments.verbose { Detail::Complaints } else { Detail::Table };
    croft_conformance::run(&Options { runtimes: arguments.runtime, only: arguments.only, detail })
}
