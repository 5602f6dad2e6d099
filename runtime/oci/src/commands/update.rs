//! `update`: from a file of resources, or from options.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use croft_engine::state::StateRoot;
use croft_engine::update::{UpdateOptions, update};
use croft_plan::spec::parse_resources;
use serde_json::{Map, Value, json};

use crate::args::{Global, UpdateArgs};

/// Changes a container's limits.
pub fn run(global: &Global, root: &StateRoot, args: &UpdateArgs) -> Result<ExitCode> {
    let named = |schema: &Option<String>| schema.clone().filter(|s| !s.is_empty());
    let (bytes, from) = match args.resources.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => (read(path)?, format!("--resources {}", path.display())),
        None => (serde_json::to_vec(&from_options(args)?)?, "update".to_owned()),
    };
    let options = UpdateOptions {
        resources: parse_resources(&bytes).with_context(|| from)?,
        l3_cache_schema: named(&args.l3_cache_schema),
        mem_bw_schema: named(&args.mem_bw_schema),
    };
    for (name, value) in
        [("kernel-memory", &args.kernel_memory), ("kernel-memory-tcp", &args.kernel_memory_tcp)]
    {
        if named(value).is_some() {
            super::log(global, "warning", &format!("Setting --{name} is ignored: the kernel has it no more"));
        }
    }
    for warning in update(root, &args.id, options)? {
        super::log(global, "warning", &warning);
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().read_to_end(&mut bytes).map(drop),
        _ => std::fs::read(path).map(|read| bytes = read),
    };
    read.map_err(croft_engine::error::Reason::from)
        .with_context(|| format!("--resources: read {}", path.display()))?;
    Ok(bytes)
}

/// The resources that the options name, as they stand in config.json.
fn from_options(args: &UpdateArgs) -> Result<Value> {
    let mut cpu = Map::new();
    let whole = [
        ("cpu-period", "period", &args.cpu_period),
        ("cpu-burst", "burst", &args.cpu_burst),
        ("cpu-share", "shares", &args.cpu_share),
        ("cpu-rt-period", "realtimePeriod", &args.cpu_rt_period),
    ];
    for (option, key, value) in whole {
        insert(&mut cpu, key, number::<u64>(option, value)?);
    }
    let signed = [
        ("cpu-quota", "quota", &args.cpu_quota),
        ("cpu-rt-runtime", "realtimeRuntime", &args.cpu_rt_runtime),
        ("cpu-idle", "idle", &args.cpu_idle),
    ];
    for (option, key, value) in signed {
        insert(&mut cpu, key, number::<i64>(option, value)?);
    }
    insert(&mut cpu, "cpus", args.cpuset_cpus.clone().filter(|v| !v.is_empty()).map(Value::from));
    insert(&mut cpu, "mems", args.cpuset_mems.clone().filter(|v| !v.is_empty()).map(Value::from));
    let mut memory = Map::new();
    let sizes = [
        ("memory", "limit", &args.memory),
        ("memory-reservation", "reservation", &args.memory_reservation),
        ("memory-swap", "swap", &args.memory_swap),
    ];
    for (option, key, value) in sizes {
        let Some(text) = value.as_deref().filter(|v| !v.is_empty()) else { continue };
        match bytes(text) {
            Some(size) => insert(&mut memory, key, Some(size.into())),
            None => bail!("invalid value for {option}: {text:?} is no size, such as 64m or -1 for no limit"),
        }
    }
    let mut all = Map::new();
    all.insert("cpu".into(), cpu.into());
    all.insert("memory".into(), memory.into());
    // 0 leaves both of these as they are, as in runc.
    if let Some(limit) = number::<i64>("pids-limit", &args.pids_limit)?.filter(|v| *v != json!(0)) {
        all.insert("pids".into(), json!({ "limit": limit }));
    }
    if let Some(weight) = number::<u16>("blkio-weight", &args.blkio_weight)?.filter(|v| *v != json!(0)) {
        all.insert("blockIO".into(), json!({ "weight": weight }));
    }
    Ok(all.into())
}

fn insert(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

fn number<T>(option: &str, value: &Option<String>) -> Result<Option<Value>>
where
    T: std::str::FromStr + Into<Value>,
    T::Err: std::fmt::Display,
{
    let Some(text) = value.as_deref().filter(|v| !v.is_empty()) else { return Ok(None) };
    match text.parse::<T>() {
        Ok(number) => Ok(Some(number.into())),
        Err(why) => bail!("invalid value for {option}: {text:?}: {why}"),
    }
}

/// A size as Docker and runc write it: bytes, or with k, m, g, t, p and an optional b or ib, in powers of 1024; -1 for none.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let text = text.trim().to_ascii_lowercase();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if !unit.starts_with('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let size = number.parse::<f64>().ok()? * 1024f64.powi(power);
    (size < i64::MAX as f64).then_some(size as i64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_as_runc_reads_them() {
        let sizes = [
            ("0", 0),
            ("-1", -1),
            ("64m", 64 << 20),
            ("1.5k", 1536),
            ("2GiB", 2 << 30),
            ("3 kb", 3072),
            ("9b", 9),
        ];
        for (text, size) in sizes {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for bad in ["", "-2", "m", "12x", "1e3", "99999999999999999999"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
