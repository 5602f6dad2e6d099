//! `memory`: limits, swap and the rest of the memory controller ("Memory" in cgroup-v2.rst, cgroup-v1/memory.rst).
//!
//! `swap` in the spec is memory and swap together, as v1's `memory.memsw.limit_in_bytes` counts it; v2 limits swap
//! by itself.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::{At, Knob, Refusal, Swap, Table, Version, table};

const NEEDS: &str = "the memory controller (CONFIG_MEMCG, not disabled by cgroup_disable=memory)";
const V1_ONLY: &str = "the v1 memory controller";

const LIMIT: Knob = Knob {
    property: "memory.limit",
    v1: Some(At { controller: "memory", file: "memory.limit_in_bytes" }),
    v2: Some(At { controller: "memory", file: "memory.max" }),
    needs: NEEDS,
};
const RESERVATION: Knob = Knob {
    property: "memory.reservation",
    v1: Some(At { controller: "memory", file: "memory.soft_limit_in_bytes" }),
    v2: Some(At { controller: "memory", file: "memory.low" }),
    needs: NEEDS,
};
const SWAP: Knob = Knob {
    property: "memory.swap",
    v1: Some(At { controller: "memory", file: "memory.memsw.limit_in_bytes" }),
    v2: Some(At { controller: "memory", file: "memory.swap.max" }),
    needs: "swap accounting (CONFIG_SWAP, not disabled by swapaccount=0)",
};
const SWAPPINESS: Knob = Knob {
    property: "memory.swappiness",
    v1: Some(At { controller: "memory", file: "memory.swappiness" }),
    v2: None,
    needs: V1_ONLY,
};
const DISABLE_OOM_KILLER: Knob = Knob {
    property: "memory.disableOOMKiller",
    v1: Some(At { controller: "memory", file: "memory.oom_control" }),
    v2: None,
    needs: V1_ONLY,
};
/// On v2 memory is always accounted by the hierarchy.
const USE_HIERARCHY: Knob = Knob {
    property: "memory.useHierarchy",
    v1: Some(At { controller: "memory", file: "memory.use_hierarchy" }),
    v2: None,
    needs: V1_ONLY,
};

/// What `memory.limit_in_bytes` holds without a limit: PAGE_COUNTER_MAX in bytes, with pages of up to 64 KiB.
const V1_UNLIMITED: i64 = i64::MAX & !0xffff;

/// A limit in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    Unlimited,
    AtMost(i64),
}

impl Bytes {
    /// What the spec's number means: 0 is not set, -1 is unlimited.
    fn new(knob: &Knob, value: Option<i64>) -> Result<Option<Bytes>, Refusal> {
        match value {
            None | Some(0) => Ok(None),
            Some(-1) => Ok(Some(Bytes::Unlimited)),
            Some(bytes) if bytes > 0 => Ok(Some(Bytes::AtMost(bytes))),
            Some(bytes) => {
                Err(Refusal::value(knob.property, bytes, "must be -1 (unlimited) or a number of bytes"))
            }
        }
    }

    fn text(self, version: Version) -> String {
        match (self, version) {
            (Bytes::AtMost(bytes), _) => bytes.to_string(),
            (Bytes::Unlimited, Version::V1) => "-1".to_owned(),
            (Bytes::Unlimited, Version::V2) => "max".to_owned(),
        }
    }
}

pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    use_hierarchy(memory, table)?;
    limits(memory, table)?;
    if let Some(reservation) = Bytes::new(&RESERVATION, memory.reservation())? {
        let version = table.place(&RESERVATION)?;
        table.put(&RESERVATION, version, reservation.text(version));
    }
    // Go's callers write -1 as the largest u64, for "as the host has it".
    if let Some(swappiness) = memory.swappiness().filter(|swappiness| *swappiness != u64::MAX) {
        if swappiness > 100 {
            return Err(Refusal::value(SWAPPINESS.property, swappiness, "valid range is 0-100"));
        }
        let version = table.place(&SWAPPINESS)?;
        table.put(&SWAPPINESS, version, swappiness);
    }
    if memory.disable_oom_killer() == Some(true) {
        let version = table.place(&DISABLE_OOM_KILLER)?;
        table.put(&DISABLE_OOM_KILLER, version, 1);
    }
    warn_of_kernel_limits(memory, table);
    Ok(())
}

#[allow(deprecated)] // The spec still has them (NOT RECOMMENDED); no kernel since 5.4 has.
fn warn_of_kernel_limits(memory: &LinuxMemory, table: &mut Table<'_>) {
    if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
        table.warn("Kernel memory settings are ignored and will be removed");
    }
}

/// Before the limits, since a group that has children or a limit could not change it (before 5.11).
fn use_hierarchy(memory: &LinuxMemory, table: &mut Table<'_>) -> Result<(), Refusal> {
    match memory.use_hierarchy() {
        None => {}
        Some(true) if table.host.has("memory", Version::V2) => {}
        Some(true) => {
            let version = table.place(&USE_HIERARCHY)?;
            table.put_if_there(&USE_HIERARCHY, version, 1);
        }
        // Nothing to write on any kernel since 5.11, and no runtime ever did.
        Some(false) => table.warn("memory.useHierarchy false is ignored: since Linux 5.11 memory is always accounted hierarchically"),
    }
    Ok(())
}

