//! What follows the end of a container's process, and what is found of it when croftd comes back.

use std::time::Duration;

use croft_api::container::{Exit, Restart, State};
use croft_api::problem::Problem;
use croft_shim::protocol::{self, Reply, Request};

use super::{Command, Container, Removal};
use crate::records::{Phase, Record, Sync, Wanted};
use crate::{clock, signals};

/// How long clients may take to come back when croftd does.
const COME_BACK: Duration = Duration::from_secs(2);

/// The first pause before a container is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before a container is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the end of a process that was killed may take. It can be held up by a disk.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The end of a process that nobody saw.
const UNSEEN: protocol::Exit = protocol::Exit { status: None, at: 0, oom: false };

impl Container {
    /// What follows the end of its process. Whether it is gone with it.
    pub(super) async fn ended(&mut self, exit: protocol::Exit) -> bool {
        let record = self.record();
        if !matches!(self.state(), State::Running | State::Paused) || record.phase == Phase::Removing {
            return false;
        }
        let seen = Exit { status: exit.status, at: clock::at(exit.at), oom: exit.oom };
        let detail = match exit.status {
            Some(status) if exit.oom => format!("status {status}, out of memory"),
            Some(status) => format!("status {status}"),
            None => "nobody saw its status".to_owned(),
        };
        let again = wants_again(&record, exit.status, self.in_a_row);
        self.forget_health_watch();
        // The record first: a croftd that dies here finds the container stopped, not lost.
        if let Err(problem) = self.change(record.told(), |record| record.exit = Some(seen)) {
            tracing::error!(container = record.name, %problem, "the end of a container is not recorded");
        }
        let _ =
            self.shared.shim.ask(Request::Delete { id: record.id.clone(), exec: None, force: true }).await;
        self.shared.release(&record).await;
        self.shared.happened("exit", &record.name, Some(detail));
        if record.config.auto_remove && !again && self.remove_at_its_end().await {
            return true;
        }
        // After the removal: who waits for its end finds nothing of it then.
        self.show(State::Stopped, None);
        if again {
            self.pause_before_next();
        }
        false
    }

    /// Kills it where it runs, and records its end, for whoever waits for that. What cannot be killed so is ended by the removal itself, and
    /// its status is not known then.
    pub(super) async fn end_for_removal(&mut self) -> Result<(), Problem> {
        let record = self.record();
        if !matches!(self.state(), State::Running | State::Paused) || record.exit.is_some() {
            return Ok(());
        }
        let (shim, id) = (&self.shared.shim, record.id.clone());
        let kill = Request::Kill { id: id.clone(), exec: None, signal: signals::KILL, all: false };
        if shim.ask(kill).await.is_err() {
            return Ok(());
        }
        let ended = tokio::time::timeout(KILL_LIMIT, shim.ask(Request::Wait { id, exec: None })).await;
        let Ok(Ok(Reply::Exited(exit))) = ended else { return Ok(()) };
        let exit = Exit { status: exit.status, at: clock::at(exit.at), oom: exit.oom };
        self.change(record.told(), |record| record.exit = Some(exit))
    }

    /// Removes one that nobody wants once it has ended. Whether it is gone.
    async fn remove_at_its_end(&mut self) -> bool {
        // As with Docker: nobody else can name what it leaves.
        let removed = self.remove(Removal { force: true, volumes: true }).await;
        if let Err(problem) = &removed {
            tracing::error!(container = self.record().name, %problem, "a container that was to go stays");
        }
        removed.is_ok()
    }

    fn pause_before_next(&mut self) {
        self.pause += 1;
        let pause = self.pause;
        let wait = FIRST_PAUSE.saturating_mul(1 << self.in_a_row.min(16)).min(LONGEST_PAUSE);
        self.in_a_row += 1;
        self.later(wait, Command::Again(pause));
    }

