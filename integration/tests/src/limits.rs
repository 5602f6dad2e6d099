//! `linux.resources`: what is asked for is in force, on whichever hierarchy has it, and gone with the container.
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use croft_harness::snapshot::Snapshot;
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use serde_json::{Value, json};

const NO_GROUP: &str = "croft-oci makes a v1 group only where something needs one";

pub const SUBJECT: Subject = Subject {
    name: "limits",
    on_runc: &[
        ("a_v1_group_only_where_needed", OnRunc::CroftOnly(NO_GROUP)),
        (
            "the_container_sees_its_own_groups",
            OnRunc::CroftOnly("runc 1.1 on a hybrid host shows no cgroup2"),
        ),
        ("born_in_the_group", OnRunc::CroftOnly("runc 1.1 makes no cgroup2 group on a hybrid host")),
    ],
    tests: &[
        Test { name: "memory", requires: &[Facility::Root, Facility::Controller("memory")], run: memory },
        Test {
            name: "pids_are_limited",
            requires: &[Facility::Root, Facility::Controller("pids")],
            run: pids,
        },
        Test { name: "cpu", requires: &[Facility::Root, Facility::Controller("cpu")], run: cpu },
        Test { name: "cpuset", requires: &[Facility::Root, Facility::Controller("cpuset")], run: cpuset },
        Test { name: "unified", requires: &[Facility::Root, Facility::ControllerV2("memory")], run: unified },
        Test {
            name: "a_v1_group_only_where_needed",
            requires: &[Facility::Root, Facility::HybridCgroups],
            run: v1_only_where_needed,
        },
        Test { name: "the_container_sees_its_own_groups", requires: &[Facility::Root], run: sees_its_own },
        Test { name: "born_in_the_group", requires: &[Facility::Root], run: born_in_the_group },
        Test {
            name: "out_of_memory_kills",
            requires: &[Facility::Root, Facility::Controller("memory")],
            run: oom,
        },
        Test { name: "processes_that_stay_are_killed", requires: &[Facility::Root], run: leftovers },
    ],
};

/// The container's group in the hierarchy of `controller`.
fn group(host: &Host, bundle: &Bundle, controller: &str) -> Result<PathBuf> {
    let hierarchy = host.hierarchy_of(controller).with_context(|| format!("no {controller} here"))?;
    Ok(hierarchy.join(bundle.id()))
}

fn read(host: &Host, bundle: &Bundle, controller: &str, files: [&str; 2]) -> Result<String> {
    let group = group(host, bundle, controller)?;
    let file = files.iter().map(|f| group.join(f)).find(|f| f.exists());
    let file = file.with_context(|| format!("none of {files:?} in {}", group.display()))?;
    Ok(fs::read_to_string(file)?.trim().to_owned())
}

fn limited(host: &Host, resources: Value) -> Result<Bundle> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?.edit(|c| {
        if let (Some(all), Some(new)) = (c["linux"]["resources"].as_object_mut(), resources.as_object()) {
            all.extend(new.clone());
        }
    });
    bundle.started()?;
    Ok(bundle)
}

fn memory(host: &Host) -> Result<()> {
    let before = Snapshot::take(host, &[])?;
    let bundle = limited(host, json!({"memory": {"limit": 64 << 20, "reservation": 32 << 20}}))?;
    let limit = read(host, &bundle, "memory", ["memory.limit_in_bytes", "memory.max"])?;
    ensure!(limit == (64 << 20).to_string(), "{limit}");
    let low = read(host, &bundle, "memory", ["memory.soft_limit_in_bytes", "memory.low"])?;
    ensure!(low == (32 << 20).to_string(), "{low}");
    drop(bundle);
    before.same_as(&Snapshot::take(host, &[])?)
}

fn pids(host: &Host) -> Result<()> {
    let script = "i=0; while [ $i -lt 20 ]; do sleep 100 & i=$((i+1)); done";
    let bundle = Bundle::shell(host, script)?.edit(|c| c["linux"]["resources"]["pids"] = json!({"limit": 8}));
    let out = bundle.run()?;
    let text = format!("{}{}", out.stdout, out.stderr).to_lowercase();
    ensure!(text.contains("resource temporarily unavailable") || text.contains("can't fork"), "{out}");
    Ok(())
}

