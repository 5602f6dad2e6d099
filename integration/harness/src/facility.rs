//! What a test needs of its host, checked before it runs; a host that lacks it ignores the test by name.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::debian;
use crate::host::Host;
use crate::{process, python};

/// One thing that a host may have or lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// The suite runs as root.
    Root,
    /// cgroup2 alone, with no v1 hierarchy.
    UnifiedCgroups,
    /// cgroup2 beside v1 hierarchies.
    HybridCgroups,
    /// This controller on v1.
    ControllerV1(&'static str),
    /// This controller on cgroup2.
    ControllerV2(&'static str),
    /// This controller, on whichever hierarchy.
    Controller(&'static str),
    /// A capability of the suite, by name and number (capability.h).
    Capability(&'static str, u32),
    /// systemd is the host's init.
    Systemd,
    /// A namespace kind by its name in `/proc/self/ns`.
    Namespace(&'static str),
    /// Processes other than root's may make user namespaces.
    UserNamespaces,
    /// AppArmor is on.
    AppArmor,
    /// SELinux is on.
    SeLinux,
    /// Seccomp filters.
    Seccomp,
    /// Resource control by Intel RDT is mounted.
    IntelRdt,
    /// Mounts with a mapping of their own on tmpfs (kernel 6.3).
    IdmappedTmpfs,
    /// The kernel is at least this version.
    Kernel(u32, u32),
    /// A program in `PATH`.
    Program(&'static str),
    /// Debian packages; they are installed where they can be.
    Packages(&'static [&'static str]),
    /// schemathesis, of the Python Package Index; it is fetched where it can be.
    Schemathesis,
    /// A file or folder of the host.
    Path(&'static str),
    /// A processor that is not emulated: for what takes minutes in the virtual machine and shows nothing new there.
    NotEmulated,
    /// A machine that is thrown away after the tests: for what installs services, or changes the machine's files.
    Disposable,
    /// At least this many processors.
    Processors(usize),
}

impl Facility {
    /// CAP_SYS_RESOURCE: needed to raise a hard limit or lower an oom score.
    pub const SYS_RESOURCE: Self = Self::Capability("CAP_SYS_RESOURCE", 24);
    /// CAP_SYS_NICE: needed for real-time scheduling.
    pub const SYS_NICE: Self = Self::Capability("CAP_SYS_NICE", 23);

    /// Why `host` lacks this, or `None` when it has it.
    pub fn missing(self, host: &Host) -> Option<String> {
        let (present, what) = match self {
            Self::Root => (rustix::process::geteuid().is_root(), "root".to_owned()),
            Self::UnifiedCgroups => (host.is_unified(), "cgroup2 alone".to_owned()),
            Self::HybridCgroups => (host.is_hybrid(), "cgroup v1 beside cgroup2".to_owned()),
            Self::ControllerV1(c) => (host.cgroup1.contains_key(c), format!("controller {c} on cgroup v1")),
            Self::ControllerV2(c) => {
                let on_v2 = host.cgroup2.is_some() && host.hierarchy_of(c) == host.cgroup2.as_deref();
                (on_v2, format!("controller {c} on cgroup2"))
            }
            Self::Controller(c) => (host.hierarchy_of(c).is_some(), format!("controller {c}")),
            Self::Capability(name, bit) => (host.capabilities & (1 << bit) != 0, name.to_owned()),
            Self::Systemd => (Path::new("/run/systemd/system").exists(), "systemd as init".to_owned()),
            Self::Namespace(n) => (Path::new("/proc/self/ns").join(n).exists(), format!("{n} namespaces")),
            Self::UserNamespaces => (user_namespaces(), "user namespaces for ordinary users".to_owned()),
            Self::AppArmor => (reads("/sys/module/apparmor/parameters/enabled", "Y"), "AppArmor".to_owned()),
            Self::SeLinux => (Path::new("/sys/fs/selinux/enforce").exists(), "SELinux".to_owned()),
            Self::Seccomp => (Path::new("/proc/sys/kernel/seccomp").exists(), "seccomp".to_owned()),
            Self::IntelRdt => (Path::new("/sys/fs/resctrl/schemata").exists(), "Intel RDT".to_owned()),
            Self::IdmappedTmpfs => (kernel() >= (6, 3), "idmapped mounts on tmpfs (kernel 6.3)".to_owned()),
            Self::Kernel(major, minor) => (kernel() >= (major, minor), format!("kernel {major}.{minor}")),
            Self::Program(name) => (in_path(name), format!("program {name}")),
            Self::Packages(names) => {
                (debian::ensure_packages(names).is_ok(), format!("packages {}", names.join(" ")))
            }
            Self::Schemathesis => {
                (python::schemathesis().is_ok(), "schemathesis of the Python Package Index".to_owned())
            }
            Self::Path(path) => (Path::new(path).exists(), path.to_owned()),
            Self::NotEmulated => (!emulated(), "a processor that is not emulated".to_owned()),
            Self::Disposable => (emulated(), "a machine that is thrown away".to_owned()),
            Self::Processors(n) => (
                std::thread::available_parallelism().is_ok_and(|have| have.get() >= n),
                format!("{n} processors"),
            ),
        };
        (!present).then_some(what)
    }
}

fn reads(path: &str, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|s| s.trim() == text)
}

/// Whether QEMU emulates the processor (TCG), rather than the hardware running it.
pub fn emulated() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}

fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|d| d.join(program).exists()))
}

/// The running kernel's version, as (major, minor); (0, 0) when it cannot be read.
fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Tried as `nobody`, since root may make user namespaces where a sysctl or an LSM forbids them to others.
fn user_namespaces() -> bool {
    let script = ["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user", "true"];
    let tried = process::run(Command::new("setpriv").args(script), Duration::from_secs(10));
    tried.is_ok_and(|out| out.status.success())
}
