//! `kill`.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use croft_engine::kill::{Whom, kill, signal_number};
use croft_engine::state::StateRoot;

use crate::args::KillArgs;

/// Sends a signal.
pub fn run(root: &StateRoot, args: &KillArgs) -> Result<ExitCode> {
    let signal = signal_number(&args.signal).ok_or_else(|| anyhow!("unknown signal {:?}", args.signal))?;
    kill(root, &args.id, signal, if args.all { Whom::All } else { Whom::Init })?;
    Ok(ExitCode::SUCCESS)
}
