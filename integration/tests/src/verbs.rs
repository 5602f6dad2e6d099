//! `ps`, `pause`, `resume`, `update`, `events`, `list`, `spec`: what runc's callers use beside create, start, kill and delete.
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::bundle::VERB_LIMIT;
use croft_harness::snapshot::Snapshot;
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test, process};
use serde_json::Value;

const ROOT: &[Facility] = &[Facility::Root];

pub const SUBJECT: Subject = Subject {
    name: "verbs",
    tests: &[
        Test { name: "ps_lists_its_processes_alone", requires: ROOT, run: ps_lists_its_processes_alone },
        Test { name: "pause_stops_and_resume_goes_on", requires: ROOT, run: pause_stops_and_resume_goes_on },
        Test {
            name: "a_paused_container_can_be_killed",
            requires: ROOT,
            run: a_paused_container_can_be_killed,
        },
        Test { name: "kill_reaches_all", requires: ROOT, run: kill_reaches_all },
        Test {
            name: "update_changes_limits",
            requires: &[Facility::Root, Facility::Controller("memory"), Facility::Controller("pids")],
            run: update_changes_limits,
        },
        Test {
            name: "update_changes_all_or_nothing",
            requires: &[Facility::Root, Facility::Controller("memory"), Facility::Controller("pids")],
            run: update_changes_all_or_nothing,
        },
        Test { name: "update_keeps_device_rules", requires: ROOT, run: update_keeps_device_rules },
        Test {
            name: "events_count_and_tell_of_oom",
            requires: &[Facility::Root, Facility::Controller("memory")],
            run: events_count_and_tell_of_oom,
        },
        Test { name: "list_has_runcs_columns", requires: ROOT, run: list_has_runcs_columns },
        Test { name: "spec_runs", requires: ROOT, run: spec_runs },
    ],
    on_runc: &[(
        "update_changes_all_or_nothing",
        OnRunc::Fails("runc 1.1 leaves the limits that it wrote before the one that failed"),
    )],
};

fn pids(bundle: &Bundle) -> Result<Vec<i32>> {
    let out = bundle.verb("ps", &["--format", "json"], &[])?.success()?;
    Ok(serde_json::from_str(&out.stdout)?)
}

fn ps_lists_its_processes_alone(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "sleep 1001 & sleep 1002 & echo ready; wait")?;
    bundle.started()?;
    until(|| Ok(bundle.output()?.0.contains("ready")))?;
    let found = pids(&bundle)?;
    ensure!(found.len() == 3 && found.contains(&bundle.pid()?), "{found:?}");
    let table = bundle.verb("ps", &[], &[])?.success()?.stdout;
    ensure!(table.lines().count() == 4 && table.starts_with("UID"), "{table}");
    let table = bundle.verb("ps", &[], &["-o", "pid,args"])?.success()?.stdout;
    ensure!(table.contains("sleep 1002") && table.lines().count() == 4, "{table}");
    Ok(())
}

