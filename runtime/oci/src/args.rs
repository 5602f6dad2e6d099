//! The command line: runc's names and options.
//!
//! What a command is for is said at [`Command`]: a `///` at its options would take the place of that in `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An OCI runtime: jails, zones and VServer for today's kernel.
#[derive(Debug, Parser)]
#[command(name = "croft-oci", disable_version_flag = true, disable_help_subcommand = false)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// Print the version
    #[arg(short, long)]
    pub version: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

// What holds for every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Folder of the containers' states [default: /run/croft-oci, or $XDG_RUNTIME_DIR/croft-oci for an ordinary user]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Write the log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Log more
    #[arg(long)]
    pub debug: bool,
    /// Let systemd make the control groups; cgroupsPath is slice:prefix:name then
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Whether cgroup errors are ignored: true, false or auto (accepted for runc's callers; croft-oci decides by itself)
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub rootless: Rootless,
    /// The criu program: old callers of runc give it; it is looked for in PATH
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="..." level=error msg="..."`.
    Text,
    /// One JSON object a line.
    Json,
}

/// runc's `--rootless`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// Yes.
    True,
    /// No.
    False,
    /// By the user id.
    Auto,
}

/// The commands.
#[derive(Debug, Subcommand)]
// Each start would describe every command, to take one of them.
#[command(defer = true)]
#[allow(clippy::large_enum_variant, reason = "there is one for the life of the process")]
pub enum Command {
    /// Make a container whose process waits for start
    Create(CreateArgs),
    /// Start a created container
    Start(IdArgs),
    /// Make and start a container
    Run(RunArgs),
    /// Run a further process in a container
    Exec(ExecArgs),
    /// Print a container's state
    State(IdArgs),
    /// List containers
    List(ListArgs),
    /// Send a signal to a container
    Kill(KillArgs),
    /// Remove a container
    Delete(DeleteArgs),
    /// List a container's processes
    Ps(PsArgs),
    /// Freeze every process of a container
    Pause(IdArgs),
    /// Let a paused container go on
    Resume(IdArgs),
    /// Change a container's limits
    Update(Box<UpdateArgs>),
    /// Print a container's counters, and its ends for want of memory
    Events(EventsArgs),
    /// Write a new config.json
    Spec(SpecArgs),
    /// Print what this build can do, as JSON
    Features,
    /// Print the steps that create would perform
    Plan(PlanArgs),
}

// A container.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
}

// `create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The new container's name
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Folder of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a pidfd of the container's process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File that gets the container's pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Switch the root by chroot, for a host that runs from an initial ramfs
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Descriptors after standard error that the container inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// File of a mount namespace with few mounts, for the container's process to be born in: croft-shim's
    #[arg(long, value_name = "FILE", hide = true)]
    pub mount_base: Option<PathBuf>,
}

// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// As for create
    #[command(flatten)]
    pub create: CreateArgs,
    /// Do not wait for the container's end
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete the container after its end
    #[arg(long)]
    pub keep: bool,
    /// Do not take over the container's orphans
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
}

// `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// File with the process to run, as in config.json
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// File that gets its pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// User, and group after a colon, as numbers
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Supplementary groups
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Working folder
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Variables of the environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Capabilities beyond the container's
    #[arg(short, long, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Never gain privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Descriptors after standard error that it inherits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Group below the container's own to run in
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Run it even in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
}

// `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// Ids alone
    #[arg(short, long)]
    pub quiet: bool,
}

/// Form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Columns for people.
    Table,
    /// JSON.
    Json,
}

// `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// The signal: a name or a number
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
    /// Send it to every process of the container
    #[arg(short, long)]
    pub all: bool,
}

// `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Kill it first if it still runs
    #[arg(short, long)]
    pub force: bool,
}

// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Folder of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// The container's name
    #[arg(long, value_name = "CONTAINER-ID", default_value = "plan")]
    pub id: String,
    /// As for create
    #[arg(long, value_name = "FILE", hide = true)]
    pub mount_base: Option<PathBuf>,
}

// `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: ListFormat,
    /// Options of ps(1) for the table [default: -ef]
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

// `update`. The values are text, as in runc, so that an empty one means "leave it".
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// File with linux.resources as in config.json, or - for standard input; all options but the schemata are ignored then
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT", allow_hyphen_values = true)]
    pub blkio_weight: Option<String>,
    /// Period of the CPU quota, in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_period: Option<String>,
    /// CPU time in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_quota: Option<String>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_burst: Option<String>,
    /// Weight against other containers
    #[arg(long, value_name = "SHARES", allow_hyphen_values = true)]
    pub cpu_share: Option<String>,
    /// Period of the realtime runtime, in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_rt_period: Option<String>,
    /// Realtime CPU time in a period, in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<String>,
    /// Whether it runs only when nobody else would: 0 or 1
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    pub cpu_idle: Option<String>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Ignored: the kernel has it no more
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// Ignored: the kernel has it no more
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Memory, in bytes or with k, m, g, t; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory that is taken back last
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Number of tasks; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<String>,
    /// Schema of the L3 cache (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
}

// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub id: String,
    /// Time between two prints, such as 5s or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true)]
    pub interval: String,
    /// Print the counters once
    #[arg(long)]
    pub stats: bool,
}

// `spec`.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Folder of the bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Write a configuration for an ordinary user
    #[arg(long)]
    pub rootless: bool,
}
