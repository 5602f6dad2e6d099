//! Images that come only half: the registry, the way to it or croftd itself goes in the middle. One clear error, nothing of it is used, and
//! the next pull goes on where it stopped.

use std::fs;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::{Croft, Facility, Host, OnRunc, Output, Relay, Subject, Test};
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon_images::{REGISTRY_HOST, Registry};

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// Nothing here depends on the kind of host: the emulated one would only take longer.
const REGISTRY: &[Facility] =
    &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["docker-registry"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_transfers",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "a_registry_killed_in_the_middle", requires: REGISTRY, run: registry_killed },
        Test { name: "a_connection_cut_in_the_middle", requires: REGISTRY, run: connection_cut },
        Test { name: "a_croftd_killed_in_the_middle", requires: REGISTRY, run: croftd_killed },
    ],
};

/// Where the relay to the registry listens.
const THROUGH: &str = "127.0.0.1:5001";
const NAME: &str = "127.0.0.1:5001/big:latest";

/// Bytes of the image's layer, at least: it does not become shorter when it is packed.
const LAYER: u64 = 16 << 20;
/// After so many bytes of answers, a transfer stands still.
const MIDDLE: u64 = 8 << 20;
/// What of the answers is not that: busybox, documents, and what croftd has not written when it is struck.
const MARGIN: u64 = 4 << 20;

/// An image with one large layer, that only the registry has.
fn offer(croft: &Croft) -> Result<()> {
    let name = format!("{REGISTRY_HOST}/big");
    let make = format!(
        "cd {} && head -c {LAYER} /dev/urandom >rootfs/big && tar -C rootfs -cf big.tar . && rm rootfs/big",
        croft.path("")
    );
    croft.stage.run("sh", &["-c", &make])?.success()?;
    croft.ok(&["image", "import", &croft.path("big.tar"), &name])?;
    croft.ok(&["push", "--quiet", &name])?;
    croft.ok(&["rmi", &name])?;
    nothing_half(croft, 0).map(drop)
}

/// A way to the registry for so many bytes of answers.
fn relay(croft: &Croft, most: u64) -> Result<Relay> {
    let here = croft.stage.network()?;
    Relay::start(&here, THROUGH.parse()?, here.try_clone()?, REGISTRY_HOST, most)
}

/// Runs croft, and does something to somebody when half of an image has come.
fn in_the_middle(
    croft: &Croft,
    args: &[&str],
    relay: Relay,
    strike: impl FnOnce(Relay) -> Result<Option<Relay>>,
) -> Result<Output> {
    let before = downloaded(croft)?.iter().sum::<u64>();
    thread::scope(|scope| {
        let asked = scope.spawn(|| croft.run(args));
        let deadline = Instant::now() + COMMAND_LIMIT;
        let arrived = relay.held().and_then(|()| {
            // What was passed on is written soon.
            while downloaded(croft)?.iter().sum::<u64>() + MARGIN < before + MIDDLE {
                ensure!(Instant::now() < deadline, "{:?} bytes of {MIDDLE} are written", downloaded(croft)?);
            }
            Ok(())
        });
        let struck = arrived.and_then(|()| strike(relay));
        let output = asked.join().expect("a run of croft does not panic")?;
        let after = struck.with_context(|| output.to_string())?;
        if let Some(after) = after {
            ensure!(after.passed() < LAYER - MIDDLE + MARGIN, "it began anew: {} bytes", after.passed());
        }
        Ok(output)
    })
}

/// Bytes of downloads that are not complete.
fn downloaded(croft: &Croft) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for file in fs::read_dir(croft.stage.path("lib/images/partial"))? {
        // One that is complete gets another name.
        all.extend(file?.metadata().map(|data| data.len()));
    }
    Ok(all)
}

/// The image is not there, nor anything else but so many downloads that can be resumed. Gives their bytes.
fn nothing_half(croft: &Croft, downloads: usize) -> Result<u64> {
    croft.nothing_is_left()?;
    let names = croft.ok(&["image", "ls", "--quiet"])?;
    ensure!(names.lines().count() == 1, "box alone: {names}");
    let left = croft.stage.run("ls", &[&croft.path("lib/images/tmp")])?.success()?.stdout;
    ensure!(left.is_empty(), "{left}");
    let partial = downloaded(croft)?;
    ensure!(partial.len() == downloads, "{partial:?}");
    Ok(partial.iter().sum())
}

fn one_error(output: &Output, words: &[&str]) -> Result<()> {
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("croft:")).collect();
    ensure!(output.code() == 125 && errors.len() == 1, "{output}");
    ensure!(words.iter().all(|words| errors[0].contains(words)), "{output}");
    Ok(())
}

/// The pull that comes after all: only what was missing is sent.
fn whole(croft: &Croft, there: u64) -> Result<()> {
    let relay = relay(croft, u64::MAX)?;
    croft.ok(&["pull", "--quiet", NAME])?;
    let passed = relay.passed();
    ensure!(
        passed > 0 && passed < LAYER - there + MARGIN,
        "{there} bytes were there, and {passed} were sent"
    );
    let size = croft.ok(&["run", "--rm", "--pull", "never", NAME, "stat", "-c", "%s", "/big"])?;
    ensure!(size.trim() == LAYER.to_string(), "{size}");
    croft.nothing_is_left()
}

fn registry_killed(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let mut registry = Registry::start(&croft, false)?;
    offer(&croft)?;
    let mut there = 0;
    let commands: [&[&str]; 2] = [&["pull", NAME], &["run", "--pull", "always", NAME, "true"]];
    for args in commands {
        let output = in_the_middle(&croft, args, relay(&croft, MIDDLE)?, |_relay| {
            registry.stop(&croft)?;
            // Nobody listens there any more.
            Ok(None)
        })?;
        one_error(&output, &["pull layer sha256:", NAME.split(':').next().unwrap_or_default(), "onnect"])?;
        let more = nothing_half(&croft, 1)?;
        ensure!(more + MARGIN >= there + MIDDLE, "{more} bytes after {there}");
        there = more;
        registry = Registry::start(&croft, false)?;
    }
    whole(&croft, there)
}

fn connection_cut(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let _registry = Registry::start(&croft, false)?;
    offer(&croft)?;
    let output = in_the_middle(&croft, &["pull", NAME], relay(&croft, MIDDLE)?, |first| {
        drop(first);
        relay(&croft, u64::MAX).map(Some)
    })?;
    output.success()?;
    ensure!(croft.ok(&["run", "--rm", NAME, "echo", "whole"])? == "whole\n");
    croft.nothing_is_left()
}

fn croftd_killed(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    let _registry = Registry::start(&croft, false)?;
    offer(&croft)?;
    let pid = Pid::from_raw(i32::try_from(croft.pid()?)?).context("a pid is above 0")?;
    let output = in_the_middle(&croft, &["pull", NAME], relay(&croft, MIDDLE)?, |_relay| {
        kill_process(pid, Signal::KILL)?;
        Ok(None)
    })?;
    one_error(&output, &["croftd"])?;
    croft.killed()?;
    croft.start()?;
    let there = nothing_half(&croft, 1)?;
    whole(&croft, there)
}
