//! `state`.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::state::StateRoot;

use crate::args::IdArgs;

/// Prints a container's state.
pub fn run(root: &StateRoot, args: &IdArgs) -> Result<ExitCode> {
    let state = croft_engine::status::state(root, &args.id)?;
    super::print(&format!("{}\n", serde_json::to_string_pretty(&state)?))?;
    Ok(ExitCode::SUCCESS)
}
