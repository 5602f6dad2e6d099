//! `cpu`: shares, bandwidth, idle and realtime. The kernel's own words: sched-bwc.rst, sched-rt-group.rst, and "CPU"
//! in cgroup-v2.rst.

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::{At, Knob, Refusal, Table, Version};

const SHARES: Knob = Knob {
    property: "cpu.shares",
    v1: Some(At { controller: "cpu", file: "cpu.shares" }),
    v2: Some(At { controller: "cpu", file: "cpu.weight" }),
    needs: "the cpu controller (CONFIG_FAIR_GROUP_SCHED)",
};
const IDLE: Knob = Knob {
    property: "cpu.idle",
    v1: Some(At { controller: "cpu", file: "cpu.idle" }),
    v2: Some(At { controller: "cpu", file: "cpu.idle" }),
    needs: "the cpu controller of Linux 5.15",
};
const BANDWIDTH: &str = "the cpu controller with CONFIG_CFS_BANDWIDTH";
const QUOTA: Knob = Knob {
    property: "cpu.quota",
    v1: Some(At { controller: "cpu", file: "cpu.cfs_quota_us" }),
    v2: Some(At { controller: "cpu", file: "cpu.max" }),
    needs: BANDWIDTH,
};
/// On v2 quota and period share a file.
const PERIOD: Knob = Knob {
    property: "cpu.period",
    v1: Some(At { controller: "cpu", file: "cpu.cfs_period_us" }),
    v2: Some(At { controller: "cpu", file: "cpu.max" }),
    needs: BANDWIDTH,
};
const BURST: Knob = Knob {
    property: "cpu.burst",
    v1: Some(At { controller: "cpu", file: "cpu.cfs_burst_us" }),
    v2: Some(At { controller: "cpu", file: "cpu.max.burst" }),
    needs: "the cpu controller of Linux 5.14 with CONFIG_CFS_BANDWIDTH",
};
const REALTIME: &str = "the v1 cpu controller with CONFIG_RT_GROUP_SCHED";
const RT_RUNTIME: Knob = Knob {
    property: "cpu.realtimeRuntime",
    v1: Some(At { controller: "cpu", file: "cpu.rt_runtime_us" }),
    v2: None,
    needs: REALTIME,
};
const RT_PERIOD: Knob = Knob {
    property: "cpu.realtimePeriod",
    v1: Some(At { controller: "cpu", file: "cpu.rt_period_us" }),
    v2: None,
    needs: REALTIME,
};

/// What a new group's `cpu.cfs_period_us` and `cpu.max` hold, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
/// What a new group's `cpu.rt_period_us` holds, in microseconds.
const DEFAULT_RT_PERIOD: u64 = 1_000_000;
/// What `cpu.shares` takes: MIN_SHARES and MAX_SHARES in kernel/sched/sched.h.
const SHARES_RANGE: std::ops::RangeInclusive<u64> = 2..=262_144;

pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    shares_and_idle(cpu, table)?;
    bandwidth(cpu, table)?;
    realtime(cpu, table)
}

/// The weight of cgroup2 for this many shares of v1: the curve through (2, 1), (1024, 100) and (262144, 10000) that
/// runc has had since 1.3.2 and crun since 1.23, so that the two defaults mean the same. 0 is not set: 0.
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // No value comes nearer than 1e-6 to a whole number except the one of 1024, which is exact: so the last
            // bit, which differs between C libraries, decides nothing.
            (10f64.powf(exponent) - 1e-6).ceil() as u64
        }
    }
}

fn shares_and_idle(cpu: &LinuxCpu, table: &mut Table<'_>) -> Result<(), Refusal> {
    let idle = cpu.idle();
    if let Some(idle) = idle.filter(|idle| !(0..=1).contains(idle)) {
        return Err(Refusal::value(IDLE.property, idle, "must be 0 or 1"));
    }
    // The kernel refuses a weight while idle is 1, and leaving idle resets the weight: so leave it before, enter after.
    if idle == Some(0) {
        let version = table.place(&IDLE)?;
        table.put_if_there(&IDLE, version, 0);
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        let version = table.place(&SHARES)?;
        let value = match version {
            // A value out of range would be clamped in silence.
            Version::V1 if shares < *SHARES_RANGE.start() => {
                return Err(Refusal::value(SHARES.property, shares, "the minimum allowed cpu-shares is 2"));
            }
            Version::V1 if shares > *SHARES_RANGE.end() => {
                return Err(Refusal::value(
                    SHARES.property,
                    shares,
                    "the maximum allowed cpu-shares is 262144",
                ));
            }
            Version::V1 => shares,
            Version::V2 => weight_of_shares(shares),
        };
        table.put(&SHARES, version, value);
    }
    if idle == Some(1) {
        let version = table.place(&IDLE)?;
        table.put(&IDLE, version, 1);
    }
    Ok(())
}

