//! `croft-oci`: an OCI runtime with runc's command line. Arguments in, one verb of the engine, an exit status out.

mod args;
mod commands;
mod log;
#[cfg(test)]
mod man;
mod seal;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::Cli;

fn main() -> ExitCode {
    // Before the command line is understood, which the sealed program does again.
    let sealed = if may_clone(std::env::args_os()) { seal::run_sealed() } else { Ok(()) };
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

/// Whether the command may make a process that a container can look at: its name is one of the arguments then.
fn may_clone(mut args: impl Iterator<Item = OsString>) -> bool {
    args.any(|arg| ["create", "run", "exec"].iter().any(|command| arg == *command))
}
