//! Steps of croft-oci's plan fail under croftd, and croftd itself is killed, or denied a system call, anywhere in what it does: it says so,
//! comes back, finishes or takes back, and nothing is left.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use croft_harness::ptrace::{Blow, Seen, while_acting};
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test, build};
use rustix::io::Errno;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const NEEDS: &[Facility] =
    &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["nftables", "iproute2"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_crash",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "every_step_of_the_runtime_fails", requires: NEEDS, run: every_step_fails },
        Test { name: "killed_in_create", requires: NEEDS, run: |host| each(host, &CREATE, Blow::Kill) },
        Test { name: "killed_in_start", requires: NEEDS, run: |host| each(host, &START, Blow::Kill) },
        Test { name: "killed_in_stop", requires: NEEDS, run: |host| each(host, &STOP, Blow::Kill) },
        Test { name: "killed_in_rm", requires: NEEDS, run: |host| each(host, &RM, Blow::Kill) },
        Test { name: "calls_fail_in_create", requires: NEEDS, run: |host| each(host, &CREATE, FAIL) },
        Test { name: "calls_fail_in_start", requires: NEEDS, run: |host| each(host, &START, FAIL) },
        Test { name: "calls_fail_in_stop", requires: NEEDS, run: |host| each(host, &STOP, FAIL) },
        Test { name: "calls_fail_in_rm", requires: NEEDS, run: |host| each(host, &RM, FAIL) },
        Test { name: "what_a_power_cut_takes_is_made_again", requires: NEEDS, run: power_cut },
    ],
};

const FAIL: Blow = Blow::Fail(Errno::IO);
/// Every other call fails so, and all of them with `CROFT_EVERY_CALL`: what makes or writes something can find a disk full.
const FULL: Blow = Blow::Fail(Errno::NOSPC);

/// At how many calls of an operation croftd is killed, unless `CROFT_EVERY_CALL` is set: spread over all of it.
const MOST: usize = 24;
/// How many calls fail: all of them, with some to spare. Nothing has to be started again after one.
const MOST_FAILING: usize = 100;

/// Cables go by themselves, soon after the namespace that has the other end.
const SETTLED: Duration = Duration::from_secs(20);

/// What is done to a container called `c`.
struct Operation {
    /// What comes before.
    before: &'static [&'static [&'static str]],
    /// What is interfered with.
    act: &'static [&'static str],
}

const START_IT: &[&str] = &["start", "c"];
const CREATE: Operation = Operation { before: &[], act: CREATE_IT };
const START: Operation = Operation { before: &[CREATE_IT], act: START_IT };
const STOP: Operation = Operation { before: &[CREATE_IT, START_IT], act: &["stop", "c"] };
const RM: Operation = Operation { before: &[CREATE_IT, START_IT], act: &["rm", "--force", "c"] };

/// A container with a network, a published port, a folder of the host and limits.
const CREATE_IT: &[&str] = &[
    "create",
    "--name=c",
    "--network",
    "croft",
    "--publish=8080:80",
    "--volume=/usr:/mnt:ro",
    "--memory=64m",
    "--pids-limit=100",
    "box",
    "sh",
    "-c",
    "trap 'exit 0' TERM; sleep 1000 & wait",
];

/// What is on the stage beside croftd's own files that it has from its beginning: mounts, links, rules, ids, folders of containers, groups.
fn remains(croft: &Croft, host: &Host) -> Result<String> {
    let groups: Vec<String> =
        host.hierarchies().iter().map(|root| root.join(croft.stage.name()).display().to_string()).collect();
    let script = format!(
        "cut -d' ' -f4- /proc/self/mountinfo; ip -o link | cut -d: -f2; nft --stateless list ruleset; \
         find /run/croft-host /run/croft/roots /run/croft/containers /run/croft/oci /run/croft/network {lib}/containers \
         {lib}/network {lib}/images/containers {lib}/images/tmp {groups} -mindepth 1 -not -path '*/cgroup.*' -not -name service.sock \
         \\( -type d -o -path '{lib}/*' -o -path '/run/*' \\) 2>/dev/null | sort; true",
        lib = croft.path("lib"),
        groups = groups.join(" "),
    );
    Ok(croft.stage.run("sh", &["-c", &script])?.success()?.stdout)
}

