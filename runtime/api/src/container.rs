//! Containers: what is asked for, and what there is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod health;
mod options;

pub use health::{Health, HealthCheck, HealthState, Probe};
pub use options::{Device, Host, Ipc, Pid, Seccomp, Security, SystemPaths, Ulimit};

use crate::network::{Connection, Join, Publish};

/// A container as it is asked for. Everything but the image has a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The image's name or id.
    pub image: String,
    /// The container's name; one is made up without it.
    pub name: Option<String>,
    /// What runs before the command; the image's without it. Empty: nothing.
    pub entrypoint: Option<Vec<String>>,
    /// The command and its arguments; the image's when empty.
    pub command: Vec<String>,
    /// Further environment variables, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// The working folder.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// The host name; the container's name without it.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// For which platform its image has to be, as `linux/amd64`; whatever the image is for without it.
    pub platform: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its standard input stays open while nobody is attached.
    pub stdin: bool,
    /// Folders and files of the host, volumes, and file systems in memory.
    pub mounts: Vec<Mount>,
    /// Whether its root is read-only.
    pub read_only: bool,
    /// How it is on the network.
    pub network: NetworkMode,
    /// Ports of the host that lead into it.
    pub publish: Vec<Publish>,
    /// Further names in its `/etc/hosts`.
    pub hosts: Vec<Host>,
    /// The name servers that it asks; none: croft's own, or the host's.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub dns: Vec<std::net::IpAddr>,
    /// The domains that short names are looked for in; none: the host's.
    pub dns_search: Vec<String>,
    /// Which processes it sees.
    pub pid: Pid,
    /// With whom it shares memory and queues.
    pub ipc: Ipc,
    /// The size of its /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Devices of the host that it may use.
    pub devices: Vec<Device>,
    /// Devices of the host that it gets by their names in CDI specifications, as `vendor.com/class=name`.
    pub cdi: Vec<String>,
    /// Whether it has all capabilities and devices, and nothing is filtered or hidden. Its user namespace stays its own.
    pub privileged: bool,
    /// What holds it back beside capabilities.
    pub security: Security,
    /// Further groups of its process, names or numbers.
    pub groups: Vec<String>,
    /// Limits of each of its processes (setrlimit(2)).
    pub ulimits: Vec<Ulimit>,
    /// How likely the kernel takes it when memory runs out: -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Limits.
    pub limits: Limits,
    /// Capabilities beside the default ones, without `CAP_`; `ALL` is every one.
    pub cap_add: Vec<String>,
    /// Capabilities that it does not get; `ALL` is every one.
    pub cap_drop: Vec<String>,
    /// Kernel settings of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Which user namespace.
    pub userns: Userns,
    /// Whether croft's own init is process 1 and reaps orphans.
    pub init: bool,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
    /// When it is started again.
    pub restart: Restart,
    /// Whether it is removed when it ends.
    pub auto_remove: bool,
    /// How its health is looked at; as the image says without it.
    pub health: Option<HealthCheck>,
    /// The signal that asks it to end; the image's, or SIGTERM.
    pub stop_signal: Option<String>,
    /// Seconds until it is killed when it does not end.
    pub stop_timeout: Option<u32>,
    /// How its output is logged.
    pub log: Log,
}

/// How a container's output is logged. None: the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Bytes of a file, past which the next one is begun; 10 MiB.
    pub max_size: Option<u64>,
    /// Files that there may be, with the one that is written; 4. The oldest go.
    pub max_files: Option<u32>,
    /// Whether full files are compressed; they are.
    pub compress: Option<bool>,
    /// Bytes a second that are logged, with a burst of as much; no limit.
    pub rate: Option<u64>,
    /// What happens past the rate.
    pub mode: LogMode,
}

