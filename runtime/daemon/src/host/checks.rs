//! The checks, in the order in which they are printed.

use std::path::Path;

use croft_plan::cgroup;

use super::fix::{Fix, sysctl_file};
use super::{Check, Host, State};
use crate::args::Args;

/// Looks at everything.
pub fn all(host: &Host, args: &Args) -> Vec<Check> {
    let mut found = vec![kernel(host), user(host)];
    found.extend(namespaces(host));
    found.extend(cgroups(host));
    found.push(pressure(host));
    found.push(seccomp(host));
    found.extend(modules(host));
    found.extend(sysctls(host));
    found.push(open_files(host));
    found.extend(programs(host, args));
    found.extend(folders(host, args));
    found.push(group(host, &args.group));
    found
}

fn when(fine: bool, otherwise: State) -> State {
    if fine { State::Ok } else { otherwise }
}

/// Overlay mounts with mapped ids need 5.19; what is older than 6.1 nobody tries.
fn kernel(host: &Host) -> Check {
    let text = host.read("/proc/sys/kernel/osrelease");
    let mut numbers = text.trim().split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let state = match version {
        version if version < (5, 19) => State::Missing,
        version if version < (6, 1) => State::Limited,
        _ => State::Ok,
    };
    Check::new("kernel", state, text.trim()).cure("boot a kernel of 6.1 or later")
}

