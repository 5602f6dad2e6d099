//! The two kinds of host that the tables are tested for, and the facts of one for whole plans.

#![allow(dead_code, reason = "each test file takes the hosts it needs")]

use std::collections::BTreeMap;

use croft_plan::cgroup::{CgroupHost, huge_page_sizes};
use croft_plan::facts::{Delegation, Facts, Lsm};

/// A unified host, as Debian's trixie boots: everything on cgroup2.
pub fn unified() -> CgroupHost {
    let controllers = "cpuset cpu io memory hugetlb pids rdma misc dmem";
    host(include_str!("../hosts/unified.mountinfo"), controllers)
}

/// A hybrid host: hugetlb on cgroup2, the rest on v1.
pub fn hybrid() -> CgroupHost {
    host(include_str!("../hosts/hybrid.mountinfo"), "hugetlb\n")
}

fn host(mountinfo: &str, controllers: &str) -> CgroupHost {
    let mut host = CgroupHost::from_mountinfo(mountinfo, controllers).expect("the mountinfo has cgroup2");
    host.huge_pages = huge_page_sizes(["hugepages-1048576kB", "hugepages-2048kB"]);
    host
}

/// Root with every capability on a unified host.
pub fn facts() -> Facts {
    Facts {
        euid: 0,
        egid: 0,
        capabilities: u64::MAX,
        last_capability: 40,
        cgroups: unified(),
        own_group: "/".into(),
        v1_hierarchies: BTreeMap::new(),
        delegated: Delegation::Everything,
        id_map_programs: None,
        lsm: Lsm::default(),
        resctrl: None,
    }
}
