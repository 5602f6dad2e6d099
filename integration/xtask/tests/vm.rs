//! `cargo xtask vm` as a program: its command line, and that nothing stays behind when it is stopped.
#![expect(clippy::unwrap_used, reason = "all of this file is a test")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use croft_harness::process;
use rustix::process::{Pid, Signal, kill_process};

/// Starts a machine that says when its command runs and goes on for ever. Its files are in `folder/tmp`, and
/// `folder/share` is on the command line of one of its programs.
fn start(folder: &Path) -> Child {
    fs::create_dir(folder.join("tmp")).unwrap();
    fs::create_dir(folder.join("share")).unwrap();
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.args(["vm", "--share", &format!("mark={}", folder.join("share").display())]);
    xtask.args(["--", "sh", "-c", "echo ready; sleep 1000"]).env("TMPDIR", folder.join("tmp"));
    let mut child = xtask.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// The processes whose command line holds the folder's name, but for the one that the test started.
fn processes_of(folder: &Path, but: &Child) -> Vec<Pid> {
    let mut found = Vec::new();
    for item in fs::read_dir("/proc").unwrap() {
        let path = item.unwrap().path();
        let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        let line = String::from_utf8_lossy(&fs::read(path.join("cmdline")).unwrap_or_default()).into_owned();
        match pid {
            Some(pid) if line.contains(folder.to_str().unwrap()) && pid != Pid::from_child(but) => {
                found.push(pid)
            }
            _ => {}
        }
    }
    found
}

/// Stops a running machine with a signal and checks that all its processes end.
fn stop(folder: &Path, signal: Signal) -> ExitStatus {
    let mut child = start(folder);
    let processes = processes_of(folder, &child);
    assert!(processes.len() >= 2, "QEMU and virtiofsd are not running: {processes:?}");
    kill_process(Pid::from_child(&child), signal).unwrap();
    let status = process::wait(&mut child, Duration::from_secs(20)).unwrap().expect("it does not end");
    for pid in processes {
        assert!(process::ends_within(pid, Duration::from_secs(20)).unwrap(), "{pid:?} is left");
    }
    status
}

fn left_in(folder: &Path) -> usize {
    fs::read_dir(folder.join("tmp")).unwrap().count()
}

#[test]
fn a_signal_ends_the_machine_and_removes_its_files() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(stop(folder.path(), signal).code(), Some(status));
        assert_eq!(left_in(folder.path()), 0);
    }
}

#[test]
fn sigkill_ends_the_machine_and_the_next_one_removes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(stop(folder.path(), Signal::KILL).signal(), Some(9));
    assert_eq!(left_in(folder.path()), 1);
    let mut next = Command::new(env!("CARGO_BIN_EXE_xtask"));
    next.args(["vm", "--", "true"]).env("TMPDIR", folder.path().join("tmp"));
    process::run(&mut next, Duration::from_secs(60)).unwrap().success().unwrap();
    assert_eq!(left_in(folder.path()), 0);
}

#[test]
fn the_command_line_reaches_the_guest() {
    let out = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], status: i32| {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.arg("vm").args(arguments).env("CROFT_TEST", "passed");
        let output = process::run(&mut xtask, Duration::from_secs(60)).unwrap();
        assert_eq!(output.code(), status, "{output}");
        output
    };
    let script = "test -f Cargo.toml && test -x /target/debug/xtask && echo $CROFT_TEST $A > /out/env && nproc && exit 7";
    let out_dir = out.path().to_str().unwrap();
    let options =
        ["--cpus", "1", "--env", "CROFT_TEST", "--env", "A=b c", "--out", out_dir, "--", "sh", "-c", script];
    assert_eq!(run(&options, 7).stdout, "1\n");
    assert_eq!(fs::read_to_string(out.path().join("env")).unwrap(), "passed b c\n");
    assert!(run(&["--timeout", "1", "--", "true"], 124).stderr.contains("after 1 s"));
    assert!(run(&["--share", "x=/no/such", "--", "true"], 1).stderr.contains("/no/such"));
    assert!(run(&["--cpus", "100000", "--", "true"], 125).stderr.contains("without a status"));
    assert!(run(&["--memory", "1", "--", "true"], 2).stderr.contains("--memory"));
    run(&["true"], 2);
}
