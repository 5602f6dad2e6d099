//! croft-oci is killed at each of its effectful system calls in turn: `delete --force` removes what it has left, all of it.
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use croft_harness::facility::emulated;
use croft_harness::process::ends_within;
use croft_harness::ptrace::{self, End, Victim};
use croft_harness::snapshot::{Snapshot, descendants};
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Output, Subject, Test};
use rustix::process::{Pid, WaitOptions, wait, waitpid};
use serde_json::json;

const OURS: OnRunc = OnRunc::CroftOnly("runc keeps no record of a container whose making was cut off");

pub const SUBJECT: Subject = Subject {
    name: "crash",
    on_runc: &[
        ("create", OURS),
        ("create_while_init_works", OURS),
        ("create_without_a_pid_namespace", OURS),
        ("start", OURS),
        ("run", OURS),
        ("run_while_init_works", OURS),
        ("exec", OURS),
        ("init_itself", OURS),
        ("delete", OURS),
        ("a_lost_record", OURS),
        ("a_lost_configuration", OURS),
        ("a_group_in_use_is_left_alone", OURS),
    ],
    tests: &[
        Test { name: "create", requires: &[Facility::Root], run: create },
        Test { name: "create_while_init_works", requires: &[Facility::Root], run: create_while_init_works },
        Test {
            name: "create_without_a_pid_namespace",
            requires: &[Facility::Root],
            run: create_without_a_pid_namespace,
        },
        Test { name: "start", requires: &[Facility::Root], run: start },
        Test { name: "run", requires: &[Facility::Root], run },
        Test { name: "run_while_init_works", requires: &[Facility::Root], run: run_while_init_works },
        Test { name: "exec", requires: &[Facility::Root], run: exec },
        Test { name: "init_itself", requires: &[Facility::Root], run: init_itself },
        Test { name: "delete", requires: &[Facility::Root], run: delete },
        Test { name: "a_lost_record", requires: &[Facility::Root], run: a_lost_record },
        Test { name: "a_lost_configuration", requires: &[Facility::Root], run: a_lost_configuration },
        Test {
            name: "a_group_in_use_is_left_alone",
            requires: &[Facility::Root],
            run: a_group_in_use_is_left_alone,
        },
    ],
};

/// How many calls of a verb are tried where the processor is emulated, and a run takes seconds.
const SOME: usize = 10;

/// A process that was told to end, or has lost its runtime, goes within this.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A verb that is killed, and what comes before it.
struct Verb<'a> {
    bundle: &'a Bundle,
    /// With its options.
    words: &'a [&'a str],
    /// After the id.
    rest: &'a [&'a str],
    prepare: fn(&Bundle) -> Result<()>,
}

impl Verb<'_> {
    /// The verb on what it needs.
    fn act(&self, victim: Victim, at: Option<usize>) -> Result<End> {
        (self.prepare)(self.bundle).context("prepare")?;
        let (name, options) = self.words.split_first().context("no verb")?;
        let mut command = self.bundle.command(name);
        if ["create", "run"].contains(name) {
            command.arg("--bundle").arg(self.bundle.folder());
        }
        command.args(options).arg(self.bundle.id()).args(self.rest);
        ptrace::run(&command, &self.bundle.folder().join("traced"), victim, at)
    }

    /// The verb once, from an empty host to an empty host.
    fn whole(&self, victim: Victim, others: &BTreeSet<u32>) -> Result<usize> {
        let end = self.act(victim, None)?;
        removed(self.bundle, others)?;
        match end {
            End::Exited(0, calls) => Ok(calls),
            other => {
                bail!("{other:?}: {}", fs::read_to_string(self.bundle.folder().join("traced"))?)
            }
        }
    }

    /// Kills at one call after the other. `what` names the verb in what is printed.
    fn killed(&self, host: &Host, what: &str, victim: Victim) -> Result<()> {
        self.bundle.save()?;
        let look = || Snapshot::take(host, &[self.bundle.state_root()]);
        let others = settle(&BTreeSet::new())?;
        // The first run of all may leave a cache.
        let calls = self.whole(victim, &others).context(what.to_owned())?;
        ensure!(calls > 0, "{what}: no system call is seen");
        let before = look()?;
        let stride = if emulated() { calls.div_ceil(SOME) } else { 1 };
        let mut killed = 0;
        for at in (1..=calls).step_by(stride) {
            let place = || format!("{what}, call {at} of {calls}");
            let end = self.act(victim, Some(at)).with_context(place)?;
            if let (End::ChildKilled(_, 1..), ["create" | "run", ..]) = (end, self.words) {
                // The runtime lives, so it cleans up by itself.
                settle(&others).with_context(place)?;
                before.same_as(&look()?).with_context(|| format!("{}: {end:?}, before delete", place()))?;
            }
            removed(self.bundle, &others).with_context(place)?;
            before.same_as(&look()?).with_context(|| format!("{}: {end:?}", place()))?;
            killed += usize::from(matches!(end, End::Killed(_) | End::ChildKilled(..)));
        }
        // What is left would be in the way of the next container of this id.
        self.whole(victim, &others).context(what.to_owned())?;
        println!("crash: {what}: killed at {killed} of {calls} effectful system calls");
        // A run may take a call or two less than the one that was counted.
        ensure!((killed + 2) * 10 >= calls.div_ceil(stride) * 9, "{what}: only {killed} were killed");
        Ok(())
    }
}

