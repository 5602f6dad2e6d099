//! Many containers: detached starts of sleeping ones, and their deletion, four at a time.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;

use crate::Depth;
use crate::case::{Case, GroupMount, Lab};
use crate::contender::Contender;
use crate::report::Report;
use crate::target::Bound;
use crate::timing::time;

const AT_A_TIME: usize = 4;

/// Containers a second.
#[derive(Debug, Clone, Copy)]
struct Rates {
    starts: f64,
    deletes: f64,
}

/// Measures starts and deletions.
pub fn measure(lab: &Lab, depth: Depth, report: &mut Report) -> Result<()> {
    let counts: &[usize] = if depth == Depth::Quick { &[40] } else { &[100, 500] };
    let cases: Vec<&Case> = lab
        .cases
        .iter()
        .filter(|c| c.groups == lab.cases[0].groups && c.program.is_none())
        .take(1)
        .chain(lab.cases.iter().find(|c| c.groups == GroupMount::Absent && c.program.is_none()))
        .collect();
    for case in cases {
        for count in counts {
            one(lab, case, *count, report)?;
        }
    }
    Ok(())
}

fn one(lab: &Lab, case: &Case, count: usize, report: &mut Report) -> Result<()> {
    let mut rates: BTreeMap<&str, std::result::Result<Rates, String>> = BTreeMap::new();
    let mut rows = Vec::new();
    for runtime in crate::runtimes(lab) {
        let found = rates_of(lab, case, runtime, count).map_err(|why| format!("{why:#}"));
        rows.push(match &found {
            Ok(rates) => {
                vec![runtime.name.clone(), format!("{:.1}", rates.starts), format!("{:.1}", rates.deletes)]
            }
            Err(why) => {
                vec![runtime.name.clone(), format!("failed: {}", why.replace('\n', " ").replace('|', "/"))]
            }
        });
        rates.insert(&runtime.name, found);
    }
    let title = format!("{count} detached starts and forced deletions, {AT_A_TIME} at a time: {}", case.name);
    report.table(&title, &["runtime", "starts a second", "deletions a second"], &rows);
    let rate =
        |name: &str, which: fn(&Rates) -> f64| rates.get(name).and_then(|r| r.as_ref().ok()).map(which);
    let ratio = |other: &str, which| rate("croft-oci", which).zip(rate(other, which)).map(|(a, b)| a / b);
    if lab.host.is_unified() {
        let what = format!("{count} starts, of crun's rate");
        report.verdict(what, Bound::AtLeast(1.5), ratio("crun", |r| r.starts));
        let what = format!("{count} deletions, of crun's time");
        report.verdict(what, Bound::AtMost(0.5), ratio("crun", |r| r.deletes).map(|r| 1.0 / r));
    } else {
        let what = format!("{count} starts, {}, of runc's rate", case.name);
        report.verdict(what, Bound::AtLeast(3.0), ratio("runc", |r| r.starts));
    }
    Ok(())
}

fn rates_of(lab: &Lab, case: &Case, runtime: &Contender, count: usize) -> Result<Rates> {
    let id = |number: usize| format!("croft-bench-many-{number}");
    let started = every(lab, count, &|n| runtime.run(&case.sleeping, &["--detach"], &id(n)));
    let deleted = every(lab, count, &|n| runtime.verb(&["delete", "--force", &id(n)]));
    Ok(Rates { starts: started?, deletes: deleted? })
}

/// Runs a command for every number, [`AT_A_TIME`] at a time; gives how many a second.
fn every(lab: &Lab, count: usize, command: &(dyn Fn(usize) -> Command + Sync)) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let work = |worker: usize| -> Result<()> {
        let folder = lab.folder.path().join(format!("worker-{worker}"));
        std::fs::create_dir_all(&folder)?;
        let mut outcome = Ok(());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return outcome;
            }
            // The rest is gone through all the same: a deletion that fails must not leave the others behind.
            outcome = outcome.and(time(&mut command(number), &folder).map(drop));
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..AT_A_TIME).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|w| w.join().expect("a worker reports its failure"))
    })?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
