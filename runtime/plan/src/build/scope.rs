//! Scopes of systemd: their names, their slices, and what systemd is told of them.
//!
//! systemd keeps the limits that it knows of a unit and writes them again at every daemon-reload, so those that it has a
//! property for are told to it as well as written. It is not told the device rules: our own filter holds beside whatever systemd
//! attaches, and systemd leaves programs that are not its own alone.

use std::path::{Path, PathBuf};

use super::PlanError;
use crate::cgroup::{Version, Write, Writes};
use crate::facts::{Delegation, Facts};
use crate::step::Property;

/// The slice and the scope's name of `slice:prefix:name`, as runc reads cgroupsPath with the systemd driver.
pub(super) fn names(asked: Option<&str>, id: &str, facts: &Facts) -> Result<(String, String), PlanError> {
    let default = if facts.is_rootless() { "user.slice" } else { "system.slice" };
    let Some(asked) = asked else { return Ok((default.to_owned(), format!("croft-{id}.scope"))) };
    let parts: Vec<&str> = asked.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        let why = "with --systemd-cgroup it must be slice:prefix:name";
        return Err(PlanError::refused("linux.cgroupsPath", why));
    };
    let slice = if slice.is_empty() { default } else { slice };
    let unit = match (prefix, name) {
        (_, name) if name.ends_with(".slice") => name.to_owned(),
        ("", name) => format!("{name}.scope"),
        (prefix, name) => format!("{prefix}-{name}.scope"),
    };
    Ok((slice.to_owned(), unit))
}

/// The folder of a slice below the hierarchy's root; for an ordinary user it is below the user's own systemd.
pub(super) fn slice_folder(slice: &str, facts: &Facts) -> Result<PathBuf, PlanError> {
    let folder = expand_slice(slice)?;
    if facts.delegated == Delegation::Everything {
        return Ok(folder);
    }
    let mut parts = facts.own_group.ancestors();
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match parts.find(|p| name(p).starts_with("user@") && name(p).ends_with(".service")) {
        Some(manager) => Ok(manager.join(folder)),
        None => {
            let why = "an ordinary user's scopes are made by the user's own systemd, which did not start this process: \
                       start it with systemd-run --user --scope";
            Err(PlanError::refused("--systemd-cgroup", why))
        }
    }
}

/// The folder of a slice: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn expand_slice(slice: &str) -> Result<PathBuf, PlanError> {
    let bad = || PlanError::refused("linux.cgroupsPath", format!("{slice:?} is not the name of a slice"));
    if slice == "-.slice" {
        return Ok(PathBuf::new());
    }
    let name = slice.strip_suffix(".slice").filter(|n| !n.contains('/')).ok_or_else(bad)?;
    let mut path = PathBuf::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(bad());
        }
        prefix = if prefix.is_empty() { part.to_owned() } else { format!("{prefix}-{part}") };
        path.push(format!("{prefix}.slice"));
    }
    Ok(path)
}

/// What systemd is told of a new scope, as by runc.
pub(super) fn properties(id: &str, slice: &str, writes: &Writes) -> Vec<(String, Property)> {
    let text = |name: &str, value: &str| (name.to_owned(), Property::Text(value.to_owned()));
    let flag = |name: &str, value| (name.to_owned(), Property::Flag(value));
    let mut all = vec![
        text("Description", &format!("croft container {id}")),
        text("Slice", slice),
        flag("Delegate", true),
        flag("DefaultDependencies", false),
        // A scope that failed would keep its name taken.
        text("CollectMode", "inactive-or-failed"),
    ];
    let accounted = ["CPUAccounting", "MemoryAccounting", "IOAccounting", "TasksAccounting"];
    all.extend(accounted.map(|name| flag(name, true)));
    all.extend(limits(writes));
    all
}

/// The limits of cgroup2 that systemd has a property for.
pub(super) fn limits(writes: &Writes) -> Vec<(String, Property)> {
    writes.writes.iter().filter(|w| w.version == Version::V2).flat_map(limit).collect()
}

/// The properties by the file that systemd writes for each.
const NUMBERS: &[(&str, &str)] = &[
    ("cpu.weight", "CPUWeight"),
    ("memory.max", "MemoryMax"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.swap.max", "MemorySwapMax"),
    ("pids.max", "TasksMax"),
];

fn limit(write: &Write) -> Vec<(String, Property)> {
    let number = |text: &str| if text == "max" { Some(u64::MAX) } else { text.parse().ok() };
    let one = |name: &str, value: Option<Property>| {
        value.map(|value| (name.to_owned(), value)).into_iter().collect::<Vec<_>>()
    };
    if let Some((_, name)) = NUMBERS.iter().find(|(file, _)| *file == write.file) {
        return one(name, number(&write.value).map(Property::Number));
    }
    match write.file.as_str() {
        "cpu.max" => bandwidth(&write.value),
        "cpuset.cpus" => one("AllowedCPUs", set(&write.value)),
        "cpuset.mems" => one("AllowedMemoryNodes", set(&write.value)),
        _ => Vec::new(),
    }
}

/// systemd has the quota for a second, in steps of 10 ms.
fn bandwidth(value: &str) -> Vec<(String, Property)> {
    let mut words = value.split(' ');
    let quota = words.next().unwrap_or("max");
    let period: u64 = words.next().and_then(|p| p.parse().ok()).unwrap_or(100_000);
    let per_second = match quota.parse::<u64>() {
        Ok(quota) => (quota.saturating_mul(1_000_000) / period.max(1)).next_multiple_of(10_000),
        Err(_) => u64::MAX,
    };
    vec![
        ("CPUQuotaPeriodUSec".to_owned(), Property::Number(period)),
        ("CPUQuotaPerSecUSec".to_owned(), Property::Number(per_second)),
    ]
}

/// A list such as `0-3,7` as a bit set.
fn set(list: &str) -> Option<Property> {
    let mut bytes = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for number in first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?.min(65_535) {
            if bytes.len() <= number / 8 {
                bytes.resize(number / 8 + 1, 0u8);
            }
            bytes[number / 8] |= 1 << (number % 8);
        }
    }
    Some(Property::Set(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_nest_by_their_dashes() {
        assert_eq!(expand_slice("a-b-c.slice").unwrap(), PathBuf::from("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(expand_slice("-.slice").unwrap(), PathBuf::new());
        for bad in ["a", "a--b.slice", "a/b.slice", ".slice"] {
            assert!(expand_slice(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_become_properties() {
        let of = |file: &str, value: &str| {
            let write = Write {
                property: String::new(),
                controller: String::new(),
                version: Version::V2,
                file: file.to_owned(),
                value: value.to_owned(),
                on_missing: crate::cgroup::OnMissing::Skip,
            };
            limit(&write).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("memory.max", "1048576"), "MemoryMax=1048576");
        assert_eq!(of("memory.swap.max", "max"), "MemorySwapMax=infinity");
        assert_eq!(of("cpu.max", "12345 100000"), "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=130000");
        assert_eq!(of("cpu.max", "max 50000"), "CPUQuotaPeriodUSec=50000 CPUQuotaPerSecUSec=infinity");
        assert_eq!(of("cpuset.cpus", "0-1,9"), "AllowedCPUs=0,1,9");
        assert_eq!(of("hugetlb.2MB.max", "0"), "");
    }
}
