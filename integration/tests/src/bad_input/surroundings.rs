//! Command lines, bundles, files and state folders.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::{Bundle, Host, process};
use serde_json::json;

use super::{refused, verb};

/// Command lines, and what the message has to have.
const COMMAND_LINES: &[(&[&str], &[&str])] = &[
    (&["frob"], &["frob"]),
    (&["--nosuch", "list"], &["--nosuch"]),
    (&["--rootless", "maybe", "list"], &["--rootless", "maybe"]),
    (&["list", "--format", "xml"], &["--format", "xml"]),
    (&["list", "extra"], &["extra"]),
    (&["features", "extra"], &["extra"]),
    (&["spec", "extra"], &["extra"]),
    (&["state"], &["CONTAINER-ID"]),
    (&["state", "a", "b"], &["b"]),
    (&["start"], &["CONTAINER-ID"]),
    (&["kill"], &["CONTAINER-ID"]),
    (&["delete", "--force"], &["CONTAINER-ID"]),
    (&["ps"], &["CONTAINER-ID"]),
    (&["exec"], &["CONTAINER-ID"]),
    (&["run"], &["CONTAINER-ID"]),
    (&["run", "--nosuch", "x"], &["--nosuch"]),
    (&["run", "--bundle"], &["--bundle"]),
    (&["run", "--bundle", "/a", "--bundle", "/b", "x"], &["--bundle", "multiple"]),
    (&["run", "--preserve-fds", "x", "c"], &["--preserve-fds", "x"]),
    (&["run", "--preserve-fds", "-1", "c"], &["-1"]),
    (&["create", "--pid-file"], &["--pid-file"]),
    (&["update", "--nosuch", "x"], &["--nosuch"]),
    (&["events", "--interval"], &["--interval"]),
    (&["exec", "--preserve-fds", "many", "c", "true"], &["--preserve-fds", "many"]),
];

/// Unknown, missing and clashing options and arguments.
pub fn command_lines(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["true"])?;
    for (words, says) in COMMAND_LINES {
        let command = |globals: &[&str]| {
            let mut command = Command::new(bundle.runtime());
            command.arg("--root").arg(bundle.state_root()).args(globals).args(*words);
            command
        };
        refused(host, &bundle, command, says).with_context(|| words.join(" "))?;
    }
    Ok(())
}

/// Bundles, and the files and sockets that the options name.
pub fn bundles_and_files(host: &Host) -> Result<()> {
    let mut bundle = Bundle::new(host, &["true"])?;
    let run = |folder: &'static str| {
        move |bundle: &Bundle, globals: &[&str]| {
            let mut command = Command::new(bundle.runtime());
            command.arg("--root").arg(bundle.state_root()).args(globals).args(["run", "--bundle", folder]);
            command.arg(bundle.id());
            command
        }
    };
    for (folder, says) in [
        ("/nosuch/bundle", ["/nosuch/bundle", "no such file or directory"]),
        ("/etc/passwd", ["/etc/passwd", "not a directory"]),
        ("/proc", ["/proc/config.json", "no such file or directory"]),
    ] {
        let command = run(folder);
        refused(host, &bundle, |globals| command(&bundle, globals), &says).context(folder)?;
    }
    fs::create_dir(bundle.folder().join("config.json"))?;
    refused(host, &bundle, verb(&bundle, "run", &[], &[]), &["config.json", "is a directory"])?;
    fs::remove_dir(bundle.folder().join("config.json"))?;

    bundle.save()?;
    let spec = |globals: &[&str]| {
        let mut command = Command::new(bundle.runtime());
        command.args(globals).args(["spec", "--bundle"]).arg(bundle.folder());
        command
    };
    refused(host, &bundle, spec, &["config.json", "exists"])?;
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--pid-file", "/nosuch/pid"], &["/nosuch/pid", "no such file or directory"]),
        (&["--pid-file", "/proc/pid"], &["/proc/pid"]),
        (&["--pid-file", "/etc/"], &["/etc"]),
        (&["--pidfd-socket", "/nosuch.sock"], &["/nosuch.sock", "no such file or directory"]),
        (&["--console-socket", "/nosuch.sock"], &["--console-socket", "tty"]),
        (&["--pidfd-socket", "/etc/passwd"], &["/etc/passwd", "connection refused"]),
    ];
    for (options, says) in cases {
        refused(host, &bundle, verb(&bundle, "create", options, &[]), says).context(options.join(" "))?;
    }
    bundle.config["process"]["terminal"] = json!(true);
    bundle.save()?;
    refused(host, &bundle, verb(&bundle, "create", &[], &[]), &["terminal", "cannot allocate tty"])?;
    let options = ["--console-socket", "/nosuch.sock"];
    refused(host, &bundle, verb(&bundle, "create", &options, &[]), &["/nosuch.sock", "no such file"])
}

