//! Updates from any state to any other: a model of the kernel's checks must accept every single write.

mod common;

use std::convert::Infallible;

use croft_plan::cgroup::{self, Current, Source, Write};
use oci_spec::runtime::LinuxResources;
use proptest::prelude::*;

/// Limits of memory, and of memory and swap: mem_cgroup_resize_max in mm/memcontrol-v1.c.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Memory {
    limit: i64,
    memsw: i64,
}

const UNLIMITED: i64 = 9_223_372_036_854_771_712;

impl Memory {
    fn write(&mut self, write: &Write) -> Result<(), String> {
        let value = match write.value.as_str() {
            "-1" => UNLIMITED,
            bytes => bytes.parse().map_err(|_| format!("{write}"))?,
        };
        match write.file.as_str() {
            "memory.limit_in_bytes" => self.limit = value,
            "memory.memsw.limit_in_bytes" => self.memsw = value,
            _ => return Err(format!("{write}")),
        }
        if self.limit <= self.memsw { Ok(()) } else { Err(format!("EINVAL: {write}, {self:?}")) }
    }
}

/// Bandwidth: tg_set_cfs_bandwidth and, for the parent's part, tg_cfs_schedulable_down in kernel/sched/core.c.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bandwidth {
    quota: Option<u64>,
    period: u64,
    burst: u64,
}

impl Bandwidth {
    fn ratio(&self) -> f64 {
        self.quota.map_or(f64::INFINITY, |quota| quota as f64 / self.period as f64)
    }

    fn write(&mut self, write: &Write, parent: f64) -> Result<(), String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{write}"));
        match write.file.as_str() {
            "cpu.cfs_quota_us" => self.quota = number(&write.value).ok(),
            "cpu.cfs_period_us" => self.period = number(&write.value)?,
            "cpu.cfs_burst_us" | "cpu.max.burst" => self.burst = number(&write.value)?,
            "cpu.max" => {
                let (quota, period) = write.value.split_once(' ').ok_or_else(|| format!("{write}"))?;
                (self.quota, self.period) = (number(quota).ok(), number(period)?);
            }
            _ => return Err(format!("{write}")),
        }
        let burst_fits = self.quota.is_none_or(|quota| self.burst <= quota);
        if burst_fits && self.ratio() <= parent { Ok(()) } else { Err(format!("EINVAL: {write}, {self:?}")) }
    }

    /// The text of a file of v1 or v2.
    fn text(&self, file: &str) -> Option<String> {
        let quota = |none: &str| self.quota.map_or(none.to_owned(), |quota| quota.to_string());
        Some(match file {
            "cpu.cfs_quota_us" => quota("-1"),
            "cpu.cfs_period_us" => self.period.to_string(),
            "cpu.cfs_burst_us" | "cpu.max.burst" => self.burst.to_string(),
            "cpu.max" => format!("{} {}", quota("max"), self.period),
            _ => return None,
        })
    }
}

fn memory() -> impl Strategy<Value = Memory> {
    let limited = (1..40i64, 0..40i64)
        .prop_map(|(limit, more)| Memory { limit: limit << 12, memsw: (limit + more) << 12 });
    let swap_unlimited = (1..40i64).prop_map(|limit| Memory { limit: limit << 12, memsw: UNLIMITED });
    prop_oneof![4 => limited, 2 => swap_unlimited, 1 => Just(Memory { limit: UNLIMITED, memsw: UNLIMITED })]
}

fn bandwidth() -> impl Strategy<Value = Bandwidth> {
    let quota = proptest::option::of(1..30u64);
    (quota, 1..30u64, 0..30u64).prop_map(|(quota, period, burst)| Bandwidth {
        quota: quota.map(|quota| quota * 1000),
        period: period * 1000,
        burst: quota.map_or(burst, |quota| burst.min(quota)) * 1000,
    })
}

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).expect("the JSON is linux.resources")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_of_v1(from in memory(), to in memory()) {
        let host = common::hybrid();
        let spec = |bytes| if bytes == UNLIMITED { -1 } else { bytes };
        let json = serde_json::json!({"memory": {"limit": spec(to.limit), "swap": spec(to.memsw)}});
        let mut files = |source: Source<'_>| {
            Ok::<_, Infallible>((source.file == "memory.limit_in_bytes").then(|| from.limit.to_string()))
        };
        let resources = resources(json);
        let current = Current::read(&resources, &host, &mut files).expect("no read fails");
        let mut state = from;
        for write in cgroup::update(&resources, &host, &current).expect("it can be given").writes {
            state.write(&write).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(state, to);
    }

    #[test]
    fn bandwidth_of_both(from in bandwidth(), to in bandwidth(), unified in any::<bool>()) {
        let host = if unified { common::unified() } else { common::hybrid() };
        let quota = to.quota.map_or(-1, |quota| i64::try_from(quota).unwrap_or(-1));
        let json = serde_json::json!({"cpu": {"quota": quota, "period": to.period, "burst": to.burst}});
        let mut files = |source: Source<'_>| Ok::<_, Infallible>(from.text(source.file));
        let resources = resources(json);
        let current = Current::read(&resources, &host, &mut files).expect("no read fails");
        // The parent allows what was and what shall be, and no more.
        let parent = from.ratio().max(to.ratio());
        let mut state = from;
        for write in cgroup::update(&resources, &host, &current).expect("it can be given").writes {
            state.write(&write, parent).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(state, to);
    }
}
