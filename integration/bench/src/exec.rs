//! A further process in a running container.

use std::time::Duration;

use anyhow::Result;

use crate::Depth;
use crate::case::Lab;
use crate::report::Report;
use crate::target::Bound;
use crate::timing::{Turn, rotate, time};

/// Measures `exec true`.
pub fn measure(lab: &Lab, depth: Depth, report: &mut Report) -> Result<()> {
    let rounds = if depth == Depth::Quick { 12 } else { 60 };
    let case = lab.cases.last().expect("there are cases");
    let case = lab.cases.iter().rfind(|c| c.program.is_none()).unwrap_or(case);
    let runtimes = crate::runtimes(lab);
    let id = "croft-bench-exec";
    let mut turns = Vec::new();
    for runtime in &runtimes {
        let id = format!("{id}-{}", turns.len());
        time(&mut runtime.run(&case.sleeping, &["--detach"], &id), lab.folder.path())?;
        turns.push(Turn {
            name: runtime.name.clone(),
            command: Box::new(move |_| runtime.verb(&["exec", &id, "/bin/true"])),
        });
    }
    let times = rotate(&turns, rounds, Duration::ZERO, lab.folder.path());
    for (number, runtime) in runtimes.iter().enumerate() {
        time(&mut runtime.verb(&["delete", "--force", &format!("{id}-{number}")]), lab.folder.path())?;
    }
    let times = times?;
    let order: Vec<String> = turns.iter().map(|t| t.name.clone()).collect();
    report.times("`exec true` in a running container", &order, &times);
    if lab.host.is_unified() {
        report.compare_times("exec", &times, "crun", Bound::AtMost(0.6));
    } else {
        report.compare_times("exec", &times, "runc", Bound::AtMost(0.25));
    }
    Ok(())
}
