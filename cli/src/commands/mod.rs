//! One command, one function: what is asked of croftd, and what is printed.

mod archive;
mod attached;
mod containers;
mod files;
mod images;
mod logs;
mod networks;
mod patience;
mod progress;
pub mod remote;

mod stats;
mod system;
mod top;
mod update;
mod volumes;

use croft_api::client::{Client, Error, Place};
use croft_api::keys;
use croft_api::problem::Kind;

use crate::FAILED;
use crate::args::{Cli, Command};
use crate::output::Shown;

/// Why a command failed, for people, with the status for programs.
#[derive(Debug)]
pub struct Failed {
    /// What, on what, why.
    pub text: String,
    /// What to try.
    pub hint: Option<String>,
    /// The exit status.
    pub status: u8,
}

impl From<String> for Failed {
    fn from(text: String) -> Self {
        Failed { text, hint: None, status: FAILED }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(problem) => {
                let status =
                    if problem.kind == Kind::CannotRun { cannot_run(&problem.detail) } else { FAILED };
                Failed { text: problem.to_string(), hint: problem.hint, status }
            }
            Error::Unreachable { source, place } => Failed {
                text: format!("croftd does not answer on {place}: {source}"),
                hint: Some(match place {
                    Place::Socket(_) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                        "be root, or have an administrator run: adduser USER croft".into()
                    }
                    Place::Socket(_) => "start it: croftd, or systemctl start croftd".into(),
                    Place::Host { address, .. } => {
                        let port = address.rsplit(':').next().unwrap_or_default();
                        format!(
                            "start it there: croftd --listen 0.0.0.0:{port}; croft remote list shows addresses"
                        )
                    }
                }),
                status: FAILED,
            },
            Error::NotTrusted { place, why } => Failed {
                text: format!("{place}: {why}"),
                hint: Some(
                    "croft remote show prints a host's key, croft remote trust takes it on the other host"
                        .into(),
                ),
                status: FAILED,
            },
            error @ Error::Broken(_) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                Failed::from(format!("{error}: {cause}"))
            }
            error @ Error::NotUnderstood(_) => Failed {
                text: error.to_string(),
                hint: Some(
                    "croft and croftd may be of different versions: croft --version, croftd --version".into(),
                ),
                status: FAILED,
            },
        }
    }
}

impl From<keys::Error> for Failed {
    fn from(error: keys::Error) -> Self {
        let hint = match &error {
            keys::Error::NoKey(_) => Some("croft remote make".to_owned()),
            keys::Error::NoAddress(name) => {
                Some(format!("croft remote trust --address HOST:PORT {name} FILE, once more"))
            }
            keys::Error::Taken { name, .. } => {
                Some(format!("croft remote revoke {name}, then trust it again"))
            }
            keys::Error::Unknown { name, others } => {
                let nearest = croft_api::names::nearest(name, others.iter().map(String::as_str));
                Some(nearest.map_or("croft remote list".to_owned(), |near| format!("there is {near}")))
            }
            _ => None,
        };
        Failed { hint, ..Failed::from(error.to_string()) }
    }
}

/// 127 for a program that is not there, 126 for one that cannot be run, as a shell has it.
fn cannot_run(detail: &str) -> u8 {
    // Other steps miss files too: theirs are not the program.
    let Some((_, why)) = detail.split_once("exec: \"") else { return FAILED };
    if why.contains("no such file") || why.contains("not found") { 127 } else { 126 }
}

