//! What a run costs beside time: memory at its peak, and system calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use croft_harness::process;

use crate::case::{Case, Lab};
use crate::contender::Contender;
use crate::report::Report;
use crate::timing::median;

const LIMIT: Duration = Duration::from_secs(60);

/// Measures and prints the tables, and how croft-oci's system calls differ from the floor's.
pub fn measure(lab: &Lab, report: &mut Report) -> Result<()> {
    let case = lab.cases.iter().rfind(|c| c.program.is_none()).expect("there are cases without a filter");
    let case = lab.cases.iter().find(|c| c.groups == case.groups).unwrap_or(case);
    let strace = Path::new("/usr/bin/strace");
    crate::ensure(&["strace"])?;
    let mut rows = Vec::new();
    let mut calls: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for contender in &lab.contenders {
        if contender.cold(lab, case, "x").is_none() {
            continue;
        }
        let mut row = vec![contender.name.clone(), peak(lab, case, contender)?];
        if strace.exists() {
            let counted = count(lab, case, contender, strace)?;
            row.push(counted.values().sum::<u64>().to_string());
            calls.insert(&contender.name, counted);
        }
        rows.push(row);
    }
    let title = format!("Memory and system calls of one `run true`: {}", case.name);
    report.table(&title, &["contender", "peak of its largest process, kB", "system calls"], &rows);
    if let (Some(ours), Some(floor)) = (calls.get("croft-oci"), calls.get("floor")) {
        let header = ["system call", "croft-oci", "floor"];
        report.table(
            "System calls that croft-oci and the floor make in different number",
            &header,
            &difference(ours, floor),
        );
    }
    Ok(())
}

/// The maximal resident size of a run's largest process, in kB: the middle of three.
fn peak(lab: &Lab, case: &Case, contender: &Contender) -> Result<String> {
    let program = crate::floor::peak()?;
    let mut peaks = Vec::new();
    for round in 0..3 {
        let run =
            contender.cold(lab, case, &format!("croft-bench-peak-{round}")).context("it was asked before")?;
        let mut command = Command::new(&program);
        command.arg(run.get_program()).args(run.get_args());
        let said = process::run(&mut command, LIMIT)?.success()?.stderr;
        let peak = said.lines().find_map(|l| l.strip_prefix("peak ")).context("peak prints the peak")?;
        peaks.push(peak.trim().parse().context("a number of kilobytes")?);
    }
    Ok(format!("{:.0}", median(&peaks)))
}

fn count(lab: &Lab, case: &Case, contender: &Contender, strace: &Path) -> Result<BTreeMap<String, u64>> {
    let run = contender.cold(lab, case, "croft-bench-calls").context("it was asked before")?;
    let list = lab.folder.path().join("calls");
    let mut command = Command::new(strace);
    command.args(["-f", "-c", "-o"]).arg(&list).arg("--").arg(run.get_program()).args(run.get_args());
    process::run(&mut command, LIMIT)?.success()?;
    Ok(parse(&fs::read_to_string(&list).context("read strace's list")?))
}

/// Calls by name, from the table of `strace -c`: time, seconds, usecs/call, calls, errors if any, name.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let lines =
        text.lines().skip_while(|l| !l.starts_with("---")).skip(1).take_while(|l| !l.starts_with("---"));
    lines
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some(((*words.last()?).to_owned(), words.get(3)?.parse().ok()?))
        })
        .collect()
}

fn difference(ours: &BTreeMap<String, u64>, floor: &BTreeMap<String, u64>) -> Vec<Vec<String>> {
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(floor.keys()).collect();
    let mut rows: Vec<(u64, Vec<String>)> = names
        .into_iter()
        .filter_map(|name| {
            let (a, b) = (ours.get(name).copied().unwrap_or(0), floor.get(name).copied().unwrap_or(0));
            (a != b).then(|| (a.abs_diff(b), vec![name.clone(), a.to_string(), b.to_string()]))
        })
        .collect();
    rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table_of_strace() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    \x20 0.00    0.000000           0        13           close\n\
                    \x20 0.00    0.000000           0         4         1 openat\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.000000           0        17         1 total\n";
        let calls = parse(text);
        assert_eq!(calls, BTreeMap::from([("close".to_owned(), 13), ("openat".to_owned(), 4)]));
        let floor = BTreeMap::from([("close".to_owned(), 13), ("mount".to_owned(), 9)]);
        assert_eq!(difference(&calls, &floor), [["mount", "0", "9"], ["openat", "4", "0"]]);
    }
}
