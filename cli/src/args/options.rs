//! What `run` and `create` take beside the commonest options.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use croft_api::container::{Host, Ipc, Mount, Pid, Ulimit};

use crate::config::options::{self, Named};

#[derive(Debug, Args)]
pub struct OptionArgs {
    #[arg(help = "Mount something: type=bind|tmpfs|volume,source=,target=,readonly", long, value_name = "KEY=VALUE,...", value_parser = options::mount)]
    pub mount: Vec<Mount>,
    #[arg(help = "Let it use a device of the host, or those in a folder: SOURCE[:TARGET][:rwm]; or one of a CDI specification: vendor.com/class=name", long, value_name = "SOURCE", value_parser = options::named, add = crate::complete::devices())]
    pub device: Vec<Named>,
    #[arg(help = "Let it use GPUs: all, a number for the first so many, device=0,1; the same as --device nvidia.com/gpu=all, =0, ...", long, value_name = "GPUS", value_parser = options::gpus)]
    pub gpus: Option<::std::vec::Vec<String>>,
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
    /// Run croft's own init as its process 1, which reaps orphans and passes signals on
    #[arg(long)]
    pub init: bool,
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
    #[arg(
        help = "How its output is logged: max-size=BYTES, max-file=COUNT, compress=true|false, rate=BYTES a second",
        long,
        value_name = "NAME=VALUE"
    )]
    pub log_opt: Vec<String>,
    /// What happens past the rate of its log: lines are dropped and counted, or it is held up
    #[arg(long, value_name = "MODE", default_value = "drop", value_parser = ["drop", "block"])]
    pub log_mode: String,
    #[command(flatten)]
    pub health: HealthArgs,
    /// How likely the kernel takes it when memory runs out: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    /// Its NIS domain name
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
}

/// Limits of a container.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Its limit of memory: bytes, or with k, m, g
    #[arg(short, long, value_name = "BYTES", value_parser = crate::config::bytes)]
    pub memory: Option<u64>,
    #[arg(help = "Its limit of memory and swap together; -1 for as much swap as there is", long, value_name = "BYTES", allow_hyphen_values = true, value_parser = options::swap)]
    pub memory_swap: Option<i64>,
    /// Memory that others leave it when memory is short: bytes, or with k, m, g
    #[arg(long, value_name = "BYTES", value_parser = crate::config::bytes)]
    pub memory_reservation: Option<u64>,
    /// How many processors it gets
    #[arg(long, value_name = "NUMBER", value_parser = options::cpus)]
    pub cpus: Option<f64>,
    /// Its share of the processors beside others; 1024 is one
    #[arg(long, value_name = "SHARES")]
    pub cpu_shares: Option<u64>,
    /// The processors that it may run on, as 0-3,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Its share of the disks beside others, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// How many processes it may have; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
}

/// How a container's health is looked at.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// A line for its shell that says by its status whether it is well
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    #[arg(help = "The pause between two runs of that, as 30s, 1m30s, 500ms", long, value_name = "TIME", value_parser = options::time)]
    pub health_interval: Option<u64>,
    #[arg(help = "How long a run may take", long, value_name = "TIME", value_parser = options::time)]
    pub health_timeout: Option<u64>,
    /// How many runs in a row have to fail
    #[arg(long, value_name = "NUMBER")]
    pub health_retries: Option<u32>,
    #[arg(help = "How long after its start failures do not count", long, value_name = "TIME", value_parser = options::time)]
    pub health_start_period: Option<u64>,
    /// Do not look at its health, whatever the image says
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period"])]
    pub no_healthcheck: bool,
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
