//! The system around the probe: mounts, network links, processes, sysctls.
use std::fs;
use std::io;

use serde_json::{Value, json};

use crate::files;

/// The mount table in order (proc_pid_mountinfo(5)).
pub fn mounts() -> io::Result<Value> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(mount).collect())
}

fn mount(line: &str) -> Option<Value> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let filesystem: Vec<&str> = filesystem.split(' ').collect();
    Some(json!({
        "root": mount.get(3)?,
        "point": mount.get(4)?,
        "options": mount.get(5)?.split(',').collect::<Vec<_>>(),
        "propagation": mount.get(6..)?.iter().map(|tag| tag.split(':').next()).collect::<Vec<_>>(),
        "type": filesystem.first()?,
        "source": filesystem.get(1)?,
        "super_options": filesystem.get(2)?.split(',').collect::<Vec<_>>(),
    }))
}

/// The network links of the probe's namespace.
pub fn links() -> io::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    Ok(text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

/// The processes that /proc shows, by number and name.
pub fn processes() -> io::Result<Value> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() {
            found.push(
                json!({ "pid": pid, "name": files::text(&format!("/proc/{pid}/comm")).unwrap_or_default() }),
            );
        }
    }
    Ok(found.into())
}

/// A sysctl by its dotted name.
pub fn sysctl(name: &str) -> io::Result<String> {
    files::text(&format!("/proc/sys/{}", name.replace('.', "/")))
}
