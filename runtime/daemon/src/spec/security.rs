//! What holds a container back: capabilities, system calls, labels, hidden paths.

use std::collections::BTreeSet;

use croft_api::container::{Config, Seccomp, SystemPaths};
use serde_json::{Value, json};

use super::Invalid;
use crate::profile;

/// Its capabilities, without `CAP_`.
pub fn capabilities(config: &Config) -> Result<BTreeSet<String>, Invalid> {
    let known = |name: &String| {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name).to_owned();
        let is_known = name == "ALL" || profile::ALL_CAPABILITIES.contains(&name.as_str());
        if is_known { Ok(name) } else { Err(Invalid::Capability(name)) }
    };
    let add: Vec<String> = config.cap_add.iter().map(known).collect::<Result<_, _>>()?;
    let drop: Vec<String> = config.cap_drop.iter().map(known).collect::<Result<_, _>>()?;
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut set: BTreeSet<String> = match (all(&add) || config.privileged, all(&drop)) {
        (true, _) => profile::ALL_CAPABILITIES.map(str::to_owned).into(),
        (false, true) => BTreeSet::new(),
        (false, false) => profile::CAPABILITIES.map(str::to_owned).into(),
    };
    set.retain(|name| !drop.contains(name));
    set.extend(add.into_iter().filter(|name| name != "ALL" && !drop.contains(name)));
    Ok(set)
}

/// Everything else, into `process` and `linux`.
pub fn confine(
    config: &Config,
    capabilities: &BTreeSet<String>,
    kernel: (u32, u32),
    process: &mut Value,
    linux: &mut Value,
) -> Result<(), Invalid> {
    let security = &config.security;
    process["noNewPrivileges"] = json!(security.no_new_privileges);
    if let Some(profile) = &security.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = selinux_label(&security.label)? {
        process["selinuxLabel"] = json!(label);
    }
    let filter = match &security.seccomp {
        Seccomp::Default if config.privileged => None,
        Seccomp::Default => Some(profile::seccomp(capabilities)),
        Seccomp::Unconfined => None,
        Seccomp::Profile(asked) => {
            let read = profile::custom(asked, capabilities, kernel);
            let invalid = |why| Invalid::Value { what: "security-opt", value: "seccomp".to_owned(), why };
            Some(read.map_err(invalid)?)
        }
    };
    if let Some(filter) = filter {
        linux["seccomp"] = filter;
    }
    if !config.privileged && security.system_paths == SystemPaths::Masked {
        linux["maskedPaths"] = json!(profile::MASKED);
        linux["readonlyPaths"] = json!(profile::READ_ONLY);
    }
    Ok(())
}

/// The label that these parts make up: `user:role:type:level`. None without parts, or with `disable`.
fn selinux_label(parts: &[String]) -> Result<Option<String>, Invalid> {
    if parts.is_empty() || parts.iter().any(|part| part == "disable") {
        return Ok(None);
    }
    let mut label = ["system_u", "system_r", "container_t", "s0"].map(str::to_owned);
    for part in parts {
        let at = |name: &str| ["user", "role", "type", "level"].iter().position(|known| *known == name);
        let known = part.split_once(':').and_then(|(name, value)| Some((at(name)?, value)));
        let (at, value) = known.ok_or_else(|| Invalid::Value {
            what: "security-opt label",
            value: part.clone(),
            why: "disable, or user:, role:, type: or level: with a value".to_owned(),
        })?;
        value.clone_into(&mut label[at]);
    }
    Ok(Some(label.join(":")))
}
