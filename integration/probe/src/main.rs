//! Runs inside a container, as its program, and prints one JSON object: what a process there is and sees.
//!
//!     probe [--sysctl NAME]... [--path PATH]... [--exit STATUS] [ignored words]...
//!     probe --attack-runtime      tries to overwrite the runtime that made the container
//!
//! A member whose source cannot be read is an object `{"error": "..."}`: the probe reports, it does not judge.
//! It is a static program, so that it runs in any root filesystem.
use std::process::ExitCode;

use serde_json::{Value, json};

mod attack;
mod files;
mod process;
mod system;

/// What the command line asks for.
#[derive(Debug, Default)]
struct Wishes {
    sysctls: Vec<String>,
    paths: Vec<String>,
    exit: u8,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    if args.get(1).is_some_and(|a| a == "--attack-runtime") {
        return attack::runtime();
    }
    let wishes = wishes(&args);
    let seen = json!({
        "args": args,
        "env": std::env::vars_os().map(|(k, v)| format!("{}={}", k.display(), v.display())).collect::<Vec<_>>(),
        "cwd": or_error(std::env::current_dir().map(|d| d.display().to_string())),
        "process": process::numbers(),
        "status": or_error(process::status()),
        "rlimits": process::rlimits(),
        "oom_score_adj": number(files::text("/proc/self/oom_score_adj")),
        "personality": or_error(files::text("/proc/self/personality")),
        "label": or_error(files::text("/proc/self/attr/current")),
        "memory_policy": or_error(process::memory_policy()),
        "session_keyring": or_error(process::session_keyring()),
        "scheduler": or_error(process::scheduler()),
        "io_priority": or_error(process::io_priority()),
        "terminal": process::terminal(),
        "fds": or_error(files::links("/proc/self/fd")),
        "namespaces": or_error(files::links("/proc/self/ns")),
        "cgroup": or_error(files::lines("/proc/self/cgroup")),
        "hostname": rustix::system::uname().nodename().to_string_lossy(),
        "domainname": rustix::system::uname().domainname().to_string_lossy(),
        "machine": rustix::system::uname().machine().to_string_lossy(),
        "mounts": or_error(system::mounts()),
        "links": or_error(system::links()),
        "processes": or_error(system::processes()),
        "devices": or_error(files::devices()),
        "uid_map": or_error(files::lines("/proc/self/uid_map")),
        "gid_map": or_error(files::lines("/proc/self/gid_map")),
        "time_offsets": or_error(files::lines("/proc/self/timens_offsets")),
        "sysctls": wishes.sysctls.iter().map(|n| (n.clone(), or_error(system::sysctl(n)))).collect::<Value>(),
        "paths": wishes.paths.iter().map(|p| (p.clone(), or_error(files::describe(p)))).collect::<Value>(),
    });
    println!("{seen:#}");
    ExitCode::from(wishes.exit)
}

fn wishes(args: &[String]) -> Wishes {
    let mut wishes = Wishes::default();
    for pair in args.windows(2) {
        match (pair[0].as_str(), &pair[1]) {
            ("--sysctl", name) => wishes.sysctls.push(name.clone()),
            ("--path", path) => wishes.paths.push(path.clone()),
            ("--exit", status) => wishes.exit = status.parse().unwrap_or(255),
            _ => {}
        }
    }
    wishes
}

fn or_error<T: Into<Value>>(read: std::io::Result<T>) -> Value {
    read.map_or_else(|e| json!({ "error": e.to_string() }), Into::into)
}

fn number(read: std::io::Result<String>) -> Value {
    or_error(read.map(|text| text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)))
}
