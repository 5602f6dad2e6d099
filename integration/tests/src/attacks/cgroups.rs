//! The host's control groups, seen through a bind of its /sys.
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use croft_harness::{Bundle, Host};
use rustix::fs::{Gid, Uid, chown};
use serde_json::json;

use super::succeeded;

/// A group that belongs to an ordinary user, removed when dropped.
struct Delegated(PathBuf);

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("evil"));
        let _ = fs::remove_dir(&self.0);
    }
}

/// CVE-2023-25809 (runc): without a cgroup namespace, a rootless container's /sys was a recursive bind whose "ro" did not reach
/// /sys/fs/cgroup below it, so that the container changed the user's control groups on the host.
pub fn cve_2023_25809(host: &Host) -> Result<()> {
    const USER: u32 = 231_000;
    let cgroup2 = host.cgroup2.clone().context("cgroup2 is mounted")?;
    let group = Delegated(cgroup2.join(format!("croft-delegated-{}", std::process::id())));
    fs::create_dir(&group.0)?;
    chown(&group.0, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER)))?;
    let evil = group.0.join("evil");
    let mut bundle = Bundle::shell(host, &format!("mkdir {}", evil.display()))?;
    let mapping = json!([{ "containerID": 0, "hostID": USER, "size": 1000 }]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().context("namespaces is a list")?;
    namespaces.push(json!({ "type": "user" }));
    let mounts = bundle.config["mounts"].as_array_mut().context("mounts is a list")?;
    for sys in mounts.iter_mut().filter(|m| m["destination"] == "/sys") {
        *sys = json!({
            "destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
        });
    }
    let out = bundle.run()?;
    anyhow::ensure!(!out.stderr.contains("level=error"), "the container did not come up: {out}");
    if evil.exists() {
        return Err(succeeded(format_args!("the container has made {}", evil.display())));
    }
    Ok(())
}
