//! The tables, as markdown.

use std::fmt::Write;

use anyhow::Result;
use croft_harness::host::Host;

use crate::target::{Bound, Verdict};
use crate::timing::{Times, median, quantile};

/// What was measured, in order, and the verdicts.
#[derive(Debug)]
pub struct Report {
    ours: &'static str,
    text: String,
    verdicts: Vec<Verdict>,
}

impl Report {
    /// An empty report on this host, of the contender called `ours` beside others.
    pub fn new(host: &Host, ours: &'static str) -> Result<Self> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let groups = if host.is_unified() { "unified" } else { "hybrid" };
        let load: Vec<&str> = load.split(' ').take(3).collect();
        let size = std::fs::metadata(&host.runtime)?.len() as f64 / 1e6;
        let text = format!(
            "Linux {}, {groups} control groups, load at the start {}; croft-oci: one file of {size:.1} MB\n",
            kernel.trim(),
            load.join(" ")
        );
        Ok(Self { ours, text, verdicts: Vec::new() })
    }

    /// Adds a table.
    pub fn table(&mut self, title: &str, header: &[&str], rows: &[Vec<String>]) {
        let _ = write!(self.text, "\n### {title}\n\n");
        self.text.push_str(&rows_of(header, rows));
    }

    /// Adds a table of durations.
    pub fn times(&mut self, title: &str, order: &[String], times: &Times) {
        let first = order.first().and_then(|name| times.get(name)?.as_ref().ok()).map(|v| median(v));
        let mut rows = Vec::new();
        for name in order {
            let Some(found) = times.get(name) else { continue };
            rows.push(match found {
                Ok(values) => {
                    let ms = |us: f64| format!("{:.2}", us / 1e3);
                    let ratio = first.map(|first| format!("{:.2}", first / median(values)));
                    vec![
                        name.clone(),
                        ms(median(values)),
                        ms(quantile(values, 0.1)),
                        ms(quantile(values, 0.9)),
                        ratio.unwrap_or_default(),
                    ]
                }
                Err(why) => {
                    vec![name.clone(), format!("failed: {}", why.replace('\n', " ").replace('|', "/"))]
                }
            });
        }
        self.table(
            title,
            &["contender", "median ms", "10 %", "90 %", &format!("{} takes", self.ours)],
            &rows,
        );
    }

    /// Compares our median with another's.
    pub fn compare_times(&mut self, what: &str, times: &Times, other: &str, bound: Bound) {
        let middle = |name: &str| times.get(name).and_then(|t| t.as_ref().ok()).map(|v| median(v));
        if !times.contains_key(other) {
            return;
        }
        let ratio = middle(self.ours).zip(middle(other)).map(|(ours, theirs)| ours / theirs);
        self.verdict(format!("{what}, of {other}'s time"), bound, ratio);
    }

    /// Adds a verdict.
    pub fn verdict(&mut self, what: String, bound: Bound, ratio: Option<f64>) {
        self.verdicts.push(Verdict { what, bound, ratio });
    }

    /// Whether all targets are reached.
    pub fn reached(&self) -> bool {
        self.verdicts.iter().all(Verdict::reached)
    }

    /// All of it.
    pub fn markdown(&self) -> String {
        let rows: Vec<Vec<String>> = self.verdicts.iter().map(Verdict::row).collect();
        let targets = rows_of(&["target", "bound", "measured", "reached"], &rows);
        format!("{}\n### Targets\n\n{targets}", self.text)
    }
}

fn rows_of(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", header.join(" | "), "---|".repeat(header.len()));
    for row in rows {
        let missing = header.len().saturating_sub(row.len());
        let _ = writeln!(text, "| {} |{}", row.join(" | "), " |".repeat(missing));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_row_is_filled_up() {
        let text = rows_of(&["a", "b"], &[vec!["1".into(), "2".into()], vec!["failed".into()]]);
        assert_eq!(text, "| a | b |\n|---|---|\n| 1 | 2 |\n| failed | |\n");
    }
}
