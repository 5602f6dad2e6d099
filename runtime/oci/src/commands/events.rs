//! `events`: counters and ends for want of memory, one JSON object a line.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use croft_engine::events::{Listening, stats, watch};
use croft_engine::state::StateRoot;

use crate::args::EventsArgs;

/// Prints events.
pub fn run(root: &StateRoot, args: &EventsArgs) -> Result<ExitCode> {
    let Some(interval) = duration(&args.interval).filter(|interval| !interval.is_zero()) else {
        bail!("--interval {:?}: must be a duration greater than 0, such as 5s or 1m30s", args.interval);
    };
    if args.stats {
        super::print(&format!("{}\n", serde_json::to_string(&stats(root, &args.id)?)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    watch(root, &args.id, interval, &mut |event| {
        let line = serde_json::to_string(event).unwrap_or_default();
        match super::print(&format!("{line}\n")) {
            Ok(()) => Listening::Yes,
            Err(_) => Listening::No,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a duration as Go writes it: `1h`, `1m30s`, `1.5s`, `100ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit].parse().ok()?;
        rest = &rest[unit..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * factor;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, millis) in
            [("5s", 5000), ("1m30s", 90_000), ("1.5s", 1500), ("100ms", 100), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "-5s", "s", "5x", "5s5"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