/// Waits until nothing is left and all is as it was.
fn as_before(croft: &Croft, host: &Host, before: &str) -> Result<()> {
    let end = Instant::now() + SETTLED;
    loop {
        let left = croft.nothing_is_left();
        let now = remains(croft, host)?;
        if left.is_ok() && now == before {
            return Ok(());
        }
        if Instant::now() > end {
            left?;
            let lines = |a: &str, b: &str, sign: &str| -> String {
                a.lines().filter(|l| !b.lines().any(|m| m == *l)).map(|l| format!("{sign} {l}\n")).collect()
            };
            bail!("not as before:\n{}{}", lines(before, &now, "-"), lines(&now, before, "+"));
        }
    }
}

/// Waits until `croft system check` finds nothing: a cable that is gone with its namespace is seen for a moment.
fn in_order(croft: &Croft) -> Result<()> {
    let end = Instant::now() + SETTLED;
    loop {
        match croft.ok(&["system", "check"]) {
            Err(left) if Instant::now() > end => return Err(left),
            Err(_) => {}
            Ok(_) => return Ok(()),
        }
    }
}

/// A container has been there and gone: what the first one leaves for all others, a bridge and the rules' frame, is there.
fn used(croft: &Croft) -> Result<()> {
    croft.ok(CREATE_IT)?;
    croft.ok(START_IT)?;
    croft.ok(&["rm", "--force", "c"])?;
    in_order(croft)
}

/// A runtime that notes the bundle's plan, and fails at the step that the file `fault` names.
fn faulty_runtime(croft: &Path) -> Result<std::path::PathBuf> {
    let faulty = build::faulty_croft_oci()?;
    let (faulty, folder) = (faulty.display(), croft.display());
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' create '*)\n\
         [ -e {folder}/plan ] || {{ for w; do case $o in --bundle) bundle=$w ;; --mount-base) base=$w ;; esac; o=$w; done; \
         {faulty} plan --bundle \"$bundle\" --mount-base \"$base\" --id \"$w\" >{folder}/plan.new && \
         mv {folder}/plan.new {folder}/plan; }}\nesac\n\
         [ -e {folder}/fault ] && {{ CROFT_FAULT=$(cat {folder}/fault); export CROFT_FAULT; }}\n\
         exec {faulty} \"$@\"\n"
    );
    let path = croft.join("faulty");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn every_step_fails(host: &Host) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let croft = Croft::with_runtime(host, faulty_runtime(folder.path())?)?;
    used(&croft)?;
    let plan = fs::read_to_string(folder.path().join("plan")).context("the plan of the container")?;
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let id = plan.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id);
    let of = id.context("the container's id is in its plan")?;
    let steps: Vec<&str> =
        plan.lines().filter_map(|l| l.strip_prefix("  ")).filter(|l| !l.starts_with(' ')).collect();
    ensure!(steps.len() > 40, "only {} steps:\n{plan}", steps.len());
    ensure!(plan.contains(", around mount "), "it is born among all the host's mounts:\n{plan}");
    let before = remains(&croft, host)?;
    let mut failed = 0;
    for step in &steps {
        let at = || format!("with {step:?} failing");
        let new = croft.ok(CREATE_IT).with_context(at)?;
        // The step as it is in this container's plan: with its id, and with its range of ids, which is the first one again.
        let step = step.replace(of, new.trim());
        fs::write(folder.path().join("fault"), &step)?;
        let (code, words) = croft.fails(START_IT).with_context(at)?;
        ensure!(code != 0 && words.contains("fault injected") && words.contains(&step), "{}: {words}", at());
        fs::remove_file(folder.path().join("fault"))?;
        ensure!(croft.inspect("c")?["state"] != "running", "{}: it runs", at());
        croft.ok(&["rm", "c"]).with_context(at)?;
        as_before(&croft, host, &before).with_context(at)?;
        failed += 1;
    }
    println!("daemon_crash: start with {failed} steps of croft-oci failing in turn");
    Ok(())
}

/// Whether the container is listed, and what it does.
fn state(croft: &Croft) -> Result<Option<String>> {
    if croft.ok(&["ps", "--all", "--quiet"])?.is_empty() {
        return Ok(None);
    }
    Ok(croft.inspect("c")?["state"].as_str().map(str::to_owned))
}

