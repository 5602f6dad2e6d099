//! Limits: of the container's group, and of each process in it.

use croft_api::container::{Config, Limits};
use serde_json::{Map, Value, json};

use super::Invalid;
use crate::devices::Node;

/// Bytes below which no program runs.
const LEAST_MEMORY: u64 = 4 << 20;

/// The period of `cpu.max`, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Processes that a container may have when nobody says how many.
pub const DEFAULT_PIDS: i64 = 4096;

/// The limits of a process that there are (setrlimit(2)), in ulimit's words.
const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `linux.resources`.
pub fn resources(config: &Config, devices: &[Node]) -> Result<Value, Invalid> {
    let mut resources = limits(&config.limits)?;
    let mut rules = vec![json!({"allow": config.privileged, "access": "rwm"})];
    rules.extend(devices.iter().filter(|_| !config.privileged).map(|device| {
        json!({"allow": true, "type": device.kind.letter(), "major": device.major, "minor": device.minor,
            "access": device.access})
    }));
    resources["devices"] = rules.into();
    if config.limits.pids.is_none() {
        resources["pids"] = json!({"limit": DEFAULT_PIDS});
    }
    Ok(resources)
}

/// The `limits` of a new container without those of zero, which mean none, as with Docker. An update refuses zeros: it would change nothing, and say that it did.
pub fn given(limits: Limits) -> Limits {
    Limits {
        memory: limits.memory.filter(|bytes| *bytes != 0),
        cpus: limits.cpus.filter(|cpus| *cpus != 0.0),
        cpu_shares: limits.cpu_shares.filter(|shares| *shares != 0),
        cpuset: limits.cpuset.filter(|list| !list.is_empty()),
        memory_swap: limits.memory_swap.filter(|bytes| *bytes != 0),
        memory_reservation: limits.memory_reservation.filter(|bytes| *bytes != 0),
        blkio_weight: limits.blkio_weight.filter(|weight| *weight != 0),
        pids: limits.pids.filter(|pids| *pids != 0),
    }
}

/// What of `linux.resources` these limits are: nothing for what has none.
///
/// # Errors
/// For a number that makes no sense.
pub fn limits(limits: &Limits) -> Result<Value, Invalid> {
    let mut resources = Map::new();
    let mut put = |name: &str, values: Map<String, Value>| {
        if !values.is_empty() {
            resources.insert(name.to_owned(), values.into());
        }
    };
    put("memory", memory(limits)?);
    put("cpu", cpu(limits)?);
    put("blockIO", block_io(limits)?);
    if let Some(pids) = limits.pids {
        put("pids", [("limit".to_owned(), json!(most_pids(pids)?))].into_iter().collect());
    }
    Ok(resources.into())
}

fn number(what: &'static str, value: impl ToString, why: &'static str) -> Invalid {
    Invalid::Number { what, value: value.to_string(), why }
}

fn most_pids(pids: i64) -> Result<i64, Invalid> {
    match pids {
        -1 | 1.. => Ok(pids),
        _ => Err(number("pids-limit", pids, "a number of processes, or -1 for no limit")),
    }
}

fn memory(limits: &Limits) -> Result<Map<String, Value>, Invalid> {
    let mut memory = Map::new();
    let few = "no program runs in less than 4 MiB";
    if let Some(limit) = limits.memory {
        if limit < LEAST_MEMORY {
            return Err(number("memory", limit, few));
        }
        memory.insert("limit".into(), json!(limit));
    }
    match (limits.memory_swap, limits.memory) {
        (None, _) => {}
        (Some(swap), None) => {
            return Err(number("memory-swap", swap, "it is memory and swap together, and needs --memory"));
        }
        (Some(-1), Some(_)) => drop(memory.insert("swap".into(), json!(-1))),
        (Some(swap), Some(limit)) if u64::try_from(swap).is_ok_and(|swap| swap >= limit) => {
            memory.insert("swap".into(), json!(swap));
        }
        (Some(swap), Some(_)) => {
            return Err(number(
                "memory-swap",
                swap,
                "it is memory and swap together: no less than --memory, or -1",
            ));
        }
    }
    if let Some(reservation) = limits.memory_reservation {
        if reservation < LEAST_MEMORY {
            return Err(number("memory-reservation", reservation, few));
        }
        if limits.memory.is_some_and(|limit| reservation > limit) {
            return Err(number("memory-reservation", reservation, "it is more than --memory"));
        }
        memory.insert("reservation".into(), json!(reservation));
    }
    Ok(memory)
}

fn cpu(limits: &Limits) -> Result<Map<String, Value>, Invalid> {
    let mut cpu = Map::new();
    if let Some(cpus) = limits.cpus {
        if !cpus.is_finite() || cpus < 0.01 {
            return Err(number("cpus", cpus, "the kernel divides a processor into hundredths"));
        }
        cpu.insert("quota".into(), json!((cpus * CPU_PERIOD as f64) as i64));
        cpu.insert("period".into(), json!(CPU_PERIOD));
    }
    if let Some(shares) = limits.cpu_shares {
        if !(2..=262_144).contains(&shares) {
            return Err(number("cpu-shares", shares, "2 to 262144"));
        }
        cpu.insert("shares".into(), json!(shares));
    }
    if let Some(cpus) = &limits.cpuset {
        if !is_list(cpus) {
            return Err(Invalid::Value {
                what: "cpuset-cpus",
                value: cpus.clone(),
                why: "processors and ranges of them, as 0-3,5".to_owned(),
            });
        }
        cpu.insert("cpus".into(), json!(cpus));
    }
    Ok(cpu)
}

/// Whether it is a list as in cpuset(7).
fn is_list(text: &str) -> bool {
    text.split(',').all(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if first <= last)
    })
}

fn block_io(limits: &Limits) -> Result<Map<String, Value>, Invalid> {
    let mut values = Map::new();
    if let Some(weight) = limits.blkio_weight {
        if !(10..=1000).contains(&weight) {
            return Err(number("blkio-weight", weight, "10 to 1000"));
        }
        values.insert("weight".into(), json!(weight));
    }
    Ok(values)
}

/// `process.rlimits`.
pub fn rlimits(config: &Config) -> Result<Vec<Value>, Invalid> {
    let mut list: Vec<Value> = Vec::new();
    for ulimit in &config.ulimits {
        let invalid = |why: String| Invalid::Value { what: "ulimit", value: ulimit.name.clone(), why };
        if !RLIMITS.contains(&ulimit.name.as_str()) {
            return Err(invalid(format!("one of {}", RLIMITS.join(", "))));
        }
        if ulimit.soft < -1 || ulimit.hard < -1 {
            return Err(invalid("a limit is a number, or -1 for none".to_owned()));
        }
        // -1, which is none, is the largest number of the kernel's type.
        let (soft, hard) = (ulimit.soft.cast_unsigned(), ulimit.hard.cast_unsigned());
        if soft > hard {
            return Err(invalid("the soft limit is above the hard one".to_owned()));
        }
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        // The last one counts.
        list.retain(|other| other["type"] != name.as_str());
        list.push(json!({"type": name, "soft": soft, "hard": hard}));
    }
    Ok(list)
}

/// `process.oomScoreAdj`.
pub fn oom_score_adj(config: &Config) -> Result<i32, Invalid> {
    match config.oom_score_adj.unwrap_or(0) {
        value @ -1000..=1000 => Ok(value),
        value => Err(number("oom-score-adj", value, "-1000 to 1000")),
    }
}
