//! What a supervisor costs: memory with many containers, and how much output goes through it.
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::process::patience;
use croft_harness::{Facility, Host, Subject, Test};
use croft_shim::protocol::{Io, Log, Request};

use crate::fixture::{Shim, list, run, wait};

const ROOT: &[Facility] = &[Facility::Root];

pub const SUBJECT: Subject = Subject {
    name: "figures",
    on_runc: &[],
    tests: &[
        Test { name: "memory_of_many_containers", requires: ROOT, run: memory },
        Test { name: "output_through_the_log", requires: ROOT, run: throughput },
    ],
};

/// The proportional set size of a process, in KiB.
fn pss(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The supervisor and its children of its own kind: the holder.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut pids = vec![pid];
    for child in fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.split_whitespace() {
        if fs::read_to_string(format!("/proc/{child}/comm"))?.trim() == "croft-holder" {
            pids.push(child.parse()?);
        }
    }
    Ok(pids)
}

/// How many containers: `CROFT_SHIM_CONTAINERS`, or fewer in the usual run. The design wants 500 in 12 MB.
fn memory(host: &Host) -> Result<()> {
    let count = std::env::var("CROFT_SHIM_CONTAINERS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let start = Instant::now();
    for n in 0..count {
        run(&mut client, shim.create(&n.to_string(), "echo a line; exec sleep 100000", Io::PIPES)?)?;
    }
    let took = start.elapsed();
    let family = family(shim.pid())?;
    ensure!(family.len() == 2, "{family:?}");
    let each: Vec<u64> = family.iter().map(|pid| pss(*pid)).collect::<Result<_>>()?;
    let total: u64 = each.iter().sum();
    println!("{count} containers in {took:.1?}: PSS {total} KiB (supervisor and holder: {each:?})");
    for state in list(&mut client)? {
        client.done(Request::Delete { id: state.id, exec: None, force: true })?;
    }
    ensure!(total < 3_000 + 18 * count, "{total} KiB for {count} containers");
    shim.stop()
}

/// Bytes of lines a second from a container's standard output to the file.
fn throughput(host: &Host) -> Result<()> {
    const BYTES: u64 = 200 << 20;
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let line = "0123456789abcdef".repeat(7);
    let script = format!("yes {line} | dd bs=64k count={} iflag=fullblock 2>/dev/null", BYTES >> 16);
    let mut create = shim.create("a", &script, Io::PIPES)?;
    if let Request::Create { log, .. } = &mut create {
        *log = Some(Log { max_bytes: 32 << 20, max_files: 2, ..Log::at(shim.log("a")) });
    }
    let start = Instant::now();
    run(&mut client, create)?;
    let exit = wait(&mut client, &shim.name("a"), None)?;
    let took = start.elapsed();
    ensure!(exit.status == Some(0), "{exit:?}");
    println!(
        "{} MB logged in {took:.2?}: {:.0} MB/s",
        BYTES / 1_000_000,
        BYTES as f64 / 1e6 / took.as_secs_f64()
    );
    // A fifth of what a quiet machine does, which is well above the 100 MB/s that the design wants.
    ensure!(took < patience(Duration::from_secs(15)), "{took:?}");
    client.done(Request::Delete { id: shim.name("a"), exec: None, force: false })?;
    shim.stop()
}