fn each(host: &Host, operation: &Operation, blow: Blow) -> Result<()> {
    let mut croft = Croft::new(host)?;
    used(&croft)?;
    let before = remains(&croft, host)?;
    let act = |croft: &Croft, at, blow| -> Result<(croft_harness::Output, Seen)> {
        for words in operation.before {
            croft.ok(words)?;
        }
        while_acting(croft.pid()?, blow, at, || croft.run(operation.act))
    };
    let (output, Seen { calls, .. }) = act(&croft, None, blow)?;
    output.success()?;
    clean_up(&croft)?;
    as_before(&croft, host, &before)?;
    let all = std::env::var_os("CROFT_EVERY_CALL").is_some();
    let most = if blow == FAIL { MOST_FAILING } else { MOST };
    let stride = if all { 1 } else { calls.div_ceil(most) };
    let mut struck: BTreeMap<u64, usize> = BTreeMap::new();
    let blows = if blow == FAIL { vec![FAIL, FULL] } else { vec![blow] };
    let spread = (1..=calls).step_by(stride).zip(blows.iter().cycle()).map(|(at, blow)| (at, *blow));
    let turns: Vec<(usize, Blow)> = match all {
        true => blows.iter().flat_map(|blow| (1..=calls).map(|at| (at, *blow))).collect(),
        false => spread.collect(),
    };
    for &(at, blow) in &turns {
        let (output, seen) = act(&croft, Some(at), blow)?;
        let place =
            || format!("{:?}: {blow:?} at call {at} of {calls}: {seen:?}: {output}", operation.act[0]);
        if let Some(number) = seen.struck {
            *struck.entry(number).or_default() += 1;
            if blow == Blow::Kill {
                croft.killed().with_context(place)?;
                croft.start().with_context(place)?;
                in_order(&croft).context("before anything is removed").with_context(place)?;
            }
        }
        usable(&croft).with_context(place)?;
        clean_up(&croft).with_context(place)?;
        as_before(&croft, host, &before).with_context(|| croft.stage.daemon_log()).with_context(place)?;
    }
    let points: usize = struck.values().sum();
    println!(
        "daemon_crash: {}: {blows:?} at {points} of {calls} effectful system calls, of {} kinds",
        operation.act[0],
        struck.len()
    );
    // Its threads take turns in other ways each time: a few calls more or less.
    ensure!(points * 10 >= turns.len() * 8, "only {points} of {}", turns.len());
    Ok(())
}

/// A container that is there after all can be used.
fn usable(croft: &Croft) -> Result<()> {
    match state(croft)?.as_deref() {
        None | Some("running") => Ok(()),
        Some(_) => croft.ok(START_IT).map(drop),
    }
}

fn clean_up(croft: &Croft) -> Result<()> {
    if state(croft)?.is_some() {
        croft.ok(&["rm", "--force", "c"])?;
    }
    Ok(())
}

/// A file system may have lost, or cut off, what was written in the seconds before the power went, and may show again what was removed.
fn power_cut(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    let new = croft.ok(CREATE_IT)?;
    let address = croft.inspect("c")?["addresses"].clone();
    let used =
        croft.ok(&["run", "--detach", "--name=used", "box", "sh", "-c", "echo kept >>/file; cat /file"])?;
    croft.ok(&["wait", "used"])?;
    let lib = croft.stage.path("lib");
    let [new, used] = [new.trim(), used.trim()];
    // Of one that runs, all that counts is what is mounted: it has no part in this.
    croft.kill()?;
    fs::write(lib.join(format!("images/containers/{new}/snapshot.json")), "")?;
    fs::write(lib.join(format!("network/leases/{new}.json")), "")?;
    fs::remove_dir(lib.join(format!("containers/{new}")))?;
    let record = lib.join(format!("images/containers/{used}/snapshot.json"));
    let text = fs::read(&record)?;
    fs::write(&record, &text[..text.len() / 2])?;
    // Of one that was being made there is all but the record; what somebody wrote is not croftd's to remove by itself.
    let [gone, written] = ["f".repeat(64), "e".repeat(64)];
    for folder in [
        format!("images/containers/{gone}/data/upper"),
        format!("images/containers/{written}/data/upper/folder"),
        format!("containers/{gone}"),
    ] {
        fs::create_dir_all(lib.join(folder))?;
    }
    croft.start()?;
    ensure!(lib.join("images/containers").join(&written).exists(), "somebody's files are gone");
    croft.ok(&["system", "check", "--fix"])?;
    in_order(&croft)?;
    ensure!(croft.inspect("c")?["addresses"] == address, "it has others");
    croft.ok(START_IT)?;
    croft.ok(&["start", "used"])?;
    croft.ok(&["wait", "used"])?;
    let said = croft.ok(&["logs", "used"])?;
    ensure!(said == "kept\nkept\nkept\n", "{said}");
    for folder in ["images/containers", "containers"] {
        ensure!(!lib.join(folder).join(&gone).exists(), "{folder}");
        ensure!(!lib.join(folder).join(&written).exists(), "{folder}");
    }
    croft.ok(&["rm", "--force", "c", "used"])?;
    croft.nothing_is_left()
}
