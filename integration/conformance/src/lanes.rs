//! Runs many programs, a few at a time.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Result;

use crate::programs::{self, Programs};
use crate::tap::Outcome;
use crate::{Column, job};

/// What each runtime did, in the order of the columns, by program.
pub(crate) type Results = BTreeMap<String, Vec<Outcome>>;

/// Runs the chosen programs against every column, three at a time: they mostly wait. Those that share a cgroup by
/// name stay in one lane, in turn.
pub(crate) fn run_all(
    programs: &Programs,
    chosen: &[&str],
    columns: &[Column],
    logs: &Path,
) -> Result<Results> {
    let (shared, apart): (Vec<&str>, Vec<&str>) =
        chosen.iter().partition(|name| programs::shares_a_cgroup(name));
    let lanes = [Mutex::new(work(&shared, columns)), Mutex::new(work(&apart, columns))];
    let done = Mutex::new(Vec::new());
    let before = job::cgroups_of_programs();
    let failed = std::thread::scope(|scope| {
        let workers = [&lanes[0], &lanes[1], &lanes[1]].map(|lane| {
            let done = &done;
            scope.spawn(move || -> Result<()> {
                while let Some((name, column)) = next(lane) {
                    let outcome = job::run(programs, name, &columns[column], logs)?;
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

/// The columns of `left`, then those of `right`, of the same programs.
pub(crate) fn join(mut left: Results, right: Results) -> Results {
    for (name, outcomes) in right {
        left.entry(name).or_default().extend(outcomes);
    }
    left
}

type Lane<'a> = Mutex<std::vec::IntoIter<(&'a str, usize)>>;

fn work<'a>(names: &[&'a str], columns: &[Column]) -> std::vec::IntoIter<(&'a str, usize)> {
    let all: Vec<_> =
        names.iter().flat_map(|&name| (0..columns.len()).map(move |column| (name, column))).collect();
    all.into_iter()
}

fn next<'a>(lane: &Lane<'a>) -> Option<(&'a str, usize)> {
    lane.lock().expect("no worker panics with the lock").next()
}
