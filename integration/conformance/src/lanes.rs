//! Runs many programs, a few at a time.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Result;
use croft_harness::RuntimeKind;

use crate::programs::{self, Programs};
use crate::tap::{Outcome, Verdict};
use crate::{Column, job};

/// What each runtime did, in the order of the columns, by program.
pub(crate) type Results = BTreeMap<String, Vec<Outcome>>;

/// Runs the chosen programs against every column, three at a time: they mostly wait. Those that share a cgroup by
/// name stay in one lane, in turn; whoever is through with that helps with the others.
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
            let (done, apart) = (&done, &lanes[1]);
            scope.spawn(move || -> Result<()> {
                while let Some((name, column)) = next(lane).or_else(|| next(apart)) {
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
    if let Some(error) = failed {
        return Err(error);
    }
    let mut done = done.into_inner().expect("every worker has ended");
    done.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut results = Results::new();
    for (name, _, outcome) in done {
        results.entry(name).or_default().push(outcome);
    }
    try_again(&mut results, columns, |name, column| job::run(programs, name, column, logs))?;
    job::remove_cgroups_of_programs(&before);
    Ok(results)
}

/// How often croft-oci may try a program that a peer passes.
const TRIES: usize = 3;

/// Some programs race with the container (`killsig` sends a signal before the trap for it may be set, `pidfile` kills
/// what may have ended), for every runtime: where a peer has passed, croft-oci has to pass in one of a few tries.
fn try_again(
    results: &mut Results,
    columns: &[Column],
    run: impl Fn(&str, &Column) -> Result<Outcome>,
) -> Result<()> {
    let passed = |outcome: &Outcome| outcome.verdict == Verdict::Passed;
    for (name, row) in results.iter_mut().filter(|(_, row)| row.iter().any(passed)) {
        for (column, outcome) in columns.iter().zip(row).filter(|(c, _)| c.kind == RuntimeKind::CroftOci) {
            for _ in 1..TRIES {
                if !passed(outcome) {
                    *outcome = run(name, column)?;
                }
            }
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::Place;

    fn column(name: &str, kind: RuntimeKind) -> Column {
        Column { path: name.into(), kind, place: Place::Here, name: name.into() }
    }

    fn passed() -> Outcome {
        Outcome { verdict: Verdict::Passed, passed: 1, skipped: 0, complaints: vec![] }
    }

    #[test]
    fn only_what_a_peer_passes_is_tried_again_and_only_until_it_passes() {
        let columns = [column("croft-oci", RuntimeKind::CroftOci), column("runc", RuntimeKind::Runc)];
        let mut results = Results::from([
            ("killsig".to_owned(), vec![Outcome::broken("late"), passed()]),
            ("hooks".to_owned(), vec![Outcome::broken("late"), Outcome::broken("late")]),
            ("state".to_owned(), vec![passed(), passed()]),
        ]);
        let tries = Cell::new(0);
        let second = |name: &str, column: &Column| {
            assert_eq!((name, column.kind), ("killsig", RuntimeKind::CroftOci));
            tries.set(tries.get() + 1);
            Ok(if tries.get() == 2 { passed() } else { Outcome::broken("late") })
        };
        try_again(&mut results, &columns, second).unwrap();
        assert_eq!((tries.get(), &results["killsig"][0]), (2, &passed()));
        try_again(&mut results, &columns, |_, _| panic!("nothing is left to try")).unwrap();
    }
}
