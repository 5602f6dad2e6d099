//! The validation programs of OCI runtime-tools, run against croft-oci, runc and crun and shown in one table.
//!
//! [`programs`] builds them, [`job`] runs one against one runtime, [`tap`] reads what it printed, [`guest`] has a
//! virtual machine run them, [`table`] shows all.
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use croft_harness::host::{RuntimeKind, kind_of, target_folder};

mod guest;
mod job;
mod lanes;
mod programs;
mod reasons;
mod table;
mod tap;

pub use guest::{Inside, run_inside};
pub use programs::Programs;

/// How much of the programs' complaints is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The table alone.
    Table,
    /// Each failed assertion too.
    Complaints,
}

/// Where the programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// On this host.
    Here,
    /// On this host, and in the virtual machine if this host is not one of unified cgroups.
    Everywhere,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The runtimes to run on this host; empty for croft-oci, built anew if need be, and its peers.
    pub runtimes: Vec<PathBuf>,
    /// Only programs whose name holds this.
    pub only: Option<String>,
    /// Where; with `runtimes` named, here alone.
    pub reach: Reach,
    /// How much to print.
    pub detail: Detail,
}

/// Runs the programs and prints the table. The exit code says whether croft-oci stands it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let columns = match options.runtimes.as_slice() {
        [] => default_columns(options.reach)?,
        named => named.iter().map(|path| Column::of(path, Place::Here)).collect::<Result<_>>()?,
    };
    let programs = Programs::ready()?;
    let chosen = programs.chosen(options.only.as_deref())?;
    let logs = target_folder()?.join("conformance");
    let (guest, here): (Vec<_>, Vec<_>) =
        columns.into_iter().partition(|column| column.place == Place::Guest);
    let (here_results, guest_results) = std::thread::scope(|scope| {
        let guest_run = scope.spawn(|| guest::run(&programs, &chosen, &guest, &logs));
        let here_results = lanes::run_all(&programs, &chosen, &here, &logs);
        (here_results, guest_run.join().expect("the guest's thread reports its failure"))
    });
    let columns: Vec<Column> = here.into_iter().chain(guest).collect();
    let results = lanes::join(here_results?, guest_results?);
    let reasons = reasons::load()?;
    print!("{}", table::render(&columns, &results));
    if options.detail == Detail::Complaints {
        print!("{}", table::complaints(&columns, &results));
    }
    let faults = table::faults(&columns, &results, &reasons);
    faults.iter().for_each(|fault| println!("{fault}"));
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which host a column's programs ran on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Here,
    Guest,
}

/// A runtime of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    path: PathBuf,
    kind: RuntimeKind,
    place: Place,
    name: String,
}

impl Column {
    fn of(path: &Path, place: Place) -> Result<Self> {
        let path = path.canonicalize().with_context(|| format!("runtime {}", path.display()))?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if place == Place::Guest { format!("{file} (VM)") } else { file };
        Ok(Self { kind: kind_of(&path)?, place, name, path })
    }
}

/// croft-oci and its peers. crun refuses hosts with v1 hierarchies, and each place compares croft-oci with its own peers:
/// so the virtual machine gets crun and croft-oci as well.
fn default_columns(reach: Reach) -> Result<Vec<Column>> {
    let peers = croft_harness::debian::peers()?;
    let ours = croft_harness::build::croft_oci()?;
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut columns = Vec::new();
    for path in [&ours, &peers.runc] {
        columns.push(Column::of(path, Place::Here)?);
    }
    match (unified, reach) {
        (true, _) => columns.push(Column::of(&peers.crun, Place::Here)?),
        (false, Reach::Here) => {}
        (false, Reach::Everywhere) => {
            for path in [&ours, &peers.crun] {
                columns.push(Column::of(path, Place::Guest)?);
            }
        }
    }
    Ok(columns)
}
