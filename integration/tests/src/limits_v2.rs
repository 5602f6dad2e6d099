//! `linux.resources` on cgroup2: each resource in the file that enforces it, and what no file enforces is refused.
use std::fs;

use anyhow::{Context, Result, ensure};
use croft_harness::snapshot::Snapshot;
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use serde_json::{Value, json};

const MEMORY: &[Facility] = &[Facility::Root, Facility::ControllerV2("memory")];
const CPU: &[Facility] = &[Facility::Root, Facility::ControllerV2("cpu")];
const PIDS: &[Facility] = &[Facility::Root, Facility::ControllerV2("pids")];
const CPUSET: &[Facility] = &[Facility::Root, Facility::ControllerV2("cpuset")];
const HUGETLB: &[Facility] = &[
    Facility::Root,
    Facility::ControllerV2("hugetlb"),
    Facility::Path("/sys/kernel/mm/hugepages/hugepages-2048kB"),
];
const IO: &[Facility] = &[Facility::Root, Facility::ControllerV2("io"), Facility::Path(DISK)];

/// The disk of the virtual machine.
const DISK: &str = "/sys/block/nvme0n1/dev";

pub const SUBJECT: Subject = Subject {
    name: "limits_v2",
    on_runc: &[
        ("refused_on_cgroup2", OnRunc::CroftOnly("runc leaves some of these out in silence")),
        (
            "huge_pages",
            OnRunc::Fails("runc 1.1 knows no controller of the cgroup2 hierarchy on a hybrid host"),
        ),
    ],
    tests: &[
        Test { name: "memory_swap_and_low", requires: MEMORY, run: memory },
        Test { name: "cpu_max_weight_and_burst", requires: CPU, run: cpu },
        Test { name: "cpu_idle", requires: CPU, run: idle },
        Test { name: "cpus_and_mems", requires: CPUSET, run: cpuset },
        Test { name: "pids_max", requires: PIDS, run: pids },
        Test { name: "huge_pages", requires: HUGETLB, run: huge_pages },
        Test { name: "io_of_a_disk", requires: IO, run: io },
        Test { name: "files_by_name", requires: MEMORY, run: unified },
        Test { name: "refused_on_cgroup2", requires: MEMORY, run: refused },
    ],
};

/// A container with these resources waits; its group's `files` hold what is beside them.
fn holds(host: &Host, resources: Value, files: &[(&str, &str)]) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?.edit(|c| c["linux"]["resources"] = resources);
    bundle.create()?.success()?;
    let group = host.cgroup2.as_deref().context("no cgroup2")?.join(bundle.id());
    for (file, want) in files {
        let text = fs::read_to_string(group.join(file)).with_context(|| format!("read {file}"))?;
        ensure!(text.trim() == *want, "{file}: {text:?} is not {want:?}");
    }
    Ok(())
}

fn memory(host: &Host) -> Result<()> {
    // `swap` counts both; the file counts swap alone.
    let resources = json!({"memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20}});
    let files = [("memory.max", "67108864"), ("memory.swap.max", "33554432"), ("memory.low", "33554432")];
    holds(host, resources, &files)?;
    let unlimited = json!({"memory": {"limit": 64 << 20, "swap": -1}});
    holds(host, unlimited, &[("memory.max", "67108864"), ("memory.swap.max", "max")])
}

fn cpu(host: &Host) -> Result<()> {
    let resources = json!({"cpu": {"shares": 1024, "quota": 20_000, "period": 50_000, "burst": 10_000}});
    // 1024 shares are the default weight by the formula that runc 1.3.2 and crun 1.23 use.
    holds(host, resources, &[("cpu.max", "20000 50000"), ("cpu.weight", "100"), ("cpu.max.burst", "10000")])
}

fn idle(host: &Host) -> Result<()> {
    holds(host, json!({"cpu": {"idle": 1}}), &[("cpu.idle", "1")])
}

fn cpuset(host: &Host) -> Result<()> {
    let resources = json!({"cpu": {"cpus": "0", "mems": "0"}});
    holds(host, resources, &[("cpuset.cpus", "0"), ("cpuset.mems", "0"), ("cpuset.cpus.effective", "0")])
}

fn pids(host: &Host) -> Result<()> {
    holds(host, json!({"pids": {"limit": 9}}), &[("pids.max", "9")])?;
    holds(host, json!({"pids": {"limit": -1}}), &[("pids.max", "max")])
}

fn huge_pages(host: &Host) -> Result<()> {
    let resources = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]});
    holds(host, resources, &[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")])
}

fn io(host: &Host) -> Result<()> {
    let number = fs::read_to_string(DISK)?;
    let number = number.trim();
    let (major, minor) = number.split_once(':').context("the disk's number")?;
    let (major, minor): (i64, i64) = (major.parse()?, minor.parse()?);
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let resources = json!({"blockIO": {
        "throttleReadBpsDevice": rate(1 << 20), "throttleWriteBpsDevice": rate(2 << 20),
        "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
    }});
    let want = format!("{number} rbps=1048576 wbps=2097152 riops=100 wiops=200");
    holds(host, resources, &[("io.max", &want)])
}

fn unified(host: &Host) -> Result<()> {
    let resources = json!({
        "memory": {"limit": 64 << 20},
        "unified": {"memory.high": "50331648", "memory.max": "60817408", "pids.max": "77", "cpu.weight": "42",
            "cgroup.max.depth": "3"},
    });
    // What is named by file has the last word.
    let files = [
        ("memory.high", "50331648"),
        ("memory.max", "60817408"),
        ("pids.max", "77"),
        ("cpu.weight", "42"),
        ("cgroup.max.depth", "3"),
    ];
    holds(host, resources, &files)
}

fn refused(host: &Host) -> Result<()> {
    for (resources, word) in [
        (json!({"unified": {"memory.of_the_future": "1"}}), "memory.of_the_future"),
        (json!({"unified": {"future.max": "1"}}), "future"),
        (json!({"unified": {"../memory.max": "1"}}), "slash"),
        (json!({"unified": {"cgroup.procs": "1"}}), "not a resource"),
        (json!({"memory": {"swappiness": 10}}), "swappiness"),
        (json!({"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 10_000}}), "realtime"),
        (json!({"network": {"classID": 1_048_577}}), "network"),
        (json!({"blockIO": {"leafWeight": 100}}), "leafWeight"),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}), "3MB"),
        (json!({"cpu": {"cpus": "4000"}}), "cpuset.cpus"),
    ] {
        let bundle = Bundle::shell(host, "echo ran")?.edit(|c| c["linux"]["resources"] = resources);
        bundle.save()?;
        let before = Snapshot::take(host, &[bundle.state_root()])?;
        let out = bundle.run()?;
        ensure!(out.code() != 0 && out.stdout.is_empty() && out.stderr.contains(word), "{word}: {out}");
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    }
    Ok(())
}
