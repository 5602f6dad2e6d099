//! Whether the host passes packets on, which it must for its containers.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::firewall::Others;

/// The file that remembers that it was croft who made the host a router.
const MARK: &str = "made-a-router";

fn setting(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

/// Whether the host has IPv6.
pub fn has_ipv6() -> bool {
    Path::new(&setting("ipv6/conf/all")).exists()
}

/// Makes the host pass packets on. Once croft did it, the firewall drops what is not for its containers, so that the host becomes no
/// router for others.
///
/// # Errors
/// The file that could not be written, and why.
pub fn on(state: &Path) -> Result<(), String> {
    let failed = |name: &str, e: std::io::Error| format!("{}: {e}", setting(name));
    let is_on = |name: &str| match fs::read_to_string(setting(name)) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        Err(e) => Err(failed(name, e)),
    };
    for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        if is_on(name)? {
            continue;
        }
        if name.starts_with("ipv6") {
            keep_advertisements()?;
        }
        fs::write(state.join(MARK), "").map_err(|e| format!("{}: {e}", state.join(MARK).display()))?;
        fs::write(setting(name), "1").map_err(|e| failed(name, e))?;
    }
    Ok(())
}

/// A router does not listen to routers, unless it is told to (2): a host that has its own way out from them would lose it.
fn keep_advertisements() -> Result<(), String> {
    let folder = setting("ipv6/conf");
    for entry in fs::read_dir(&folder).map_err(|e| format!("{folder}: {e}"))?.flatten() {
        let path = entry.path().join("accept_ra");
        if entry.file_name() != "default" && fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
            fs::write(&path, "2").map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether packets that stay on a bridge go through the rules for those that do not (br_netfilter).
pub fn filters_bridges() -> bool {
    let is_on = |name| fs::read_to_string(setting(name)).is_ok_and(|text| text.trim() == "1");
    ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"].into_iter().any(is_on)
}

/// What is done with packets that are not for containers.
pub fn others(state: &Path) -> Others {
    if state.join(MARK).exists() { Others::Drop } else { Others::Pass }
}
