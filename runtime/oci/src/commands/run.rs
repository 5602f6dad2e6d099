//! `run`: create, start, wait, delete.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::create::{Attach, Starter, create};
use croft_engine::foreground::{self, Foreground, Orphans};
use croft_engine::state::StateRoot;

use crate::args::{Global, RunArgs};

/// Runs a container.
pub fn run(global: &Global, root: &StateRoot, args: &RunArgs) -> Result<ExitCode> {
    let attach = if args.detach { Attach::Detached } else { Attach::Foreground };
    let options = super::create::options(global, &args.create, Starter::Caller, attach);
    let orphans = if args.no_subreaper { Orphans::Others } else { Orphans::Runtime };
    let foreground = if args.detach { None } else { Some(Foreground::begin(orphans)?) };
    let mut created = create(root, &options)?;
    for warning in &created.warnings {
        super::log(global, "warning", warning);
    }
    for error in foreground::start(&mut created)? {
        super::log(global, "warning", &error.to_string());
    }
    let Some(foreground) = foreground else { return Ok(ExitCode::SUCCESS) };
    let exit = foreground.attend(&created.child, created.terminal.take())?;
    if !args.keep {
        for error in foreground::delete(root, &created)? {
            super::log(global, "warning", &error.to_string());
        }
    }
    Ok(ExitCode::from(exit.status() as u8))
}
