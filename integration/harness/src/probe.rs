//! The probe: a static program that a test puts into a container to see from inside.
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::target_folder;
use crate::process;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A cold build of the probe with what it depends on, on a loaded machine.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// The probe, built when the sources are newer and cargo is there; where cargo is not (the virtual machine), as it is.
pub fn program() -> Result<PathBuf> {
    let target = target_folder()?;
    let built = target.join(TARGET).join("probe/croft-probe");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if let (Some(cargo), true) = (env::var_os("CARGO"), workspace.join("Cargo.toml").exists()) {
        build(Path::new(&cargo), &workspace, &target)?;
    }
    built.canonicalize().with_context(|| format!("no probe at {}: run cargo test first", built.display()))
}

/// glibc, linked statically: with `--target`, so that the flag does not reach build scripts and macros.
fn build(cargo: &Path, workspace: &Path, target: &Path) -> Result<()> {
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", "croft-probe", "--profile", "probe", "--target", TARGET])
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    process::run(&mut command, BUILD_LIMIT)?.success().map(drop)
}
