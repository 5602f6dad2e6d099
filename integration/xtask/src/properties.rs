//! `cargo xtask properties`: lists the properties of the runtime-spec's JSON schema that concern Linux.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use croft_harness::debian;
use serde_json::Value;

use crate::project;

/// Lists the properties of the runtime-spec's JSON schema that concern Linux, in integration/tests/schema-properties.txt,
/// from the newest runtime-spec that Debian has.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

const PACKAGE: &str = "golang-github-opencontainers-specs";

/// What runtime-spec 1.3 adds for Linux; Debian has 1.2.1.
const ADDED_BY_1_3: [&str; 6] = [
    "linux.intelRdt.enableMonitoring",
    "linux.intelRdt.schemata",
    "linux.memoryPolicy.flags",
    "linux.memoryPolicy.mode",
    "linux.memoryPolicy.nodes",
    "linux.netDevices.*.name",
];

/// Other systems' parts of a configuration.
const OTHER_SYSTEMS: [&str; 4] = ["solaris", "vm", "windows", "zos"];

const HEAD: &str = "# The properties of a container's configuration on Linux (runtime-spec). Made by `cargo xtask properties`.
# `[]` is each element of a list, `*` each value of a map.
";

/// Fetches the schema, walks it, and writes the list.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    let source = tempfile::tempdir().context("folder for the schema")?;
    debian::fetch_source(PACKAGE, &["sid", "trixie"], source.path())?;
    let mut schema = Schema { files: BTreeMap::new(), found: BTreeSet::new() };
    schema.load(&source.path().join("schema"))?;
    let root = schema.node("config-schema.json", "")?;
    schema.walk("config-schema.json", &root, "")?;
    schema.found.extend(ADDED_BY_1_3.map(str::to_owned));
    let list: String = schema.found.iter().map(|property| format!("{property}\n")).collect();
    let file = project::checkout()?.join("integration/tests/schema-properties.txt");
    fs::write(&file, format!("{HEAD}{list}")).with_context(|| format!("write {}", file.display()))?;
    println!("{} properties in {}", schema.found.len(), file.display());
    Ok(ExitCode::SUCCESS)
}

/// The files of a JSON schema, and the properties without further properties that were found in it.
struct Schema {
    files: BTreeMap<String, Value>,
    found: BTreeSet<String>,
}

impl Schema {
    fn load(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path)?;
                let value = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.files.insert(name, value);
            }
        }
        Ok(())
    }

    /// The node of a file at a JSON pointer.
    fn node(&self, file: &str, pointer: &str) -> Result<Value> {
        let found = self.files.get(file).and_then(|value| value.pointer(pointer));
        Ok(found.with_context(|| format!("{file} has no {pointer:?}"))?.clone())
    }

    /// Whether there are properties below this node; those without any below them are kept.
    fn walk(&mut self, file: &str, node: &Value, path: &str) -> Result<bool> {
        if let Some(reference) = node["$ref"].as_str() {
            let (other, pointer) = reference.split_once('#').unwrap_or((reference, ""));
            let other = if other.is_empty() { file } else { other };
            let target = self.node(other, pointer)?;
            return self.walk(other, &target, path);
        }
        let mut has_any = false;
        for list in ["allOf", "anyOf", "oneOf"] {
            for choice in node[list].as_array().into_iter().flatten() {
                has_any |= self.walk(file, choice, path)?;
            }
        }
        for (name, below) in node["properties"].as_object().into_iter().flatten() {
            if path.is_empty() && OTHER_SYSTEMS.contains(&name.as_str()) {
                continue;
            }
            let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if !self.walk(file, below, &full)? {
                self.found.insert(full);
            }
            has_any = true;
        }
        for pattern in node["patternProperties"].as_object().into_iter().flat_map(|map| map.values()) {
            has_any |= self.walk(file, pattern, &format!("{path}.*"))?;
        }
        for (key, below) in [("items", "[]"), ("additionalProperties", ".*")] {
            if node[key].is_object() {
                has_any |= self.walk(file, &node[key], &format!("{path}{below}"))?;
            }
        }
        Ok(has_any)
    }
}
