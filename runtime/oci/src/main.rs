//! `croft-oci`: an OCI runtime with runc's command line. Arguments in, one verb of the engine, an exit status out.

mod args;
mod commands;
mod log;
#[cfg(test)]
mod man;
mod seal;
mod version;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Parser;
use croft_engine::program::CLONING;

use args::Cli;

fn main() -> ExitCode {
    // Before anything is read: what runs from the seal reads it all again.
    let sealed = if std::env::args_os().any(|word| clones(&word)) { seal::run_sealed() } else { Ok(()) };
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
    if let Err(error) = sealed {
        return log::report(&cli.global, &error);
    }
    match commands::run(&cli) {
        Ok(status) => status,
        Err(error) => log::report(&cli.global, &error),
    }
}

/// Whether `word`, as the command, makes a process that a container can look at.
fn clones(word: &OsStr) -> bool {
    CLONING.iter().any(|command| word == *command)
}
