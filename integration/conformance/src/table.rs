//! The table of programs and runtimes, and what it says about croft-oci.
use std::fmt::Write as _;

use croft_harness::RuntimeKind;

use crate::Column;
use crate::lanes::Results;
use crate::reasons::Reasons;
use crate::tap::{Outcome, Verdict};

/// One row a program, one column a runtime, and the sums.
pub(crate) fn render(runtimes: &[Column], results: &Results) -> String {
    let width = results.keys().map(String::len).max().unwrap_or(0).max("program".len());
    let mut text = format!("{:width$}", "program");
    for runtime in runtimes {
        let _ = write!(text, "  {:<20}", runtime.name);
    }
    text.push('\n');
    for (program, outcomes) in results {
        let _ = write!(text, "{program:width$}");
        for outcome in outcomes {
            let _ = write!(text, "  {:<20}", cell(outcome));
        }
        text.push('\n');
    }
    for (name, verdict) in
        [("passed", Verdict::Passed), ("failed", Verdict::Failed), ("skipped", Verdict::Skipped)]
    {
        let _ = write!(text, "{name:width$}");
        for column in 0..runtimes.len() {
            let count = results.values().filter(|row| row[column].verdict == verdict).count();
            let _ = write!(text, "  {count:<20}");
        }
        text.push('\n');
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `pass 309, 39 skipped` · `FAIL 2 of 5` · `skip`.
fn cell(outcome: &Outcome) -> String {
    let wrong = outcome.complaints.len();
    match outcome.verdict {
        Verdict::Skipped => "skip".to_owned(),
        Verdict::Failed => format!("FAIL {wrong} of {}", outcome.passed + wrong),
        Verdict::Passed if outcome.passed == 0 => "pass".to_owned(),
        Verdict::Passed if outcome.skipped == 0 => format!("pass {}", outcome.passed),
        Verdict::Passed => format!("pass {}, {} skipped", outcome.passed, outcome.skipped),
    }
}

/// What each program complains about.
pub(crate) fn complaints(runtimes: &[Column], results: &Results) -> String {
    let mut text = String::new();
    for (program, outcomes) in results {
        for (runtime, outcome) in runtimes.iter().zip(outcomes) {
            for complaint in &outcome.complaints {
                let _ = writeln!(text, "{program} on {}: {complaint}", runtime.name);
            }
        }
    }
    text
}

/// What is wrong with croft-oci: a program that a peer passes in the same place and it does not, and one without a
/// reason.
pub(crate) fn faults(columns: &[Column], results: &Results, reasons: &Reasons) -> Vec<String> {
    let mut faults = Vec::new();
    for (program, row) in results {
        for (ours, outcome) in
            columns.iter().zip(row).filter(|(column, _)| column.kind == RuntimeKind::CroftOci)
        {
            if outcome.verdict == Verdict::Passed {
                continue;
            }
            let better = columns
                .iter()
                .zip(row)
                .find(|(peer, outcome)| peer.place == ours.place && outcome.verdict == Verdict::Passed);
            let fault = match better {
                Some((peer, _)) => format!("{program}: {} passes, {} does not", peer.name, ours.name),
                None if outcome.verdict == Verdict::Failed && !reasons.contains_key(program) => {
                    format!("{program}: {} fails, and reasons.txt does not say why", ours.name)
                }
                None => continue,
            };
            faults.push(fault);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    fn column(name: &str, kind: RuntimeKind) -> Column {
        Column { path: name.into(), kind, place: Place::Here, name: name.into() }
    }

    fn columns() -> [Column; 2] {
        [column("croft-oci", RuntimeKind::CroftOci), column("runc", RuntimeKind::Runc)]
    }

    fn passed() -> Outcome {
        Outcome { verdict: Verdict::Passed, passed: 3, skipped: 1, complaints: vec![] }
    }

    #[test]
    fn shows_counts_and_sums() {
        let results = Results::from([("hooks".to_owned(), vec![passed(), Outcome::broken("late")])]);
        let text = render(&columns(), &results);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|l| l.split("  ").filter(|w| !w.is_empty()).map(str::trim).collect()).collect();
        assert_eq!(rows[1], ["hooks", "pass 3, 1 skipped", "FAIL 1 of 1"]);
        assert_eq!(rows[2..], [["passed", "1", "0"], ["failed", "0", "1"], ["skipped", "0", "0"]]);
        assert_eq!(complaints(&columns(), &results), "hooks on runc: late\n");
    }

    #[test]
    fn a_program_that_a_peer_passes_has_no_excuse() {
        let results = Results::from([("hooks".to_owned(), vec![Outcome::broken("late"), passed()])]);
        let excuse = Reasons::from([("hooks".to_owned(), "why".to_owned())]);
        assert_eq!(faults(&columns(), &results, &excuse), ["hooks: runc passes, croft-oci does not"]);
    }

    #[test]
    fn a_program_that_all_fail_needs_a_reason() {
        let row = vec![Outcome::broken("late"), Outcome::broken("late")];
        let results = Results::from([("hooks".to_owned(), row)]);
        assert_eq!(faults(&columns(), &results, &Reasons::new()).len(), 1);
        let excuse = Reasons::from([("hooks".to_owned(), "why".to_owned())]);
        assert!(faults(&columns(), &results, &excuse).is_empty());
    }

    #[test]
    fn a_peer_of_another_place_is_no_measure() {
        let mut columns = columns();
        columns[1].place = Place::Guest;
        let results = Results::from([("hooks".to_owned(), vec![Outcome::broken("late"), passed()])]);
        let excuse = Reasons::from([("hooks".to_owned(), "why".to_owned())]);
        assert!(faults(&columns, &results, &excuse).is_empty());
    }
}
