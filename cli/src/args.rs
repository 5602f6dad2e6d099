//! The command line, in the words that Docker's users know.

mod files;
mod image;
mod lazy;
mod network;
mod options;
mod remote;
mod update;
mod volume;
mod watch;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use files::{CommitArgs, CpArgs, ExportArgs};
pub use image::{
    ImageCommand, ImagesArgs, LoadArgs, LoginArgs, LogoutArgs, PullArgs, RmiArgs, SaveArgs, TagArgs,
    TransferArgs,
};
pub use lazy::Lazy;
pub use network::{ConnectArgs, NetworkArgs, NetworkCommand, NetworkCreateArgs};
pub use options::{HealthArgs, LimitArgs, OptionArgs, PullWhen};
pub use remote::RemoteCommand;
pub use update::UpdateArgs;
pub use volume::VolumeCommand;
pub use watch::{StatsArgs, TopArgs};

/// Containers, made and looked after by croftd.
#[derive(Debug, Parser)]
#[command(name = "croft", version)]
pub struct Cli {
    /// croftd's socket
    #[arg(long, global = true, value_name = "PATH", env = "CROFT_SOCKET", default_value = croft_api::SOCKET)]
    pub socket: PathBuf,
    /// Ask the croftd of another host instead, by the name that `croft remote trust` gave it
    #[arg(long, global = true, value_name = "HOST", env = "CROFT_REMOTE", add = crate::complete::hosts())]
    pub remote: Option<String>,
    /// Folder of this host's key and of those it trusts [default: /var/lib/croft/keys; where one is not root, croft/keys in $XDG_CONFIG_HOME]
    #[arg(long, global = true, value_name = "DIR", env = "CROFT_KEYS")]
    pub keys: Option<PathBuf>,
    /// How answers are written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// Print ids or names only where something is listed, and nothing where something is done
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a container and run it
    Run(Lazy<RunArgs>),
    /// Make a container
    Create(Lazy<CreateArgs>),
    /// Run a further process in a container
    Exec(Lazy<ExecArgs>),
    /// Stay with a container: its output here, this terminal's input there
    Attach(Lazy<AttachArgs>),
    /// Be at a container's terminal, with what it has shown so far; before it starts, too. Control-p control-q leaves
    Console {
        /// The container's name or id
        #[arg(add = crate::complete::containers())]
        container: String,
    },
    /// Start containers
    Start(Lazy<NamesArgs>),
    /// End containers, by force after a while
    Stop(Lazy<StopArgs>),
    /// End containers and start them
    Restart(Lazy<StopArgs>),
    /// Send a signal to containers
    Kill(Lazy<KillArgs>),
    /// Remove containers
    Rm(Lazy<RmArgs>),
    /// Freeze containers
    Pause(Lazy<NamesArgs>),
    /// Let frozen containers go on
    Unpause(Lazy<NamesArgs>),
    /// Change containers' limits and restart policies
    Update(Lazy<UpdateArgs>),
    /// Give a container another name
    Rename(Lazy<RenameArgs>),
    /// Wait for the end of containers and print their statuses
    Wait(Lazy<NamesArgs>),
    /// List containers
    Ps(Lazy<PsArgs>),
    /// Print all that is known of containers, as JSON
    Inspect(Lazy<NamesArgs>),
    /// Print a container's output
    Logs(Lazy<LogsArgs>),
    /// Copy files between a container and this host
    Cp(CpArgs),
    /// Print what of a container is not as in its image: added (A), changed (C), deleted (D)
    Diff {
        /// The container's name or id
        container: String,
    },
    /// Make an image of a container
    Commit(Lazy<CommitArgs>),
    /// Write all files of a container as a tar archive
    Export(Lazy<ExportArgs>),
    /// Print what containers use
    Stats(Lazy<StatsArgs>),
    /// Watch all containers on a screen, or list the processes of one
    Top(Lazy<TopArgs>),
    /// Print what happens
    Events(Lazy<EventsArgs>),
    /// Images
    #[command(subcommand)]
    Image(Lazy<ImageCommand>),
    /// Networks
    #[command(subcommand)]
    Network(Lazy<NetworkCommand>),
    /// Volumes
    #[command(subcommand)]
    Volume(Lazy<VolumeCommand>),
    /// The keys of this host and of those it trusts
    #[command(subcommand)]
    Remote(Lazy<RemoteCommand>),
    /// Have croftd log in at a registry
    Login(Lazy<LoginArgs>),
    /// Have croftd forget a login at a registry
    Logout(Lazy<LogoutArgs>),
    /// croftd and its host
    #[command(subcommand)]
    System(Lazy<SystemCommand>),
    /// As image pull
    #[command(hide = true)]
    Pull(PullArgs),
    /// As image push
    #[command(hide = true)]
    Push(TransferArgs),
    /// As image ls
    #[command(hide = true)]
    Images(ImagesArgs),
    /// As image rm
    #[command(hide = true)]
    Rmi(Lazy<RmiArgs>),
    /// As image tag
    #[command(hide = true)]
    Tag(Lazy<TagArgs>),
    /// As image export
    #[command(hide = true)]
    Save(Lazy<SaveArgs>),
    /// As image load
    #[command(hide = true)]
    Load(LoadArgs),
    /// Print what makes a shell complete croft's commands and the names of what there is
    Completion {
        /// The shell
        #[arg(value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
}

#[derive(Debug, Args)]
pub struct SignalArgs {
    /// Pass signals that this command gets on to it, unless it has a terminal
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub sig_proxy: bool,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    #[command(flatten)]
    pub signals: SignalArgs,
    #[command(flatten)]
    pub create: CreateArgs,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// Give it this process's input
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Set an environment variable; without a value, to this process's own
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    #[arg(help = "Who it runs as: USER[:GROUP]", short, long)]
    pub user: Option<String>,
    /// The folder it begins in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    #[arg(
        help = "The container's name or id, then the command and its arguments, whatever these look like",
        required = true,
        num_args = 2..,
        trailing_var_arg = true,
        value_names = ["CONTAINER", "COMMAND"],
        add = crate::complete::first(crate::complete::containers, "words")
    )]
    words: Vec<String>,
}

