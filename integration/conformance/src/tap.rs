//! Reads the Test Anything Protocol (testanything.org) as the validation programs write it.
use croft_harness::Output;
use serde::{Deserialize, Serialize};

/// What a program found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// Every result is good, or there is none and the program ended well.
    Passed,
    /// It does not apply here.
    Skipped,
    /// Something is wrong.
    Failed,
}

/// A program's results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub verdict: Verdict,
    pub passed: usize,
    pub skipped: usize,
    /// What it complains about: failed results, and errors outside of any result.
    pub complaints: Vec<String>,
}

impl Outcome {
    /// A program that did not come to an end by itself.
    pub fn broken(why: &str) -> Self {
        Self { verdict: Verdict::Failed, passed: 0, skipped: 0, complaints: vec![why.to_owned()] }
    }
}

/// Judges a finished program.
///
/// Some programs report an error without a result: as an attachment to nothing before an empty plan, or by their exit
/// status alone. Both are failures.
pub(crate) fn judge(out: &Output) -> Outcome {
    let mut read = read(&out.stdout);
    if !out.status.success() {
        let words = out.stderr.lines().rev().take(3).collect::<Vec<_>>();
        let words: Vec<_> = words.into_iter().rev().collect();
        read.complaints.push(format!("{}: {}", out.status, words.join(" / ")));
    }
    read.verdict = match (read.complaints.is_empty(), read.passed, read.skipped) {
        (false, ..) => Verdict::Failed,
        (true, 0, 1..) => Verdict::Skipped,
        (true, ..) => Verdict::Passed,
    };
    read
}

fn read(text: &str) -> Outcome {
    let mut outcome = Outcome { verdict: Verdict::Passed, passed: 0, skipped: 0, complaints: Vec::new() };
    let (mut started, mut planned, mut seen) = (0, Vec::new(), 0);
    for line in text.lines() {
        if line.starts_with("TAP version") {
            started += 1;
        } else if let Some(plan) = line.strip_prefix("1..") {
            planned.extend(plan.trim().parse::<usize>());
        } else if let Some(result) = line.strip_prefix("not ok") {
            seen += 1;
            if result.contains("# TODO") {
                outcome.skipped += 1;
            } else {
                outcome.complaints.push(description(result));
            }
        } else if let Some(result) = line.strip_prefix("ok ") {
            seen += 1;
            match result.contains("# SKIP") {
                true => outcome.skipped += 1,
                false => outcome.passed += 1,
            }
        } else if let Some(error) = error_without_result(line, seen) {
            outcome.complaints.push(error);
        }
    }
    if planned.len() < started {
        outcome.complaints.push("ended before its plan".to_owned());
    } else if planned.iter().sum::<usize>() != seen {
        outcome.complaints.push(format!("planned {planned:?} results, gave {seen}"));
    }
    outcome
}

/// `" 3 - the words"` without the number.
fn description(result: &str) -> String {
    result.trim_start_matches(|c: char| c == ' ' || c == '-' || c.is_ascii_digit()).to_owned()
}

fn error_without_result(line: &str, seen: usize) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(line.strip_prefix("  {").map(|_| line)?).ok()?;
    (seen == 0).then(|| value["error"].as_str().map(|text| text.replace('\n', " ")))?
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn judged(stdout: &str, status: i32, stderr: &str) -> Outcome {
        let status = ExitStatus::from_raw(status << 8);
        judge(&Output { command: "x".into(), status, stdout: stdout.into(), stderr: stderr.into() })
    }

    #[test]
    fn counts_results_and_keeps_the_words_of_failures() {
        let out = judged(
            "TAP version 13\nok 1 - a\nnot ok 2 - b is c\nok 3 # SKIP d\nnot ok 4 # TODO e\n1..4\n",
            0,
            "",
        );
        assert_eq!((out.passed, out.skipped), (1, 2));
        assert_eq!(out.complaints, ["b is c"]);
        assert_eq!(out.verdict, Verdict::Failed);
    }

    #[test]
    fn passes_only_when_nothing_is_wrong() {
        assert_eq!(judged("TAP version 13\nok 1 - a\n1..1\n", 0, "").verdict, Verdict::Passed);
        assert_eq!(judged("", 0, "").verdict, Verdict::Passed);
        assert_eq!(judged("TAP version 13\n1..1\nok 1 # SKIP no\n", 0, "").verdict, Verdict::Skipped);
        for (text, status) in [
            ("TAP version 13\nok 1 - a\n1..1\n", 1),
            ("TAP version 13\nok 1 - a\n", 0),
            ("TAP version 13\nok 1 - a\n1..2\n", 0),
            ("TAP version 13\n  ---\n  {\"error\":\"hooks MUST\\nbe\"}\n  ...\n1..0\n", 0),
        ] {
            assert_eq!(judged(text, status, "").verdict, Verdict::Failed, "{text}");
        }
    }

    #[test]
    fn an_error_without_a_result_is_told_in_its_words() {
        let out = judged("TAP version 13\n  ---\n  {\"error\":\"hooks MUST\\nbe\"}\n  ...\n1..0\n", 0, "");
        assert_eq!(out.complaints, ["hooks MUST be"]);
    }
}
