//! Where the project is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of the workspace.
pub fn checkout() -> Result<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    checkout.canonicalize().with_context(|| format!("find the project at {}", checkout.display()))
}

/// The folder in which Cargo builds: this program lies in it, under its profile's name.
pub fn target() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    let target =
        program.parent().and_then(Path::parent).context("find the target folder: this program has none")?;
    Ok(target.to_owned())
}

/// Where this program is: also after cargo, building the tests, has put a new one in its place.
pub fn this_program() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    let name = program.to_string_lossy();
    Ok(name.strip_suffix(" (deleted)").map_or_else(|| program.clone(), PathBuf::from))
}