/// What happens to output past the rate of its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogMode {
    /// Lines are left out, counted, and the count stands in their place.
    #[default]
    Drop,
    /// The container waits.
    Block,
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "type", deny_unknown_fields)]
pub enum Mount {
    /// A file or folder of the host. Its files keep their owners' numbers inside.
    Bind {
        /// On the host.
        source: String,
        /// In the container.
        target: String,
        /// Whether it cannot be written.
        #[serde(default)]
        read_only: bool,
        /// Whether the numbers of owners stay as the host sees them.
        #[serde(default)]
        unmapped: bool,
        /// Whether a start makes a folder of the host's root user where there is nothing at the source.
        #[serde(default)]
        make: bool,
    },
    /// A volume: a folder in croftd's care, made if there is none of that name.
    Volume {
        /// Its name; empty for one of its own that goes with `rm --volumes`.
        #[serde(default)]
        name: String,
        /// In the container.
        target: String,
        /// Whether it cannot be written.
        #[serde(default)]
        read_only: bool,
        /// Whether a new one stays empty instead of getting what the image has there.
        #[serde(default)]
        no_copy: bool,
    },
    /// Files in memory.
    Tmpfs {
        /// In the container.
        target: String,
        /// Its limit in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// Options of the mount, as `exec`, `ro`, `mode=1770`, `uid=1000`; `noexec`, `nosuid`, `nodev` and `mode=1777` hold where they do not
        /// say otherwise.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
    },
}

impl Mount {
    /// Where it is in the container.
    pub fn target(&self) -> &str {
        match self {
            Mount::Bind { target, .. } | Mount::Volume { target, .. } | Mount::Tmpfs { target, .. } => target,
        }
    }
}

/// How a container is on the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// On these networks; the first that leads anywhere is its way out.
    Networks(Vec<Join>),
    /// A loopback interface and nothing else.
    None,
    /// The host's own interfaces.
    Host,
    /// Those of the container with this name or id.
    Container(String),
}

/// The network that is there without being made.
pub const DEFAULT_NETWORK: &str = "croft";

impl Default for NetworkMode {
    fn default() -> Self {
        NetworkMode::Networks(vec![Join::any(DEFAULT_NETWORK)])
    }
}

/// Limits of a container. None: none but the defaults of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processors, as a number with a fraction.
    pub cpus: Option<f64>,
    /// Its share of the processors beside others, 1024 being one.
    pub cpu_shares: Option<u64>,
    /// The processors that it may run on, as `0-3,5`.
    pub cpuset: Option<String>,
    /// Bytes of memory and swap together; -1: as much swap as there is.
    pub memory_swap: Option<i64>,
    /// Bytes of memory that the others leave it when memory is short.
    pub memory_reservation: Option<u64>,
    /// Its share of the disks beside others, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Processes; -1: no limit.
    pub pids: Option<i64>,
}

/// Asks for other limits and another policy. What is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Update {
    /// Limits.
    pub limits: Limits,
    /// When it is started again.
    pub restart: Option<Restart>,
}

/// A container's user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Userns {
    /// Its own range of ids, which no other container has.
    #[default]
    Own,
    /// The host's: root inside is root.
    Host,
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it ends with another status than 0, so many times in a row.
    OnFailure(u32),
    /// Whenever it ends.
    Always,
    /// Whenever it ends, unless somebody stopped it.
    UnlessStopped,
}

/// A container as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: State,
    /// Its process on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How it ended the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// When it was created: RFC 3339.
    pub created: String,
    /// When it was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// The id of its image.
    pub image_id: String,
    /// The first of the host's ids that are its own; none with the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<u32>,
    /// Its addresses, as `10.0.0.2/24`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// What it has in each of its networks, whether it runs or not.
    #[serde(default)]
    pub networks: Vec<Connection>,
    /// What its health check has found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How often it was started again by its policy.
    #[serde(default)]
    pub restarts: u32,
    /// What was asked for.
    pub config: Config,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It was created and not started yet.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It has ended.
    Stopped,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Exit {
    /// Its status, 128 and the number for a signal; none where nobody was there to see it.
    pub status: Option<i32>,
    /// When: RFC 3339.
    pub at: String,
    /// Whether the kernel killed in it for want of memory.
    #[serde(default)]
    pub oom: bool,
}

/// The answer to a request for a new container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Created {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What was ignored.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Asks for a further process in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Exec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Further environment variables.
    pub env: Vec<String>,
    /// The working folder; the container's without it.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`; the container's without it.
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether it has an input.
    pub stdin: bool,
    /// Whether nobody will attach to it.
    pub detach: bool,
}

/// The answer to a request for a further process: it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Execed {
    /// Its id in the container.
    pub exec: String,
}

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// When: RFC 3339.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, with its end if it had one; empty where lines are missing.
    pub log: String,
    /// So many lines are missing here: they were past the rate of the log, or the disk was full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_lines: Option<u64>,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_bytes: Option<u64>,
}