fn limits(memory: &LinuxMemory, table: &mut Table<'_>) -> Result<(), Refusal> {
    let limit = Bytes::new(&LIMIT, memory.limit())?;
    let swap = Bytes::new(&SWAP, memory.swap())?;
    let version = match (limit, swap) {
        (None, None) => return Ok(()),
        (Some(_), _) => table.place(&LIMIT)?,
        (None, Some(_)) => table.place(&SWAP)?,
    };
    match version {
        Version::V1 => limits_v1(limit, swap, table),
        Version::V2 => {
            if memory.check_before_update() == Some(true) {
                check_usage(limit, swap, table)?;
            }
            limits_v2(limit, swap, table)
        }
    }
}

/// v1 counts memory and swap together and wants limit <= memsw.limit after each write: raise memsw first, lower it last.
fn limits_v1(limit: Option<Bytes>, swap: Option<Bytes>, table: &mut Table<'_>) -> Result<(), Refusal> {
    let limit_now: i64 = table.current.number("memory.limit_in_bytes").unwrap_or(V1_UNLIMITED);
    if let Some(Bytes::AtMost(swap)) = swap {
        check_swap_accounted(table)?;
        let limit = match limit {
            Some(Bytes::AtMost(limit)) => Some(limit),
            Some(Bytes::Unlimited) => None,
            None => table.current.number("memory.limit_in_bytes").filter(|limit| *limit < V1_UNLIMITED),
        };
        beside(limit, swap)?;
    }
    let swap_first = match swap {
        Some(Bytes::AtMost(swap)) => limit_now < swap,
        _ => true,
    };
    let put_swap = |table: &mut Table<'_>| match (limit, swap) {
        (_, Some(Bytes::AtMost(swap))) => table.put(&SWAP, Version::V1, swap),
        // Memory without a limit cannot keep a limit of memory and swap.
        (_, Some(Bytes::Unlimited)) | (Some(Bytes::Unlimited), None) => {
            table.put_if_there(&SWAP, Version::V1, -1)
        }
        _ => {}
    };
    if swap_first {
        put_swap(table);
    }
    if let Some(limit) = limit {
        table.put(&LIMIT, Version::V1, limit.text(Version::V1));
    }
    if !swap_first {
        put_swap(table);
    }
    Ok(())
}

/// v2 counts swap by itself: what the spec's sum leaves beside the memory limit.
fn limits_v2(limit: Option<Bytes>, swap: Option<Bytes>, table: &mut Table<'_>) -> Result<(), Refusal> {
    let swap_only = match (limit, swap) {
        (Some(Bytes::AtMost(limit)), Some(Bytes::AtMost(sum))) => Some(beside(Some(limit), sum)?),
        (Some(Bytes::AtMost(limit)), None) => match table.current.swap_total() {
            Some(sum) => Some(beside(Some(limit), sum)?),
            None => None,
        },
        // As runc has it: without a memory limit the sum is all swap.
        (Some(Bytes::Unlimited), Some(Bytes::AtMost(sum))) => Some(Bytes::AtMost(sum)),
        (None, Some(Bytes::AtMost(sum))) => Some(beside(table.current.number("memory.max"), sum)?),
        (_, Some(Bytes::Unlimited)) | (Some(Bytes::Unlimited), None) => Some(Bytes::Unlimited),
        (None, None) => None,
    };
    match swap_only {
        // Without swap accounting both are what the group does anyway, or as near as this host comes.
        Some(none_or_all @ (Bytes::AtMost(0) | Bytes::Unlimited)) => {
            table.put_if_there(&SWAP, Version::V2, none_or_all.text(Version::V2));
        }
        Some(bytes) => {
            check_swap_accounted(table)?;
            table.put(&SWAP, Version::V2, bytes.text(Version::V2));
        }
        None => {}
    }
    if let Some(limit) = limit {
        table.put(&LIMIT, Version::V2, limit.text(Version::V2));
    }
    Ok(())
}

/// What a limit of memory and swap together leaves for swap.
fn beside(limit: Option<i64>, sum: i64) -> Result<Bytes, Refusal> {
    match limit {
        None => Err(Refusal::value(SWAP.property, sum, "unable to set swap limit without memory limit")),
        Some(limit) if sum < limit => {
            let why = format!("memory+swap limit should be >= memory limit ({limit})");
            Err(Refusal::value(SWAP.property, sum, why))
        }
        Some(limit) => Ok(Bytes::AtMost(sum - limit)),
    }
}

fn check_swap_accounted(table: &Table<'_>) -> Result<(), Refusal> {
    match table.host.swap {
        Swap::Accounted => Ok(()),
        Swap::NotAccounted => Err(table::nowhere(&SWAP)),
    }
}

/// `checkBeforeUpdate`: v1's kernel refuses a limit below the usage, v2's would kill; so the check is ours on v2.
fn check_usage(limit: Option<Bytes>, swap: Option<Bytes>, table: &Table<'_>) -> Result<(), Refusal> {
    let Some(usage) = table.current.number::<u64>("memory.current") else { return Ok(()) };
    for (what, limit) in [("memory+swap", swap), ("memory", limit)] {
        if let Some(Bytes::AtMost(limit)) = limit
            && u64::try_from(limit).is_ok_and(|limit| limit <= usage)
        {
            return Err(Refusal::BelowUsage { what, limit, usage });
        }
    }
    Ok(())
}
