//! An oracle for v1: what runc itself left in the kernel's files for the same `linux.resources`.
//!
//! (cgroups-rs, the other candidate, can only write to the hierarchies that the machine has mounted.)

mod common;

use std::collections::BTreeMap;

use croft_plan::cgroup;
use oci_spec::runtime::LinuxResources;

/// What the files of a new group hold on the machine where runc ran.
const DEFAULTS: &[(&str, &str)] = &[
    ("memory.limit_in_bytes", UNLIMITED),
    ("memory.memsw.limit_in_bytes", UNLIMITED),
    ("memory.soft_limit_in_bytes", UNLIMITED),
    ("memory.oom_control", "oom_kill_disable 0"),
    ("memory.swappiness", "60"),
    ("cpu.shares", "1024"),
    ("cpu.cfs_quota_us", "-1"),
    ("cpu.cfs_period_us", "100000"),
    ("cpu.rt_period_us", "1000000"),
    ("cpu.rt_runtime_us", "0"),
    ("cpu.idle", "0"),
    ("cpuset.cpus", "0-1"),
    ("cpuset.mems", "0"),
    ("pids.max", "max"),
];

/// How the memory controller shows that there is no limit.
const UNLIMITED: &str = "9223372036854771712";

/// What the kernel shows after this was written.
fn shown(file: &str, value: &str) -> String {
    match (file, value) {
        ("memory.oom_control", value) => format!("oom_kill_disable {value}"),
        (file, "-1") if file.starts_with("memory.") => UNLIMITED.to_owned(),
        (_, value) => value.to_owned(),
    }
}

#[test]
fn v1_files_end_as_runc_leaves_them() {
    let host = common::hybrid();
    let mut cases = 0;
    for case in include_str!("resources/of_runc.txt").split("\n== ").skip(1) {
        let (json, left) = case.split_once('\n').unwrap();
        let of_runc: BTreeMap<&str, String> = left
            .lines()
            .filter_map(|l| l.split_once(" = "))
            .map(|(file, value)| (file, value.to_owned()))
            .collect();
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let writes = cgroup::writes(&resources, &host).unwrap().writes;
        let mut ours: BTreeMap<&str, String> =
            writes.iter().map(|write| (write.file.as_str(), shown(&write.file, &write.value))).collect();
        ours.retain(|file, value| !DEFAULTS.contains(&(*file, value.as_str())));
        assert_eq!(ours, of_runc, "{json}");
        cases += 1;
    }
    assert_eq!(cases, 18);
}
