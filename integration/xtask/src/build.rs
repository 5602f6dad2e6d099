//! `cargo xtask build`: the programs that are installed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use croft_harness::build::{self, Build};

/// Build all programs as they are installed: optimised; all but croftd as static files. Prints their paths.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Builds, and says where they are.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    for program in programs()? {
        let size = std::fs::metadata(&program).with_context(|| format!("look at {}", program.display()))?;
        println!("{} ({:.1} MB)", program.display(), size.len() as f64 / 1e6);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds all programs.
pub fn programs() -> Result<Vec<PathBuf>> {
    let oci = build::croft_oci()?;
    let [croftd, shim, croft] = build::daemon(Build::Release)?;
    Ok(vec![oci, shim, build::croft_init_path()?, croftd, croft])
}
