//! Runs commands in turns and keeps how long each took.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use croft_harness::process;

/// A contender that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// Before each measured command of a cold start. For some milliseconds after a write to `cgroup.procs` or a change of
/// mounts the kernel is in a state in which the next one is quick: who starts one container now and then never sees that.
pub const PAUSE: Duration = Duration::from_millis(50);

/// The measured durations, in microseconds, by contender; or why there are none.
pub type Times = BTreeMap<String, std::result::Result<Vec<f64>, String>>;

/// One who takes turns: a name, and what makes the command of the turn with this number.
pub struct Turn<'a> {
    /// In the tables.
    pub name: String,
    /// The command.
    pub command: Box<dyn Fn(usize) -> Command + 'a>,
}

/// Runs every turn once a round, after two rounds that do not count. The order rotates, forwards and backwards: who comes after
/// a big program finds the processor's caches cold, and that is not to be always the same.
pub fn rotate(turns: &[Turn<'_>], rounds: usize, pause: Duration, folder: &Path) -> Result<Times> {
    let mut times: Times = turns.iter().map(|t| (t.name.clone(), Ok(Vec::new()))).collect();
    for round in 0..rounds + 2 {
        for place in 0..turns.len() {
            let place = if round % 2 == 0 { place } else { turns.len() - 1 - place };
            let turn = &turns[(round / 2 + place) % turns.len()];
            let kept = times.get_mut(&turn.name).context("every turn has its times")?;
            let Ok(durations) = kept else { continue };
            std::thread::sleep(pause);
            match time(&mut (turn.command)(round), folder) {
                Ok(duration) if round >= 2 => durations.push(duration.as_secs_f64() * 1e6),
                Ok(_) => {}
                Err(why) => *kept = Err(format!("{why:#}")),
            }
        }
    }
    Ok(times)
}

/// How long a command takes from before its making until it is reaped. It has to succeed.
pub fn time(command: &mut Command, folder: &Path) -> Result<Duration> {
    let said = folder.join("stderr");
    let stderr = File::create(&said).with_context(|| format!("create {}", said.display()))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {}", process::describe(command)))?;
    let status = process::wait(&mut child, LIMIT)?;
    let taken = start.elapsed();
    match status {
        Some(status) if status.success() => Ok(taken),
        Some(status) => {
            let said = fs::read_to_string(&said).unwrap_or_default();
            bail!("{}: {status}: {}", process::describe(command), said.trim())
        }
        None => bail!("{}: still running after {LIMIT:?}", process::describe(command)),
    }
}

/// The middle of the values.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this part of the values lies.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_an_unsorted_list() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!((median(&values), quantile(&values, 0.0), quantile(&values, 1.0)), (3.0, 1.0, 5.0));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn one_that_fails_leaves_the_others_their_times() {
        let folder = tempfile::tempdir().unwrap();
        let turn = |name: &str, program: &'static str| Turn {
            name: name.to_owned(),
            command: Box::new(move |_| Command::new(program)),
        };
        let turns = [turn("good", "true"), turn("bad", "false")];
        let times = rotate(&turns, 3, Duration::ZERO, folder.path()).unwrap();
        assert_eq!(times["good"].as_ref().unwrap().len(), 3);
        assert!(times["bad"].as_ref().unwrap_err().contains("exit status: 1"));
    }
}