/// Waits until a condition holds, ten seconds at most: for what a container does by itself there is nothing to poll on.
fn until(mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !holds()? {
        ensure!(std::time::Instant::now() < end, "it did not come to be in ten seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn pause_stops_and_resume_goes_on(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "while :; do echo tick; sleep 0.05; done")?;
    bundle.started()?;
    until(|| Ok(bundle.output()?.0.contains("tick")))?;
    bundle.verb("pause", &[], &[])?.success()?;
    ensure!(bundle.status()? == "paused");
    let before = bundle.output()?.0.len();
    std::thread::sleep(Duration::from_millis(300));
    ensure!(bundle.output()?.0.len() == before, "a paused container has gone on");
    bundle.verb("resume", &[], &[])?.success()?;
    ensure!(bundle.status()? == "running");
    until(|| Ok(bundle.output()?.0.len() > before))
}

fn a_paused_container_can_be_killed(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    bundle.started()?;
    bundle.verb("pause", &[], &[])?.success()?;
    bundle.verb("delete", &["--force"], &[])?.success()?;
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn kill_reaches_all(host: &Host) -> Result<()> {
    // The first process of a pid namespace does not get a signal that it has no handler for.
    let script =
        "sh -c 'trap \"echo child; exit\" TERM; echo ready; while :; do sleep 0.05; done' & wait; sleep 1000";
    let bundle = Bundle::shell(host, script)?;
    bundle.started()?;
    until(|| Ok(bundle.output()?.0.contains("ready")))?;
    bundle.verb("kill", &["--all"], &["TERM"])?.success()?;
    until(|| Ok(bundle.output()?.0.contains("child")))?;
    // TERM is what `kill` sends when no signal is named.
    bundle.verb("kill", &[], &[])?.success()?;
    Ok(())
}

/// The text of the container's file, in whichever hierarchy has the controller.
fn limit(host: &Host, bundle: &Bundle, controller: &str, [v1, v2]: [&str; 2]) -> Result<String> {
    let hierarchy = host.hierarchy_of(controller).context("required")?;
    let file = if host.cgroup1.contains_key(controller) { v1 } else { v2 };
    let path = hierarchy.join(bundle.id()).join(file);
    Ok(fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
}

const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];
const PIDS: [&str; 2] = ["pids.max", "pids.max"];

fn update_changes_limits(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "sleep 1000 & echo ready; wait")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    bundle.started()?;
    until(|| Ok(bundle.output()?.0.contains("ready")))?;
    bundle.verb("update", &["--memory", "64m", "--pids-limit", "30"], &[])?.success()?;
    ensure!(limit(host, &bundle, "memory", MEMORY)? == "67108864");
    ensure!(limit(host, &bundle, "pids", PIDS)? == "30");
    // From a file, and by standard input as containerd does.
    let file = bundle.folder().join("resources.json");
    fs::write(&file, r#"{"memory":{"limit":33554432}}"#)?;
    let mut update = bundle.command("update");
    update.args(["--resources=-", bundle.id()]).stdin(fs::File::open(&file)?);
    process::run_with_input(&mut update, VERB_LIMIT)?.success()?;
    ensure!(limit(host, &bundle, "memory", MEMORY)? == "33554432");
    ensure!(limit(host, &bundle, "pids", PIDS)? == "30", "what an update does not name stays");
    // Every process is in the group, also where it was made only now.
    let procs = limit(host, &bundle, "pids", ["cgroup.procs", "cgroup.procs"])?;
    ensure!(procs.lines().count() == 2, "{procs}");
    bundle.verb("delete", &["--force"], &[])?.success()?;
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn update_changes_all_or_nothing(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    bundle.verb("update", &["--memory", "64m", "--pids-limit", "30"], &[])?.success()?;
    // The CPUs come before all else, memory before the tasks, and the block device that is not there last.
    let resources = r#"{"memory":{"limit":134217728},"pids":{"limit":40},
        "blockIO":{"throttleReadBpsDevice":[{"major":999,"minor":999,"rate":1}]}}"#;
    let file = bundle.folder().join("resources.json");
    fs::write(&file, resources)?;
    let path = file.to_str().context("temporary folders have plain names")?;
    let groups = Snapshot::take(host, &[bundle.state_root()])?;
    bundle.verb("update", &["--resources", path], &[])?.failure()?;
    ensure!(limit(host, &bundle, "memory", MEMORY)? == "67108864");
    ensure!(limit(host, &bundle, "pids", PIDS)? == "30");
    groups.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn update_keeps_device_rules(host: &Host) -> Result<()> {
    // A node whose device the default rules forbid: made, but not to be opened.
    let script = "mknod /tmp/loop b 7 0; echo ready; while :; do head -c 1 /tmp/loop; echo again; sleep 0.05; done 2>&1";
    let bundle = Bundle::shell(host, script)?.edit(|config| {
        config["root"]["readonly"] = false.into();
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = serde_json::json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
        }
    });
    bundle.started()?;
    until(|| Ok(bundle.output()?.0.contains("not permitted")))?;
    bundle.verb("update", &["--cpu-share", "512"], &[])?.success()?;
    let seen = bundle.output()?.0.len();
    until(|| Ok(bundle.output()?.0[seen..].matches("again").count() > 2))?;
    let after = bundle.output()?.0[seen..].to_owned();
    ensure!(after.contains("not permitted") && !after.contains("No such"), "{after}");
    Ok(())
}

fn events_count_and_tell_of_oom(host: &Host) -> Result<()> {
    let script = "while ! test -e /tmp/go; do sleep 0.05; done; tail /dev/zero; echo over; sleep 1000";
    let bundle = Bundle::shell(host, script)?.edit(|config| {
        config["root"]["readonly"] = false.into();
        config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 32 << 20, "swap": 32 << 20 });
    });
    bundle.started()?;
    let once: Value = serde_json::from_str(&bundle.verb("events", &["--stats"], &[])?.success()?.stdout)?;
    ensure!(once["type"] == "stats" && once["id"] == bundle.id(), "{once}");
    ensure!(once["data"]["memory"]["usage"]["limit"] == 32 << 20, "{once:#}");
    ensure!(once["data"]["pids"]["current"].as_u64() >= Some(1) || host.is_hybrid(), "{once:#}");
    let told = bundle.folder().join("events");
    let mut events = bundle.command("events");
    events.args(["--interval", "1s", bundle.id()]).stdin(Stdio::null()).stdout(File::create(&told)?);
    let mut child = events.spawn()?;
    let told = oom_is_told(&bundle, &told);
    // It ends with the container; a failed test ends it here.
    bundle.verb("delete", &["--force"], &[])?.success()?;
    let ended = process::wait(&mut child, Duration::from_secs(10))?;
    told?;
    ensure!(
        ended.is_some_and(|status| status.success()),
        "events has not ended with its container: {ended:?}"
    );
    Ok(())
}

fn oom_is_told(bundle: &Bundle, told: &Path) -> Result<()> {
    let has = |kind: &str| -> Result<bool> {
        let text = fs::read_to_string(told)?;
        // The last line may not be whole yet.
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.into_iter().any(|event| event["type"] == kind && event["id"] == bundle.id()))
    };
    until(|| has("stats"))?;
    fs::write(bundle.rootfs().join("tmp/go"), "")?;
    until(|| has("oom"))
}

