//! What is there that no record accounts for, and what records account for that is not there.

use std::collections::HashSet;
use std::path::Path;

use croft_api::container::State;
use croft_api::problem::{Kind, Problem};
use croft_api::system::Finding;
use croftd_network::Left;

use super::Daemon;
use crate::container::View;
use crate::records::Phase;

impl Daemon {
    /// What is there that no record accounts for, and what records account for that is not there.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn check(&self) -> Result<Vec<Finding>, Problem> {
        let records = self.shared.records.all()?;
        let runs = |view: &View| matches!(view.state, State::Running | State::Paused);
        let running: HashSet<String> =
            self.views().into_iter().filter(runs).map(|view| view.record.id).collect();
        let known = |id: &str| records.iter().any(|record| record.id == id);
        let live = |id: &str| running.contains(id);
        let mut found = Vec::new();
        let mut find = |what: &str, name: String, why: &str| {
            found.push(Finding { what: what.to_owned(), name, why: why.to_owned() });
        };
        for record in &records {
            if record.phase != Phase::Made {
                find("record", record.name.clone(), "it is half made or half removed");
            }
            if !self.shared.roots.exists(&record.id) {
                find("snapshot", record.name.clone(), "the container has a record and no root");
            }
        }
        for (id, mounted) in self.shared.roots.all()? {
            if !known(&id) {
                find("snapshot", id, "no container has it");
            } else if mounted && !live(&id) {
                find("mount", id, "the root of a container that does not run is mounted");
            }
        }
        for (range, id) in self.shared.ids.own() {
            if !known(&id) {
                find("ids", format!("{} from {}", range.count, range.start), "no container has them");
            }
        }
        let folders =
            [(self.shared.root.join("containers"), false), (self.shared.state.join("containers"), true)];
        for (folder, of_running) in folders {
            for id in entries(&folder) {
                if !known(&id) || (of_running && !live(&id)) {
                    find("folder", folder.join(id).display().to_string(), "no container has it");
                }
            }
        }
        for (name, why) in self.shared.volumes.check(&self.shared.records)? {
            find("volume", name, why);
        }
        for Left { what, name, why } in self.shared.networks.check()? {
            find(what, name, &why);
        }
        let runtime = croft_engine::state::StateRoot::new(self.shared.state.join("oci"));
        for id in runtime.ids().map_err(|e| Problem::new(Kind::Internal, "check", e.to_string()))? {
            if !live(&id) {
                find("runtime", id, "croft-oci has a container that does not run here");
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
