//! `linux`: namespaces, ids, devices and the rest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime as oci;

use super::{Propagation, SpecError, clean};

/// A kind of namespace, in the order in which they are joined: the user namespace gives the right to join the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceKind {
    /// Ids and capabilities.
    User,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Network devices, addresses, ports.
    Network,
    /// Process ids.
    Pid,
    /// The view of the control groups.
    Cgroup,
    /// Monotonic and boot clocks.
    Time,
    /// Mounts.
    Mount,
}

impl NamespaceKind {
    /// All kinds, in joining order.
    pub const ALL: [NamespaceKind; 8] =
        [Self::User, Self::Ipc, Self::Uts, Self::Network, Self::Pid, Self::Cgroup, Self::Time, Self::Mount];

    /// The `CLONE_NEW*` flag.
    pub fn flag(self) -> i32 {
        match self {
            Self::User => 0x1000_0000,
            Self::Ipc => 0x0800_0000,
            Self::Uts => 0x0400_0000,
            Self::Network => 0x4000_0000,
            Self::Pid => 0x2000_0000,
            Self::Cgroup => 0x0200_0000,
            Self::Time => 0x80,
            Self::Mount => 0x0002_0000,
        }
    }

    /// The name of the file in `/proc/PID/ns`, for the process itself.
    pub fn file(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Network => "net",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
            Self::Mount => "mnt",
        }
    }

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Mount => "mount",
            other => other.file(),
        }
    }

    fn of(kind: oci::LinuxNamespaceType) -> Self {
        use oci::LinuxNamespaceType as T;
        match kind {
            T::Mount => Self::Mount,
            T::Cgroup => Self::Cgroup,
            T::Uts => Self::Uts,
            T::Ipc => Self::Ipc,
            T::User => Self::User,
            T::Pid => Self::Pid,
            T::Network => Self::Network,
            T::Time => Self::Time,
        }
    }
}

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// Made for the container.
    New,
    /// Joined: the file that stands for it.
    Path(PathBuf),
}

/// The namespaces that differ from the runtime's.
pub type Namespaces = BTreeMap<NamespaceKind, Namespace>;

/// One range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    /// The first id inside.
    pub container: u32,
    /// The first id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

impl IdMapping {
    pub(super) fn resolve(raw: &oci::LinuxIdMapping) -> Self {
        Self { container: raw.container_id(), host: raw.host_id(), size: raw.size() }
    }
}

/// A clock's offset in a time namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOffset {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below 10^9.
    pub nanoseconds: u32,
}

/// The kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where, inside the container; absolute and clean.
    pub path: PathBuf,
    /// Its kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What is particular to Linux.
#[derive(Debug, Clone, Default)]
pub struct Linux {
    /// Namespaces that differ from the runtime's.
    pub namespaces: Namespaces,
    /// User ids of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Clocks of a new time namespace: `monotonic`, `boottime`.
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Device nodes beyond the default ones.
    pub devices: Vec<Device>,
    /// Network devices to move in: name on the host, name inside.
    pub net_devices: BTreeMap<String, String>,
    /// Where the control group goes, as written.
    pub cgroups_path: Option<String>,
    /// Limits.
    pub resources: oci::LinuxResources,
    /// Kernel parameters to write.
    pub sysctl: BTreeMap<String, String>,
    /// The system call filter.
    pub seccomp: Option<oci::LinuxSeccomp>,
    /// How the root's mounts pass events on; true when all below are meant.
    pub rootfs_propagation: Option<(Propagation, bool)>,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// The SELinux context of mounts.
    pub mount_label: Option<String>,
    /// Cache and memory bandwidth allocation.
    pub intel_rdt: Option<oci::LinuxIntelRdt>,
    /// NUMA memory policy.
    pub memory_policy: Option<oci::LinuxMemoryPolicy>,
    /// Execution domain.
    pub personality: Option<oci::LinuxPersonality>,
}

impl Linux {
    /// Whether a user namespace is made for the container.
    pub fn has_new_user_namespace(&self) -> bool {
        self.namespaces.get(&NamespaceKind::User) == Some(&Namespace::New)
    }

    /// Whether the container has a user namespace other than the runtime's.
    pub fn has_user_namespace(&self) -> bool {
        self.namespaces.contains_key(&NamespaceKind::User)
    }

    /// Whether the container has this kind of namespace made for it.
    pub fn has_new(&self, kind: NamespaceKind) -> bool {
        self.namespaces.get(&kind) == Some(&Namespace::New)
    }

