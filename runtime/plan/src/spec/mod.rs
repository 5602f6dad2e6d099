//! `config.json` parsed once into values where nothing is "absent" any more.
//!
//! oci-spec does the parsing; what it keeps optional is resolved here, so that the rest of the crate asks no question twice.
//! Names that only a newer kernel or spec knows (capabilities, architectures, rlimits) become warnings, as in runc.

mod capabilities;
mod hooks;
mod lenient;
mod linux;
mod mounts;
mod process;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

pub use capabilities::{Capabilities, capability_name, capability_number, parse_capability};
pub use hooks::{Hook, HookPoint, Hooks};
pub use linux::{Device, DeviceKind, IdMapping, Linux, Namespace, NamespaceKind, Namespaces, TimeOffset};
pub use mounts::{Attributes, Idmap, Mount, MountKind, Options, Propagation, mount_options};
pub use process::{ConsoleSize, Process, Rlimit, Terminal, User};

/// The newest runtime-spec that this crate implements.
pub const OCI_VERSION: &str = "1.3.0";

/// A container's configuration, resolved.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The root folder, as written: absolute or relative to the bundle.
    pub root: PathBuf,
    /// Whether the root is to be read-only.
    pub root_readonly: bool,
    /// The container's own process.
    pub process: Process,
    /// The host name in a new uts namespace.
    pub hostname: Option<String>,
    /// The NIS domain name in a new uts namespace.
    pub domainname: Option<String>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Programs that run at points of the life cycle.
    pub hooks: Hooks,
    /// Free-form notes, passed on in the state.
    pub annotations: BTreeMap<String, String>,
    /// What is particular to Linux.
    pub linux: Linux,
    /// What was ignored, in words for the user.
    pub warnings: Vec<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The text is not JSON, or not of the spec's shape.
    #[error("{0}")]
    Parse(String),
    /// A property has not the type that it must have.
    #[error("{property}: {why}")]
    Shape {
        /// The property's path, such as `process.args`.
        property: String,
        /// What was expected there.
        why: String,
    },
    /// A property that is needed is not there.
    #[error("{0} must not be empty")]
    Missing(&'static str),
    /// A property has a value that cannot be.
    #[error("{property} {value:?}: {why}")]
    Invalid {
        /// The property's path, such as `process.cwd`.
        property: String,
        /// What was written.
        value: String,
        /// Why that cannot be.
        why: &'static str,
    },
}

impl SpecError {
    pub(crate) fn invalid(
        property: impl Into<String>,
        value: impl std::fmt::Display,
        why: &'static str,
    ) -> Self {
        SpecError::Invalid { property: property.into(), value: short(value.to_string()), why }
    }
}

/// A text for a message: what the user wrote may be of any length.
fn short(text: String) -> String {
    const LONGEST: usize = 400;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

impl Spec {
    /// Parses and resolves the bytes of a `config.json`.
    ///
    /// # Errors
    /// When the text is not a configuration, or one that no host could satisfy.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        let (raw, warnings) = lenient::parse::<oci_spec::runtime::Spec>(bytes, |spec| {
            spec.linux().as_ref().and_then(|l| l.resources().as_ref()).is_some_and(pids_may_be_unset)
        })?;
        check_version(raw.version())?;
        let root = raw.root().as_ref().ok_or(SpecError::Missing("root"))?;
        if root.path().as_os_str().is_empty() {
            return Err(SpecError::Missing("root.path"));
        }
        let mounts = raw.mounts().iter().flatten().map(Mount::resolve).collect::<Result<_, _>>()?;
        let annotations = raw.annotations().iter().flatten();
        let spec = Spec {
            root: root.path().clone(),
            root_readonly: root.readonly().unwrap_or(false),
            process: raw.process().as_ref().map_or_else(|| Ok(Process::unset()), Process::resolve)?,
            hostname: uts_name("hostname", raw.hostname())?,
            domainname: uts_name("domainname", raw.domainname())?,
            mounts,
            hooks: Hooks::resolve(raw.hooks().as_ref())?,
            annotations: annotations.map(|(k, v)| (k.clone(), v.clone())).collect(),
            linux: Linux::resolve(raw.linux().as_ref())?,
            warnings,
        };
        Ok(spec)
    }
}

/// Parses the `process` of `exec --process`. What it leaves out of limits and labels comes from the container's `own`
/// process, as with runc.
///
/// # Errors
/// As [`Spec::parse`].
pub fn parse_process(bytes: &[u8], own: &Process) -> Result<(Process, Vec<String>), SpecError> {
    let (raw, warnings) = lenient::parse::<oci_spec::runtime::Process>(bytes, |_| false)?;
    let mut process = Process::resolve(&raw)?;
    if raw.capabilities().is_none() {
        process.capabilities = own.capabilities;
    }
    if process.rlimits.is_empty() {
        process.rlimits = own.rlimits.clone();
    }
    process.apparmor_profile = process.apparmor_profile.or_else(|| own.apparmor_profile.clone());
    process.selinux_label = process.selinux_label.or_else(|| own.selinux_label.clone());
    process.oom_score_adj = process.oom_score_adj.or(own.oom_score_adj);
    process.io_priority = process.io_priority.or(own.io_priority);
    process.scheduler = process.scheduler.or_else(|| own.scheduler.clone());
    process.exec_cpu_affinity = process.exec_cpu_affinity.or_else(|| own.exec_cpu_affinity.clone());
    Ok((process, warnings))
}

