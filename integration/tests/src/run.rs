//! `run`, and the road from `create` to `delete`: output, exit status, states, and nothing left behind.
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use croft_harness::process::patience;
use croft_harness::snapshot::Snapshot;
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test};

pub const SUBJECT: Subject = Subject {
    name: "run",
    on_runc: &[
        (
            "without_a_mount_namespace_nothing_stays_mounted",
            OnRunc::CroftOnly(
                "runc leaves the mounts in the namespace of its caller, here that of the suite",
            ),
        ),
        ("without_a_process_there_is_nothing_to_start", OnRunc::CroftOnly("runc's create needs a process")),
    ],
    tests: &[
        Test {
            name: "output_and_status_come_back",
            requires: &[Facility::Root],
            run: output_and_status_come_back,
        },
        Test { name: "every_state_in_turn", requires: &[Facility::Root], run: every_state_in_turn },
        Test {
            name: "what_is_left_without_a_pid_namespace_is_killed",
            requires: &[Facility::Root],
            run: what_is_left_without_a_pid_namespace_is_killed,
        },
        Test {
            name: "without_a_mount_namespace_nothing_stays_mounted",
            requires: &[Facility::Root],
            run: without_a_mount_namespace_nothing_stays_mounted,
        },
        Test {
            name: "without_a_process_there_is_nothing_to_start",
            requires: &[Facility::Root],
            run: without_a_process_there_is_nothing_to_start,
        },
        Test { name: "exec_runs_inside", requires: &[Facility::Root], run: exec_runs_inside },
        Test {
            name: "the_probe_sees_the_defaults",
            requires: &[Facility::Root],
            run: the_probe_sees_the_defaults,
        },
    ],
};

fn output_and_status_come_back(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "hostname; echo $$; echo oops >&2; exit 7")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let out = bundle.run()?;
    ensure!(out.code() == 7, "{out}");
    ensure!(out.stdout == "croft-test\n1\n" && out.stderr == "oops\n", "{out}");
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn every_state_in_turn(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "echo started; exec sleep 1000")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    bundle.create()?.success()?;
    ensure!(bundle.status()? == "created");
    bundle.start()?.success()?;
    ensure!(bundle.status()? == "running");
    let pid = bundle.pid()?;
    bundle.kill("KILL")?.success()?;
    bundle.ended(pid, Duration::from_secs(10))?;
    ensure!(bundle.status()? == "stopped");
    bundle.delete()?.success()?;
    bundle.verb("state", &[], &[])?.failure()?;
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn without_a_mount_namespace_nothing_stays_mounted(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "ls -di / /proc/1; exec sleep 1000")?.edit(|c| {
        if let Some(namespaces) = c["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|n| n["type"] != "mount");
        }
    });
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    bundle.started()?;
    let mounts = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
    ensure!(mounts(&bundle.pid()?.to_string())? == mounts("self")?, "it is in another namespace");
    let root = std::fs::metadata(format!("/proc/{}/root", bundle.pid()?))?;
    ensure!(root.ino() == std::fs::metadata(bundle.rootfs())?.ino(), "its root is not the bundle's");
    bundle.exec(&["true"])?.failure()?;
    bundle.verb("delete", &["--force"], &[])?.success()?;
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn without_a_process_there_is_nothing_to_start(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "")?.edit(|c| {
        c.as_object_mut().map(|c| c.remove("process"));
    });
    bundle.create()?.success()?;
    let pid = bundle.pid()?;
    let out = bundle.start()?;
    ensure!(out.code() == 0 && out.stderr.contains("no process"), "{out}");
    bundle.ended(pid, Duration::from_secs(10))?;
    ensure!(bundle.status()? == "stopped");
    bundle.delete()?.success()?;
    bundle.run()?.failure().map(drop)
}

/// Without a pid namespace the end of the first process ends no other. With the groups mounted there are v1 groups too,
/// which cannot be killed by themselves.
fn what_is_left_without_a_pid_namespace_is_killed(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "sleep 1000 & echo $!")?.edit(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "pid");
        let mounts = config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["type"] != "cgroup");
        mounts.push(serde_json::json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"],
        }));
    });
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let start = Instant::now();
    let pid: i32 = bundle.stdout()?.trim().parse()?;
    ensure!(start.elapsed() < patience(Duration::from_secs(5)), "removing took {:?}", start.elapsed());
    bundle.ended(pid, Duration::ZERO)?;
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn exec_runs_inside(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    let out = bundle.exec(&["/bin/sh", "-c", "hostname; exit 3"])?;
    ensure!(out.code() == 3 && out.stdout == "croft-test\n", "{out}");
    Ok(())
}

fn the_probe_sees_the_defaults(host: &Host) -> Result<()> {
    let seen =
        Bundle::probe(host, &["--path", "/proc/timer_list", "--path", "/", "--sysctl", "kernel.ostype"])?
            .probed()?;
    ensure!(
        seen["hostname"] == "croft-test" && seen["cwd"] == "/" && seen["process"]["pid"] == 1,
        "{seen:#}"
    );
    ensure!(
        seen["status"]["CapEff"]
            == serde_json::json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE"])
    );
    ensure!(
        seen["status"]["NoNewPrivs"] == 1 && seen["rlimits"]["RLIMIT_NOFILE"]["hard"] == 1024,
        "{seen:#}"
    );
    ensure!(seen["paths"]["/proc/timer_list"]["kind"] == "character device", "{seen:#}");
    ensure!(
        seen["paths"]["/"]["write"]["error"].as_str().is_some_and(|e| e.contains("Read-only")),
        "{seen:#}"
    );
    ensure!(
        seen["devices"]["/dev/null"]["minor"] == 3 && seen["links"] == serde_json::json!(["lo"]),
        "{seen:#}"
    );
    let own = std::fs::read_link("/proc/self/ns/net")?;
    ensure!(seen["namespaces"]["net"].as_str().is_some_and(|inside| *own != *inside), "{seen:#}");
    ensure!(
        seen["session_keyring"].as_str().is_some_and(|name| name.starts_with("_ses.croft-test")),
        "{seen:#}"
    );
    ensure!(seen["scheduler"]["policy"] == 0 && seen["io_priority"]["class"].is_u64(), "{seen:#}");
    ensure!(seen["fds"].as_object().is_some_and(|fds| fds.len() <= 4), "{}", seen["fds"]);
    Ok(())
}
