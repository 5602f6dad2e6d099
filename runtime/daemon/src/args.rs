//! The command line of croftd.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

/// The daemon of croft: makes containers from images, and looks after them.
#[derive(Debug, Clone, Parser)]
#[command(name = "croftd", version, args_override_self = true)]
pub struct Args {
    /// Folder of what survives a reboot: images, containers, the database
    #[arg(long, value_name = "DIR", default_value = "/var/lib/croft")]
    pub root: PathBuf,
    /// Folder of what does not
    #[arg(long, value_name = "DIR", default_value = "/run/croft")]
    pub state: PathBuf,
    /// Folder that every croftd of this host shares: which ids are taken
    #[arg(long, value_name = "DIR", default_value = "/run/croft-host")]
    pub host_state: PathBuf,
    /// How the names of bridges, cables and firewall tables begin; no two croftd of a host have the same
    #[arg(long, value_name = "PREFIX", default_value = "croft")]
    pub bridge_prefix: String,
    /// Let what containers of a network send each other go through the bridge, where rules of the host and tcpdump(8) see it, and not past
    /// it by eBPF; it never does where br_netfilter is on
    #[arg(long)]
    pub no_shortcut: bool,
    /// The control group that containers' groups are in
    #[arg(long, value_name = "NAME", default_value = "croft")]
    pub cgroup: String,
    /// The socket to listen on [default: croft.sock in the state folder]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Serve other hosts there too, under mutual TLS: those that `croft remote trust` has named
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
    /// Folder of this host's key and of those it trusts [default: keys in the root folder]
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// The program croft-oci [default: beside croftd, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// The program croft-shim [default: beside croftd, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub shim: Option<PathBuf>,
    /// The program croft-init, process 1 of containers that ask for one [default: beside croftd, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub init: Option<PathBuf>,
    /// Folder of specifications of devices (CDI), for --device vendor.com/class=name; a device in a later one takes the place of one in an
    /// earlier one. Repeatable
    #[arg(long, value_name = "DIR", default_values = ["/etc/cdi", "/var/run/cdi"])]
    pub cdi_dir: Vec<PathBuf>,
    /// Seconds that croft-oci may take for one command
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub runtime_limit: u64,
    /// What is logged: error, warn, info, debug, trace, or a list of MODULE=LEVEL; read again at SIGHUP
    #[arg(long, value_name = "LEVEL", env = "CROFT_LOG", default_value = "info")]
    pub log: String,
    /// Write the log as JSON, one object a line
    #[arg(long)]
    pub log_json: bool,
    /// The group whose members may use croftd beside root; read again at SIGHUP
    #[arg(long, value_name = "GROUP", default_value = "croft")]
    pub group: String,
    /// A file with these options, in TOML [default: /etc/croft/croftd.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The configuration file that is read where no other is named.
pub const CONFIG: &str = "/etc/croft/croftd.toml";

/// What croftd does that is no serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Say what this host can and cannot do, and how to cure it; the status is 1 when croft cannot work
    Check(CheckArgs),
}

/// `check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: CheckFormat,
    /// Set the kernel parameters that are too low, load modules, make folders; every change is printed
    #[arg(long)]
    pub fix: bool,
    /// Look at the files below this folder as if it were the host's root
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
}

/// How a check is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Args {
    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state.join("croft.sock"))
    }

    /// Where its key is, and those of the hosts that it trusts.
    pub fn keys(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| self.root.join("keys"))
    }

    /// The program `name`: as it was given, beside croftd, or wherever PATH leads.
    pub fn program(&self, name: &str, given: Option<&Path>) -> PathBuf {
        if let Some(given) = given {
            return given.to_owned();
        }
        let own = std::env::current_exe().ok();
        let beside = own.and_then(|own| Some(own.parent()?.join(name)));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path).map(|folder| folder.join(name));
        beside
            .into_iter()
            .chain(in_path)
            .find(|program| program.is_file())
            .unwrap_or_else(|| PathBuf::from(name))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}

#[cfg(test)]
mod man {
    use clap::CommandFactory;
    use std::path::Path;

    /// `BLESS=1 cargo test -p croftd man` writes them anew.
    #[test]
    fn the_man_pages_are_fresh() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man");
        let mut croftd = super::Args::command();
        croftd.build();
        let own = croftd.get_subcommands().filter(|command| command.get_name() != "help");
        let pages: Vec<(String, clap::Command)> =
            own.map(|command| (format!("croftd-{}", command.get_name()), command.clone())).collect();
        assert!(pages.len() == 1, "there is a page for every command");
        for (name, command) in pages.into_iter().chain([("croftd".to_owned(), croftd.clone())]) {
            let path = folder.join(format!("{name}.8"));
            let mut text = Vec::new();
            let own: &'static str = name.leak();
            let named = command.name(own).bin_name(own);
            let man = clap_mangen::Man::new(named).section("8").source("croft").manual("croft");
            man.render(&mut text).unwrap();
            croft_harness::fresh::check(&path, &String::from_utf8(text).unwrap(), "-p croftd man");
        }
    }
}
