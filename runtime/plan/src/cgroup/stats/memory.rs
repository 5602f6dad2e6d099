//! `memory.*`.

use super::reader::{ReadError, Reader, v1, v2};
use super::{Memory, MemoryEntry, pressure};
use crate::cgroup::{CgroupHost, Files, Version};

pub(super) fn read<F: Files>(reader: &mut Reader<'_, F>) -> Result<Memory, ReadError<F::Error>> {
    let memory = match reader.host.has("memory", Version::V1) {
        true => read_v1(reader)?,
        false => read_v2(reader)?,
    };
    Ok(Memory { psi: pressure::read(reader, "memory", "memory.pressure")?, ..memory })
}

fn read_v1<F: Files>(reader: &mut Reader<'_, F>) -> Result<Memory, ReadError<F::Error>> {
    let raw = reader.keyed(v1("memory", "memory.stat"))?.unwrap_or_default();
    let mut entry = |kind: &str| {
        let mut number = |name: &str| {
            let file = format!("memory.{kind}{name}");
            Ok::<u64, ReadError<F::Error>>(reader.number(v1("memory", &file))?.unwrap_or(0))
        };
        Ok::<MemoryEntry, ReadError<F::Error>>(MemoryEntry {
            limit: number("limit_in_bytes")?,
            usage: number("usage_in_bytes")?,
            max: number("max_usage_in_bytes")?,
            failcnt: number("failcnt")?,
        })
    };
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("")?,
        swap: entry("memsw.")?,
        kernel: entry("kmem.")?,
        kernel_tcp: entry("kmem.tcp.")?,
        raw,
        psi: None,
    })
}

fn read_v2<F: Files>(reader: &mut Reader<'_, F>) -> Result<Memory, ReadError<F::Error>> {
    let raw = reader.keyed(v2("memory", "memory.stat"))?.unwrap_or_default();
    let mut entry = |kind: &str| {
        let mut number = |name: &str| {
            let file = format!("memory.{kind}{name}");
            Ok::<u64, ReadError<F::Error>>(reader.number(v2("memory", &file))?.unwrap_or(0))
        };
        // The peaks are there since Linux 5.19 and 6.5.
        let (limit, usage, max) = (number("max")?, number("current")?, number("peak")?);
        Ok::<MemoryEntry, ReadError<F::Error>>(MemoryEntry { limit, usage, max, failcnt: 0 })
    };
    let (usage, swap) = (entry("")?, entry("swap.")?);
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        // v1 counts the two together, and so does whoever reads this; of their peaks there is no sum.
        swap: MemoryEntry {
            limit: usage.limit.saturating_add(swap.limit),
            usage: usage.usage.saturating_add(swap.usage),
            ..MemoryEntry::default()
        },
        raw,
        ..Memory::default()
    })
}

/// How many processes of the group the kernel killed for want of memory: `oom_kill` in `memory.events` (v2) or
/// `memory.oom_control` (v1). `None` when no hierarchy has the memory controller for this group.
///
/// # Errors
/// [`ReadError`] when the file cannot be read or parsed.
pub fn oom_kills<F: Files>(host: &CgroupHost, files: &mut F) -> Result<Option<u64>, ReadError<F::Error>> {
    let mut reader = Reader { host, files };
    let keyed = match host.has("memory", Version::V1) {
        true => reader.keyed(v1("memory", "memory.oom_control"))?,
        false => reader.keyed(v2("memory", "memory.events"))?,
    };
    Ok(keyed.and_then(|events| events.get("oom_kill").copied()))
}
