//! One command a file: from its arguments to one verb of the engine.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod plan;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use croft_engine::state::StateRoot;

use crate::args::{Cli, Command, Global};
pub use crate::log::log;

/// Runs the command.
pub fn run(cli: &Cli) -> Result<ExitCode> {
    let root = StateRoot::new(state_root(&cli.global));
    if cli.version {
        print(&crate::version::text())?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(command) = &cli.command else {
        print(&Cli::command().render_help().to_string())?;
        return Ok(ExitCode::SUCCESS);
    };
    match command {
        Command::Create(args) => create::run(&cli.global, &root, args),
        Command::Start(args) => start::run(&cli.global, &root, args),
        Command::Run(args) => run::run(&cli.global, &root, args),
        Command::Exec(args) => Ok(exec::run(&cli.global, &root, args)),
        Command::State(args) => state::run(&root, args),
        Command::List(args) => list::run(&cli.global, &root, args),
        Command::Kill(args) => kill::run(&root, args),
        Command::Delete(args) => delete::run(&cli.global, &root, args),
        Command::Ps(args) => ps::run(&root, args),
        Command::Pause(args) => pause::pause(&root, args),
        Command::Resume(args) => pause::resume(&root, args),
        Command::Update(args) => update::run(&cli.global, &root, args),
        Command::Events(args) => events::run(&root, args),
        Command::Spec(args) => spec::run(args),
        Command::Features => features::run(),
        Command::Plan(args) => plan::run(&cli.global, &root, args),
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

/// Writes to standard output. A reader that has gone is an error, not a panic.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(croft_engine::error::Reason::from)
        .context("write to standard output")
}
