//! What a container can be asked for beside its program, mounts and network.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A device of the host, or all below a folder of devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// On the host.
    pub source: String,
    /// In the container.
    pub target: String,
    /// What may be done with it: `r`ead, `w`rite, `m`knod.
    #[serde(default = "every_access")]
    pub access: String,
}

fn every_access() -> String {
    "rwm".to_owned()
}

/// A name in `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The name.
    pub name: String,
    /// Its address.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub address: IpAddr,
}

/// A limit of a process; -1 is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// As ulimit(1) and setrlimit(2) have it, in small letters: `nofile`.
    pub name: String,
    /// What is in force.
    pub soft: i64,
    /// What the process may raise it to.
    pub hard: i64,
}

/// Which processes a container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Pid {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Those of the container with this name or id too, and it sees this one's.
    Container(String),
}

/// With whom a container shares System V IPC, POSIX queues and /dev/shm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ipc {
    /// With nobody.
    #[default]
    Private,
    /// With the containers that ask for it.
    Shareable,
    /// With the host.
    Host,
    /// With the container of this name or id, which has to be shareable.
    Container(String),
}

/// What holds a container back beside capabilities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// Whether no program of it gains rights by being run.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// The AppArmor profile; the host's default without it.
    pub apparmor: Option<String>,
    /// Parts of its SELinux label, as `type:spc_t`; `disable` for none at all.
    pub label: Vec<String>,
    /// Whether it sees all of /proc and /sys.
    pub system_paths: SystemPaths,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// Those of croft's own profile.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// Those of this profile: `linux.seccomp` of an OCI configuration, or Docker's form of it.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    Profile(serde_json::Value),
}

/// What of /proc and /sys a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SystemPaths {
    /// What tells nothing of the host and changes nothing there.
    #[default]
    Masked,
    /// All.
    Unconfined,
}
