//! One command a file: from its arguments to one verb of the engine.

mod create;
mod delete;
mod kill;
mod list;
mod plan;
mod run;
mod start;
mod state;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use croft_engine::state::StateRoot;

use crate::args::{Cli, Command, Global, LogFormat};

/// Runs the command.
pub fn run(cli: &Cli) -> Result<ExitCode> {
    let root = StateRoot::new(state_root(&cli.global));
    match &cli.command {
        Command::Create(args) => create::run(&cli.global, &root, args),
        Command::Start(args) => start::run(&root, args),
        Command::Run(args) => run::run(&cli.global, &root, args),
        Command::Exec(_) => anyhow::bail!("exec is not supported by this build yet"),
        Command::State(args) => state::run(&root, args),
        Command::List(args) => list::run(&root, args),
        Command::Kill(args) => kill::run(&root, args),
        Command::Delete(args) => delete::run(&cli.global, &root, args),
        Command::Plan(args) => plan::run(&cli.global, args),
    }
}

fn state_root(global: &Global) -> PathBuf {
    if let Some(root) = &global.root {
        return root.clone();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !croft_engine::is_root() => PathBuf::from(dir).join("croft-oci"),
        _ => PathBuf::from("/run/croft-oci"),
    }
}

/// Prints an error with its whole chain, once, and gives the exit status of a failure that is ours.
pub fn report(global: &Global, error: &anyhow::Error) -> ExitCode {
    log(global, "error", &format!("{error:#}"));
    ExitCode::from(1)
}

/// Writes one line to the log: the file if one is given, and standard error.
pub fn log(global: &Global, level: &str, message: &str) {
    let now = croft_engine::report::now();
    let line = match global.log_format {
        LogFormat::Json => serde_json::json!({"level": level, "msg": message, "time": now}).to_string(),
        LogFormat::Text => format!("time={now:?} level={level} msg={message:?}"),
    };
    if let Some(path) = &global.log {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Ok(mut file) = opened {
            let _ = writeln!(file, "{line}");
        }
        // As runc: who reads standard error gets the message as well, without the form.
        if level == "error" {
            eprintln!("{message}");
        }
        return;
    }
    eprintln!("{line}");
}
