//! `croft system check`: what no record accounts for is found, and `--fix` takes it away and nothing else.

use anyhow::{Context, Result, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const NEEDS: &[Facility] = &[Facility::Root];
const NETWORKS: &[Facility] = &[Facility::Root, Facility::Packages(&["nftables", "iproute2"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_check",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "leaks_are_taken_away_and_nothing_else", requires: NEEDS, run: leaks },
        Test { name: "what_runs_and_what_others_own_stays", requires: NEEDS, run: others },
        Test { name: "a_removal_that_failed_goes_on", requires: NEEDS, run: removal },
        Test { name: "networks_are_put_right", requires: NETWORKS, run: networks },
    ],
};

/// What `check --fix` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    code: i32,
    /// The kinds of what it fixed.
    fixed: Vec<String>,
    /// The names of what it left, and why.
    left: Vec<[String; 2]>,
}

fn fix(croft: &Croft) -> Result<Said> {
    let said = croft.run(&["system", "check", "--fix", "--format", "json"])?;
    let done: Value = serde_json::from_str(&said.stdout).with_context(|| said.to_string())?;
    let of = |list: &str| done[list].as_array().cloned().unwrap_or_default();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let mut fixed: Vec<String> = of("fixed").iter().map(|finding| text(finding, "what")).collect();
    fixed.sort();
    let left = of("left").into_iter().map(|finding| ["name", "why"].map(|field| text(&finding, field)));
    Ok(Said { code: said.code(), fixed, left: left.collect() })
}

/// A shell command among the files that croftd sees.
fn shell(croft: &Croft, script: &str) -> Result<String> {
    Ok(croft.stage.run("sh", &["-ec", script])?.success()?.stdout)
}

fn leaks(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.ok(&["run", "--name", "kept", "box", "sh", "-c", "echo mine > /file"])?;
    croft.ok(&["run", "-d", "--name", "runs", "-v", "data:/data", "box", "sleep", "1000"])?;
    let before = croft.inspect("runs")?;
    ensure!(fix(&croft)? == Said::default(), "nothing is wrong yet");
    // The record of a container is lost in a power cut, and all else of it stays: its root, mounted, its folder.
    croft.terminate()?;
    let (database, aside) = (croft.path("lib"), croft.path("aside"));
    shell(&croft, &format!("mkdir {aside}; cp {database}/croftd.db* {aside}/"))?;
    croft.start()?;
    croft.ok(&["run", "-d", "--name", "lost", "box", "sleep", "1000"])?;
    let lost = croft.inspect("lost")?["id"].as_str().context("it has an id")?.to_owned();
    croft.terminate()?;
    shell(&croft, &format!("rm {database}/croftd.db*; cp {aside}/* {database}/; rm -r {aside}"))?;
    croft.start()?;
    let ids = format!("ln -s '{lost} {database}' /run/croft-host/ids/30000");
    shell(&croft, &ids)?;
    // A container that does not run has still what only one that runs has.
    let kept = croft.inspect("kept")?["id"].as_str().context("it has an id")?.to_owned();
    shell(
        &croft,
        &format!("mkdir -p /run/croft/containers/{kept}/shm; touch /run/croft/containers/{kept}/config.json"),
    )?;
    let found = croft.run(&["system", "check"])?;
    ensure!(found.code() == 1 && found.stdout.contains(&lost) && found.stdout.contains(&kept), "{found}");
    let Said { code, fixed, left } = fix(&croft)?;
    ensure!(code == 0 && left.is_empty(), "{left:?}");
    ensure!(fixed == ["folder", "folder", "folder", "ids", "snapshot"], "{fixed:?}");
    ensure!(!shell(&croft, "cat /proc/self/mountinfo; find /run/croft /run/croft-host")?.contains(&lost));
    // Neither of the others has noticed.
    let now = croft.inspect("runs")?;
    ensure!(now["pid"] == before["pid"] && now["state"] == "running", "{now:#}");
    croft.ok(&["exec", "runs", "touch", "/data/file"])?;
    croft.ok(&["start", "kept"])?;
    croft.ok(&["wait", "kept"])?;
    ensure!(croft.ok(&["diff", "kept"])?.contains("/file"));
    croft.ok(&["rm", "--force", "--volumes", "kept", "runs"])?;
    croft.ok(&["volume", "rm", "data"])?;
    croft.nothing_is_left()
}

fn others(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    // One that somebody runs by hand where croftd keeps its own, and called as those are.
    let id = "0123456789abcdef".repeat(4);
    let (bundle, runtime) = (croft.path("by-hand"), croft.stage.runtime().display().to_string());
    let root = format!(
        "mkdir -p {bundle}/rootfs; tar -xf {} -C {bundle}/rootfs; cd {bundle}",
        croft.path("rootfs.tar")
    );
    let config = r#"{"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["sleep", "1000"],
        "env": ["PATH=/bin:/usr/bin"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}}"#;
    let run = format!("{runtime} --root /run/croft/oci run --detach {id} > out 2>&1 < /dev/null");
    shell(&croft, &format!("{root}; echo '{config}' > config.json; {run}"))?;
    let lib = croft.path("lib");
    shell(&croft, &format!("mkdir -p {lib}/volumes/stray {lib}/containers/lost+found"))?;
    let Said { code, fixed, left } = fix(&croft)?;
    ensure!(code == 1 && fixed.is_empty() && left.len() == 3, "{fixed:?} {left:?}");
    for (name, why) in
        [(id.as_str(), "its process runs"), ("stray", "may be wanted"), ("lost+found", "whose it is")]
    {
        let said = left.iter().any(|[left, reason]| left.ends_with(name) && reason.contains(why));
        ensure!(said, "{name}: {left:?}");
    }
    let state = shell(&croft, &format!("{runtime} --root /run/croft/oci state {id}"))?;
    ensure!(state.contains("running"), "{state}");
    let shown = croft.run(&["system", "check", "--fix"])?;
    ensure!(shown.code() == 1 && shown.stdout.contains("LEFT") && !shown.stdout.contains("FIXED"), "{shown}");
    // Once it has ended it is nobody's.
    shell(
        &croft,
        &format!(
            "{runtime} --root /run/croft/oci kill {id} KILL; rmdir {lib}/volumes/stray {lib}/containers/lost+found"
        ),
    )?;
    let ended =
        format!("until {runtime} --root /run/croft/oci state {id} | grep -q stopped; do sleep 0.02; done");
    croft.stage.run("timeout", &["30", "sh", "-c", &ended])?.success()?;
    ensure!(fix(&croft)? == Said { fixed: vec!["runtime".to_owned()], ..Said::default() });
    croft.nothing_is_left()
}

