//! `image`, and its commands in the places where Docker's users look for them; `login` and `logout`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Lazy;

/// `image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Get an image from a registry
    Pull(PullArgs),
    /// Send an image to the registry that its name says
    Push(TransferArgs),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ImagesArgs),
    /// Print all that is known of images, as JSON
    Inspect {
        /// Their names or ids
        #[arg(required = true, value_name = "IMAGE")]
        names: Vec<String>,
    },
    /// Print how an image came about
    History {
        /// Do not shorten anything
        #[arg(long)]
        no_trunc: bool,
        /// Its name or id
        image: String,
    },
    /// Give an image another name too
    Tag(Lazy<TagArgs>),
    /// Take an image from a file or folder: an OCI layout, a docker-save archive, a root filesystem's tarball
    Import {
        /// The file or folder, on croftd's host
        path: PathBuf,
        /// The name it gets
        name: String,
    },
    /// Write images as an archive that is an OCI layout and what docker load reads
    #[command(visible_alias = "save")]
    Export(Lazy<SaveArgs>),
    /// Take images with their names from an archive
    Load(LoadArgs),
    /// Make an image of Debian's packages with mmdebstrap, on croftd's host
    BuildRootfs {
        /// mmdebstrap's variant
        #[arg(long, value_name = "VARIANT", default_value = "minbase")]
        variant: String,
        /// Further packages, with commas between them
        #[arg(long, value_name = "PACKAGES", value_delimiter = ',')]
        include: Vec<String>,
        /// Where from: an address, or a line of sources.list(5)
        #[arg(long, value_name = "MIRROR")]
        mirror: Vec<String>,
        /// The release: trixie, bookworm
        suite: String,
        /// The name it gets
        name: String,
    },
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(Lazy<RmiArgs>),
    /// Remove what no image and no container needs
    Prune {
        /// Images with names too that no container is made from
        #[arg(short, long)]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// For which platform, as linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub platform: Option<String>,
    #[command(flatten)]
    pub transfer: TransferArgs,
}

#[derive(Debug, Args)]
pub struct TransferArgs {
    /// Print the image's id and nothing else
    #[arg(short, long)]
    pub quiet: bool,
    /// Its name
    pub image: String,
}

#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct TagArgs {
    /// Its name or id
    pub image: String,
    /// The name that it gets too
    pub name: String,
}

#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Write to this file, and not to the standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Their names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Read this file, and not the standard input
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Their names
    #[arg(required = true, value_name = "IMAGE")]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The user; asked for without it
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Read the password from the standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// The registry's host
    #[arg(default_value = "docker.io")]
    pub registry: String,
}

#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The registry's host
    #[arg(default_value = "docker.io")]
    pub registry: String,
}
