//! The command line of croftd.

use std::path::{Path, PathBuf};

use clap::Parser;

/// The daemon of croft: makes containers from images, and looks after them.
#[derive(Debug, Clone, Parser)]
#[command(name = "croftd", version)]
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
    /// The control group that containers' groups are in
    #[arg(long, value_name = "NAME", default_value = "croft")]
    pub cgroup: String,
    /// The socket to listen on [default: croft.sock in the state folder]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The program croft-oci [default: beside croftd, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
    /// The program croft-shim [default: beside croftd, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub shim: Option<PathBuf>,
    /// The program croft-init, process 1 of containers that ask for one [default: beside croftd, or in PATH]
    #[arg(long, value_name = "PATH")]
    pub init: Option<PathBuf>,
    /// Seconds that croft-oci may take for one command
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub runtime_limit: u64,
    /// Write the log as JSON, one object a line
    #[arg(long)]
    pub log_json: bool,
}

impl Args {
    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state.join("croft.sock"))
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

    /// `BLESS=1 cargo test -p croftd man` writes it anew.
    #[test]
    fn the_man_page_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man/croftd.8");
        let mut text = Vec::new();
        let man = clap_mangen::Man::new(super::Args::command()).section("8").source("croft").manual("croft");
        man.render(&mut text).unwrap();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            std::fs::read(&path).unwrap_or_default() == text,
            "man/croftd.8 is stale: BLESS=1 cargo test -p croftd man"
        );
    }
}