/// A file system of the test's own at `folder`, in the suite's own mount namespace.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(folder: &'a Path, options: &str) -> Result<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "croft-test"]).arg(folder);
        process::run(&mut mount, Duration::from_secs(10))?.success()?;
        Ok(Self(folder))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = process::run(Command::new("umount").arg(self.0), Duration::from_secs(10));
    }
}

/// State folders that are full, read-only or no folders.
pub fn state_folders(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["true"])?;
    bundle.save()?;
    let root = bundle.state_root();
    for (options, says) in [
        // No room for the container's folder, for a file in it, and for the text of the second file.
        ("size=64k,nr_inodes=1", "no space left on device"),
        ("size=64k,nr_inodes=2", "no space left on device"),
        ("size=4k", "no space left on device"),
        ("ro", "read-only file system"),
    ] {
        let _mounted = Mounted::tmpfs(root, options)?;
        for name in ["create", "run"] {
            let says = [root.to_str().context("temporary folders have plain names")?, says];
            refused(host, &bundle, verb(&bundle, name, &[], &[]), &says)
                .with_context(|| format!("{name} with a state folder of {options}"))?;
        }
    }
    let file = bundle.folder().join("file");
    fs::write(&file, "")?;
    for name in ["create", "state", "list"] {
        let command = |globals: &[&str]| {
            let mut command = Command::new(bundle.runtime());
            command.arg("--root").arg(&file).args(globals).arg(name);
            match name {
                "create" => command.arg("--bundle").arg(bundle.folder()).arg(bundle.id()),
                "state" => command.arg(bundle.id()),
                _ => &mut command,
            };
            command
        };
        refused(host, &bundle, command, &["not a directory"])
            .with_context(|| format!("{name} with a file for --root"))?;
    }
    Ok(())
}

/// Records that are cut off, of another shape, or of a later version: every verb names the container, and list goes on. Only
/// `delete --force` removes what it can (`crash`).
pub fn unreadable_states(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["true"])?;
    let folder = bundle.state_root().join(bundle.id());
    fs::create_dir_all(&folder)?;
    for (text, says) in [
        ("", "EOF while parsing"),
        ("{\"format\":1,\"id\":", "EOF while parsing"),
        ("{}", "missing field `format`"),
        ("{\"format\":1}", "missing field"),
        ("[1]x", "trailing characters"),
        ("{\"format\":4000000}", "4000000 is newer"),
        ("\u{0}", "expected value"),
    ] {
        fs::write(folder.join("state.json"), text)?;
        for (name, before, after) in [
            ("state", [].as_slice(), [].as_slice()),
            ("start", &[], &[]),
            ("kill", &[], &["KILL"]),
            ("delete", &[], &[]),
        ] {
            let says = ["state of container", bundle.id(), says];
            refused(host, &bundle, verb(&bundle, name, before, after), &says)
                .with_context(|| format!("{name} with {text:?}"))?;
        }
        let list = process::run(&mut bundle.command("list"), croft_harness::bundle::VERB_LIMIT)?;
        ensure!(
            list.code() == 0 && list.stderr.contains("level=warning") && list.stderr.contains(bundle.id()),
            "{list}"
        );
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}
