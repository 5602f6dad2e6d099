//! `cargo xtask bench daemon`: croft, with croftd behind it, beside Podman, Docker and containerd's ctr.
//!
//! Each of them lives on a stage of its own, as its users have it: its programs optimised, its images there, its own defaults. The times
//! are those of their command lines, from the outside; all of them pay the same for getting onto the stage.

mod caller;
mod crowd;
pub mod network;

use std::process::ExitCode;

use anyhow::Result;
use croft_harness::host::Host;
use croft_harness::{build, debian};

use crate::report::Report;
use crate::target::Bound;
use crate::timing::{Times, Turn, rotate};
use crate::{Depth, Priority};
use caller::{Caller, Network};

/// How we are called in the tables.
const OURS: &str = "croft";

/// A run may pause as long as the caches of a machine that does other things need to cool down.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Measures and prints. Exits with 1 when a target is not reached.
pub fn run(depth: Depth) -> Result<ExitCode> {
    let host = Host::of(build::croft_oci()?)?;
    // Debian's Podman comes with crun, which refuses hosts with v1 hierarchies; then it uses runc.
    let peers = debian::peers()?;
    let runtime = if host.is_unified() { &peers.crun } else { &peers.runc };
    let _priority = Priority::highest();
    let mut report = Report::new(&host, OURS)?;
    let croft = Caller::croft(&host)?;
    {
        let others = [
            ("podman", Caller::podman(&host, runtime)),
            ("docker", Caller::docker(&host, runtime)),
            ("ctr", Caller::containerd(&host, runtime)),
        ];
        for network in [Network::None, Network::Bridge] {
            runs(&croft, &others, network, depth, &mut report)?;
        }
        crowd::beside(&croft, &others, &mut report)?;
    }
    crowd::measure(&croft, depth, &mut report)?;
    print!("{}", report.markdown());
    Ok(if report.reached() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Another's name, and it, or why it does not work here.
type Other = (&'static str, Result<Caller>);

/// One container now and then.
fn runs(croft: &Caller, others: &[Other], network: Network, depth: Depth, report: &mut Report) -> Result<()> {
    let rounds = if depth == Depth::Quick { 5 } else { 30 };
    let folder = tempfile::tempdir()?;
    let there = others.iter().filter_map(|(name, caller)| Some((*name, caller.as_ref().ok()?)));
    let turns: Vec<Turn<'_>> = std::iter::once((OURS, croft))
        .chain(there)
        .filter(|(_, caller)| caller.has(network))
        .map(|(name, caller)| Turn {
            name: name.to_owned(),
            command: Box::new(move |round| caller.run_true(network, round)),
        })
        .collect();
    let mut times: Times = rotate(&turns, rounds, PAUSE, folder.path())?;
    for (name, caller) in others {
        if let Err(why) = caller {
            times.insert((*name).to_owned(), Err(format!("{why:#}")));
        }
    }
    let order: Vec<String> =
        std::iter::once(OURS).chain(others.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    report.times(&format!("`run --rm busybox true`, network: {network}"), &order, &times);
    let what = format!("run --rm, network {network}");
    report.compare_times(&what, &times, "podman", Bound::AtMost(0.25));
    Ok(())
}