/// `delete --force`. A pid namespace ends only once the processes that were cloned into it are reaped: a killed runtime's
/// have become the suite's, which does here what an init does.
fn removed(bundle: &Bundle, others: &BTreeSet<u32>) -> Result<Output> {
    let living = descendants(std::process::id())?;
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    let reaper = |pid: &u32| {
        let pid = Pid::from_raw(i32::try_from(*pid).ok()?)?;
        Some(thread::spawn(move || {
            if ends_within(pid, END_LIMIT).is_ok_and(|ended| ended) {
                // It may be a child of another.
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }))
    };
    let reapers: Vec<_> = living.difference(others).filter_map(reaper).collect();
    let out = bundle.verb("delete", &["--force"], &[])?;
    reapers.into_iter().for_each(|thread| thread.join().expect("a reaper does not panic"));
    let out = out.success()?;
    settle(others)?;
    Ok(out)
}

/// Waits for the end of every process below this one but `others`, and takes the statuses. Gives those that live.
fn settle(others: &BTreeSet<u32>) -> Result<BTreeSet<u32>> {
    for pid in descendants(std::process::id())?.difference(others) {
        let process = Pid::from_raw(i32::try_from(*pid)?).context("a pid is above 0")?;
        let name = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        ensure!(ends_within(process, END_LIMIT)?, "process {pid} lives on: {name}");
    }
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    descendants(std::process::id())
}

/// A container with groups in every hierarchy that limits need here, and mounts.
fn bundle(host: &Host, args: &[&str]) -> Result<Bundle> {
    Ok(Bundle::new(host, args)?.edit(|config| {
        config["linux"]["resources"]["pids"] = json!({ "limit": 100 });
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] });
    }))
}

fn nothing(_: &Bundle) -> Result<()> {
    Ok(())
}

fn created(bundle: &Bundle) -> Result<()> {
    bundle.create()?.success().map(drop)
}

fn stopped(bundle: &Bundle) -> Result<()> {
    bundle.started()?;
    let pid = bundle.pid()?;
    bundle.kill("KILL")?.success()?;
    bundle.ended(pid, END_LIMIT)
}

fn create(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["sleep", "1000"])?;
    let verb = Verb { bundle, words: &["create"], rest: &[], prepare: nothing };
    verb.killed(host, "create", Victim::Program)
}

fn create_while_init_works(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["sleep", "1000"])?;
    let verb = Verb { bundle, words: &["create"], rest: &[], prepare: nothing };
    verb.killed(host, "create, by its children's calls", Victim::ProgramOfChild)
}

/// The death of init does not kill the others there: the group has to.
fn create_without_a_pid_namespace(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["sleep", "1000"])?.edit(|config| {
        config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "ipc" }, { "type": "uts" }]);
        config["mounts"] = json!([]);
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    });
    let verb = Verb { bundle, words: &["create"], rest: &[], prepare: nothing };
    verb.killed(host, "create without a pid namespace", Victim::Program)
}

fn start(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["sleep", "1000"])?;
    let verb = Verb { bundle, words: &["start"], rest: &[], prepare: created };
    verb.killed(host, "start", Victim::Program)
}

