//! What is there that no record accounts for, and what records account for that is not there; and its cure.

mod fix;

use std::collections::HashSet;
use std::path::Path;

use croft_api::container::State;
use croft_api::problem::{Kind, Problem};
use croft_api::system::Finding;
use croftd_network::Left;

use super::Daemon;
use crate::container::View;
use crate::names;
use crate::records::Phase;

/// What can be done about a finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Cure {
    /// Removes all that is of this id, which no container has.
    Discard(String),
    /// Has the container of this id, which does not run, give back what it has while it does.
    GiveBack(String),
    /// Goes on with the removal of the container of this id.
    Remove(String),
    /// Takes away what networks have left, and puts back what they miss.
    Networks,
    /// Nothing that croftd may do by itself: why, and what somebody can do.
    None(&'static str),
}

/// A finding, and what can be done about it.
type Found = (Finding, Cure);

impl Daemon {
    /// What is there that no record accounts for, and what records account for that is not there.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn check(&self) -> Result<Vec<Finding>, Problem> {
        Ok(self.look()?.into_iter().map(|(finding, _)| finding).collect())
    }

    fn look(&self) -> Result<Vec<Found>, Problem> {
        let records = self.shared.records.all()?;
        let runs = |view: &View| matches!(view.state, State::Running | State::Paused);
        let running: HashSet<String> =
            self.views().into_iter().filter(runs).map(|view| view.record.id).collect();
        let known = |id: &str| records.iter().any(|record| record.id == id);
        let live = |id: &str| running.contains(id);
        // What has another name has another owner.
        let of = |id: String| match known(&id) {
            true => Cure::GiveBack(id),
            false if names::is_id(&id) => Cure::Discard(id),
            false => Cure::None("it is called as croftd calls nothing: see whose it is"),
        };
        let mut found = Vec::new();
        let mut find = |what: &str, name: String, why: &str, cure: Cure| {
            found.push((Finding { what: what.to_owned(), name, why: why.to_owned() }, cure));
        };
        for record in &records {
            if record.phase != Phase::Made {
                let cure = match record.phase {
                    Phase::Removing => Cure::Remove(record.id.clone()),
                    _ => Cure::None("it may be in the making; croftd's next start removes it otherwise"),
                };
                find("record", record.name.clone(), "it is half made or half removed", cure);
            }
            if !self.shared.roots.exists(&record.id) {
                let why = "the container has a record and no root";
                find("snapshot", record.name.clone(), why, Cure::None("croft rm removes the container"));
            }
        }
        for (id, mounted) in self.shared.roots.all()? {
            if !known(&id) {
                find("snapshot", id.clone(), "no container has it", of(id));
            } else if mounted && !live(&id) {
                find("mount", id.clone(), "the root of a container that does not run is mounted", of(id));
            }
        }
        for (range, id) in self.shared.ids.own() {
            if !known(&id) {
                find("ids", format!("{} from {}", range.count, range.start), "no container has them", of(id));
            }
        }
        let folders =
            [(self.shared.root.join("containers"), false), (self.shared.state.join("containers"), true)];
        for (folder, of_running) in folders {
            for id in entries(&folder) {
                let name = || folder.join(&id).display().to_string();
                if !known(&id) {
                    find("folder", name(), "no container has it", of(id));
                } else if of_running && !live(&id) {
                    find("folder", name(), "its container does not run", of(id));
                }
            }
        }
        for (name, why) in self.shared.volumes.check(&self.shared.records)? {
            let cure = "what it holds may be wanted: croft volume rm, or rm -r, removes it";
            find("volume", name, why, Cure::None(cure));
        }
        for Left { what, name, why } in self.shared.networks.check()? {
            find(what, name, &why, Cure::Networks);
        }
        let runtime = croft_engine::state::StateRoot::new(self.shared.state.join("oci"));
        for id in runtime.ids().map_err(|e| Problem::new(Kind::Internal, "check", e.to_string()))? {
            if !live(&id) {
                let why = "croft-oci has a container that does not run here";
                find("runtime", id.clone(), why, of(id));
            }
        }
        Ok(found)
    }
}

/// The names in a folder; none where there is none.
pub(super) fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
