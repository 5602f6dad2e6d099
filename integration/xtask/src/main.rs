//! The project's own commands: `cargo xtask demo`, `cargo xtask test` and the rest.
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the validation programs of OCI runtime-tools against croft-oci, runc and crun, and print one table.
    Conformance(Conformance),
}

#[derive(Debug, clap::Args)]
struct Conformance {
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

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Conformance(args) => conformance(args),
    }
}

fn conformance(args: Conformance) -> Result<ExitCode> {
    use croft_conformance::{Detail, Options, run};

    let detail = if args.verbose { Detail::Complaints } else { Detail::Table };
    run(&Options { runtimes: args.runtime, only: args.only, detail })
}
