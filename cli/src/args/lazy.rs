//! Arguments that are put together only for the command that is asked for: all commands together have some hundred, which would take
//! most of the time of a short command. Not for those that have an argument of the same name as one of all commands: those come first.

use std::ops::Deref;

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Subcommand};

/// What `T` is, put together later.
#[derive(Debug)]
pub struct Lazy<T>(T);

impl<T> Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: FromArgMatches> FromArgMatches for Lazy<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Lazy)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for Lazy<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_args_for_update))
    }
}

impl<T: Subcommand> Subcommand for Lazy<T> {
    fn augment_subcommands(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_subcommands))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_subcommands_for_update))
    }

    fn has_subcommand(name: &str) -> bool {
        T::has_subcommand(name)
    }
}

/// The command with its arguments, and described as it was: they have descriptions too, and here come after its own.
fn described(command: Command, augment: fn(Command) -> Command) -> Command {
    let (short, long) = (command.get_about().cloned(), command.get_long_about().cloned());
    let command = augment(command);
    // Without a long description, there is to be none of the arguments' either.
    let command = command.long_about(long.map_or(Resettable::Reset, Resettable::Value));
    command.about(short.map_or(Resettable::Reset, Resettable::Value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::args::Cli;

    #[test]
    fn only_the_command_that_is_asked_for_has_its_arguments() {
        let mut command = Cli::command();
        let run = |command: &clap::Command| command.find_subcommand("run").unwrap().get_arguments().count();
        assert_eq!(run(&command), 0);
        // Those of all commands.
        command.try_get_matches_from_mut(["croft", "ps"]).unwrap();
        assert!(run(&command) < 10);
        command.try_get_matches_from_mut(["croft", "run", "box"]).unwrap();
        assert!(run(&command) > 50);
    }
}
