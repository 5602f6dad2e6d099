//! `features`: what this build can do, whatever the host and the container; see runtime-spec features.md.

use croft_plan::spec::{NamespaceKind, OCI_VERSION, capability_name, mount_options};
use croft_sys::{sched, seccomp};
use serde_json::{Value, json};

/// The flags of a filter that a configuration may ask for.
const FILTER_FLAGS: [(&str, seccomp::FilterFlags); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", seccomp::FilterFlags::TSYNC),
    ("SECCOMP_FILTER_FLAG_LOG", seccomp::FilterFlags::LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", seccomp::FilterFlags::SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", seccomp::FilterFlags::WAIT_KILLABLE_RECV),
];

/// The features, as features.md has them. Lists come from the tables that the rest of the code works by.
pub fn features() -> Value {
    let mut namespaces = NamespaceKind::ALL.map(NamespaceKind::name);
    namespaces.sort_unstable();
    let capabilities: Vec<&str> = (0..).map_while(capability_name).collect();
    let names = |table: &[(&'static str, u32)]| table.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let flags: Vec<&str> = sched::MEMORY_FLAGS.iter().map(|(name, _)| *name).collect();
    let mut features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options(),
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": filters(),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true },
            "memoryPolicy": { "modes": names(&sched::MEMORY_MODES), "flags": flags },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": ["bundle", "org.systemd.property."],
    });
    if let Some(version) = libseccomp_version() {
        features["annotations"]["io.github.seccomp.libseccomp.version"] = version.into();
    }
    features
}

fn filters() -> Value {
    let known = FILTER_FLAGS.map(|(name, _)| name);
    let supported: Vec<&str> = FILTER_FLAGS
        .iter()
        .filter(|(_, flag)| seccomp::knows_flags(*flag).unwrap_or(false))
        .map(|(name, _)| *name)
        .collect();
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        "archs": [
            "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32",
            "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64",
            "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_X32",
            "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
        ],
        "knownFlags": known,
        "supportedFlags": supported,
    })
}

/// The version of the library that compiles filters, such as `2.5.4`.
pub fn libseccomp_version() -> Option<String> {
    let version = libseccomp::ScmpVersion::current().ok()?;
    Some(format!("{}.{}.{}", version.major, version.minor, version.micro))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_specification() {
        let features = features();
        let parsed: oci_spec::runtime::Features = serde_json::from_value(features.clone()).unwrap();
        assert_eq!(parsed.oci_version_max(), OCI_VERSION);
        let linux = &features["linux"];
        assert_eq!(linux["capabilities"][40], "CAP_CHECKPOINT_RESTORE");
        assert!(linux["namespaces"].as_array().unwrap().contains(&"time".into()));
        assert!(features["mountOptions"].as_array().unwrap().contains(&"rnosymfollow".into()));
    }
}
