//! `cp`, `diff`, `commit` and `export`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct CpArgs {
    /// Keep the owners' numbers
    #[arg(short, long)]
    pub archive: bool,
    /// Copy what a link leads to, and not the link
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Print nothing
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(
        help = "From where: CONTAINER:PATH, a path of this host, or - for a tar archive on the standard input",
        value_name = "SOURCE"
    )]
    pub source: String,
    #[arg(
        help = "To where: CONTAINER:PATH, a path of this host, or - for a tar archive on the standard output",
        value_name = "TARGET"
    )]
    pub target: String,
}

#[derive(Debug, Args)]
pub struct CommitArgs {
    /// Who makes it
    #[arg(short, long, value_name = "NAME")]
    pub author: Option<String>,
    #[arg(
        help = "What its containers do otherwise, as a line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR",
        short,
        long,
        value_name = "LINE"
    )]
    pub change: Vec<String>,
    /// A remark
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Freeze the container meanwhile
    #[arg(short, long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pause: bool,
    /// The container's name or id
    pub container: String,
    /// The image's name
    pub image: String,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write to this file, and not to the standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The container's name or id
    pub container: String,
}
