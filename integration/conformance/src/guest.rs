//! The same programs in a virtual machine with unified cgroups: there this program runs itself again, and leaves what
//! it found in a file.
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use croft_harness::host::target_folder;
use croft_vm::{Access, Outcome, Share, Streams, Vm};

use crate::lanes::{self, Results};
use crate::{Column, Place, Programs};

/// Emulated, all of them take minutes; twice as many where another emulator runs.
const LIMIT: Duration = Duration::from_secs(1500);

/// What a run inside the virtual machine is given, by its command line.
#[derive(Debug, Clone)]
pub struct Inside {
    /// The folder of the programs.
    pub programs: PathBuf,
    /// The folder for what they print and for the results.
    pub out: PathBuf,
    /// The runtimes.
    pub runtimes: Vec<PathBuf>,
    /// Only these programs.
    pub chosen: Vec<String>,
}

/// Runs the programs in the virtual machine's own process, and writes the results.
pub fn run_inside(inside: &Inside) -> Result<()> {
    let programs = Programs::in_folder(inside.programs.clone())?;
    let chosen: Vec<&str> = inside.chosen.iter().map(String::as_str).collect();
    let columns =
        inside.runtimes.iter().map(|path| Column::of(path, Place::Guest)).collect::<Result<Vec<_>>>()?;
    let results = lanes::run_all(&programs, &chosen, &columns, &inside.out)?;
    fs::write(inside.out.join(RESULTS), serde_json::to_string(&results)?).context("write the results")
}

const RESULTS: &str = "results.json";

/// Boots a machine for `columns` and gives back what was found there; nothing without columns.
pub(crate) fn run(programs: &Programs, chosen: &[&str], columns: &[Column], logs: &Path) -> Result<Results> {
    if columns.is_empty() {
        return Ok(Results::new());
    }
    fs::create_dir_all(logs).with_context(|| format!("create {}", logs.display()))?;
    let out = Share::new("out", logs, Access::ReadWrite)?;
    let folder = Share::new("programs", programs.folder(), Access::ReadOnly)?;
    let mut command: Vec<OsString> = vec![std::env::current_exe().context("find this program")?.into()];
    command.extend(["conformance", "--inside", "--out"].map(OsString::from));
    command.extend(["/out", "--programs", "/programs"].map(OsString::from));
    for name in chosen {
        command.extend(["--program".into(), name.into()]);
    }
    let mut vm = Vm::new();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    vm.share_project(&checkout, &target_folder()?)?;
    vm.shares.extend([out, folder]);
    vm.limit = LIMIT;
    for (index, column) in columns.iter().enumerate() {
        share_runtime(&mut vm, index, &column.path)?;
        command.extend(["--runtime".into(), column.path.clone().into()]);
    }
    let (mut said, mut also) = (Vec::new(), Vec::new());
    let outcome = vm.run(&command, Streams { stdout: &mut said, stderr: &mut also })?;
    if outcome != Outcome::Exited(0) {
        bail!("in the virtual machine: {outcome:?}\n{}", String::from_utf8_lossy(&also));
    }
    let text = fs::read_to_string(logs.join(RESULTS)).context("read what the virtual machine found")?;
    serde_json::from_str(&text).context("what the virtual machine found")
}

/// Shows a runtime's folder at the host's own path: a runtime of another suite has that compiled in for its libraries.
fn share_runtime(vm: &mut Vm, index: usize, runtime: &Path) -> Result<()> {
    let folder = runtime.parent().context("a runtime is in a folder")?;
    let shared = |path: &Path| vm.binds.iter().any(|(_, place)| path.starts_with(place));
    if !shared(folder) {
        let name = format!("runtime{index}");
        vm.shares.push(Share::new(&name, folder, Access::ReadOnly)?);
        vm.binds.push((Path::new("/").join(&name), folder.to_owned()));
    }
    Ok(())
}