/// CAP_SYS_ADMIN, CAP_SYS_RESOURCE: proc_pid_status(5), capability.h.
fn user(host: &Host) -> Check {
    let status = host.read("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    let (admin, resource) = (capabilities & 1 << 21 != 0, capabilities & 1 << 24 != 0);
    match (admin, resource) {
        (true, true) => Check::new("privileges", State::Ok, "all that croftd needs"),
        (true, false) => Check::new("privileges", State::Limited, "no CAP_SYS_RESOURCE")
            .cure("no limit of a container can be above croftd's own: give it CAP_SYS_RESOURCE"),
        _ => Check::new("privileges", State::Missing, "no CAP_SYS_ADMIN").cure("run croftd as root"),
    }
}

fn namespaces(host: &Host) -> Vec<Check> {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts", "time"];
    let missing = kinds.iter().filter(|kind| !host.has(&format!("/proc/self/ns/{kind}")));
    let missing: Vec<&str> = missing.copied().collect();
    let one = match missing.as_slice() {
        [] => Check::new("namespaces", State::Ok, kinds.join(" ")),
        ["time"] => Check::new("namespaces", State::Limited, "no time").cure("a kernel with CONFIG_TIME_NS"),
        _ => Check::new("namespaces", State::Missing, format!("no {}", missing.join(" ")))
            .cure("a kernel with CONFIG_NAMESPACES and all below it"),
    };
    vec![one]
}

fn cgroups(host: &Host) -> Vec<Check> {
    let mounts = cgroup::mounts(&host.read("/proc/self/mountinfo"));
    let Some(v2) = mounts.v2 else {
        let cure = "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1";
        return vec![Check::new("cgroup2", State::Missing, "it is not mounted").cure(cure)];
    };
    let unified = mounts.v1.is_empty();
    let layout = if unified { "unified" } else { "hybrid: controllers on v1" };
    let mut found = vec![
        Check::new("cgroup2", when(unified, State::Limited), format!("{layout}, at {}", v2.display()))
            .cure("faster and complete: boot with systemd.unified_cgroup_hierarchy=1"),
    ];
    let text = host.read(&format!("{}/cgroup.controllers", v2.display()));
    let on_v2: Vec<&str> = text.split_whitespace().collect();
    for (v2_name, v1_name, cure) in [
        ("cpu", "cpu", "a kernel with CONFIG_CGROUP_SCHED and CONFIG_CFS_BANDWIDTH"),
        ("memory", "memory", "boot with cgroup_enable=memory"),
        ("pids", "pids", "a kernel with CONFIG_CGROUP_PIDS"),
        ("io", "blkio", "a kernel with CONFIG_BLK_CGROUP"),
        ("cpuset", "cpuset", "a kernel with CONFIG_CPUSETS"),
    ] {
        let place = match (on_v2.contains(&v2_name), mounts.v1.contains_key(v1_name)) {
            (true, _) => "cgroup2",
            (false, true) => "cgroup v1",
            (false, false) => "none: no such limit can be set",
        };
        let state = when(!place.starts_with("none"), State::Limited);
        found.push(Check::new(format!("controller {v2_name}"), state, place).cure(cure));
    }
    found
}

fn pressure(host: &Host) -> Check {
    let there = host.has("/proc/pressure/cpu");
    Check::new("pressure", when(there, State::Limited), if there { "counted" } else { "not counted" })
        .cure("boot with psi=1")
}

fn seccomp(host: &Host) -> Check {
    let actions = host.read("/proc/sys/kernel/seccomp/actions_avail");
    let there = actions.split_whitespace().any(|action| action == "errno");
    Check::new("seccomp", when(there, State::Missing), if there { "filters" } else { "no filters" })
        .cure("a kernel with CONFIG_SECCOMP_FILTER")
}

/// Kernel parts that may be modules: where it shows that each is there, and what goes without it.
fn modules(host: &Host) -> Vec<Check> {
    let release = host.read("/proc/sys/kernel/osrelease");
    let builtin = host.read(&format!("/lib/modules/{}/modules.builtin", release.trim()));
    let loaded = host.read("/proc/modules");
    let file_systems = host.read("/proc/filesystems");
    let is_there = |name: &str| {
        host.has(&format!("/sys/module/{name}"))
            || loaded.lines().any(|line| line.split(' ').next() == Some(name))
            || builtin.lines().any(|line| line.ends_with(&format!("/{name}.ko")))
            || file_systems.lines().any(|line| line.split_whitespace().last() == Some(name))
    };
    let needed = [("overlay", State::Missing), ("bridge", State::Limited), ("veth", State::Limited)];
    let further = [("nf_tables", State::Limited), ("nft_chain_nat", State::Limited)];
    let check = |(name, otherwise): (&'static str, State)| {
        let there = is_there(name);
        Check::new(
            format!("module {name}"),
            when(there, otherwise),
            if there { "there" } else { "not there" },
        )
        .cure(format!("modprobe {name}"))
        .fix(Fix::Module(name))
    };
    needed.into_iter().chain(further).map(check).collect()
}

/// Kernel parameters, how large they have to be, and why.
const SYSCTLS: &[(&str, u64, State, &str)] = &[
    ("user.max_user_namespaces", 1024, State::Missing, "each container has one"),
    ("user.max_mnt_namespaces", 1024, State::Limited, "each container has one"),
    ("user.max_net_namespaces", 1024, State::Limited, "each container has one"),
    ("user.max_pid_namespaces", 1024, State::Limited, "each container has one"),
    ("kernel.pid_max", 131_072, State::Limited, "all containers' processes together"),
    ("kernel.keys.root_maxkeys", 20_000, State::Limited, "each container has a session keyring"),
    ("fs.inotify.max_user_instances", 1024, State::Limited, "inits of containers take several each"),
    ("fs.inotify.max_user_watches", 65_536, State::Limited, "inits of containers take many each"),
];

fn sysctls(host: &Host) -> Vec<Check> {
    let check = |(name, least, otherwise, why): &(&'static str, u64, State, &str)| {
        // What this kernel does not have cannot be too small.
        let text = host.read(&sysctl_file(name));
        let value: u64 = text.trim().parse().ok()?;
        let check = Check::new(format!("sysctl {name}"), when(value >= *least, *otherwise), text.trim());
        let fix = Fix::Sysctl { name, value: *least };
        Some(check.cure(format!("sysctl -w {name}={least}: {why}")).fix(fix))
    };
    SYSCTLS.iter().filter_map(check).collect()
}

fn open_files(host: &Host) -> Check {
    const LEAST: u64 = 65_536;
    let limits = host.read("/proc/self/limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("unknown");
    let fine = hard == "unlimited" || hard.parse::<u64>().is_ok_and(|limit| limit >= LEAST);
    Check::new("limit of open files", when(fine, State::Limited), hard)
        .cure("LimitNOFILE=1048576 in croftd.service, or ulimit -n 1048576")
}

fn programs(host: &Host, args: &Args) -> Vec<Check> {
    let path = std::env::var("PATH").unwrap_or_default();
    let in_path = |name: &str| {
        let folders = path.split(':').chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"]);
        folders.map(|folder| format!("{folder}/{name}")).find(|program| host.path(program).is_file())
    };
    let mut found = Vec::new();
    for (name, given) in [("croft-oci", &args.runtime), ("croft-shim", &args.shim)] {
        let program = args.program(name, given.as_deref());
        let there = program.is_file() || in_path(&program.to_string_lossy()).is_some();
        let check =
            Check::new(format!("program {name}"), when(there, State::Missing), shown(&program, there));
        found.push(
            check.cure(format!("install {name} beside croftd, or say where it is: --{}", option(name))),
        );
    }
    for (name, package, why) in [
        ("nft", "nftables", "for networks"),
        ("newuidmap", "uidmap", "for containers of other users than root"),
        ("criu", "criu", "for checkpoints and live migration"),
        ("modprobe", "kmod", "for croftd check --fix"),
    ] {
        let program = in_path(name);
        let state = when(program.is_some(), State::Limited);
        let check = Check::new(format!("program {name}"), state, program.unwrap_or("not there".into()));
        found.push(check.cure(format!("apt-get install {package}: {why}")));
    }
    found
}

fn option(program: &str) -> &str {
    if program == "croft-oci" { "runtime" } else { "shim" }
}

fn shown(program: &Path, there: bool) -> String {
    if there { program.display().to_string() } else { "not there".to_owned() }
}

fn folders(host: &Host, args: &Args) -> Vec<Check> {
    let check = |folder: &Path| {
        let there = host.path(&folder.to_string_lossy()).is_dir();
        let found = if there { "there" } else { "not there: croftd makes it" };
        Check::new(format!("folder {}", folder.display()), when(there, State::Limited), found)
            .cure(format!("mkdir -p {}", folder.display()))
            .fix(Fix::Folder(folder.to_owned()))
    };
    [&args.root, &args.state, &args.host_state].map(|folder| check(folder)).into()
}

fn group(host: &Host, name: &str) -> Check {
    let there = crate::access::group(name, &host.read("/etc/group")).is_some();
    let found = if there { "its members may use croft" } else { "not there: root alone may use croft" };
    Check::new(format!("group {name}"), when(there, State::Limited), found)
        .cure(format!("addgroup --system {name}"))
}
