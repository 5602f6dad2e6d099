//! `start`.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::state::StateRoot;

use crate::args::{Global, IdArgs};

/// Starts a created container.
pub fn run(global: &Global, root: &StateRoot, args: &IdArgs) -> Result<ExitCode> {
    for error in croft_engine::start::start(root, &args.id)? {
        super::log(global, "warning", &error.to_string());
    }
    Ok(ExitCode::SUCCESS)
}
