//! `delete`.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::delete::{Force, delete};
use croft_engine::state::StateRoot;

use crate::args::{DeleteArgs, Global};

/// Deletes a container.
pub fn run(global: &Global, root: &StateRoot, args: &DeleteArgs) -> Result<ExitCode> {
    for error in delete(root, &args.id, if args.force { Force::Yes } else { Force::No })? {
        super::log(global, "warning", &error.to_string());
    }
    Ok(ExitCode::SUCCESS)
}
