//! `cpu.cpus` and `cpu.mems`: cpusets(7) on v1, "Cpuset" in cgroup-v2.rst.

use oci_spec::runtime::LinuxResources;

use super::{At, Knob, Refusal, Table};

const NEEDS: &str = "the cpuset controller (CONFIG_CPUSETS)";

const CPUS: Knob = Knob {
    property: "cpu.cpus",
    v1: Some(At { controller: "cpuset", file: "cpuset.cpus" }),
    v2: Some(At { controller: "cpuset", file: "cpuset.cpus" }),
    needs: NEEDS,
};

const MEMS: Knob = Knob {
    property: "cpu.mems",
    v1: Some(At { controller: "cpuset", file: "cpuset.mems" }),
    v2: Some(At { controller: "cpuset", file: "cpuset.mems" }),
    needs: NEEDS,
};

pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    for (knob, list) in [(&CPUS, cpu.cpus()), (&MEMS, cpu.mems())] {
        let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { continue };
        let version = table.place(knob)?;
        table.put(knob, version, list);
    }
    Ok(())
}
