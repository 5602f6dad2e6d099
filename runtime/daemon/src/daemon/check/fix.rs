//! What `croft system check --fix` does: takes away what certainly is nobody's. What runs stays, and volumes do.

use std::collections::BTreeMap;
use std::sync::Arc;

use croft_api::problem::{Kind, Problem};
use croft_api::system::{Finding, Fixed};
use croft_engine::state::StateRoot;
use croft_plan::lifecycle::Status;
use croft_shim::protocol::{FailureKind, Request};

use super::super::bundle::remove_all;
use super::super::{Daemon, Shared, blocking, error_chain};
use super::{Cure, Found};
use crate::container::{Command, Removal};
use crate::supervise::problem;

/// What a cure came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Whose it is has changed since it was found.
    NotNeeded,
    /// Why it stays.
    Left(String),
}

impl Daemon {
    /// Looks, takes away what certainly is nobody's, and looks again.
    ///
    /// # Errors
    /// When it cannot be looked at. What cannot be taken away is among what is left, with the reason.
    pub async fn fix(self: &Arc<Self>) -> Result<Fixed, Problem> {
        let look = || {
            let daemon = Arc::clone(self);
            blocking(move || daemon.look())
        };
        let before = look().await?;
        let mut outcomes = BTreeMap::new();
        for (finding, cure) in &before {
            // One cure may be that of several findings.
            if !outcomes.contains_key(cure) {
                let outcome = self.cure(cure).await;
                tracing::info!(what = finding.what, name = finding.name, why = finding.why, ?outcome, "fix");
                outcomes.insert(cure.clone(), outcome);
            }
        }
        let after = if before.is_empty() { Vec::new() } else { look().await? };
        let is_left = |finding: &Finding| {
            after.iter().any(|(other, _)| (&other.what, &other.name) == (&finding.what, &finding.name))
        };
        let was_done = |cure: &Cure| outcomes.get(cure) == Some(&Outcome::Done);
        let fixed = before.into_iter().filter(|(finding, cure)| was_done(cure) && !is_left(finding));
        let fixed = fixed.map(|(finding, _)| finding).collect();
        let left = |(finding, cure): Found| {
            let why = match (outcomes.get(&cure), &cure) {
                (Some(Outcome::Left(why)), _) => format!("{}; {why}", finding.why),
                (_, Cure::None(why)) => format!("{}; {why}", finding.why),
                _ => finding.why,
            };
            Finding { why, ..finding }
        };
        Ok(Fixed { fixed, left: after.into_iter().map(left).collect() })
    }

    async fn cure(&self, cure: &Cure) -> Outcome {
        let done = match cure {
            Cure::None(why) => return Outcome::Left((*why).to_owned()),
            Cure::Discard(id) => self.shared.discard_unknown(id).await,
            Cure::GiveBack(id) | Cure::Remove(id) => {
                // Its own task, so that nothing starts or copies meanwhile.
                let Some(handle) = self.shared.container(id) else { return Outcome::NotNeeded };
                let volumes = handle.view().record.volumes_go;
                let removal = Removal { force: false, volumes };
                let asked = match cure {
                    Cure::Remove(_) => {
                        handle.ask(|answer| Command::Remove(removal, answer)).await.map(|()| true)
                    }
                    _ => handle.ask(Command::GiveBack).await,
                };
                // Who has gone meanwhile has given back everything.
                if handle.is_gone() { Ok(true) } else { asked }
            }
            Cure::Networks => {
                let shared = Arc::clone(&self.shared);
                blocking(move || shared.networks.sweep().and_then(|()| shared.networks.mend()))
                    .await
                    .map(|()| true)
            }
        };
        match done {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::NotNeeded,
            Err(problem) => Outcome::Left(problem.to_string()),
        }
    }
}

impl Shared {
    /// Removes all that is of an id that no container has. Whether there is none that has it: an id is given once, and recorded before
    /// anything has it, so that one without a record never has one again.
    async fn discard_unknown(self: &Arc<Self>, id: &str) -> Result<bool, Problem> {
        let title = format!("remove what is of {id}");
        if self.records.all()?.iter().any(|record| record.id == id) {
            return Ok(false);
        }
        self.forget_process(id, &title).await?;
        let (shared, id) = (Arc::clone(self), id.to_owned());
        blocking(move || {
            shared.networks.detach(&id)?;
            shared.networks.release(&id)?;
            shared.roots.unmount(&id)?;
            shared.roots.delete(&id)?;
            crate::shm::unmake(&shared.run_folder(&id));
            for folder in [shared.run_folder(&id), shared.folder(&id)] {
                remove_all(&folder, &title)?;
            }
            for (range, _) in shared.ids.own().into_iter().filter(|(_, owner)| *owner == id) {
                shared.ids.give_back(range.start)?;
            }
            Ok(true)
        })
        .await
    }

    /// Has the supervisor and croft-oci forget a container that does not run.
    ///
    /// # Errors
    /// When it runs, or they cannot.
    pub async fn forget_process(self: &Arc<Self>, id: &str, title: &str) -> Result<(), Problem> {
        match self.shim.ask(Request::Delete { id: id.to_owned(), exec: None, force: false }).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.kind == FailureKind::NotFound => {}
            Err(failure) => return Err(problem(title, &failure)),
        }
        // One that the supervisor does not have.
        let root = StateRoot::new(self.state.join("oci"));
        if !root
            .ids()
            .map_err(|e| Problem::new(Kind::Internal, title, error_chain(&e)))?
            .iter()
            .any(|own| own == id)
        {
            return Ok(());
        }
        let state = croft_engine::status::state(&root, id);
        match state.map_err(|e| Problem::new(Kind::Internal, title, error_chain(&e)))?.status {
            Status::Running | Status::Paused => {
                let hint = format!("croft-oci --root {} delete --force {id} ends it", root.path().display());
                Err(Problem::new(Kind::WrongState, title, "its process runs").hint(hint))
            }
            // Without force: one that has been started meanwhile stays.
            Status::Creating | Status::Created | Status::Stopped => {
                let failed = |why: String| Problem::new(Kind::Internal, title, why);
                self.runtime(&["delete", id]).await.map_err(failed)
            }
        }
    }
}
