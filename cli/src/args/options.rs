//! What `run` and `create` take beside the commonest options.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use croft_api::container::{Device, Host, Ipc, Mount, Pid, Ulimit};

use crate::config::options;

#[derive(Debug, Args)]
pub struct OptionArgs {
    #[arg(help = "Mount something: type=bind|tmpfs|volume,source=,target=,readonly", long, value_name = "KEY=VALUE,...", value_parser = options::mount)]
    pub mount: Vec<Mount>,
    #[arg(help = "Let it use a device of the host, or those in a folder: SOURCE[:TARGET][:rwm]", long, value_name = "SOURCE", value_parser = options::device)]
    pub device: Vec<Device>,
    /// no-new-privileges, seccomp=unconfined or =FILE, apparmor=PROFILE, label=..., systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    #[arg(help = "Limit each of its processes: NAME=SOFT[:HARD], -1 for no limit", long, value_name = "NAME=SOFT", value_parser = options::ulimit)]
    pub ulimit: Vec<Ulimit>,
    #[arg(help = "Add a name to its /etc/hosts", long, value_name = "NAME:IP", value_parser = options::host)]
    pub add_host: Vec<Host>,
    /// Ask this name server, and not croft's own
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,
    /// Look for short names in this domain; . for none
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// The size of its /dev/shm: bytes, or with k, m, g
    #[arg(long, value_name = "BYTES", value_parser = crate::config::bytes)]
    pub shm_size: Option<u64>,
    /// Give it all capabilities and devices, and hide and filter nothing; its user namespace stays its own
    #[arg(long)]
    pub privileged: bool,
    #[arg(help = "Whose processes it sees: private, host, container:NAME", long, value_name = "MODE", default_value = "private", value_parser = options::pid)]
    pub pid: Pid,
    #[arg(help = "With whom it shares memory: private, shareable, host, container:NAME", long, value_name = "MODE", default_value = "private", value_parser = options::ipc)]
    pub ipc: Ipc,
    /// Put its process into a further group
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// When the image is got from its registry
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: PullWhen,
    /// For which platform the image has to be, as linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub platform: Option<String>,
    /// Write its id into a file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// The processors that it may run on, as 0-3,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    #[arg(help = "Its limit of memory and swap together; -1 for as much swap as there is", long, value_name = "BYTES", allow_hyphen_values = true, value_parser = options::swap)]
    pub memory_swap: Option<i64>,
    /// Memory that others leave it when memory is short: bytes, or with k, m, g
    #[arg(long, value_name = "BYTES", value_parser = crate::config::bytes)]
    pub memory_reservation: Option<u64>,
    /// Its share of the disks beside others, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// How likely the kernel takes it when memory runs out: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    /// Its NIS domain name
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
}

/// When an image is got from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullWhen {
    /// Each time
    Always,
    /// When it is not there
    Missing,
    /// Not at all
    Never,
}