impl ExecArgs {
    /// The container's name or id, and the command with its arguments.
    pub fn words(&self) -> (&str, &[String]) {
        first_and_rest(&self.words)
    }
}

/// Of words that were given as one argument: what follows the first is not for this program, and no option of it either.
fn first_and_rest(words: &[String]) -> (&str, &[String]) {
    words.split_first().map(|(first, rest)| (first.as_str(), rest)).unwrap_or_default()
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Do not give it this process's input
    #[arg(long)]
    pub no_stdin: bool,
    #[command(flatten)]
    pub signals: SignalArgs,
    /// The container's name or id
    #[arg(value_name = "CONTAINER", add = crate::complete::containers())]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Keep its input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// The container's name
    #[arg(long)]
    pub name: Option<String>,
    /// Remove it when it ends
    #[arg(long)]
    pub rm: bool,
    /// Set an environment variable; without a value, to this process's own
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    #[arg(
        help = "Mount a volume, or a file or folder of the host: NAME:TARGET[:ro][:nocopy], /SOURCE:TARGET[:ro][:nomap], or TARGET for a volume of its own",
        short,
        long,
        value_name = "SOURCE:TARGET"
    )]
    pub volume: Vec<String>,
    #[arg(
        help = "Mount files in memory: TARGET[:OPTION,...], such as size=64m, mode=1777, exec; noexec, nosuid and nodev without any",
        long,
        value_name = "TARGET"
    )]
    pub tmpfs: Vec<String>,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[arg(help = "Who it runs as: USER[:GROUP]", short, long)]
    pub user: Option<String>,
    /// The folder it begins in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    #[arg(help = "Lead a port of the host into it, or as many as from one to another: [ADDRESS:]PORT[-PORT]:PORT[-PORT][/udp]", short, long, value_name = "PORT:PORT", value_parser = crate::config::publish)]
    pub publish: Vec<Vec<croft_api::network::Publish>>,
    /// Its host name
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// What runs before the command; empty for nothing
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Give it a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Make its root read-only
    #[arg(long)]
    pub read_only: bool,
    /// Set a kernel parameter of its namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Which user namespace: its own, or host
    #[arg(long, value_name = "MODE", default_value = "own")]
    pub userns: String,
    /// Put a label on it
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    #[arg(help = "When it is started again: no, on-failure[:N], always, unless-stopped", long, value_name = "POLICY", default_value = "no", value_parser = crate::config::restart)]
    pub restart: croft_api::container::Restart,
    /// The signal that asks it to end
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds until it is killed when it does not end
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u32>,
    #[command(flatten)]
    pub options: OptionArgs,
    #[arg(
        help = "The image, then the command and its arguments, whatever these look like",
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        value_names = ["IMAGE", "COMMAND"],
        add = crate::complete::first(crate::complete::images, "words")
    )]
    words: Vec<String>,
}

