//! What cannot be asked for together: refused before anything is made.

use std::collections::HashSet;
use std::path::Path;

use croft_api::container::{Config, Ipc, Log, Mount, NetworkMode, Pid, Restart, Userns};

use super::Invalid;

/// Refuses what contradicts itself.
///
/// # Errors
/// [`Invalid::Mix`] and its like, for the first that is found.
pub fn check(config: &Config) -> Result<(), Invalid> {
    let mix = |is: bool, one, other, why| if is { Err(Invalid::Mix(one, other, why)) } else { Ok(()) };
    let joins_network = matches!(config.network, NetworkMode::Container(_));
    let joins =
        joins_network || matches!(config.pid, Pid::Container(_)) || matches!(config.ipc, Ipc::Container(_));
    let publishes = !config.publish.is_empty();
    mix(
        config.auto_remove && config.restart != Restart::No,
        "--rm",
        "--restart",
        "what is removed at its end cannot be started again",
    )?;
    let theirs = "the network is the other container's, and its settings are made there";
    mix(joins_network && publishes, "--network container:", "--publish", theirs)?;
    mix(joins_network && !config.hosts.is_empty(), "--network container:", "--add-host", theirs)?;
    mix(joins_network && !config.dns.is_empty(), "--network container:", "--dns", theirs)?;
    mix(joins_network && !config.dns_search.is_empty(), "--network container:", "--dns-search", theirs)?;
    let no_ports = "there is no port of its own to lead to";
    mix(config.network == NetworkMode::None && publishes, "--network none", "--publish", no_ports)?;
    mix(config.network == NetworkMode::Host && publishes, "--network host", "--publish", no_ports)?;
    mix(
        joins && config.userns == Userns::Host,
        "container:",
        "--userns host",
        "who shares a namespace of a container shares its user namespace",
    )?;
    mix(
        config.shm_size.is_some() && matches!(config.ipc, Ipc::Host | Ipc::Container(_)),
        "--ipc",
        "--shm-size",
        "its /dev/shm is another's, and has its size already",
    )?;
    for host in &config.hosts {
        if host.name.is_empty() || host.name.contains(|c: char| c.is_whitespace() || c == '#') {
            let why = "a host name and an address, as db:10.0.0.5".to_owned();
            return Err(Invalid::Value { what: "add-host", value: host.name.clone(), why });
        }
    }
    for domain in &config.dns_search {
        if domain.is_empty() || domain.contains(char::is_whitespace) {
            let why = "a domain, or . for none".to_owned();
            return Err(Invalid::Value { what: "dns-search", value: domain.clone(), why });
        }
    }
    targets(&config.mounts)?;
    log(&config.log)
}

/// Of two mounts on one target the first could not be seen.
fn targets(mounts: &[Mount]) -> Result<(), Invalid> {
    let mut seen = HashSet::new();
    match mounts.iter().find(|mount| !seen.insert(Path::new(mount.target()))) {
        Some(mount) => {
            let why = "another mount has the same target".to_owned();
            Err(Invalid::Value { what: "mount", value: mount.target().to_owned(), why })
        }
        None => Ok(()),
    }
}

/// A file of a log holds more than the longest line that is not cut.
const SMALLEST_LOG: u64 = 64 << 10;

fn log(log: &Log) -> Result<(), Invalid> {
    let refuse = |what, value: u64, why: &str| {
        Err(Invalid::Value { what, value: value.to_string(), why: why.to_owned() })
    };
    match log {
        Log { max_size: Some(size), .. } if *size < SMALLEST_LOG => {
            refuse("log-opt max-size", *size, "64 KiB at least")
        }
        Log { max_files: Some(0), .. } => refuse("log-opt max-file", 0, "one at least is written"),
        Log { rate: Some(0), .. } => refuse("log-opt rate", 0, "nothing could ever be logged"),
        _ => Ok(()),
    }
}
