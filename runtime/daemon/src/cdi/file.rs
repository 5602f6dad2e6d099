//! One CDI specification: its fields as SPEC.md has them, and what of them is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

/// A file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Specification {
    cdi_version: String,
    /// `vendor.com/class`.
    pub kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// What a container with any of them needs.
    #[serde(default)]
    pub container_edits: Edits,
}

/// A device.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Its name within the kind.
    pub name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    /// What a container with it needs.
    #[serde(default)]
    pub container_edits: Edits,
}

/// What a container needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Edits {
    /// Environment variables, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Device nodes.
    pub device_nodes: Vec<DeviceNode>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Programs of the host.
    pub hooks: Vec<Hook>,
    /// Network devices of the host (version 1.1).
    pub net_devices: Vec<NetDevice>,
    /// Further groups of its process, in the container's numbers. The text of the specification has both spellings.
    #[serde(alias = "additionalGIDs")]
    pub additional_gids: Vec<u32>,
    /// `linux.intelRdt` of the container's configuration.
    pub intel_rdt: Option<Map<String, Value>>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    /// Where, in the container.
    pub path: String,
    /// Where on the host; the same path without it.
    pub host_path: Option<String>,
    /// `b`, `c` or `u`, which is `c`; as on the host without it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its major number; as on the host without it.
    pub major: Option<u32>,
    /// Its minor number; as on the host without it.
    pub minor: Option<u32>,
    /// Its permissions; as on the host without it.
    pub file_mode: Option<u32>,
    /// What may be done with it: some of `rwm`; all of them without it.
    pub permissions: Option<String>,
    /// Its owner in the container; as on the host without it.
    pub uid: Option<u32>,
    /// Its group in the container; as on the host without it.
    pub gid: Option<u32>,
}

/// A network device of the host, which is the container's as long as that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_interface_name: String,
    /// Its name in the container.
    pub name: String,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// What, of the host.
    pub host_path: String,
    /// Where, in the container.
    pub container_path: String,
    /// Its file system; a bind mount without it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Options, as a container's configuration has them.
    #[serde(default)]
    pub options: Vec<String>,
}

/// A program of the host that is run with the container's state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// When: one of [`HOOKS`].
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// All its words, its name too.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds that it may take; as long as it likes without it.
    pub timeout: Option<u32>,
}

/// When a hook can be run.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Letters of a network device's name (IFNAMSIZ without the zero).
const LONGEST_INTERFACE: usize = 15;

/// Why a file is none.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// It is no JSON of this form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It is no YAML of this form.
    #[error("{0}")]
    Yaml(#[from] yaml_serde::Error),
    /// A field says what it cannot.
    #[error("{field} {value:?}: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it can say.
        why: &'static str,
    },
}

/// Reads a specification and refuses what no container could be made with.
///
/// # Errors
/// [`Malformed`].
pub fn read(path: &Path) -> Result<Specification, Malformed> {
    let text = std::fs::read_to_string(path)?;
    parse(&text, path.extension().is_some_and(|end| end == "json"))
}

/// See [`read`]. YAML unless it `is_json`.
pub fn parse(text: &str, is_json: bool) -> Result<Specification, Malformed> {
    let read: Specification = if is_json { serde_json::from_str(text)? } else { yaml_serde::from_str(text)? };
    read.check()?;
    Ok(read)
}

/// The kind and the name of a device in its full name; none when it is not one.
pub fn qualified(name: &str) -> Option<(&str, &str)> {
    name.split_once('=').filter(|(kind, name)| is_kind(kind) && is_name(name))
}

fn is_kind(kind: &str) -> bool {
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic());
    kind.split_once('/').is_some_and(|(vendor, class)| {
        begins(vendor) && begins(class) && is_word(vendor, "_-.") && is_word(class, "_-.")
    })
}

fn is_name(name: &str) -> bool {
    is_word(name, "_-.:")
}

/// Letters and digits, and some of `further` between them.
fn is_word(text: &str, further: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || further.contains(c))
}

fn refuse(is: bool, field: &'static str, value: &str, why: &'static str) -> Result<(), Malformed> {
    if is { Err(Malformed::Field { field, value: value.to_owned(), why }) } else { Ok(()) }
}