    /// Tells itself something after a while.
    fn later(&self, wait: Duration, command: Command) {
        let mailbox = self.mailbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // One that is gone needs to know nothing.
            let _ = mailbox.send(command);
        });
    }

    pub(super) async fn again(&mut self, pause: u32) {
        if pause != self.pause || self.state() != State::Stopped || self.record().wanted != Wanted::Running {
            return;
        }
        let title = self.title("restart");
        let done = match self.change(Sync::Later, |record| record.restarts += 1) {
            Ok(()) => self.run(&title, None).await.map(drop),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = done {
            tracing::warn!(container = self.record().name, %problem, "a container is not started again; another try follows");
            self.pause_before_next();
        }
    }

    /// Gives back what it has only while it runs. Whether it does not run.
    pub(super) async fn give_back(&self) -> Result<bool, Problem> {
        if matches!(self.state(), State::Running | State::Paused) {
            return Ok(false);
        }
        let (record, title) = (self.record(), self.title("release"));
        let _files = self.files_alone(&title).await?;
        self.shared.forget_process(&record.id, &title).await?;
        self.shared.try_release(&record).await?;
        Ok(true)
    }

    /// Lets a container go on that was frozen for a commit by a croftd that ended in it.
    async fn end_commit(&mut self, paused: bool) {
        let mark = self.shared.frozen_for_commit(&self.record().id);
        if !mark.exists() {
            return;
        }
        if paused && let Err(problem) = self.freeze(State::Paused, "resume", State::Running).await {
            tracing::error!(container = self.record().name, %problem, "frozen for a commit that was cut off");
            return;
        }
        if let Err(error) = std::fs::remove_file(&mark) {
            tracing::error!(container = self.record().name, %error, "remove {}", mark.display());
        }
    }

    /// Compares with what the supervisor has. Whether it is gone then.
    pub(super) async fn found(&mut self, there: Option<protocol::State>) -> bool {
        let record = self.record();
        let runs = there.as_ref().is_some_and(|state| state.status == protocol::Status::Running);
        match (there, self.state()) {
            (Some(state), State::Created | State::Stopped) if runs => {
                let paused = self.shared.is_paused(&record.id);
                self.show(if paused { State::Paused } else { State::Running }, state.pid);
                self.finish_update().await;
                if !paused {
                    self.watch_health_again();
                }
                self.end_commit(paused).await;
                self.shared.happened("adopt", &record.name, None);
                if let Some(pid) = state.pid
                    && let Err(problem) = self.shared.complete(&record, pid).await
                {
                    tracing::error!(container = record.name, %problem, "its networks are not as they should be");
                }
                false
            }
            (Some(_), _) if runs => false,
            (Some(protocol::State { exit: Some(exit), .. }), _) => {
                self.show(State::Running, None);
                // Whoever was cut off from its output has a moment to come back for the rest.
                self.later(COME_BACK, Command::Ended(exit));
                false
            }
            (Some(state), _) => {
                // It was created and not started: whoever asked for that has had no answer.
                let _ = self.shared.shim.ask(Request::Delete { id: state.id, exec: None, force: true }).await;
                self.shared.release(&record).await;
                false
            }
            (None, State::Running | State::Paused) => {
                // It may have been started after the list was made.
                let asked = Request::State { id: record.id, exec: None };
                match self.shared.shim.ask(asked).await {
                    Err(failure) if failure.kind == protocol::FailureKind::NotFound => {
                        self.ended(UNSEEN).await
                    }
                    _ => false,
                }
            }
            (None, _) if record.wanted == Wanted::Running && record.exit.is_none() => {
                // It ran when croftd, or the host, went.
                self.show(State::Running, None);
                self.ended(UNSEEN).await
            }
            (None, _) => {
                // Whoever ended or started it may have been killed before the last of it.
                self.shared.release(&record).await;
                let over = record.config.auto_remove && record.exit.is_some();
                over && self.remove_at_its_end().await
            }
        }
    }
}

/// Whether the policy starts it again after an end with `status`.
fn wants_again(record: &Record, status: Option<i32>, in_a_row: u32) -> bool {
    let wanted = record.wanted == Wanted::Running;
    match record.config.restart {
        Restart::No => false,
        Restart::OnFailure(most) => wanted && status != Some(0) && (most == 0 || in_a_row < most),
        Restart::Always | Restart::UnlessStopped => wanted,
    }
}

#[cfg(test)]
mod tests {
    use croft_api::container::Config;

    use super::*;

    #[test]
    fn a_policy_starts_again_what_nobody_stopped() {
        let record = |restart, wanted| Record {
            id: "x".into(),
            name: "x".into(),
            config: Config { restart, ..Config::default() },
            image_id: String::new(),
            ids: None,
            created: String::new(),
            started: None,
            exit: None,
            phase: Phase::Made,
            wanted,
            restarts: 0,
            volumes_go: false,
            limits_before: None,
        };
        let again =
            |restart, wanted, status, in_a_row| wants_again(&record(restart, wanted), status, in_a_row);
        assert!(!again(Restart::No, Wanted::Running, Some(1), 0));
        assert!(again(Restart::Always, Wanted::Running, Some(0), 99));
        assert!(!again(Restart::Always, Wanted::Stopped, Some(0), 0));
        assert!(again(Restart::OnFailure(3), Wanted::Running, Some(1), 2));
        assert!(!again(Restart::OnFailure(3), Wanted::Running, Some(1), 3));
        assert!(!again(Restart::OnFailure(0), Wanted::Running, Some(0), 0));
        assert!(again(Restart::OnFailure(0), Wanted::Running, None, 100));
    }
}
