//! `stats`.

use std::io::IsTerminal;

use croft_api::client::{Client, Error};
use croft_api::stats::{Pressure, Stats};
use http::Method;

use super::patience::{Contact, patiently};
use super::{Failed, part};
use crate::args::{Format, StatsArgs};
use crate::output::{self, Shown};

/// Clears a terminal and goes to its beginning.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Does what is asked.
///
/// # Errors
/// When one that is named does not run.
pub async fn run(client: &Client, args: &StatsArgs, shown: Shown) -> Result<u8, Failed> {
    let format = shown.format;
    let names: Vec<String> = args.names.iter().map(|name| part(name)).collect();
    let query = format!("interval={}&names={}", args.interval.as_millis(), names.join(","));
    if args.no_stream {
        let all: Vec<Stats> = client.get(&format!("/stats?{query}")).await?;
        if shown.quiet {
            all.iter().for_each(|stats| output::line(&stats.id));
            return Ok(0);
        }
        output::list(format, &all, HEAD, |stats| row(stats, args.no_trunc));
        return Ok(0);
    }
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    let path = format!("/stats?stream=true&{query}");
    let mut contact = Contact::None;
    loop {
        let mut lines = patiently(contact, || client.lines(Method::GET, &path, None::<&()>)).await?;
        loop {
            let all = match lines.next::<Vec<Stats>>().await {
                Ok(Some(all)) => all,
                Ok(None) => return Ok(0),
                // croftd is restarted.
                Err(Error::Broken(_)) => break,
                Err(error) => return Err(error.into()),
            };
            let table = || output::table(&all, HEAD, |stats| row(stats, args.no_trunc));
            output::line(match format {
                Format::Json => serde_json::to_string(&all).unwrap_or_default(),
                Format::Table => format!("{clear}{}", table()),
            });
        }
        contact = Contact::Had;
    }
}

const HEAD: &[&str] = &[
    "CONTAINER ID",
    "NAME",
    "CPU %",
    "MEM USAGE / LIMIT",
    "MEM %",
    "NET I/O",
    "BLOCK I/O",
    "PIDS",
    "PRESSURE C/M/I %",
];

fn row(stats: &Stats, full: bool) -> Vec<String> {
    let (came, went) = match &stats.network {
        Some(network) => (output::size(network.received_bytes), output::size(network.sent_bytes)),
        None => ("--".to_owned(), "--".to_owned()),
    };
    vec![
        if full { stats.id.clone() } else { output::short(&stats.id) },
        stats.name.clone(),
        format!("{:.2}", stats.cpu_percent),
        format!("{} / {}", output::binary(stats.memory), output::binary(stats.memory_limit)),
        format!("{:.2}", memory_percent(stats)),
        format!("{came} / {went}"),
        format!("{} / {}", output::size(stats.block_read), output::size(stats.block_written)),
        stats.pids.to_string(),
        pressure(stats.pressure.as_ref()),
    ]
}

/// How much of what it may have a container has.
pub fn memory_percent(stats: &Stats) -> f64 {
    stats.memory as f64 / stats.memory_limit.max(1) as f64 * 100.0
}

/// The percents of the last ten seconds in which something waited for processors, memory and block devices.
pub fn pressure(pressure: Option<&Pressure>) -> String {
    match pressure {
        Some(Pressure { cpu, memory, io }) => {
            format!("{:.1} {:.1} {:.1}", cpu.some_avg10, memory.some_avg10, io.some_avg10)
        }
        None => "--".to_owned(),
    }
}
