//! The probe's own process: ids, capabilities, limits, terminal.
use std::fs;
use std::io;

use rustix::process::{Resource, getrlimit};
use rustix::termios::{isatty, tcgetwinsize, ttyname};
use serde_json::{Map, Value, json};

use crate::files;

/// Process numbers and ids.
pub fn numbers() -> Value {
    let number =
        |pid: rustix::io::Result<rustix::process::Pid>| pid.map_or(0, |pid| pid.as_raw_nonzero().get());
    json!({
        "pid": std::process::id(),
        "ppid": rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()),
        "sid": number(rustix::process::getsid(None)),
        "pgid": number(Ok(rustix::process::getpgrp())),
    })
}

/// /proc/self/status, with ids as numbers, capabilities by name, and the rest as text (proc_pid_status(5)).
pub fn status() -> io::Result<Value> {
    let mut seen = Map::new();
    for line in fs::read_to_string("/proc/self/status")?.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let shown = match name {
            "Uid" | "Gid" | "Groups" => {
                value.split_whitespace().filter_map(|n| n.parse::<u32>().ok()).collect()
            }
            "CapInh" | "CapPrm" | "CapEff" | "CapBnd" | "CapAmb" => capabilities(value),
            "Umask" | "Cpus_allowed_list" | "Mems_allowed_list" | "NSpid" | "Name" => value.into(),
            "Seccomp" | "Seccomp_filters" | "NoNewPrivs" | "Threads" => {
                value.parse::<u32>().map_or(Value::Null, Value::from)
            }
            "SigIgn" | "SigCgt" | "SigBlk" => value.into(),
            _ => continue,
        };
        seen.insert(name.to_owned(), shown);
    }
    Ok(seen.into())
}

/// The names of the bits of a mask, in the order of their numbers; a bit without a name shows as its number.
fn capabilities(mask: &str) -> Value {
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
    let known = caps::all();
    let name = |bit: u32| {
        let named = known.iter().find(|cap| cap.bitmask() == 1 << bit);
        named.map_or_else(|| bit.to_string(), ToString::to_string)
    };
    (0..64).filter(|bit| mask & (1 << bit) != 0).map(name).collect()
}

const RESOURCES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// Soft and hard limits; `null` is no limit.
pub fn rlimits() -> Value {
    RESOURCES
        .iter()
        .map(|(name, resource)| {
            let limit = getrlimit(*resource);
            ((*name).to_owned(), json!({ "soft": limit.current, "hard": limit.maximum }))
        })
        .collect()
}

/// The policy of the first mapping, which is the process's own unless something set another (numa(7)).
pub fn memory_policy() -> io::Result<String> {
    let text = files::text("/proc/self/numa_maps")?;
    Ok(text.split_whitespace().nth(1).unwrap_or_default().to_owned())
}

/// The name of the session keyring (keyrings(7)): its own, or one inherited.
pub fn session_keyring() -> io::Result<String> {
    Ok(croft_sys::keyring::name(croft_sys::keyring::session()?)?)
}

/// Policy, priorities and times of the scheduler (sched(7)), by the names of `struct sched_attr`.
pub fn scheduler() -> io::Result<Value> {
    let seen = croft_sys::sched::attributes()?;
    Ok(json!({
        "policy": seen.policy, "flags": seen.flags, "nice": seen.nice, "priority": seen.priority,
        "runtime": seen.runtime, "deadline": seen.deadline, "period": seen.period,
    }))
}

/// Class and level (ioprio_set(2)).
pub fn io_priority() -> io::Result<Value> {
    let (class, level) = croft_sys::sched::io_priority()?;
    Ok(json!({ "class": class, "level": level }))
}

/// Which of the standard streams are terminals, and the size and name of the first that is.
pub fn terminal() -> Value {
    let streams = [isatty(io::stdin()), isatty(io::stdout()), isatty(io::stderr())];
    if !streams[0] {
        return json!({ "streams": streams });
    }
    let size = tcgetwinsize(io::stdin()).map(|s| json!({ "height": s.ws_row, "width": s.ws_col }));
    let name = ttyname(io::stdin(), Vec::new()).map(|name| name.to_string_lossy().into_owned());
    json!({
        "streams": streams,
        "size": size.unwrap_or(Value::Null),
        "name": name.unwrap_or_default(),
    })
}
