//! The files of v1's cpuset.

use super::Cpuset;
use super::reader::{ReadError, Reader, malformed, v1};
use crate::cgroup::{Files, Source};

pub(super) fn read<F: Files>(reader: &mut Reader<'_, F>) -> Result<Cpuset, ReadError<F::Error>> {
    let level = v1("cpuset", "cpuset.sched_relax_domain_level");
    let sched_relax_domain_level = match reader.text(level)? {
        Some(text) => text.trim().parse().map_err(|_| malformed(level, &text))?,
        None => 0,
    };
    let mut number = |file| Ok::<u64, ReadError<F::Error>>(reader.number(v1("cpuset", file))?.unwrap_or(0));
    Ok(Cpuset {
        cpu_exclusive: number("cpuset.cpu_exclusive")?,
        mem_hardwall: number("cpuset.mem_hardwall")?,
        mem_exclusive: number("cpuset.mem_exclusive")?,
        memory_migrate: number("cpuset.memory_migrate")?,
        memory_spread_page: number("cpuset.memory_spread_page")?,
        memory_spread_slab: number("cpuset.memory_spread_slab")?,
        memory_pressure: number("cpuset.memory_pressure")?,
        sched_load_balance: number("cpuset.sched_load_balance")?,
        sched_relax_domain_level,
        cpus: list(reader, v1("cpuset", "cpuset.cpus"))?,
        mems: list(reader, v1("cpuset", "cpuset.mems"))?,
    })
}

/// A list in the form `0-2,7` (cpuset(7), "List format").
fn list<F: Files>(reader: &mut Reader<'_, F>, source: Source<'_>) -> Result<Vec<u16>, ReadError<F::Error>> {
    let text = reader.text(source)?.unwrap_or_default();
    let parse = |n: &str| n.parse::<u16>().map_err(|_| malformed(source, text.trim()));
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(parse(first)?..=parse(last)?);
    }
    Ok(numbers)
}
