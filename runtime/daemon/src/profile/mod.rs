//! What a container may do unless it is asked otherwise: capabilities, system calls, devices, what of /proc and /sys it sees.
//!
//! The lists are those that Docker's users are used to, and a little shorter: a container has its own user namespace here, and what only
//! helps to make further ones is left out. A call that is not in them, and every call newer than them, gets ENOSYS, so that a C
//! library falls back instead of giving up.

mod custom;

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub use custom::custom;

/// The capabilities of a container, without `CAP_`.
pub const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Every capability of Linux (capabilities(7)), without `CAP_`.
pub const ALL_CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// The system calls that every container may make, one a line.
const SYSCALLS: &str = include_str!("syscalls.txt");

/// The system calls that a capability is good for.
const WITH: [(&str, &[&str]); 9] = [
    (
        "SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("SYS_CHROOT", &["chroot"]),
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("SYS_PACCT", &["acct"]),
    ("SYS_RAWIO", &["ioperm", "iopl"]),
    ("SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("BPF", &["bpf"]),
];

/// The flags of clone(2) that make namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The personalities of personality(2) that programs use: Linux, with and without a name of 2.6, and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// ENOSYS, as a filter's answer.
const ENOSYS: u32 = 38;

/// `linux.seccomp` for a container with these capabilities.
pub fn seccomp(capabilities: &BTreeSet<String>) -> Value {
    let mut rules = vec![json!({"names": SYSCALLS.lines().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"})];
    for (capability, calls) in WITH.iter().filter(|(capability, _)| capabilities.contains(*capability)) {
        debug_assert!(ALL_CAPABILITIES.contains(capability));
        rules.push(json!({"names": calls, "action": "SCMP_ACT_ALLOW"}));
    }
    if !capabilities.contains("SYS_ADMIN") {
        // clone3 has its flags in memory, where no filter sees them: it is not there, and the C library takes clone.
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}));
    }
    for personality in PERSONALITIES {
        rules.push(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": personality, "op": "SCMP_CMP_EQ"}]}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// What of /proc and /sys a container does not see.
pub const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What of /proc a container cannot write.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(capabilities: &[&str]) -> BTreeSet<String> {
        let profile = seccomp(&capabilities.iter().map(|c| (*c).to_owned()).collect());
        let rules = profile["syscalls"].as_array().unwrap().iter().filter(|rule| rule["args"].is_null());
        rules
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|n| n.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn what_leads_out_needs_its_capability() {
        let usual = allowed(&CAPABILITIES);
        for call in
            ["mount", "unshare", "setns", "bpf", "init_module", "keyctl", "kexec_load", "reboot", "clone3"]
        {
            assert!(!usual.contains(call), "{call}");
        }
        assert!(
            ["read", "execve", "socket", "chroot", "futex_waitv"].iter().all(|call| usual.contains(*call))
        );
        assert!(allowed(&["SYS_ADMIN"]).contains("mount") && !allowed(&[]).contains("chroot"));
    }

    #[test]
    fn the_lists_are_in_order_and_have_everything_once() {
        assert!(SYSCALLS.lines().is_sorted_by(|a, b| a < b) && ALL_CAPABILITIES.is_sorted_by(|a, b| a < b));
        assert!(CAPABILITIES.iter().all(|c| ALL_CAPABILITIES.contains(c)));
    }
}
