//! `cpuacct.*` and `cpu.stat` on v1, `cpu.stat` on cgroup2 (where it is there without the controller too).

use std::collections::BTreeMap;

use super::reader::{Read, ReadError, Reader, malformed, number, v1, v2};
use super::{Cpu, CpuUsage, Throttling, pressure};
use crate::cgroup::Files;

/// Nanoseconds in a tick of `cpuacct.stat`: USER_HZ is 100 on every architecture that Rust knows.
const TICK: u64 = 1_000_000_000 / 100;
/// Nanoseconds in the microseconds of cgroup2.
const MICROSECOND: u64 = 1_000;

pub(super) fn read<F: Files>(reader: &mut Reader<'_, F>) -> Result<Cpu, ReadError<F::Error>> {
    let unified = reader.keyed(v2("cpu", "cpu.stat"))?.unwrap_or_default();
    let of_unified = |key: &str, unit: u64| unified.get(key).copied().unwrap_or(0).saturating_mul(unit);
    let usage = usage_v1(reader)?.unwrap_or_else(|| CpuUsage {
        total: of_unified("usage_usec", MICROSECOND),
        kernel: of_unified("system_usec", MICROSECOND),
        user: of_unified("user_usec", MICROSECOND),
        ..CpuUsage::default()
    });
    let throttling = throttling_v1(reader)?.unwrap_or_else(|| Throttling {
        periods: of_unified("nr_periods", 1),
        throttled_periods: of_unified("nr_throttled", 1),
        throttled_time: of_unified("throttled_usec", MICROSECOND),
    });
    Ok(Cpu { usage, throttling, psi: pressure::read(reader, "cpu", "cpu.pressure")? })
}

fn usage_v1<F: Files>(reader: &mut Reader<'_, F>) -> Read<CpuUsage, F> {
    let Some(total) = reader.number(v1("cpuacct", "cpuacct.usage"))? else { return Ok(None) };
    let ticks = reader.keyed(v1("cpuacct", "cpuacct.stat"))?.unwrap_or_default();
    let time = |key: &str| ticks.get(key).copied().unwrap_or(0).saturating_mul(TICK);
    let (percpu_user, percpu_kernel) = percpu_by_mode(reader)?;
    Ok(Some(CpuUsage {
        total,
        percpu: reader.numbers(v1("cpuacct", "cpuacct.usage_percpu"))?.unwrap_or_default(),
        percpu_kernel,
        percpu_user,
        kernel: time("system"),
        user: time("user"),
    }))
}

type Modes = (Vec<u64>, Vec<u64>);

/// The columns `user` and `system` of `cpuacct.usage_all`, below its line of titles.
fn percpu_by_mode<F: Files>(reader: &mut Reader<'_, F>) -> Result<Modes, ReadError<F::Error>> {
    let source = v1("cpuacct", "cpuacct.usage_all");
    let Some(text) = reader.text(source)? else { return Ok(Modes::default()) };
    let line = |line: &str| {
        let mut words = line.split(' ').skip(1);
        match (words.next(), words.next()) {
            (Some(user), Some(system)) => Ok((number(source, user)?, number(source, system)?)),
            _ => Err(malformed(source, line)),
        }
    };
    text.lines().skip(1).map(line).collect()
}

fn throttling_v1<F: Files>(reader: &mut Reader<'_, F>) -> Read<Throttling, F> {
    let of_file = |stat: BTreeMap<String, u64>| {
        let number = |key: &str| stat.get(key).copied().unwrap_or(0);
        Throttling {
            periods: number("nr_periods"),
            throttled_periods: number("nr_throttled"),
            throttled_time: number("throttled_time"),
        }
    };
    Ok(reader.keyed(v1("cpu", "cpu.stat"))?.map(of_file))
}