/// Quota, period and burst, in an order in which each step is valid by itself: the kernel wants burst <= quota, and
/// on v1 a quota/period no larger than the parent's.
fn bandwidth(cpu: &LinuxCpu, table: &mut Table<'_>) -> Result<(), Refusal> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let burst = cpu.burst();
    let knob = if quota.is_some() { QUOTA } else { PERIOD };
    let version = match (quota, period, burst) {
        (None, None, None) => return Ok(()),
        (None, None, Some(_)) => table.place(&BURST)?,
        _ => table.place(&knob)?,
    };
    let (quota_now, period_now) = bandwidth_now(table, version);
    check_burst(burst, quota.unwrap_or(quota_now))?;
    let burst_file = if version == Version::V1 { "cpu.cfs_burst_us" } else { "cpu.max.burst" };
    let burst_now: u64 = table.current.number(burst_file).unwrap_or(0);
    let burst_first = burst.is_some_and(|burst| burst < burst_now);
    if burst_first {
        put_burst(table, version, burst);
    }
    match version {
        Version::V1 => {
            let quota = quota.map(|quota| (&QUOTA, quota.max(-1).to_string()));
            let period_first = period.is_none_or(|period| period >= period_now);
            let period = period.map(|period| (&PERIOD, period.to_string()));
            let order = if period_first { [period, quota] } else { [quota, period] };
            for (knob, value) in order.into_iter().flatten() {
                table.put(knob, version, value);
            }
        }
        Version::V2 if quota.is_some() || period.is_some() => {
            let quota = match quota.unwrap_or(quota_now) {
                quota if quota > 0 => quota.to_string(),
                _ => "max".to_owned(),
            };
            table.put(&knob, version, format!("{quota} {}", period.unwrap_or(period_now)));
        }
        Version::V2 => {}
    }
    if !burst_first {
        put_burst(table, version, burst);
    }
    Ok(())
}

/// The quota (-1: none) and the period that the group has now.
fn bandwidth_now(table: &Table<'_>, version: Version) -> (i64, u64) {
    let (quota, period) = match version {
        Version::V1 => (table.current.number("cpu.cfs_quota_us"), table.current.number("cpu.cfs_period_us")),
        Version::V2 => {
            let mut words = table.current.text("cpu.max").unwrap_or_default().split_whitespace();
            let mut word = || words.next();
            (word().and_then(|w| w.parse().ok()), word().and_then(|w| w.parse().ok()))
        }
    };
    (quota.unwrap_or(-1), period.unwrap_or(DEFAULT_PERIOD))
}

fn check_burst(burst: Option<u64>, quota: i64) -> Result<(), Refusal> {
    match (burst, u64::try_from(quota)) {
        (Some(burst), Ok(quota)) if burst > quota => {
            Err(Refusal::value(BURST.property, burst, format!("larger than the quota of {quota}")))
        }
        _ => Ok(()),
    }
}

fn put_burst(table: &mut Table<'_>, version: Version, burst: Option<u64>) {
    match burst {
        None => {}
        Some(0) => table.put_if_there(&BURST, version, 0),
        Some(burst) => table.put(&BURST, version, burst),
    }
}

/// Realtime runtime and period. A runtime may not exceed its period, so a shorter period comes after it.
fn realtime(cpu: &LinuxCpu, table: &mut Table<'_>) -> Result<(), Refusal> {
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    let period = cpu.realtime_period().filter(|period| *period != 0);
    let period_now = table.current.number("cpu.rt_period_us").unwrap_or(DEFAULT_RT_PERIOD);
    let period_first = period.is_none_or(|period| period >= period_now);
    let runtime = runtime.map(|runtime| (&RT_RUNTIME, runtime.max(-1).to_string()));
    let period = period.map(|period| (&RT_PERIOD, period.to_string()));
    let order = if period_first { [period, runtime] } else { [runtime, period] };
    for (knob, value) in order.into_iter().flatten() {
        let version = table.place(knob)?;
        table.put(knob, version, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::weight_of_shares;

    #[test]
    fn shares_become_weights_on_the_curve_of_runc_1_3_2() {
        // Worked out apart, in fifty decimal digits.
        let table =
            [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (10, 4), (100, 17), (512, 59), (1000, 99), (1023, 100)];
        let wide = [
            (1024, 100),
            (1025, 101),
            (2048, 174),
            (4096, 303),
            (8192, 532),
            (65_536, 3023),
            (262_143, 10_000),
        ];
        for (shares, weight) in table.into_iter().chain(wide).chain([(262_144, 10_000), (u64::MAX, 10_000)]) {
            assert_eq!(weight_of_shares(shares), weight, "{shares} shares");
        }
    }

    #[test]
    fn rounding_cannot_depend_on_the_last_bit() {
        for shares in (3u64..262_144).filter(|shares| *shares != 1024) {
            let log = (shares as f64).log2();
            let exact = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
            assert!((exact - exact.round()).abs() > 2e-6, "{shares} shares weigh {exact}");
        }
    }
}
