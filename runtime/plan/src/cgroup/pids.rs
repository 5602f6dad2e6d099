//! `pids`: how many tasks (cgroup-v1/pids.rst, the same on v2).

use oci_spec::runtime::LinuxResources;

use super::{At, Knob, Refusal, Table};

const LIMIT: Knob = Knob {
    property: "pids.limit",
    v1: Some(At { controller: "pids", file: "pids.max" }),
    v2: Some(At { controller: "pids", file: "pids.max" }),
    needs: "the pids controller (CONFIG_CGROUP_PIDS)",
};

/// A `pids` without a limit reads as a limit of 0 in oci-spec; [`super::prepass()`] takes it out before.
pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    let Some(pids) = resources.pids() else { return Ok(()) };
    let version = table.place(&LIMIT)?;
    let value = match pids.limit() {
        ..0 => "max".to_owned(),
        // The container's first process is one task. runc 1.4 writes 1 too, since systemd knows no TasksMax=0.
        0 => "1".to_owned(),
        limit => limit.to_string(),
    };
    table.put(&LIMIT, version, value);
    Ok(())
}
