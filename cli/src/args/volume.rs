//! `volume`.

use clap::Subcommand;

/// `volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume
    Create {
        /// Put a label on it
        #[arg(short, long, value_name = "NAME=VALUE")]
        label: Vec<String>,
        /// Its name; one is made up without it
        #[arg(value_name = "VOLUME")]
        name: Option<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls,
    /// Print all that is known of volumes, as JSON
    Inspect {
        /// Their names
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm {
        /// Those that are not there are none to complain about
        #[arg(short, long)]
        force: bool,
        /// Their names
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove the volumes without names that no container has
    Prune {
        /// Those with names too
        #[arg(short, long)]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}