impl Specification {
    fn check(&self) -> Result<(), Malformed> {
        let known = |version: &str| {
            let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
            matches!(
                (numbers.next().flatten(), numbers.next().flatten()),
                (Some(0), Some(3..)) | (Some(1), Some(0 | 1))
            )
        };
        refuse(!known(&self.cdi_version), "cdiVersion", &self.cdi_version, "croft knows 0.3 to 1.1")?;
        refuse(!is_kind(&self.kind), "kind", &self.kind, "VENDOR/CLASS, as nvidia.com/gpu")?;
        refuse(self.devices.is_empty(), "devices", "", "there is none")?;
        let mut names = BTreeSet::new();
        for device in &self.devices {
            refuse(
                !is_name(&device.name),
                "name",
                &device.name,
                "letters and digits, with _, -, . and : between",
            )?;
            refuse(!names.insert(&device.name), "name", &device.name, "two devices have it")?;
            device.container_edits.check()?;
        }
        self.container_edits.check()
    }
}

impl Edits {
    /// Adds those of a device after it; a group of 0 is nothing. Whether they agree: what is there once can be asked for in one way.
    #[must_use]
    pub fn add(&mut self, other: &Edits) -> bool {
        let Edits { env, device_nodes, mounts, hooks, net_devices, additional_gids, intel_rdt } = other;
        self.env.extend(env.iter().cloned());
        self.device_nodes.extend(device_nodes.iter().cloned());
        self.mounts.extend(mounts.iter().cloned());
        self.hooks.extend(hooks.iter().cloned());
        let new = |device: &&NetDevice| !self.net_devices.contains(device);
        let new: Vec<NetDevice> = net_devices.iter().filter(new).cloned().collect();
        self.net_devices.extend(new);
        self.additional_gids.extend(additional_gids.iter().filter(|gid| **gid != 0));
        match (&self.intel_rdt, intel_rdt) {
            (Some(own), Some(theirs)) => own == theirs,
            (_, None) => true,
            (None, Some(_)) => {
                self.intel_rdt.clone_from(intel_rdt);
                true
            }
        }
    }

    fn check(&self) -> Result<(), Malformed> {
        let absolute = |field, path: &str| refuse(!path.starts_with('/'), field, path, "is no absolute path");
        for variable in &self.env {
            let fine = variable.split_once('=').is_some_and(|(name, _)| !name.is_empty());
            refuse(!fine, "env", variable, "NAME=VALUE")?;
        }
        for node in &self.device_nodes {
            absolute("deviceNodes.path", &node.path)?;
            node.host_path.iter().try_for_each(|path| absolute("deviceNodes.hostPath", path))?;
            let kind = node.kind.as_deref().unwrap_or("c");
            refuse(!matches!(kind, "b" | "c" | "u"), "deviceNodes.type", kind, "b, c or u")?;
            let access = node.permissions.as_deref().unwrap_or("rwm");
            let fine = access.chars().all(|letter| "rwm".contains(letter)) && !access.is_empty();
            refuse(!fine, "deviceNodes.permissions", access, "some of r, w and m")?;
        }
        for mount in &self.mounts {
            absolute("mounts.containerPath", &mount.container_path)?;
            refuse(mount.host_path.is_empty(), "mounts.hostPath", "", "what of the host")?;
        }
        for NetDevice { host_interface_name, name } in &self.net_devices {
            for (field, name) in
                [("netDevices.hostInterfaceName", host_interface_name), ("netDevices.name", name)]
            {
                let fits = (1..=LONGEST_INTERFACE).contains(&name.len());
                let fine = fits && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
                refuse(!fine || name == "." || name == "..", field, name, "the name of a network device")?;
            }
        }
        for hook in &self.hooks {
            let name = hook.hook_name.as_str();
            refuse(
                !HOOKS.contains(&name),
                "hooks.hookName",
                name,
                "a hook of the OCI runtime specification",
            )?;
            absolute("hooks.path", &hook.path)?;
            refuse(hook.timeout == Some(0), "hooks.timeout", "0", "seconds, one at least")?;
        }
        Ok(())
    }
}