fn cpu(host: &Host) -> Result<()> {
    let bundle = limited(host, json!({"cpu": {"shares": 512, "quota": 20_000, "period": 50_000}}))?;
    let quota = read(host, &bundle, "cpu", ["cpu.cfs_quota_us", "cpu.max"])?;
    ensure!(quota == "20000" || quota == "20000 50000", "{quota}");
    let shares = read(host, &bundle, "cpu", ["cpu.shares", "cpu.weight"])?;
    // 512 shares are weight 59 by the formula that runc 1.3.2 and crun 1.23 use.
    ensure!(shares == "512" || shares == "59", "{shares}");
    Ok(())
}

fn cpuset(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| c["linux"]["resources"]["cpu"] = json!({"cpus": "0", "mems": "0"}))
        .probed()?;
    ensure!(seen["status"]["Cpus_allowed_list"] == "0", "{:#}", seen["status"]);
    Ok(())
}

fn unified(host: &Host) -> Result<()> {
    let bundle = limited(host, json!({"unified": {"memory.high": "50331648", "pids.max": "77"}}))?;
    ensure!(read(host, &bundle, "memory", ["memory.high", "memory.high"])? == "50331648");
    ensure!(read(host, &bundle, "pids", ["pids.max", "pids.max"])? == "77");
    Ok(())
}

/// A limit needs its hierarchy; a caller that names the group counts by it as well.
fn v1_only_where_needed(host: &Host) -> Result<()> {
    for (named, want) in [(false, &["pids"][..]), (true, &["blkio", "cpuacct", "memory", "pids"][..])] {
        let bundle = Bundle::new(host, &["sleep", "1000"])?.edit(|c| {
            c["linux"]["resources"]["pids"] = json!({"limit": 8});
            if !named {
                c["linux"]["cgroupsPath"].take();
            }
        });
        bundle.started()?;
        let group = if named { bundle.id().to_owned() } else { format!("croft/{}", bundle.id()) };
        let v1 = host.cgroup1.iter().filter(|(_, hierarchy)| hierarchy.join(&group).exists());
        let found: Vec<&str> = v1.map(|(controller, _)| controller.as_str()).collect();
        ensure!(found == want, "named {named}: {found:?}");
    }
    Ok(())
}

fn sees_its_own(host: &Host) -> Result<()> {
    let script = "cat /proc/self/cgroup; ls /sys/fs/cgroup; find /sys/fs/cgroup -name cgroup.procs -o -name tasks | xargs cat";
    for cgroup_namespace in [true, false] {
        let bundle = Bundle::shell(host, script)?.edit(|c| {
            if let Some(mounts) = c["mounts"].as_array_mut() {
                mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup",
                    "options": ["ro", "nosuid", "noexec", "nodev"]}));
            }
            if let (true, Some(list)) = (cgroup_namespace, c["linux"]["namespaces"].as_array_mut()) {
                list.push(json!({"type": "cgroup"}));
            }
        });
        let out = bundle.stdout()?;
        let own = format!("/{}", bundle.id());
        let want = if cgroup_namespace { "/" } else { own.as_str() };
        for line in out.lines().filter(|l| l.contains(":/")) {
            ensure!(line.ends_with(&format!(":{want}")), "{cgroup_namespace}: {line} in {out}");
        }
        // A pid of the host's is 0 inside; the shell and its children are all there is.
        let pids = out.lines().filter_map(|l| l.parse::<u32>().ok());
        ensure!(pids.clone().count() > 0 && pids.clone().all(|p| p < 10), "{cgroup_namespace}: {out}");
    }
    Ok(())
}

fn born_in_the_group(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "grep ^0:: /proc/self/cgroup")?;
    let out = bundle.stdout()?;
    ensure!(out.trim() == format!("0::/{}", bundle.id()), "{out}");
    Ok(())
}

fn oom(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "x=a; while :; do x=$x$x; done")?.edit(|c| {
        c["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    });
    let out = bundle.run()?;
    ensure!(out.code() == 137, "{out}");
    Ok(())
}

fn leftovers(host: &Host) -> Result<()> {
    // Without a pid namespace of its own, a child outlives the container's first process.
    let before = Snapshot::take(host, &[])?;
    let bundle = Bundle::shell(host, "sleep 1000 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 & exit 0")?
        .edit(|c| {
            if let Some(list) = c["linux"]["namespaces"].as_array_mut() {
                list.retain(|n| n["type"] != "pid");
            }
        });
    let out = bundle.run()?;
    ensure!(out.code() == 0, "{out}");
    drop(bundle);
    before.same_as(&Snapshot::take(host, &[])?)
}
