//! The same measurements in the virtual machine: there this program runs itself again.

use std::ffi::OsString;
use std::io::{stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use croft_harness::host::target_folder;
use croft_vm::{Outcome, Streams, Vm};

use crate::Depth;

/// Emulated, everything takes some fifteen times as long.
const LIMIT: Duration = Duration::from_secs(1500);

/// Boots the machine, measures in it, and passes on what it prints.
pub fn run(depth: Depth) -> Result<ExitCode> {
    let mut vm = Vm::new();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    vm.share_project(&checkout, &target_folder()?)?;
    vm.share_cache()?;
    vm.limit = LIMIT;
    let mut command: Vec<OsString> = vec![std::env::current_exe().context("find this program")?.into()];
    command.push("bench".into());
    if depth == Depth::Quick {
        command.push("--quick".into());
    }
    match vm.run(&command, Streams { stdout: &mut stdout().lock(), stderr: &mut stderr().lock() })? {
        Outcome::Exited(status) => Ok(ExitCode::from(status)),
        other => bail!("in the virtual machine: {other:?}"),
    }
}
