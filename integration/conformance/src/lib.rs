//! The validation programs of OCI runtime-tools, run against croft-oci, runc and crun and shown in one table.
//!
//! [`programs`] builds them, [`job`] runs one against one runtime, [`tap`] reads what it printed, [`table`] shows all.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use croft_harness::host::{RuntimeKind, kind_of, newest_build, target_folder};

mod job;
mod programs;
mod reasons;
mod table;
mod tap;

pub use programs::Programs;

/// How much of the programs' complaints is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The table alone.
    Table,
    /// Each failed assertion too.
    Complaints,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The runtimes; empty for croft-oci, if it is built, and the newest runc and crun that Debian has.
    pub runtimes: Vec<PathBuf>,
    /// Only programs whose name holds this.
    pub only: Option<String>,
    /// How much to print.
    pub detail: Detail,
}

/// Runs the programs and prints the table. The exit code says whether croft-oci stands it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let runtimes = match options.runtimes.as_slice() {
        [] => default_runtimes()?,
        named => named.iter().map(|path| Column::of(path)).collect::<Result<_>>()?,
    };
    let programs = Programs::ready()?;
    let chosen: Vec<&str> = programs
        .names()
        .filter(|name| options.only.as_deref().is_none_or(|part| name.contains(part)))
        .collect();
    if chosen.is_empty() {
        bail!("no program's name holds {:?}", options.only.as_deref().unwrap_or_default());
    }
    let results = run_all(&programs, &chosen, &runtimes)?;
    let reasons = reasons::load()?;
    print!("{}", table::render(&runtimes, &results));
    if options.detail == Detail::Complaints {
        print!("{}", table::complaints(&runtimes, &results));
    }
    let faults = table::faults(&runtimes, &results, &reasons);
    for fault in &faults {
        println!("{fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A runtime of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    path: PathBuf,
    kind: RuntimeKind,
    name: String,
}

impl Column {
    fn of(path: &Path) -> Result<Self> {
        let path = path.canonicalize().with_context(|| format!("runtime {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { kind: kind_of(&path)?, name, path })
    }
}

fn default_runtimes() -> Result<Vec<Column>> {
    let peers = croft_harness::debian::peers()?;
    let ours = newest_build("croft-oci")?;
    if ours.is_none() {
        println!("croft-oci is not built: its peers alone");
    }
    ours.iter().chain([&peers.runc, &peers.crun]).map(|path| Column::of(path)).collect()
}

/// What each runtime did, in the order of the columns, by program.
pub(crate) type Results = BTreeMap<String, Vec<tap::Outcome>>;

/// Two lanes at a time: the programs mostly wait. Those that share a cgroup by name stay in one lane, in turn.
fn run_all(programs: &Programs, chosen: &[&str], runtimes: &[Column]) -> Result<Results> {
    let logs = target_folder()?.join("conformance");
    let (shared, apart): (Vec<&str>, Vec<&str>) =
        chosen.iter().partition(|name| programs::shares_a_cgroup(name));
    let lanes = [Mutex::new(work(&shared, runtimes)), Mutex::new(work(&apart, runtimes))];
    let done = Mutex::new(Vec::new());
    let before = job::cgroups_of_programs();
    let failed = std::thread::scope(|scope| {
        let workers = [&lanes[0], &lanes[1], &lanes[1]].map(|lane| {
            let (done, logs) = (&done, &logs);
            scope.spawn(move || -> Result<()> {
                while let Some((name, column)) = next(lane) {
                    let outcome = job::run(programs, name, &runtimes[column], logs)?;
                    done.lock().expect("no worker panics with the lock").push((
                        name.to_owned(),
                        column,
                        outcome,
                    ));
                }
                Ok(())
            })
        });
        let ended = workers.map(|worker| worker.join().expect("a worker reports its failure"));
        ended.into_iter().find_map(Result::err)
    });
    job::remove_cgroups_of_programs(&before);
    if let Some(error) = failed {
        return Err(error);
    }
    let mut done = done.into_inner().expect("every worker has ended");
    done.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut results = Results::new();
    for (name, _, outcome) in done {
        results.entry(name).or_default().push(outcome);
    }
    Ok(results)
}

type Lane<'a> = Mutex<std::vec::IntoIter<(&'a str, usize)>>;

fn work<'a>(names: &[&'a str], runtimes: &[Column]) -> std::vec::IntoIter<(&'a str, usize)> {
    let all: Vec<_> =
        names.iter().flat_map(|&name| (0..runtimes.len()).map(move |column| (name, column))).collect();
    all.into_iter()
}

fn next<'a>(lane: &Lane<'a>) -> Option<(&'a str, usize)> {
    lane.lock().expect("no worker panics with the lock").next()
}
