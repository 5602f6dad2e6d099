//! `cargo xtask build`: the program that is installed.

use std::process::ExitCode;

use anyhow::{Context, Result};

/// Build croft-oci as it is installed: optimised, one static file. Prints its path.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Builds, checks and says where it is.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    let program = croft_harness::build::croft_oci()?;
    let size = std::fs::metadata(&program).with_context(|| format!("look at {}", program.display()))?.len();
    println!("{} ({:.1} MB)", program.display(), size as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}