fn list_has_runcs_columns(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    let list = |options: &[&str]| -> Result<String> {
        Ok(process::run(bundle.command("list").args(options), VERB_LIMIT)?.success()?.stdout)
    };
    let table = list(&[])?;
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    ensure!(lines[0] == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], "{table}");
    let pid = bundle.pid()?.to_string();
    let folder = bundle.folder().to_string_lossy().into_owned();
    ensure!(lines[1][..4] == [bundle.id(), &pid, "running", &folder] && lines[1][5] == "root", "{table}");
    let column = |name: &str| table.lines().next().and_then(|l| l.find(name));
    ensure!(column("PID") == Some((bundle.id().len() + 3).max(12)), "{table}");
    let json: Value = serde_json::from_str(&list(&["--format", "json"])?)?;
    ensure!(
        json[0]["id"] == bundle.id() && json[0]["status"] == "running" && json[0]["owner"] == "root",
        "{json}"
    );
    ensure!(list(&["--quiet"])?.trim() == bundle.id());
    Ok(())
}

fn spec_runs(host: &Host) -> Result<()> {
    let mut bundle = Bundle::new(host, &["true"])?;
    let path = bundle.folder().join("config.json");
    for rootless in [false, true] {
        let mut spec = Command::new(bundle.runtime());
        spec.arg("spec").arg("--bundle").arg(bundle.folder()).args(rootless.then_some("--rootless"));
        process::run(&mut spec, VERB_LIMIT)?.success()?;
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        fs::remove_file(&path)?;
        ensure!(config["process"]["terminal"] == true && config["process"]["args"][0] == "sh", "{config:#}");
        ensure!(config["linux"]["uidMappings"].is_array() == rootless, "{config:#}");
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["sh", "-c", "echo $0 runs"]);
        config["linux"]["cgroupsPath"] = format!("/{}", bundle.id()).into();
        bundle.config = config;
        if !rootless {
            ensure!(bundle.stdout()? == "sh runs\n");
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