    pub(super) fn resolve(raw: Option<&oci::Linux>) -> Result<Self, SpecError> {
        let Some(raw) = raw else { return Ok(Self::default()) };
        let map = |list: &Option<Vec<oci::LinuxIdMapping>>| -> Vec<IdMapping> {
            list.iter().flatten().map(IdMapping::resolve).collect()
        };
        let paths = |list: &Option<Vec<String>>| -> Vec<PathBuf> {
            list.iter().flatten().map(|p| clean(p.as_ref())).collect()
        };
        Ok(Linux {
            namespaces: namespaces(raw)?,
            uid_mappings: map(raw.uid_mappings()),
            gid_mappings: map(raw.gid_mappings()),
            time_offsets: time_offsets(raw)?,
            devices: raw.devices().iter().flatten().map(device).collect::<Result<_, _>>()?,
            net_devices: net_devices(raw),
            cgroups_path: raw
                .cgroups_path()
                .as_ref()
                .map(|p| p.to_string_lossy().into_owned())
                .filter(|p| !p.is_empty()),
            resources: raw.resources().clone().unwrap_or_default(),
            sysctl: raw.sysctl().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            seccomp: raw.seccomp().clone(),
            rootfs_propagation: rootfs_propagation(raw)?,
            masked_paths: paths(raw.masked_paths()),
            readonly_paths: paths(raw.readonly_paths()),
            mount_label: raw.mount_label().clone().filter(|s| !s.is_empty()),
            intel_rdt: raw.intel_rdt().clone(),
            memory_policy: raw.memory_policy().clone(),
            personality: raw.personality().clone(),
        })
    }
}

fn namespaces(raw: &oci::Linux) -> Result<Namespaces, SpecError> {
    let mut found = Namespaces::new();
    for ns in raw.namespaces().iter().flatten() {
        let kind = NamespaceKind::of(ns.typ());
        let value = match ns.path() {
            Some(path) if !path.as_os_str().is_empty() => {
                if !path.is_absolute() {
                    let why = "must be an absolute path";
                    return Err(SpecError::invalid("linux.namespaces.path", path.display(), why));
                }
                Namespace::Path(path.clone())
            }
            _ => Namespace::New,
        };
        if found.insert(kind, value).is_some() {
            return Err(SpecError::invalid("linux.namespaces", kind.name(), "is there twice"));
        }
    }
    Ok(found)
}

fn time_offsets(raw: &oci::Linux) -> Result<BTreeMap<String, TimeOffset>, SpecError> {
    let mut offsets = BTreeMap::new();
    for (clock, offset) in raw.time_offsets().iter().flatten() {
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            return Err(SpecError::invalid("linux.timeOffsets", clock, "is not monotonic or boottime"));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            return Err(SpecError::invalid("linux.timeOffsets.nanosecs", nanoseconds, "is a second or more"));
        }
        offsets.insert(clock.clone(), TimeOffset { seconds: offset.secs().unwrap_or(0), nanoseconds });
    }
    Ok(offsets)
}

fn net_devices(raw: &oci::Linux) -> BTreeMap<String, String> {
    raw.net_devices()
        .iter()
        .flatten()
        .map(|(host, device)| {
            let inside = device.name().clone().filter(|n| !n.is_empty()).unwrap_or_else(|| host.clone());
            (host.clone(), inside)
        })
        .collect()
}

fn rootfs_propagation(raw: &oci::Linux) -> Result<Option<(Propagation, bool)>, SpecError> {
    let Some(text) = raw.rootfs_propagation().as_deref().filter(|t| !t.is_empty()) else { return Ok(None) };
    match Propagation::parse(text) {
        Some(found) => Ok(Some(found)),
        None => {
            let why = "is not private, shared, slave or unbindable";
            Err(SpecError::invalid("linux.rootfsPropagation", text, why))
        }
    }
}

fn device(raw: &oci::LinuxDevice) -> Result<Device, SpecError> {
    let property = || format!("linux.devices[{}]", raw.path().display());
    let kind = match raw.typ() {
        oci::LinuxDeviceType::B => DeviceKind::Block,
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => DeviceKind::Char,
        oci::LinuxDeviceType::P => DeviceKind::Fifo,
        oci::LinuxDeviceType::A => return Err(SpecError::invalid(property(), "a", "is not a kind of node")),
    };
    let number =
        |n: i64| u32::try_from(n).map_err(|_| SpecError::invalid(property(), n, "is no device number"));
    let (major, minor) =
        if kind == DeviceKind::Fifo { (0, 0) } else { (number(raw.major())?, number(raw.minor())?) };
    Ok(Device {
        path: clean(raw.path()),
        kind,
        major,
        minor,
        mode: raw.file_mode().unwrap_or(0o666) & 0o7777,
        uid: raw.uid().unwrap_or(0),
        gid: raw.gid().unwrap_or(0),
    })
}