fn run(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["true"])?;
    let verb = Verb { bundle, words: &["run"], rest: &[], prepare: nothing };
    verb.killed(host, "run", Victim::Program)
}

fn run_while_init_works(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["true"])?;
    let verb = Verb { bundle, words: &["run"], rest: &[], prepare: nothing };
    verb.killed(host, "run, by its children's calls", Victim::ProgramOfChild)
}

fn delete(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["sleep", "1000"])?;
    let verb = Verb { bundle, words: &["delete"], rest: &[], prepare: stopped };
    verb.killed(host, "delete", Victim::Program)?;
    let verb = Verb { bundle, words: &["delete", "--force"], rest: &[], prepare: Bundle::started };
    verb.killed(host, "delete --force", Victim::Program)
}

fn exec(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["sleep", "1000"])?;
    let verb = Verb { bundle, words: &["exec"], rest: &["true"], prepare: Bundle::started };
    verb.killed(host, "exec", Victim::Program)?;
    verb.killed(host, "exec, by its children's calls", Victim::ProgramOfChild)?;
    let words = &["exec", "--detach"];
    let verb = Verb { bundle, words, rest: &["sleep", "1000"], prepare: Bundle::started };
    verb.killed(host, "exec --detach", Victim::Program)
}

/// The runtime lives on here: it says that the process died, and leaves nothing that delete would have to remove.
fn init_itself(host: &Host) -> Result<()> {
    let bundle = &bundle(host, &["true"])?;
    let verb = Verb { bundle, words: &["create"], rest: &[], prepare: nothing };
    verb.killed(host, "create, its children killed", Victim::Child)?;
    let verb = Verb { bundle, words: &["run"], rest: &[], prepare: nothing };
    verb.killed(host, "run, its children killed", Victim::Child)
}

const RECORDS: [Option<&str>; 4] = [None, Some(""), Some("{\"format\":1,"), Some("{\"format\":1000}")];

/// Without a record a container that runs is found by its configuration.
fn a_lost_record(host: &Host) -> Result<()> {
    let bundle = bundle(host, &["sleep", "1000"])?;
    let record = bundle.state_root().join(bundle.id()).join("state.json");
    let others = settle(&BTreeSet::new())?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    for prepare in [created, Bundle::started] {
        for text in RECORDS {
            prepare(&bundle)?;
            text.map_or_else(|| fs::remove_file(&record), |text| fs::write(&record, text))?;
            let why = bundle.delete()?.failure()?;
            ensure!(why.contains("state of container"), "{text:?}: {why}");
            let out = removed(&bundle, &others)?;
            ensure!(out.stderr.contains("what its configuration leads to is removed"), "{text:?}: {out}");
            before
                .same_as(&Snapshot::take(host, &[bundle.state_root()])?)
                .with_context(|| format!("{text:?}"))?;
        }
    }
    Ok(())
}

/// Without a configuration too there is a folder to remove.
fn a_lost_configuration(host: &Host) -> Result<()> {
    let bundle = bundle(host, &["sleep", "1000"])?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let folder = bundle.state_root().join(bundle.id());
    for text in RECORDS {
        fs::create_dir(&folder)?;
        text.map_or(Ok(()), |text| fs::write(folder.join("state.json"), text))?;
        let out = bundle.verb("delete", &["--force"], &[])?.success()?;
        ensure!(out.stderr.contains("are not known") == text.is_some(), "{text:?}: {out}");
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    }
    // The id is free again.
    bundle.run_with(&["--detach"])?.success().map(drop)
}

/// A second container that names the first one's group is refused, and neither its failure nor its `delete --force` kills the first.
fn a_group_in_use_is_left_alone(host: &Host) -> Result<()> {
    let first = bundle(host, &["sleep", "1000"])?;
    first.started()?;
    let second = bundle(host, &["sleep", "1000"])?
        .edit(|config| config["linux"]["cgroupsPath"] = first.config["linux"]["cgroupsPath"].clone());
    let why = second.create()?.failure()?;
    ensure!(why.contains("is not empty"), "{why}");
    second.verb("delete", &["--force"], &[])?.success()?;
    ensure!(first.status()? == "running", "{}", first.status()?);
    Ok(())
}
