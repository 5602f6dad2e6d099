//! Many containers: how fast they are there and gone, how fast croftd answers meanwhile, and how much memory it needs for them.

use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::caller::{Caller, Network};
use super::{OURS, Other};
use crate::Depth;
use crate::report::Report;
use crate::target::Bound;
use crate::timing::quantile;

/// Clients that start or remove containers at the same time.
const CLIENTS: usize = 8;

/// Containers that each caller starts beside the others.
const FEW: usize = 24;

/// What croftd is to start a second, with networks, on two processors.
const STARTS: f64 = 100.0;

/// What croftd may have resident with 500 containers, in MB.
const MEMORY: f64 = 40.0;

/// Starts and removals a second, of all callers.
pub fn beside(croft: &Caller, others: &[Other], report: &mut Report) -> Result<()> {
    let there = others.iter().filter_map(|(name, caller)| Some((*name, caller.as_ref().ok()?)));
    let mut rows = Vec::new();
    for (name, caller) in std::iter::once((OURS, croft)).chain(there) {
        if caller.has(Network::Bridge) {
            let rates = start(caller, FEW).and_then(|starts| Ok([starts, remove(caller, FEW)?]));
            rows.push(match rates {
                Ok(rates) => {
                    std::iter::once(name.to_owned()).chain(rates.map(|rate| format!("{rate:.1}"))).collect()
                }
                Err(why) => vec![name.to_owned(), format!("failed: {why:#}").replace(['\n', '|'], " ")],
            });
        }
    }
    let title =
        format!("{FEW} detached starts and forced removals, {CLIENTS} clients at a time, network: bridge");
    report.table(&title, &["caller", "starts a second", "removals a second"], &rows);
    Ok(())
}

/// Rates, latencies and memory of croftd.
pub fn measure(croft: &Caller, depth: Depth, report: &mut Report) -> Result<()> {
    let counts: &[usize] = if depth == Depth::Quick { &[100] } else { &[100, 500] };
    let (mut rates, mut answers, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for &count in counts {
        let starts = start(croft, count)?;
        report.verdict(
            format!("{count} starts with networks, a second"),
            Bound::AtLeast(STARTS),
            Some(starts),
        );
        answers.extend(latencies(croft, count, "idle")?);
        let load = || croft.stage().run("sh", &["-c", &runs(croft, count)]);
        thread::scope(|scope| -> Result<()> {
            let load = scope.spawn(load);
            let mut rounds = Vec::new();
            while !load.is_finished() {
                rounds.push(samples(croft, count)?);
            }
            load.join().expect("a load reports its failure")?.success()?;
            let [inspect, list] =
                [0, 1].map(|at| rounds.iter().flat_map(|round| round[at].clone()).collect());
            answers.extend(rows(count, "while 8 clients run containers", [inspect, list]));
            Ok(())
        })?;
        let (resident, share) = croftd_memory(croft)?;
        memory.push([count as f64, share, resident].map(|value| format!("{value:.1}")).to_vec());
        if count == 500 {
            let what = "croftd's resident memory with 500 containers, MB".to_owned();
            report.verdict(what, Bound::AtMost(MEMORY), Some(resident));
        }
        rates.push([count as f64, starts, remove(croft, count)?].map(|value| format!("{value:.1}")).to_vec());
        let left = croft.verb(&["ps", "--all", "--quiet"])?.success()?.stdout;
        ensure!(left.is_empty(), "containers are left: {left}");
    }
    let title =
        format!("croft: detached starts and forced removals, {CLIENTS} clients at a time, network: bridge");
    report.table(&title, &["containers", "starts a second", "removals a second"], &rates);
    let head = ["containers", "croftd is", "asked", "median ms", "99 %"];
    report.table("croftd's answers", &head, &answers);
    report.table("croftd's memory, MB", &["containers", "PSS", "RSS"], &memory);
    Ok(())
}

/// A word that is one word in a shell.
fn quoted(words: &[String]) -> String {
    let quote = |word: &String| format!("'{}'", word.replace('\'', "'\\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The line of a shell that has [`CLIENTS`] at a time do something with the numbers up to `count`, which stand for `{}` in it.
fn each(count: usize, words: &[String]) -> String {
    format!("seq {count} | xargs -P {CLIENTS} -I '{{}}' {} >/dev/null", quoted(words))
}

fn rate(caller: &Caller, count: usize, words: &[String]) -> Result<f64> {
    let begin = Instant::now();
    let done = caller.stage().run("sh", &["-c", &each(count, words)])?.success();
    done.with_context(|| format!("its daemon said:\n{}", caller.stage().daemon_log()))?;
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

fn start(caller: &Caller, count: usize) -> Result<f64> {
    let mut words = caller.run(Network::Bridge, &["--detach", "--name", "many-{}"]);
    words.extend(["box", "sleep", "1000"].map(str::to_owned));
    rate(caller, count, &words)
}

fn remove(caller: &Caller, count: usize) -> Result<f64> {
    let mut words = caller.run(Network::Bridge, &[]);
    let verb = words.iter().position(|word| word == "run").context("a run is in it")?;
    words.truncate(verb);
    words.extend(["rm", "--force", "many-{}"].map(str::to_owned));
    rate(caller, count, &words)
}

/// The load: short containers beside the others.
fn runs(croft: &Caller, count: usize) -> String {
    let mut words = croft.run(Network::Bridge, &["--rm", "--name", "load-{}"]);
    words.extend(["box", "true"].map(str::to_owned));
    each(count.min(100), &words)
}

fn latencies(croft: &Caller, count: usize, state: &str) -> Result<Vec<Vec<String>>> {
    Ok(rows(count, state, samples(croft, count)?))
}

fn rows(count: usize, state: &str, times: [Vec<f64>; 2]) -> Vec<Vec<String>> {
    let row = |(asked, times): (&str, Vec<f64>)| {
        let ms = |part: f64| format!("{:.2}", quantile(&times, part) * 1e3);
        vec![count.to_string(), state.to_owned(), asked.to_owned(), ms(0.5), ms(0.99)]
    };
    ["inspect", "list"].into_iter().zip(times).map(row).collect()
}

/// Seconds that croftd took for each of some inspections and lists, on one connection.
fn samples(croft: &Caller, count: usize) -> Result<[Vec<f64>; 2]> {
    crate::ensure(&["curl"])?;
    let ask = |path: String| -> Result<Vec<f64>> {
        let url = format!("http://croft/v1/containers{path}");
        let args = ["--silent", "--fail", "--unix-socket", "/run/croft/croft.sock", "--output", "/dev/null"];
        let args: Vec<&str> = args.into_iter().chain(["--write-out", "%{time_total}\\n", &url]).collect();
        let said = croft.stage().run("curl", &args)?.success()?.stdout;
        said.lines().map(|line| line.parse().context("a number of seconds")).collect()
    };
    Ok([ask(format!("/many-[1-{count}]"))?, ask("?all=true&try=[1-20]".to_owned())?])
}

/// RSS and PSS of croftd in MB.
fn croftd_memory(croft: &Caller) -> Result<(f64, f64)> {
    let info: Value = serde_json::from_str(&croft.verb(&["system", "info"])?.success()?.stdout)?;
    let file = format!("/proc/{}/smaps_rollup", info["pid"]);
    let text = croft.stage().run("cat", &[&file])?.success()?.stdout;
    let field = |name: &str| -> Result<f64> {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kilobytes = line.trim().trim_end_matches(" kB").parse::<f64>()?;
        Ok(kilobytes * 1024.0 / 1e6)
    };
    Ok((field("Rss:")?, field("Pss:")?))
}