/// Does what is asked. Gives the exit status.
///
/// # Errors
/// When it cannot be done.
pub async fn run(cli: &Cli) -> Result<u8, Failed> {
    let format = cli.format;
    let shown = Shown { format, quiet: cli.quiet };
    let keys = remote::keys(cli);
    let client = match (&cli.command, &cli.remote) {
        // It is about this host.
        (Command::Remote(_), _) | (_, None) => Client::new(&cli.socket),
        (_, Some(name)) => Client::remote(&keys, name)?,
    };
    match &cli.command {
        Command::Run(args) => containers::run(&client, args, shown).await,
        Command::Create(args) => containers::create(&client, args, shown).await,
        Command::Exec(args) => containers::exec(&client, args).await,
        Command::Attach(args) => containers::attach(&client, args).await,
        Command::Console { container } => containers::console(&client, container).await,
        Command::Start(args) => containers::each(&client, &args.names, "start", shown).await,
        Command::Stop(args) => containers::each(&client, &args.names, &timed("stop", args.time), shown).await,
        Command::Restart(args) => {
            containers::each(&client, &args.names, &timed("restart", args.time), shown).await
        }
        Command::Kill(args) => {
            containers::each(&client, &args.names, &format!("kill?signal={}", part(&args.signal)), shown)
                .await
        }
        Command::Rm(args) => containers::remove(&client, args, shown).await,
        Command::Pause(args) => containers::each(&client, &args.names, "pause", shown).await,
        Command::Unpause(args) => containers::each(&client, &args.names, "unpause", shown).await,
        Command::Update(args) => update::run(&client, args, shown).await,
        Command::Rename(args) => containers::rename(&client, &args.container, &args.name).await,
        Command::Wait(args) => containers::wait(&client, &args.names, shown).await,
        Command::Ps(args) => containers::list(&client, args, shown).await,
        Command::Inspect(args) => containers::inspect(&client, &args.names).await,
        Command::Logs(args) => logs::run(&client, args, shown).await,
        Command::Cp(args) => files::copy(&client, args).await,
        Command::Diff { container } => files::diff(&client, container, shown).await,
        Command::Commit(args) => files::commit(&client, args, shown).await,
        Command::Export(args) => files::export(&client, args).await,
        Command::Stats(args) => stats::run(&client, args, shown).await,
        Command::Top(args) => top::run(&client, args, shown).await,
        Command::Events(args) => system::events(&client, args, format).await,
        Command::Image(command) => images::run(&client, command, shown).await,
        Command::Network(command) => networks::run(&client, command, shown).await,
        Command::Login(args) => images::log_in(&client, args).await,
        Command::Logout(args) => images::log_out(&client, args).await,
        Command::Pull(args) => images::get(&client, args, format).await,
        Command::Push(args) => images::push(&client, args, format).await,
        Command::Images(args) => images::list(&client, args.quiet, format).await,
        Command::Rmi(args) => images::remove(&client, args, shown).await,
        Command::Tag(args) => images::tag(&client, args).await,
        Command::Save(args) => images::save(&client, args).await,
        Command::Load(args) => images::load(&client, args, format).await,
        Command::Remote(command) => remote::run(&keys, command, shown),
        Command::Volume(command) => volumes::run(&client, command, shown).await,
        Command::Completion { shell } => completion(shell),
        Command::System(command) => system::run(&client, command, shown).await,
    }
}

/// `completion`: the shell asks croft itself what could follow, so that names are of what there is.
fn completion(shell: &str) -> Result<u8, Failed> {
    let shells = clap_complete::env::Shells::builtins();
    let completer =
        shells.completer(shell).ok_or_else(|| Failed::from(format!("no completion for {shell}")))?;
    let mut text = Vec::new();
    completer
        .write_registration("COMPLETE", "croft", "croft", "croft", &mut text)
        .map_err(|e| e.to_string())?;
    crate::output::print(&String::from_utf8_lossy(&text));
    Ok(0)
}

fn timed(verb: &str, seconds: Option<u32>) -> String {
    seconds.map_or(verb.to_owned(), |seconds| format!("{verb}?timeout={seconds}"))
}

/// Prints the name of what was done, and what failed before the last failure.
fn report(done: Result<(), Error>, name: &str, shown: Shown, failed: &mut Option<Failed>) {
    match done {
        Ok(()) => shown.each(&serde_json::json!({ "name": name }), name),
        Err(error) => {
            if let Some(before) = failed.replace(error.into()) {
                eprintln!("croft: {}", before.text);
            }
        }
    }
}

/// A name as a part of a path or query (RFC 3986).
fn part(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_in_paths() {
        assert_eq!(part("a/b?c d"), "a%2Fb%3Fc%20d");
    }

    #[test]
    fn statuses_are_a_shell_s() {
        assert_eq!(cannot_run("exec: \"/x\": no such file or directory"), 127);
        assert_eq!(cannot_run("exec: \"/etc\": permission denied"), 126);
        assert_eq!(cannot_run("mount: it is busy"), FAILED);
        assert_eq!(cannot_run("clone tree /x: open_tree: no such file or directory"), FAILED);
        assert_eq!(cannot_run("exec under AppArmor profile x: write in /proc: not found"), FAILED);
    }
}
