//! Containers that are not there, not in the right state, or not nameable; and what is asked of those that are.
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use croft_harness::{Bundle, Host};

use super::{refused, verb};

/// Ids that no container can have.
const IDS: &[&str] = &[
    "", ".", "..", "a/b", "/", "../x", "a b", "a\tb", "a\nb", "\u{e4}", "a:b", "a*b", "a$b", "a@b", "a,b",
    "a\\b", "a'b", "a\"b",
];

/// Illegal ids, and one that is too long.
pub fn ids(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["true"])?;
    bundle.save()?;
    let long = "x".repeat(1025);
    for id in IDS.iter().copied().chain([long.as_str()]) {
        for name in ["create", "state", "kill", "delete"] {
            let command = |globals: &[&str]| {
                let mut command = Command::new(bundle.runtime());
                command.arg("--root").arg(bundle.state_root()).args(globals).arg(name);
                if name == "create" {
                    command.arg("--bundle").arg(bundle.folder());
                }
                command.args(["--", id]);
                command
            };
            refused(host, &bundle, command, &["invalid container id"])
                .with_context(|| format!("{name} {id:?}"))?;
        }
    }
    Ok(())
}

/// Every verb that needs a container, with what it needs after the id.
const VERBS: &[(&str, &[&str], &[&str])] = &[
    ("start", &[], &[]),
    ("state", &[], &[]),
    ("kill", &[], &["TERM"]),
    ("kill", &["--all"], &["KILL"]),
    ("delete", &[], &[]),
    ("ps", &[], &[]),
    ("pause", &[], &[]),
    ("resume", &[], &[]),
    ("update", &["--pids-limit", "5"], &[]),
    ("events", &["--stats"], &[]),
    ("events", &[], &[]),
];

/// Every verb on a container that is not there.
pub fn missing_containers(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["true"])?;
    for (name, before, after) in VERBS {
        let says = ["container", bundle.id(), "does not exist"];
        refused(host, &bundle, verb(&bundle, name, before, after), &says)
            .with_context(|| (*name).to_owned())?;
    }
    Ok(())
}

type Refusals = &'static [(&'static str, &'static [&'static str], &'static [&'static str], &'static str)];

const CREATED: Refusals = &[
    ("create", &[], &[], "already exists"),
    ("run", &[], &[], "already exists"),
    ("resume", &[], &[], "not paused"),
];
const RUNNING: Refusals = &[
    ("create", &[], &[], "already exists"),
    ("start", &[], &[], "cannot start an already running container"),
    ("delete", &[], &[], "that is not stopped"),
    ("resume", &[], &[], "not paused"),
    ("ps", &[], &["-o", "comm"], "couldn't find PID field"),
    ("ps", &[], &["--nosuch-option"], "ps(1)"),
    ("events", &["--interval", "0s"], &[], "greater than 0"),
    ("events", &["--interval", "soon"], &[], "duration"),
];
const PAUSED: Refusals = &[
    ("pause", &[], &[], "container not running"),
    ("start", &[], &[], "cannot start a paused container"),
    ("delete", &[], &[], "that is not stopped"),
];
const STOPPED: Refusals = &[
    ("create", &[], &[], "already exists"),
    ("start", &[], &[], "cannot start a container that has stopped"),
    ("kill", &[], &["TERM"], "container not running"),
    ("pause", &[], &[], "container not running"),
    ("resume", &[], &[], "not paused"),
    ("update", &["--pids-limit", "5"], &[], "container not running"),
    ("ps", &[], &[], "container not running"),
    ("events", &["--stats"], &[], "container not running"),
];

/// One container through its states, and what each refuses.
pub fn wrong_states(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    let all = |state: &str, refusals: Refusals| {
        refusals.iter().try_for_each(|(name, before, after, says)| {
            refused(host, &bundle, verb(&bundle, name, before, after), &[says])
                .with_context(|| format!("{name} {before:?} {after:?} when {state}"))
        })
    };
    bundle.create()?.success()?;
    all("created", CREATED)?;
    bundle.start()?.success()?;
    let pid = bundle.pid()?;
    all("running", RUNNING)?;
    bundle.verb("pause", &[], &[])?.success()?;
    all("paused", PAUSED)?;
    bundle.verb("resume", &[], &[])?.success()?;
    bundle.kill("KILL")?.success()?;
    bundle.ended(pid, Duration::from_secs(10))?;
    all("stopped", STOPPED)
}

const SIGNALS: &[&str] = &["NOSUCH", "SIG", "0x9", "65", "99999999999", "KILL ", ""];

/// Options of update, and what the message has to have.
const LIMITS: &[(&[&str], &[&str])] = &[
    (&["--memory", "lots"], &["memory", "lots"]),
    (&["--memory", "1x"], &["memory", "1x"]),
    (&["--memory-swap", "-2"], &["memory-swap", "-2"]),
    (&["--cpu-share", "-5"], &["cpu-share", "-5"]),
    (&["--cpu-share", "1"], &["cpu.shares", "1"]),
    (&["--cpu-quota", "half"], &["cpu-quota", "half"]),
    (&["--cpu-idle", "7"], &["cpu.idle", "7"]),
    (&["--blkio-weight", "5"], &["blockIO.weight", "5"]),
    (&["--blkio-weight", "99999"], &["blkio-weight", "99999"]),
    (&["--pids-limit", "x"], &["pids-limit", "x"]),
    (&["--cpuset-cpus", "900"], &["cpuset.cpus", "900"]),
    (&["--cpuset-cpus", "a-b"], &["cpuset.cpus", "a-b"]),
    (&["--l3-cache-schema", "L3:0=f"], &["Intel RDT/CAT", "l3 cache schema"]),
    (&["--mem-bw-schema", "MB:0=1"], &["Intel RDT/MBA", "memory bandwidth schema"]),
    (&["--resources", "/nosuch"], &["--resources", "/nosuch", "no such file or directory"]),
    (&["--resources", "/"], &["--resources", "is a directory"]),
    (&["--resources", "/dev/null"], &["--resources", "/dev/null", "EOF while parsing"]),
    (&["--resources", "/etc/passwd"], &["--resources", "/etc/passwd", "line 1"]),
];

/// Signals and limits of a running container.
pub fn signals_and_limits(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    for signal in SIGNALS {
        let after = [*signal];
        refused(host, &bundle, verb(&bundle, "kill", &[], &after), &["unknown signal", signal])
            .with_context(|| format!("kill {signal:?}"))?;
    }
    for (options, says) in LIMITS {
        refused(host, &bundle, verb(&bundle, "update", options, &[]), says)
            .with_context(|| format!("update {options:?}"))?;
    }
    let file = bundle.folder().join("resources.json");
    let path = file.to_str().context("temporary folders have plain names")?;
    for (text, says) in [
        ("{", "EOF while parsing"),
        ("[]x", "resources"),
        (r#"{"memory":{"limit":"1g"}}"#, "memory.limit"),
        (r#"{"pids":{"limit":7},"unified":{"nosuch.file":"1"}}"#, "nosuch.file"),
        (r#"{"unified":{"a/b":"1"}}"#, "a/b"),
    ] {
        std::fs::write(&file, text)?;
        refused(host, &bundle, verb(&bundle, "update", &["--resources", path], &[]), &[says])
            .with_context(|| format!("update with {text}"))?;
    }
    Ok(())
}
