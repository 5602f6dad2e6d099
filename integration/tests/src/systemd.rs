//! Scopes of systemd: `--systemd-cgroup`.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::snapshot::Snapshot;
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test, process};
use serde_json::json;

pub const SUBJECT: Subject = Subject {
    name: "systemd",
    on_runc: &[(
        "paths_that_name_no_scope",
        OnRunc::CroftOnly("runc looks for systemd before it looks at the path"),
    )],
    tests: &[
        Test { name: "a_scope_holds_the_container", requires: NEEDS, run: a_scope_holds_the_container },
        Test { name: "limits_outlast_a_reload", requires: NEEDS, run: limits_outlast_a_reload },
        Test { name: "run_leaves_no_unit", requires: NEEDS, run: run_leaves_no_unit },
        Test {
            name: "a_killed_runtime_leaves_no_unit",
            requires: NEEDS,
            run: a_killed_runtime_leaves_no_unit,
        },
        Test { name: "paths_that_name_no_scope", requires: &[Facility::Root], run: paths_that_name_no_scope },
    ],
};

const NEEDS: &[Facility] = &[Facility::Root, Facility::Systemd, Facility::UnifiedCgroups];
const LIMIT: Duration = Duration::from_secs(60);

fn bundle(host: &Host, script: &str) -> Result<Bundle> {
    Ok(Bundle::shell(host, script)?.globals(&["--systemd-cgroup"]).edit(|config| {
        let id =
            config["linux"]["cgroupsPath"].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
        config["linux"]["cgroupsPath"] = format!("system.slice:croft:{id}").into();
        config["linux"]["resources"]["memory"] = json!({ "limit": 33_554_432 });
        config["linux"]["resources"]["cpu"] = json!({ "quota": 50_000, "period": 100_000, "shares": 512 });
        config["linux"]["resources"]["pids"] = json!({ "limit": 20 });
    }))
}

fn unit(bundle: &Bundle) -> String {
    format!("croft-{}.scope", bundle.id())
}

fn group(host: &Host, bundle: &Bundle) -> Result<PathBuf> {
    Ok(host.cgroup2.as_ref().context("no cgroup2")?.join("system.slice").join(unit(bundle)))
}

fn property(unit: &str, name: &str) -> Result<String> {
    let mut show = Command::new("systemctl");
    show.args(["show", "--value", "--property", name, unit]);
    Ok(process::run(&mut show, LIMIT)?.success()?.stdout.trim().to_owned())
}

fn is_loaded(unit: &str) -> Result<bool> {
    Ok(property(unit, "LoadState")? == "loaded")
}

fn a_scope_holds_the_container(host: &Host) -> Result<()> {
    let bundle = bundle(host, "grep ^0:: /proc/self/cgroup; exec sleep 1000")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    bundle.started()?;
    let unit = unit(&bundle);
    for (name, value) in [
        ("ActiveState", "active"),
        ("Delegate", "yes"),
        ("CollectMode", "inactive-or-failed"),
        ("Slice", "system.slice"),
        ("MemoryMax", "33554432"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("CPUWeight", "59"),
        ("TasksMax", "20"),
    ] {
        let is = property(&unit, name)?;
        ensure!(is == value, "{name}: {is}");
    }
    // The container's process alone: what held the scope before is gone.
    let pids = fs::read_to_string(group(host, &bundle)?.join("cgroup.procs"))?;
    ensure!(pids.lines().any(|pid| pid.parse() == Ok(bundle.pid().unwrap_or(-1))), "{pids}");
    bundle.verb("delete", &["--force"], &[])?.success()?;
    ensure!(!is_loaded(&unit)? && !group(host, &bundle)?.exists());
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn limits_outlast_a_reload(host: &Host) -> Result<()> {
    // The file on the host tells the container when to try the device, which its rules deny.
    let script =
        "until test -e /go; do sleep 0.1; done; mknod /tmp/mem c 1 1; head -c 1 /tmp/mem; echo tried";
    let bundle = bundle(host, script)?.edit(|config| {
        config["root"]["readonly"] = false.into();
        let all = json!(["CAP_MKNOD", "CAP_SYS_RAWIO"]);
        config["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
    });
    bundle.started()?;
    let pid = bundle.pid()?;
    let files = ["memory.max", "cpu.max", "pids.max", "cpu.weight"];
    let read = || -> Result<Vec<String>> {
        let group = group(host, &bundle)?;
        files.iter().map(|f| Ok(fs::read_to_string(group.join(f))?.trim().to_owned())).collect()
    };
    ensure!(read()? == ["33554432", "50000 100000", "20", "59"], "{:?}", read()?);
    let options = ["--memory", "67108864", "--memory-swap", "67108864", "--pids-limit", "30"];
    bundle.verb("update", &options, &[])?.success()?;
    process::run(Command::new("systemctl").arg("daemon-reload"), LIMIT)?.success()?;
    ensure!(read()? == ["67108864", "50000 100000", "30", "59"], "{:?}", read()?);
    ensure!(property(&unit(&bundle), "TasksMax")? == "30");
    fs::write(bundle.rootfs().join("go"), "")?;
    bundle.ended(pid, LIMIT)?;
    let (out, err) = bundle.output()?;
    ensure!(out == "tried\n" && err.contains("not permitted"), "{out}{err}");
    bundle.delete()?.success()?;
    ensure!(!is_loaded(&unit(&bundle))?);
    Ok(())
}

fn run_leaves_no_unit(host: &Host) -> Result<()> {
    let bundle = bundle(host, "grep ^0:: /proc/self/cgroup; exit 7")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let out = bundle.run()?;
    ensure!(out.code() == 7 && out.stdout == format!("0::/system.slice/{}\n", unit(&bundle)), "{out}");
    ensure!(!is_loaded(&unit(&bundle))?);
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn a_killed_runtime_leaves_no_unit(host: &Host) -> Result<()> {
    let bundle = bundle(host, "true")?;
    let fifo = bundle.folder().join("reached");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
    let script = format!("echo >{}; exec sleep 1000", fifo.display());
    let bundle = bundle.edit(|config| {
        config["hooks"] = json!({ "createContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    bundle.save()?;
    let before = Snapshot::take(host, &[])?;
    let mut create = bundle.command("create");
    let mut runtime = create.arg("--bundle").arg(bundle.folder()).arg(bundle.id()).spawn()?;
    fs::read(&fifo)?;
    ensure!(is_loaded(&unit(&bundle))?);
    runtime.kill()?;
    runtime.wait()?;
    bundle.verb("delete", &["--force"], &[])?.success()?;
    ensure!(!is_loaded(&unit(&bundle))? && !group(host, &bundle)?.exists());
    before.same_as(&Snapshot::take(host, &[])?)
}

fn paths_that_name_no_scope(host: &Host) -> Result<()> {
    for path in ["/a/b", "a:b", "system:croft:x", "a--b.slice:croft:x"] {
        let bundle = bundle(host, "true")?.edit(|config| config["linux"]["cgroupsPath"] = path.into());
        let error = bundle.run()?.failure()?;
        ensure!(error.contains("slice") || error.contains("cgroupsPath"), "{path}: {error}");
    }
    if !Path::new("/run/systemd/system").exists() {
        let error = bundle(host, "true")?.run()?.failure()?;
        ensure!(error.contains("systemd"), "{error}");
    }
    Ok(())
}
