//! `network`: class and priorities of packets (cgroup-v1/net_cls.rst, net_prio.rst). cgroup2 has neither.

use oci_spec::runtime::LinuxResources;

use super::{At, Knob, Refusal, Table};

const CLASS_ID: Knob = Knob {
    property: "network.classID",
    v1: Some(At { controller: "net_cls", file: "net_cls.classid" }),
    v2: None,
    needs: "the v1 net_cls controller (CONFIG_CGROUP_NET_CLASSID), mounted",
};
const PRIORITIES: Knob = Knob {
    property: "network.priorities",
    v1: Some(At { controller: "net_prio", file: "net_prio.ifpriomap" }),
    v2: None,
    needs: "the v1 net_prio controller (CONFIG_CGROUP_NET_PRIO), mounted",
};

pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    let Some(network) = resources.network() else { return Ok(()) };
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        let version = table.place(&CLASS_ID)?;
        table.put(&CLASS_ID, version, class);
    }
    for priority in network.priorities().iter().flatten() {
        let version = table.place(&PRIORITIES)?;
        if priority.name().is_empty() || priority.name().contains(char::is_whitespace) {
            return Err(Refusal::value(
                PRIORITIES.property,
                format!("{:?}", priority.name()),
                "not an interface name",
            ));
        }
        table.put(&PRIORITIES, version, format!("{} {}", priority.name(), priority.priority()));
    }
    Ok(())
}
