//! Capability names and sets; see capabilities(7).

/// The kernel's capabilities; the index is the number (linux/capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets as bits; bit n is capability number n. A set that the configuration lacks is empty, as in runc.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The most that may ever be gained.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Kept over exec of a file that has them inheritable.
    pub inheritable: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over exec of any file.
    pub ambient: u64,
}

/// The number of `name`, such as `CAP_KILL`, where the kernel header of this build knows it.
pub fn capability_number(name: &str) -> Option<u32> {
    NAMES.iter().position(|n| *n == name).map(|n| n as u32)
}

/// The name of capability `number`.
pub fn capability_name(number: u32) -> Option<&'static str> {
    NAMES.get(number as usize).copied()
}

/// Reads a name as a person types it: any case, with or without `CAP_`.
pub fn parse_capability(text: &str) -> Option<u32> {
    let upper = text.to_ascii_uppercase();
    capability_number(&upper).or_else(|| capability_number(&format!("CAP_{upper}")))
}

impl Capabilities {
    pub(crate) fn resolve(raw: Option<&oci_spec::runtime::LinuxCapabilities>) -> Self {
        let Some(raw) = raw else { return Self::default() };
        let bits = |set: &Option<oci_spec::runtime::Capabilities>| {
            set.iter().flatten().filter_map(|c| number_of(*c)).fold(0, |bits, n| bits | 1 << n)
        };
        Self {
            bounding: bits(raw.bounding()),
            effective: bits(raw.effective()),
            inheritable: bits(raw.inheritable()),
            permitted: bits(raw.permitted()),
            ambient: bits(raw.ambient()),
        }
    }
}

fn number_of(capability: oci_spec::runtime::Capability) -> Option<u32> {
    let name = capability.to_string();
    capability_number(&name).or_else(|| parse_capability(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_oci_spec_has_its_number() {
        for (number, name) in NAMES.iter().enumerate() {
            let parsed: oci_spec::runtime::Capability =
                serde_json::from_value(serde_json::Value::String((*name).to_owned())).unwrap();
            assert_eq!(number_of(parsed), Some(number as u32), "{name}");
        }
        assert_eq!(parse_capability("net_raw"), Some(13));
    }
}
