//! What shells offer behind commands: the names of what croftd has.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{ArgMatches, Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use croft_api::client::Client;
use croft_api::container::Container;
use croft_api::image::Image;
use croft_api::keys::Keys;
use croft_api::system::Info;
use serde::de::DeserializeOwned;

use crate::args::Cli;
use crate::commands::remote::usual_folder;

/// Who waits for a completion does not wait long.
const LIMIT: Duration = Duration::from_millis(500);

/// The command line, with a `help` of its own: clap makes its while the commands below others are still put off (see [`Lazy`](crate::args::Lazy)), and
/// would offer none of them.
pub fn command() -> Command {
    let mut whole = Cli::command();
    whole.build();
    Cli::command().disable_help_subcommand(true).subcommand(names(&whole).name("help"))
}

/// A command's name and those of all below it, without arguments.
fn names(command: &Command) -> Command {
    // It lives as long as this process, which ends when the shell has its answer.
    let name: &'static str = command.get_name().to_owned().leak();
    let below = command.get_subcommands().filter(|below| below.get_name() != "help").map(names);
    let about = command.get_about().cloned().unwrap_or_default();
    Command::new(name).about(about).hide(command.is_hide_set()).subcommands(below)
}

/// Names of containers.
pub fn containers() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        offered(typed, ask::<Vec<Container>>("/containers?all=true").into_iter().map(|one| one.name))
    })
}

/// Names of images.
pub fn images() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        offered(typed, ask::<Vec<Image>>("/images").into_iter().flat_map(|image| image.names))
    })
}

/// For an argument `id` of several words: what is offered for the first. The others are somebody else's.
pub fn first(of: fn() -> ArgValueCompleter, id: &'static str) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| match has_any(id) {
        true => Vec::new(),
        false => of().complete(typed),
    })
}

/// Whether an argument has a word already, before the one that is typed.
fn has_any(id: &str) -> bool {
    // As the shells' scripts of clap_complete call this program: `croft -- croft run box`, and which word is typed.
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let typed = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
    let before = words.get(..typed.unwrap_or_default()).unwrap_or_default();
    let matches = Cli::command().ignore_errors(true).try_get_matches_from(before);
    let has = |matches: &ArgMatches| {
        let (_, of_command) = matches.subcommand()?;
        of_command.try_get_raw(id).ok().flatten().map(|words| words.len() > 0)
    };
    matches.is_ok_and(|matches| has(&matches).unwrap_or_default())
}

/// Names of hosts that are trusted.
pub fn hosts() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let folder = std::env::var_os("CROFT_KEYS").map_or_else(usual_folder, Into::into);
        let all = Keys::new(folder).trusted().unwrap_or_default();
        offered(typed, all.into_iter().map(|one| one.name))
    })
}

/// Devices: paths, and names in CDI specifications.
pub fn devices() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut all = offered(typed, ask::<Info>("/system/info").cdi.into_iter());
        all.extend(PathCompleter::any().complete(typed));
        all
    })
}

fn offered(typed: &OsStr, names: impl Iterator<Item = String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    names.filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

/// What croftd answers; nothing where it does not.
fn ask<T: DeserializeOwned + Default>(path: &str) -> T {
    let socket = std::env::var_os("CROFT_SOCKET").unwrap_or_else(|| croft_api::SOCKET.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return T::default() };
    let client = Client::new(socket.as_ref());
    let asked = async { tokio::time::timeout(LIMIT, client.get::<T>(path)).await };
    runtime.block_on(asked).ok().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap_complete::engine::complete;

    /// What is offered for the last of these words.
    fn offered(words: &[&str]) -> Vec<String> {
        let args = words.iter().map(Into::into).collect();
        let found = complete(&mut super::command(), args, words.len() - 1, None).unwrap();
        found.iter().map(|one| one.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn help_knows_the_commands_below_others() {
        assert_eq!(offered(&["croft", "help", "image", "pu"]), ["pull", "push"]);
        assert_eq!(offered(&["croft", "help", "ru"]), ["run"]);
        assert_eq!(offered(&["croft", "help", "image", "pull", "--plat"]), [""; 0]);
        assert_eq!(offered(&["croft", "hel"]), ["help"]);
        for (typed, whole) in [("--remo", "--remote"), ("--plat", "--platform")] {
            assert_eq!(offered(&["croft", "image", "pull", typed]), [whole]);
        }
    }
}