/// Parses the resources of `update --resources`.
///
/// # Errors
/// When the text is not a `linux.resources` object.
pub fn parse_resources(bytes: &[u8]) -> Result<oci_spec::runtime::LinuxResources, SpecError> {
    lenient::parse(bytes, pids_may_be_unset).map(|(resources, _)| resources)
}

/// oci-spec reads a `pids` without a limit as a limit of 0.
fn pids_may_be_unset(resources: &oci_spec::runtime::LinuxResources) -> bool {
    resources.pids().as_ref().is_some_and(|pids| pids.limit() == 0)
}

/// A name of the uts namespace: see sethostname(2) for its length.
fn uts_name(property: &str, name: &Option<String>) -> Result<Option<String>, SpecError> {
    match name {
        Some(name) if name.len() > 64 => {
            Err(SpecError::invalid(property, name, "is longer than the 64 bytes that the kernel takes"))
        }
        Some(name) if name.contains('\0') => Err(SpecError::invalid(property, name, "has a NUL byte")),
        name => Ok(name.clone().filter(|s| !s.is_empty())),
    }
}

fn check_version(version: &str) -> Result<(), SpecError> {
    if version.is_empty() {
        return Err(SpecError::Missing("ociVersion"));
    }
    let number = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<Option<u32>> = number.split('.').map(|p| p.parse().ok()).collect();
    match parts[..] {
        [Some(1), Some(_), Some(_)] => Ok(()),
        [Some(_), Some(_), Some(_)] => {
            Err(SpecError::invalid("ociVersion", version, "croft implements runtime-spec 1.x"))
        }
        _ => Err(SpecError::invalid("ociVersion", version, "is not a version such as 1.3.0")),
    }
}

/// `path` made absolute, without `.`, `..` or repeated slashes, as if `/` were the container's root.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_paths() {
        for (raw, want) in [("a//b/./c", "/a/b/c"), ("/a/../../b", "/b"), ("", "/"), ("/", "/")] {
            assert_eq!(clean(Path::new(raw)), Path::new(want), "{raw}");
        }
    }

    /// The own process of a container.
    fn own() -> Process {
        let text =
            br#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"user":{"uid":0,"gid":0},"cwd":"/",
            "args":["sh"],"capabilities":{"bounding":["CAP_KILL"]},"oomScoreAdj":7,
            "rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":1}]}}"#;
        Spec::parse(text).unwrap().process
    }

    #[test]
    fn a_further_process_has_the_limits_of_the_container_unless_it_says_otherwise() {
        let (like, _) =
            parse_process(br#"{"user":{"uid":0,"gid":0},"cwd":"/","args":["x"]}"#, &own()).unwrap();
        assert_eq!(
            (like.capabilities.bounding, like.rlimits.len(), like.oom_score_adj),
            (1 << 5, 1, Some(7))
        );
        let text = br#"{"user":{"uid":0,"gid":0},"cwd":"/","args":["x"],"capabilities":{},"oomScoreAdj":8}"#;
        let (other, _) = parse_process(text, &own()).unwrap();
        assert_eq!((other.capabilities.bounding, other.oom_score_adj), (0, Some(8)));
    }

    #[test]
    fn versions() {
        for good in ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.9+x"] {
            assert_eq!(check_version(good), Ok(()), "{good}");
        }
        for bad in ["", "2.0.0", "0.9.0", "1.0", "one"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pids_without_a_limit_ask_for_nothing() {
        assert!(parse_resources(br#"{"pids":{}}"#).unwrap().pids().is_none());
        assert_eq!(parse_resources(br#"{"pids":{"limit":0}}"#).unwrap().pids().unwrap().limit(), 0);
    }

    #[test]
    fn scheduler_flags_have_the_names_of_the_spec() {
        let text = br#"{"user":{"uid":0,"gid":0},"cwd":"/","args":["x"],
            "scheduler":{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"]}}"#;
        let (process, _) = parse_process(text, &own()).unwrap();
        assert_eq!(process.scheduler.unwrap().flags().as_ref().unwrap().len(), 2);
    }

    #[test]
    fn an_unknown_capability_is_a_warning() {
        let text =
            br#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"user":{"uid":0,"gid":0},"cwd":"/",
            "args":["sh"],"capabilities":{"bounding":["CAP_KILL","CAP_FUTURE"]}}}"#;
        let spec = Spec::parse(text).unwrap();
        assert_eq!(spec.process.capabilities.bounding, 1 << 5);
        assert_eq!(spec.warnings.len(), 1);
        assert!(spec.warnings[0].contains("CAP_FUTURE"), "{:?}", spec.warnings);
    }
}
