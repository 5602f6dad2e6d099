//! What the targets share: the two kinds of host, as facts.

use std::collections::BTreeMap;

use croft_plan::cgroup::{CgroupHost, huge_page_sizes};
use croft_plan::facts::{Delegation, Facts, Lsm};

/// A unified host and a hybrid one.
pub fn cgroup_hosts() -> [CgroupHost; 2] {
    let host = |mountinfo, controllers| {
        let mut host = CgroupHost::from_mountinfo(mountinfo, controllers).expect("the mountinfo has cgroup2");
        host.huge_pages = huge_page_sizes(["hugepages-1048576kB", "hugepages-2048kB"]);
        host
    };
    [
        host(
            include_str!("../../../runtime/plan/tests/hosts/unified.mountinfo"),
            "cpuset cpu io memory hugetlb pids rdma misc dmem",
        ),
        host(include_str!("../../../runtime/plan/tests/hosts/hybrid.mountinfo"), "hugetlb\n"),
    ]
}

/// Facts of root's on each host, and of an ordinary user's.
pub fn facts() -> Vec<Facts> {
    let facts = |euid, cgroups, delegated| Facts {
        euid,
        egid: euid,
        capabilities: if euid == 0 { u64::MAX } else { 0 },
        last_capability: 40,
        cgroups,
        own_group: "/".into(),
        v1_hierarchies: BTreeMap::new(),
        delegated,
        id_map_programs: Some(("/usr/bin/newuidmap".into(), "/usr/bin/newgidmap".into())),
        lsm: Lsm { apparmor: true, selinux: true },
        resctrl: Some("/sys/fs/resctrl".into()),
    };
    let [unified, hybrid] = cgroup_hosts();
    vec![
        facts(1000, unified.clone(), Delegation::Below("/user.slice".into())),
        facts(0, unified, Delegation::Everything),
        facts(0, hybrid, Delegation::Everything),
    ]
}
