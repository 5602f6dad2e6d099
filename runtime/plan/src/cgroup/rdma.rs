//! `rdma`: handles and objects by device ("RDMA" in cgroup-v2.rst, the same on v1).

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxResources;

use super::{At, Knob, Refusal, Table};

const LIMIT: Knob = Knob {
    property: "rdma",
    v1: Some(At { controller: "rdma", file: "rdma.max" }),
    v2: Some(At { controller: "rdma", file: "rdma.max" }),
    needs: "the rdma controller (CONFIG_CGROUP_RDMA)",
};

pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    let devices: BTreeMap<_, _> = resources.rdma().iter().flatten().collect();
    for (device, limits) in devices {
        let version = table.place(&LIMIT)?;
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Refusal::value(LIMIT.property, format!("{device:?}"), "not a device name"));
        }
        let handles = limits.hca_handles().map(|n| format!(" hca_handle={n}")).unwrap_or_default();
        let objects = limits.hca_objects().map(|n| format!(" hca_object={n}")).unwrap_or_default();
        if handles.is_empty() && objects.is_empty() {
            return Err(Refusal::value(LIMIT.property, device, "needs hcaHandles or hcaObjects"));
        }
        table.put(&LIMIT, version, format!("{device}{handles}{objects}"));
    }
    Ok(())
}