fn removal(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["create", "--name", "going", "-v", "/data", "box"])?;
    let id = croft.inspect("going")?["id"].as_str().context("it has an id")?.to_owned();
    let busy = format!("{}/containers/{id}/busy", croft.path("lib"));
    shell(&croft, &format!("mkdir {busy}; mount -t tmpfs busy {busy}"))?;
    let (_, error) = croft.fails(&["rm", "--volumes", "going"])?;
    ensure!(error.contains("busy"), "{error}");
    let Said { code, left, .. } = fix(&croft)?;
    let has_reason = left.iter().any(|[name, why]| name == "going" && why.contains("busy"));
    ensure!(code == 1 && has_reason, "{left:?}");
    shell(&croft, &format!("umount {busy}"))?;
    let Said { code, fixed, left } = fix(&croft)?;
    ensure!(code == 0 && fixed.contains(&"record".to_owned()), "{fixed:?} {left:?}");
    ensure!(croft.ok(&["volume", "ls", "--quiet"])?.is_empty(), "they were to go with it");
    croft.nothing_is_left()
}

fn networks(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["network", "create", "back"])?;
    croft.ok(&["run", "-d", "--name", "runs", "--network", "back", "box", "sleep", "1000"])?;
    shell(&croft, "ip link add croft-v00ffff type bridge; nft delete table inet croft_croft")?;
    // What is fixed may be nothing: croftd looks by itself now and then.
    let Said { code, left, .. } = fix(&croft)?;
    ensure!(code == 0 && left.is_empty(), "{left:?}");
    let now = shell(&croft, "ip -o link; nft list tables")?;
    ensure!(!now.contains("croft-v00ffff") && now.contains("table inet croft_croft"), "{now}");
    croft.ok(&["exec", "runs", "ip", "address", "show", "eth0"])?;
    croft.ok(&["rm", "--force", "runs"])?;
    croft.ok(&["network", "rm", "back"])?;
    croft.nothing_is_left()
}
