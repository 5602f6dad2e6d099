//! Logs: rotation, compression, rates.
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::{Facility, Host, Subject, Test, process};
use croft_shim::frames::{Frame, Output};
use croft_shim::protocol::{From, Io, IoKind, Log, LogMode, Request};
use serde_json::Value;

use crate::fixture::{LIMIT, Shim, run, text, wait};
use crate::streams::attach;

const ROOT: &[Facility] = &[Facility::Root];

pub const SUBJECT: Subject = Subject {
    name: "logs",
    on_runc: &[],
    tests: &[
        Test { name: "full_files_are_compressed_and_the_oldest_go", requires: ROOT, run: rotation },
        Test {
            name: "past_the_rate_lines_are_dropped_and_the_container_goes_on",
            requires: ROOT,
            run: dropping,
        },
        Test { name: "in_block_mode_the_container_waits", requires: ROOT, run: blocking },
        Test { name: "a_full_disk_stops_nobody", requires: ROOT, run: full_disk },
        Test { name: "a_log_that_cannot_be_written_refuses_the_container", requires: ROOT, run: refused },
    ],
};

/// Runs a container with this log to its end and removes it.
fn logged(shim: &Shim, script: &str, change: impl FnOnce(&mut Log)) -> Result<Duration> {
    let mut client = shim.client()?;
    let mut create = shim.create("a", script, Io::PIPES)?;
    if let Request::Create { log: Some(log), .. } = &mut create {
        change(log);
    }
    let start = Instant::now();
    run(&mut client, create)?;
    wait(&mut client, &shim.name("a"), None)?;
    let took = start.elapsed();
    client.done(Request::Delete { id: shim.name("a"), exec: None, force: false })?;
    Ok(took)
}

fn rotation(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    logged(&shim, "seq 1 100000", |log| {
        (log.max_bytes, log.max_files, log.compress) = (1 << 20, 3, true);
    })?;
    let path = shim.log("a");
    let full = |end: &str| -> Result<Vec<_>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path.parent().context("a folder")?)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("a.").and_then(|rest| rest.strip_suffix(end));
            found.extend(
                number.and_then(|number| number.parse::<u32>().ok()).map(|number| (number, name.clone())),
            );
        }
        found.sort();
        Ok(found)
    };
    let end = Instant::now() + LIMIT;
    while full(".gz")?.len() != 3 || !full("")?.is_empty() {
        ensure!(Instant::now() < end, "{:?} {:?}", full(".gz")?, full("")?);
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut all = String::new();
    for (_, name) in full(".gz")? {
        let file = path.with_file_name(name);
        let part = process::run(Command::new("gzip").arg("-dc").arg(file), LIMIT)?.success()?.stdout;
        for line in part.lines() {
            all.push_str(serde_json::from_str::<Value>(line)?["log"].as_str().context("log")?);
        }
    }
    all.push_str(&text(&shim.logged("a")?));
    let count = all.lines().count();
    let wanted: String = (100_001 - count..=100_000).map(|n| format!("{n}\n")).collect();
    ensure!(count > 30_000 && all == wanted, "{count} lines");
    shim.stop()
}

fn dropping(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    logged(&shim, "seq 1 200000; sleep 0.5; echo last", |log| log.rate = Some(20_000))?;
    let log = std::fs::read_to_string(shim.log("a"))?;
    let (mut kept, mut dropped) = (0, 0);
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line)?;
        kept += u64::from(entry["log"] != "");
        dropped += entry["dropped_lines"].as_u64().unwrap_or(0);
    }
    ensure!(kept > 2_000 && kept + dropped == 200_001 && dropped > 100_000, "{kept} {dropped}");
    ensure!(text(&shim.logged("a")?).ends_with("last\n"));
    shim.stop()
}

fn blocking(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    // 228894 bytes: one second's worth at once, the rest in 1.2 s and a pipe that is full at the end.
    let took = logged(&shim, "seq 1 40000", |log| {
        (log.rate, log.mode) = (Some(80_000), LogMode::Block);
    })?;
    // All of it is there as soon as the end is told.
    let wanted: String = (1..=40_000).map(|n| format!("{n}\n")).collect();
    ensure!(text(&shim.logged("a")?) == wanted, "{} lines", shim.logged("a")?.len());
    ensure!(took > Duration::from_millis(900), "{took:?}");
    shim.stop()
}

/// Lines that find no room are counted, and what comes after room was made is whole.
fn full_disk(host: &Host) -> Result<()> {
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
    let shim = Shim::start(host)?;
    let logs = shim.log("a").parent().context("a folder")?.to_owned();
    mount("tmpfs", &logs, "tmpfs", MountFlags::empty(), Some(c"size=2m"))?;
    let outcome = (|| {
        let mut client = shim.client()?;
        let io = Io { kind: IoKind::Pipes { stdin: true }, ..Io::PIPES };
        run(&mut client, shim.create("a", "seq 1 100000; echo done >&2; read x; echo last", io)?)?;
        let id = shim.name("a");
        // The container has written everything, and is not held up.
        let (mut stream, _) = attach(&mut client, &id, None, From::Oldest)?;
        loop {
            if let Frame::Data { output: Output::Stderr, .. } = stream.receive()?.context("gone")? {
                break;
            }
        }
        mount_remount(&logs, MountFlags::empty(), "size=64m")?;
        client.done(Request::CloseStdin { id: id.clone(), exec: None })?;
        wait(&mut client, &id, None)?;
        let (mut kept, mut dropped) = (0, 0);
        for line in std::fs::read_to_string(shim.log("a"))?.lines() {
            let entry: Value = serde_json::from_str(line).with_context(|| format!("line {line:?}"))?;
            kept += u64::from(entry["log"] != "");
            dropped += entry["dropped_lines"].as_u64().unwrap_or(0);
        }
        ensure!(kept > 100 && dropped > 1_000 && kept + dropped == 100_002, "{kept} {dropped}");
        ensure!(text(&shim.logged("a")?).ends_with("last\n"));
        client.done(Request::Delete { id, exec: None, force: false })?;
        Ok(())
    })();
    unmount(&logs, UnmountFlags::DETACH)?;
    outcome?;
    shim.stop()
}

fn refused(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let mut create = shim.create("a", "true", Io::PIPES)?;
    if let Request::Create { log: Some(log), .. } = &mut create {
        log.path = "/nowhere/log".into();
    }
    let error = client.call(create, &[]).err().context("it was made")?;
    ensure!(error.to_string().contains("/nowhere/log"), "{error}");
    shim.stop()
}
