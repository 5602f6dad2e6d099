//! `croft-oci`: an OCI runtime with runc's command line. Arguments in, one verb of the engine, an exit status out.

mod args;
mod commands;
mod log;
#[cfg(test)]
mod man;
mod seal;
mod version;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // runc answers a wrong command line with 1; --help is no error.
            if error.use_stderr() {
                return log::report_usage(&error);
            }
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
    };
    if let Err(error) = log::check(&cli.global) {
        // There is no log to write it to.
        eprintln!("{error:#}");
        return ExitCode::from(1);
    }
    if cli.command.as_ref().is_some_and(clones)
        && let Err(error) = seal::run_sealed()
    {
        return log::report(&cli.global, &error);
    }
    match commands::run(&cli) {
        Ok(status) => status,
        Err(error) => log::report(&cli.global, &error),
    }
}

/// Whether the command makes a process that a container can look at.
fn clones(command: &Command) -> bool {
    matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_))
}
