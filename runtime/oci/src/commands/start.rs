//! `start`.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::state::StateRoot;

use crate::args::IdArgs;

/// Starts a created container.
pub fn run(root: &StateRoot, args: &IdArgs) -> Result<ExitCode> {
    croft_engine::start::start(root, &args.id)?;
    Ok(ExitCode::SUCCESS)
}
