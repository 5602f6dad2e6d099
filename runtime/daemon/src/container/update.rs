//! New limits and another restart policy, whether the container runs or not.

use croft_api::container::{Limits, State, Update};
use croft_api::problem::{Kind, Problem};

use super::Container;
use crate::records::Sync;
use crate::spec;

impl Container {
    /// Changes what is asked: in the record first, and then in the groups of a running container. What is refused leaves both as they were.
    pub(super) async fn update(&mut self, asked: Update) -> Result<(), Problem> {
        let title = self.title("update");
        let before = self.record().config;
        let mut config = before.clone();
        merge(&mut config.limits, asked.limits);
        config.restart = asked.restart.unwrap_or(config.restart);
        let invalid = |e: spec::Invalid| Problem::new(Kind::Invalid, &*title, e.to_string());
        spec::check(&config).map_err(invalid)?;
        spec::limits(&config.limits).map_err(invalid)?;
        let runs = matches!(self.state(), State::Running | State::Paused);
        let is_applied = runs && config.limits != before.limits;
        let limits = config.limits.clone();
        self.change(Sync::Now, |record| {
            record.config = config;
            record.limits_before = is_applied.then(|| before.limits.clone());
        })?;
        if is_applied {
            if let Err(why) = self.apply(&limits).await {
                self.change(Sync::Now, |record| (record.config, record.limits_before) = (before, None))?;
                return Err(Problem::new(Kind::Invalid, title, why));
            }
            self.change(Sync::Now, |record| record.limits_before = None)?;
        }
        self.shared.happened("update", &self.record().name, None);
        Ok(())
    }

    /// Finishes an update that a croftd before this one recorded and may not have applied, or takes it back.
    pub(super) async fn finish_update(&mut self) {
        let Some(before) = self.record().limits_before else { return };
        let limits = self.record().config.limits;
        let done = match self.apply(&limits).await {
            Ok(()) => self.change(Sync::Now, |record| record.limits_before = None),
            Err(why) => {
                tracing::warn!(container = self.record().name, why, "an update is taken back");
                self.change(Sync::Now, |record| (record.config.limits, record.limits_before) = (before, None))
            }
        };
        if let Err(problem) = done {
            tracing::error!(container = self.record().name, %problem, "an update stays half done");
        }
    }

    async fn apply(&self, limits: &Limits) -> Result<(), String> {
        let resources = spec::limits(limits).map_err(|e| e.to_string())?;
        let id = self.record().id;
        let file = self.shared.run_folder(&id).join("update.json");
        std::fs::write(&file, resources.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        let done = self.shared.runtime(&["update", "--resources", &file.to_string_lossy(), &id]).await;
        let _ = std::fs::remove_file(&file);
        done
    }
}

/// `limits` with those that `asked` has in their places.
fn merge(limits: &mut Limits, asked: Limits) {
    let Limits { memory, cpus, cpu_shares, cpuset, memory_swap, memory_reservation, blkio_weight, pids } =
        asked;
    limits.memory = memory.or(limits.memory);
    limits.cpus = cpus.or(limits.cpus);
    limits.cpu_shares = cpu_shares.or(limits.cpu_shares);
    limits.cpuset = cpuset.or(limits.cpuset.take());
    limits.memory_swap = memory_swap.or(limits.memory_swap);
    limits.memory_reservation = memory_reservation.or(limits.memory_reservation);
    limits.blkio_weight = blkio_weight.or(limits.blkio_weight);
    limits.pids = pids.or(limits.pids);
}
