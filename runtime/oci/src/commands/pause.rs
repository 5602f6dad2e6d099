//! `pause` and `resume`.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::pause;
use croft_engine::state::StateRoot;

use crate::args::IdArgs;

/// Freezes a container.
pub fn pause(root: &StateRoot, args: &IdArgs) -> Result<ExitCode> {
    pause::pause(root, &args.id)?;
    Ok(ExitCode::SUCCESS)
}

/// Lets a paused container go on.
pub fn resume(root: &StateRoot, args: &IdArgs) -> Result<ExitCode> {
    pause::resume(root, &args.id)?;
    Ok(ExitCode::SUCCESS)
}
