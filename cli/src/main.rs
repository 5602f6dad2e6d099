//! `croft`: asks croftd, and shows people and scripts what it answers.

mod args;
mod commands;
mod complete;
mod config;
mod filter;
#[cfg(test)]
mod man;
mod network;
mod output;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::Cli;

/// The status when croft or croftd itself fails, as with Docker.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    // A shell that asks what could follow gets its answer here, and nothing else is done.
    clap_complete::CompleteEnv::with_factory(complete::command).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(commands::run(&cli));
            // A read of the terminal that nobody waits for any more holds up nothing.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(commands::Failed::from(format!("start: {error}"))),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(failed) => {
            let hint = failed.hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            // Who does not read the output has gone, and others end without a word then, too.
            if failed.status != output::UNREAD {
                let _ = write!(std::io::stderr(), "croft: {}\n{hint}", failed.text);
            }
            ExitCode::from(failed.status)
        }
    }
}
