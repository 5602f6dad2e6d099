//! `spec`: a configuration to start from.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use croft_engine::error::Reason;
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::SpecArgs;

/// Writes `config.json` into the bundle, where there is none.
pub fn run(args: &SpecArgs) -> Result<ExitCode> {
    let path = args.bundle.join("config.json");
    if path.exists() {
        bail!("spec: file {} exists. Remove it first", path.display());
    }
    let mut config: Value =
        serde_json::from_str(include_str!("spec.json")).context("the built-in config.json")?;
    config["ociVersion"] = croft_plan::spec::OCI_VERSION.into();
    if is_unified() {
        namespaces(&mut config).push(json!({ "type": "cgroup" }));
    }
    if args.rootless {
        make_rootless(&mut config);
    }
    std::fs::write(&path, text(&config)?)
        .map_err(Reason::from)
        .with_context(|| format!("spec: write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// As runc writes it: indented by tabs.
fn text(config: &Value) -> Result<String> {
    let mut text = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    Ordered(config).serialize(&mut serde_json::Serializer::with_formatter(&mut text, form))?;
    text.push(b'\n');
    Ok(String::from_utf8(text)?)
}

/// The specification's order, which people read it in.
const ORDER: &[&str] = &[
    "ociVersion",
    "process",
    "root",
    "hostname",
    "mounts",
    "linux",
    "terminal",
    "user",
    "args",
    "env",
    "cwd",
    "capabilities",
    "rlimits",
    "noNewPrivileges",
    "destination",
    "type",
    "source",
    "options",
    "uidMappings",
    "gidMappings",
    "resources",
    "namespaces",
    "maskedPaths",
    "readonlyPaths",
    "containerID",
    "hostID",
    "size",
];

/// JSON whose objects are written in that order.
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(list) => to.collect_seq(list.iter().map(Ordered)),
            Value::Object(map) => {
                let mut entries: Vec<(&String, Ordered<'_>)> =
                    map.iter().map(|(k, v)| (k, Ordered(v))).collect();
                entries.sort_by_key(|(key, _)| ORDER.iter().position(|name| name == key));
                to.collect_map(entries)
            }
            plain => plain.serialize(to),
        }
    }
}

/// A host without v1 hierarchies shows a container its own group only through a cgroup namespace.
fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn namespaces(config: &mut Value) -> &mut Vec<Value> {
    config["linux"]["namespaces"].as_array_mut().expect("the built-in config.json has namespaces")
}

/// What an ordinary user can have: its own id as root, the host's network and /sys, no limits.
fn make_rootless(config: &mut Value) {
    let list = namespaces(config);
    list.retain(|ns| ns["type"] != "network" && ns["type"] != "user");
    list.push(json!({ "type": "user" }));
    let (uid, gid) = croft_engine::own_ids();
    config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    if let Some(linux) = config["linux"].as_object_mut() {
        linux.remove("resources");
    }
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
        }
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            // The ids that these name are not mapped.
            options.retain(|o| !o.as_str().is_some_and(|o| o.starts_with("uid=") || o.starts_with("gid=")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in() -> Value {
        serde_json::from_str(include_str!("spec.json")).unwrap()
    }

    #[test]
    fn the_text_is_a_configuration_in_the_order_of_the_specification() {
        let text = text(&built_in()).unwrap();
        croft_plan::spec::Spec::parse(text.as_bytes()).unwrap();
        assert!(text.find("\"process\"") < text.find("\"mounts\""), "{text}");
        assert!(text.starts_with("{\n\t\"ociVersion\""), "{text}");
    }

    #[test]
    fn an_ordinary_user_is_root_inside() {
        let mut config = built_in();
        make_rootless(&mut config);
        let spec = croft_plan::spec::Spec::parse(text(&config).unwrap().as_bytes()).unwrap();
        assert!(spec.linux.has_new_user_namespace());
        assert_eq!((spec.linux.uid_mappings.len(), spec.linux.uid_mappings[0].size), (1, 1));
        assert!(!config.to_string().contains("gid=5") && !config.to_string().contains("network"));
    }
}
