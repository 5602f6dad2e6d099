//! `croft-oci`: an OCI runtime with runc's command line. Arguments in, one verb of the engine, an exit status out.

mod args;
mod commands;
mod seal;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // runc answers a wrong command line with 1; --help and --version are no errors.
            return if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    if clones(&cli.command)
        && let Err(error) = seal::run_sealed()
    {
        return commands::report(&cli.global, &error);
    }
    match commands::run(&cli) {
        Ok(status) => status,
        Err(error) => commands::report(&cli.global, &error),
    }
}

/// Whether the command makes a process that a container can look at.
fn clones(command: &Command) -> bool {
    matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_))
}