impl CreateArgs {
    /// The image, and the command with its arguments.
    pub fn words(&self) -> (&str, &[String]) {
        first_and_rest(&self.words)
    }
}

#[derive(Debug, Args)]
pub struct NamesArgs {
    /// The containers' names or ids
    #[arg(required = true, value_name = "CONTAINER", add = crate::complete::containers())]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// Seconds until they are killed
    #[arg(short = 't', long, value_name = "SECONDS")]
    pub time: Option<u32>,
    /// The containers' names or ids
    #[arg(required = true, value_name = "CONTAINER", add = crate::complete::containers())]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct KillArgs {
    /// The signal's name or number
    #[arg(short, long, default_value = "KILL")]
    pub signal: String,
    /// The containers' names or ids
    #[arg(required = true, value_name = "CONTAINER", add = crate::complete::containers())]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Kill those that run
    #[arg(short, long)]
    pub force: bool,
    /// Remove their volumes without names too
    #[arg(short, long)]
    pub volumes: bool,
    /// The containers' names or ids
    #[arg(required = true, value_name = "CONTAINER", add = crate::complete::containers())]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RenameArgs {
    /// The container's name or id
    #[arg(add = crate::complete::containers())]
    pub container: String,
    /// Its new name
    pub name: String,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Those too that do not run
    #[arg(short, long)]
    pub all: bool,
    #[arg(help = "Those only that are so: status=, name=, id=, label=, network=", short, long, value_name = "KEY=VALUE", value_parser = crate::filter::parse)]
    pub filter: Vec<crate::filter::Filter>,
    /// The newest so many, whether they run or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub last: Option<usize>,
    /// Print ids and commands in full
    #[arg(long)]
    pub no_trunc: bool,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Of the lines that are there, the last so many; all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", value_parser = crate::config::tail)]
    pub tail: crate::config::Tail,
    /// Lines of this time and later: 2026-11-21T10:00:00Z, or 10m ago
    #[arg(long, value_name = "TIME", value_parser = crate::config::time)]
    pub since: Option<jiff::Timestamp>,
    /// Lines of this time and earlier
    #[arg(long, value_name = "TIME", value_parser = crate::config::time)]
    pub until: Option<jiff::Timestamp>,
    /// Go on with what comes, until its end
    #[arg(short, long)]
    pub follow: bool,
    /// Print when each line came
    #[arg(short, long)]
    pub timestamps: bool,
    /// The container's name or id
    #[arg(value_name = "CONTAINER", add = crate::complete::containers())]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Those after this number too; 0 for all that are kept
    #[arg(long, value_name = "NUMBER")]
    pub since: Option<u64>,
    /// Do not wait for more
    #[arg(long)]
    pub no_follow: bool,
}

/// `system`.
#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Print what croftd says of itself
    Info,
    /// Look for what no record accounts for; the status is 1 when something is left
    Check {
        /// Take it away; what runs stays, and volumes do
        #[arg(long)]
        fix: bool,
    },
    /// Print where the disk went
    Df,
    /// Remove containers that do not run, and what no image and no container needs
    Prune {
        /// Images with names too that no container is made from
        #[arg(short, long)]
        all: bool,
        /// Volumes too that no container has: with --all those with names
        #[arg(long)]
        volumes: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// What somebody puts behind the image's name gives the container no rights.
    #[test]
    fn what_follows_the_image_is_no_option() {
        use clap::Parser;
        let words = ["--privileged", "-v", "/:/host", "--", "--help", "-d"];
        let parse = |first: &[&str]| super::Cli::try_parse_from([first, &words].concat()).unwrap().command;
        let super::Command::Run(run) = parse(&["croft", "run", "-i", "-e", "A=1", "box"]) else { panic!() };
        assert_eq!(run.create.words(), ("box", &words.map(str::to_owned)[..]));
        assert!(!run.detach && !run.create.options.privileged && run.create.volume.is_empty());
        let super::Command::Exec(exec) = parse(&["croft", "exec", "-it", "--", "web"]) else { panic!() };
        assert_eq!(exec.words(), ("web", &words.map(str::to_owned)[..]));
        assert!(!exec.detach);
        for words in [&["croft", "run", "--nosuch", "box"][..], &["croft", "run"], &["croft", "exec", "web"]]
        {
            assert!(super::Cli::try_parse_from(words).is_err(), "{words:?}");
        }
    }
}
