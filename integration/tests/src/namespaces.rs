//! Namespaces: made for the container, joined by path, and refused.
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use croft_harness::bundle::VERB_LIMIT;
use croft_harness::snapshot::Snapshot;
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test, process};
use serde_json::{Value, json};

pub const SUBJECT: Subject = Subject {
    name: "namespaces",
    on_runc: &[
        ("new_ones_are_not_the_hosts", OnRunc::Fails("runc 1.1 does not know time namespaces")),
        ("each_kind_is_joined_by_path", OnRunc::Fails("runc 1.1 does not know time namespaces")),
        ("clocks_have_their_offsets", OnRunc::Fails("runc 1.1 does not know time namespaces")),
    ],
    tests: &[
        Test {
            name: "new_ones_are_not_the_hosts",
            requires: &[Facility::Root],
            run: new_ones_are_not_the_hosts,
        },
        Test {
            name: "each_kind_is_joined_by_path",
            requires: &[Facility::Root],
            run: each_kind_is_joined_by_path,
        },
        Test {
            name: "clocks_have_their_offsets",
            requires: &[Facility::Root, Facility::Namespace("time")],
            run: clocks_have_their_offsets,
        },
        Test {
            name: "what_is_no_such_namespace",
            requires: &[Facility::Root],
            run: what_is_no_such_namespace,
        },
    ],
};

/// The kinds of the configuration beside their files in /proc/PID/ns.
const KINDS: &[(&str, &str)] = &[
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
    ("pid", "pid"),
    ("mount", "mnt"),
];

/// Processes in namespaces that a container can join; they end with this.
#[derive(Debug)]
pub struct Holder {
    outer: Child,
    /// The process in all of them.
    pub pid: u32,
}

impl Holder {
    /// `unshare options`, with a process that stays. It is ready when this returns.
    pub fn new(options: &[&str]) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(options).args(["--pid", "--fork", "--kill-child", "sh", "-c", "echo; exec sleep 1000"]);
        let mut outer = command.stdout(Stdio::piped()).spawn().context("start unshare")?;
        let said = outer.stdout.take().context("unshare's output")?;
        BufReader::new(said).read_line(&mut String::new())?;
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.id()))?;
        let pid = children.trim().parse().with_context(|| format!("one child: {children:?}"))?;
        Ok(Self { outer, pid })
    }

    /// The file of its namespace `file`.
    pub fn path(&self, file: &str) -> String {
        format!("/proc/{}/ns/{file}", self.pid)
    }

    /// What the kernel calls that namespace.
    pub fn name(&self, file: &str) -> Result<String> {
        Ok(std::fs::read_link(self.path(file))?.display().to_string())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        // The process dies of that, a little later.
        let inner = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let _ = inner.map(|pid| process::ends_within(pid, VERB_LIMIT));
    }
}

/// Sets, or with `None` removes, the container's namespace of one kind.
pub fn set(config: &mut Value, kind: &str, value: Option<Value>) {
    let list = config["linux"]["namespaces"].as_array_mut().expect("the default has namespaces");
    list.retain(|n| n["type"] != kind);
    list.extend(value.map(|mut value| {
        value["type"] = kind.into();
        value
    }));
}

fn new_ones_are_not_the_hosts(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|config| {
            set(config, "cgroup", Some(json!({})));
            set(config, "time", Some(json!({})));
        })
        .probed()?;
    for (kind, file) in KINDS {
        let own = std::fs::read_link(format!("/proc/self/ns/{file}"))?.display().to_string();
        ensure!(seen["namespaces"][file].is_string() && seen["namespaces"][file] != *own, "{kind}: {seen:#}");
    }
    ensure!(seen["process"]["pid"] == 1, "{seen:#}");
    ensure!(seen["cgroup"].as_array().is_some_and(|all| all.iter().any(|g| g == "0::/")), "{seen:#}");
    Ok(())
}

fn each_kind_is_joined_by_path(host: &Host) -> Result<()> {
    let holder = Holder::new(&["--net", "--ipc", "--uts", "--cgroup", "--time", "--mount"])?;
    for (kind, file) in KINDS {
        let bundle = Bundle::probe(host, &[])?
            .edit(|config| set(config, kind, Some(json!({ "path": holder.path(file) }))));
        let before = Snapshot::take(host, &[bundle.state_root()])?;
        let seen = bundle.probed().with_context(|| format!("join {kind}"))?;
        ensure!(seen["namespaces"][file] == holder.name(file)?, "{kind}: {seen:#}");
        // Of the others none is the holder's.
        for (_, other) in KINDS.iter().filter(|(k, _)| k != kind) {
            ensure!(seen["namespaces"][other] != holder.name(other)?, "{kind}, {other}: {seen:#}");
        }
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    }
    Ok(())
}

fn clocks_have_their_offsets(host: &Host) -> Result<()> {
    let offsets = json!({ "boottime": { "secs": 1_000_000, "nanosecs": 5 }, "monotonic": { "secs": 777 } });
    let script = "cat /proc/self/timens_offsets; cat /proc/uptime";
    let bundle = Bundle::shell(host, script)?.edit(|config| {
        set(config, "time", Some(json!({})));
        config["linux"]["timeOffsets"] = offsets;
    });
    let out = bundle.stdout()?;
    let words: Vec<&str> = out.split_whitespace().collect();
    ensure!(words[..6] == ["monotonic", "777", "0", "boottime", "1000000", "5"], "{out}");
    ensure!(words[6].parse::<f64>()? > 1_000_000.0, "the process itself is in it: {out}");
    // Nobody else is.
    let own = std::fs::read_to_string("/proc/self/timens_offsets")?;
    ensure!(own.split_whitespace().eq(["monotonic", "0", "0", "boottime", "0", "0"]), "{own}");
    Ok(())
}

fn what_is_no_such_namespace(host: &Host) -> Result<()> {
    for (path, why) in [
        ("/proc/self/ns/net", "is not a"),
        ("/etc/passwd", "is not a namespace"),
        ("/nowhere", "No such file or directory"),
    ] {
        let bundle =
            Bundle::shell(host, "true")?.edit(|config| set(config, "ipc", Some(json!({ "path": path }))));
        let before = Snapshot::take(host, &[bundle.state_root()])?;
        let error = bundle.run()?.failure()?;
        if host.kind == croft_harness::RuntimeKind::CroftOci {
            ensure!(error.to_lowercase().contains(&why.to_lowercase()) && error.contains(path), "{error}");
        }
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    }
    Ok(())
}
