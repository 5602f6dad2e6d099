//! One container now and then: `run` of a program that ends at once.

use anyhow::Result;

use crate::Depth;
use crate::case::{Case, Filter, GroupMount, Lab, Network};
use crate::report::Report;
use crate::target::Bound;
use crate::timing::{PAUSE, Times, Turn, rotate};

/// Measures every configuration.
pub fn measure(lab: &Lab, depth: Depth, report: &mut Report) -> Result<()> {
    let rounds = if depth == Depth::Quick { 12 } else { 60 };
    for (number, case) in lab.cases.iter().enumerate() {
        let id = |place: usize, round: usize| format!("croft-bench-{number}-{place}-{round}");
        let turns: Vec<Turn<'_>> = lab
            .contenders
            .iter()
            .enumerate()
            .filter(|(_, contender)| contender.cold(lab, case, "x").is_some())
            .map(|(place, contender)| Turn {
                name: contender.name.clone(),
                command: Box::new(move |round| {
                    contender.cold(lab, case, &id(place, round)).expect("it was asked before")
                }),
            })
            .collect();
        let times = rotate(&turns, rounds, PAUSE, lab.folder.path())?;
        let order: Vec<String> = turns.iter().map(|t| t.name.clone()).collect();
        report.times(&format!("Cold `run true`: {}", case.name), &order, &times);
        judge(lab, case, &times, report);
    }
    Ok(())
}

fn judge(lab: &Lab, case: &Case, times: &Times, report: &mut Report) {
    let what = format!("run, {}", case.name);
    report.compare_times(&what, times, "floor", Bound::AtMost(1.25));
    if lab.host.is_unified() {
        report.compare_times(&what, times, "crun", Bound::AtMost(0.6));
    } else if case.network == Network::Own && case.filter == Filter::Open {
        let bound = if case.groups == GroupMount::Mounted { 0.5 } else { 0.2 };
        report.compare_times(&what, times, "runc", Bound::AtMost(bound));
    }
}
