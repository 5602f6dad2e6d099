//! The health of a running container: a task runs its check now and then, and this one keeps what that finds.

use croft_api::container::{Health, Probe, State};

use super::{Command, Container};
use crate::health;

impl Container {
    /// Begins to look at its health, from `known`; a container without a check has none.
    pub(super) fn watch_health(&mut self, known: Health) {
        self.forget_health_watch();
        let record = self.record();
        let Some(check) = record.config.health.clone() else {
            return self.view.send_modify(|view| view.health = None);
        };
        self.keep_health(known);
        let (shared, mailbox, turn) = (self.shared.clone(), self.mailbox.clone(), self.health_turn);
        let watch = tokio::spawn(async move {
            loop {
                tokio::time::sleep(health::interval(&check)).await;
                let probe = health::probe(&shared, &record, &check).await;
                if mailbox.send(Command::Probed(turn, probe)).is_err() {
                    return;
                }
            }
        });
        self.health_watch = Some(watch.abort_handle());
    }

    /// As [`Container::watch_health`], from what the croftd before knew, or this one before a pause.
    pub(super) fn watch_health_again(&mut self) {
        let known = std::fs::read(self.health_file()).ok();
        let known = known.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        self.watch_health(known);
    }

    /// Ends the looking: it does not run, or is frozen.
    pub(super) fn forget_health_watch(&mut self) {
        self.health_turn += 1;
        if let Some(watch) = self.health_watch.take() {
            watch.abort();
        }
    }

    /// A run of the check is over.
    pub(super) fn probed(&mut self, turn: u32, probe: Probe) {
        let record = self.record();
        let (Some(check), Some(known)) = (&record.config.health, self.view.borrow().health.clone()) else {
            return;
        };
        if turn != self.health_turn || self.state() != State::Running {
            return;
        }
        let period = health::period(check, record.started.as_deref(), jiff::Timestamp::now());
        let found = health::after(&known, check, probe, period);
        let state = found.state;
        self.keep_health(found);
        if state != known.state {
            self.shared.happened("health_status", &record.name, Some(state.word().to_owned()));
        }
    }

    fn keep_health(&self, health: Health) {
        let file = self.health_file();
        let new = file.with_extension("new");
        let text = serde_json::to_vec(&health).unwrap_or_default();
        if let Err(error) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &file)) {
            tracing::warn!(path = %file.display(), %error, "a container's health is not kept");
        }
        self.view.send_modify(|view| view.health = Some(health));
    }

    /// In memory, and only as long as it runs: a reboot ends it.
    fn health_file(&self) -> std::path::PathBuf {
        self.shared.run_folder(&self.record().id).join("health.json")
    }
}
