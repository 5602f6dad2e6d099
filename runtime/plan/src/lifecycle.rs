//! The container's states, and what each allows.

use serde::{Deserialize, Serialize};

/// A container's state: runtime-spec runtime.md (State), and `paused` as runc has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made, or its making was cut off.
    Creating,
    /// Its process waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// The word of the state.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// What is asked of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Run its program.
    Start,
    /// Send it a signal.
    Kill,
    /// Remove it.
    Delete,
    /// Kill and remove it.
    ForceDelete,
    /// Run a further process.
    Exec,
    /// Run a further process although it is paused (`--ignore-paused`).
    ExecIgnoringPause,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
    /// Change its limits.
    Update,
    /// List its processes.
    Ps,
    /// Read its counters.
    Events,
}

/// What to do about a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Do it.
    Do,
    /// Refuse it, in runc's words where its callers match on them.
    Refuse(&'static str),
}

/// Whether a container that is `status` allows `verb`.
pub fn allows(status: Status, verb: Verb) -> Answer {
    use Answer::{Do, Refuse};
    use Status::{Created, Creating, Paused, Running, Stopped};
    match (verb, status) {
        (Verb::Start, Created) => Do,
        (Verb::Start, Running) => Refuse("cannot start an already running container"),
        (Verb::Start, Stopped) => Refuse("cannot start a container that has stopped"),
        (Verb::Start, Paused) => Refuse("cannot start a paused container"),
        (Verb::Start, Creating) => Refuse("cannot start a container that is not created yet"),
        (Verb::Kill, Stopped) => Refuse("container not running"),
        (Verb::Kill, Creating) => Refuse("container not running"),
        (Verb::Kill, _) => Do,
        (Verb::ForceDelete, _) | (Verb::Delete, Stopped) => Do,
        (Verb::Delete, _) => Refuse("cannot delete container that is not stopped"),
        (Verb::Exec, Paused) => Refuse("cannot exec in a paused container (use --ignore-paused to override)"),
        (Verb::Exec | Verb::ExecIgnoringPause, Stopped) => Refuse("cannot exec in a stopped container"),
        (Verb::Exec | Verb::ExecIgnoringPause, Creating) => Refuse("container not running"),
        (Verb::Exec | Verb::ExecIgnoringPause, _) => Do,
        (Verb::Pause, Running | Created) => Do,
        (Verb::Pause, _) => Refuse("container not running or created"),
        (Verb::Resume, Paused) => Do,
        (Verb::Resume, _) => Refuse("container not paused"),
        (Verb::Update | Verb::Ps | Verb::Events, Stopped | Creating) => Refuse("container not running"),
        (Verb::Update | Verb::Ps | Verb::Events, _) => Do,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_decided() {
        use Status::{Created, Creating, Paused, Running, Stopped};
        let table: &[(Verb, &[Status])] = &[
            (Verb::Start, &[Created]),
            (Verb::Kill, &[Created, Running, Paused]),
            (Verb::Delete, &[Stopped]),
            (Verb::ForceDelete, &[Creating, Created, Running, Paused, Stopped]),
            (Verb::Exec, &[Created, Running]),
            (Verb::ExecIgnoringPause, &[Created, Running, Paused]),
            (Verb::Pause, &[Created, Running]),
            (Verb::Resume, &[Paused]),
            (Verb::Update, &[Created, Running, Paused]),
            (Verb::Ps, &[Created, Running, Paused]),
            (Verb::Events, &[Created, Running, Paused]),
        ];
        for (verb, allowed) in table {
            for status in [Creating, Created, Running, Paused, Stopped] {
                let does = allows(status, *verb) == Answer::Do;
                assert_eq!(does, allowed.contains(&status), "{verb:?} when {status:?}");
            }
        }
    }
}
