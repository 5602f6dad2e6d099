//! Builds the C programs of the bench: see `floor/floor.c` and `floor/peak.c`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use croft_harness::process;

const COMPILE_LIMIT: Duration = Duration::from_secs(120);

/// The floor, compiled and linked statically.
pub fn program() -> Result<PathBuf> {
    compile("floor")
}

/// The program that measures another's peak of memory.
pub fn peak() -> Result<PathBuf> {
    compile("peak")
}

fn compile(name: &str) -> Result<PathBuf> {
    let program = crate::folder()?.join(name);
    if crate::can_build() {
        crate::ensure(&["gcc", "libc6-dev", "linux-libc-dev"])?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("floor").join(name).with_extension("c");
        let mut cc = Command::new("gcc");
        cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(&program).arg(source);
        process::run(&mut cc, COMPILE_LIMIT)?.success()?;
    }
    Ok(program)
}
