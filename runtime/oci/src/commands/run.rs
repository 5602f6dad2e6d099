//! `run`: create, start, wait, delete.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::create::{Starter, create};
use croft_engine::foreground;
use croft_engine::state::StateRoot;

use crate::args::{Global, RunArgs};

/// Runs a container.
pub fn run(global: &Global, root: &StateRoot, args: &RunArgs) -> Result<ExitCode> {
    let mut created = create(root, &super::create::options(global, &args.create, Starter::Caller))?;
    for warning in &created.warnings {
        super::log(global, "warning", warning);
    }
    if let Some(error) = foreground::start(&mut created)? {
        super::log(global, "warning", &error.to_string());
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let exit = foreground::wait(&mut created)?;
    if !args.keep
        && let Some(error) = foreground::delete(created)?
    {
        super::log(global, "warning", &error.to_string());
    }
    Ok(ExitCode::from(exit.status() as u8))
}
