//! Where the disk went, and giving back what nobody needs. What runs is never removed.

use std::sync::Arc;

use croft_api::container::State;
use croft_api::problem::{Kind, Problem};
use croft_api::system::{Prune, PrunedSystem, Usage, Used};

use super::{Daemon, blocking};
use crate::container::Removal;
use crate::roots::Users;
use crate::volumes::Which;

impl Daemon {
    /// The images that containers are made from, with the containers' names. By the records: one that is just being made counts.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn image_users(&self) -> Result<Users, Problem> {
        let mut users = Users::new();
        for record in self.shared.records.all()? {
            users.entry(record.image_id).or_default().push(record.name);
        }
        Ok(users)
    }

    /// Where the disk went.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn usage(&self) -> Result<Usage, Problem> {
        let users = self.image_users()?;
        let (bytes, reclaimable) = self.shared.roots.usage(&users)?;
        let images = self.shared.roots.list()?;
        let active = images.iter().filter(|image| users.contains_key(&image.id)).count() as u64;
        let images = Used { count: images.len() as u64, active, bytes, reclaimable };
        let (mut containers, mut logs) = (Used::default(), Used::default());
        for view in self.views() {
            let runs = matches!(view.state, State::Running | State::Paused);
            let disk = |folder| croft_images::store::size(folder).map_or(0, |(_, bytes)| bytes);
            containers.add(self.shared.roots.written(&view.record.id), runs);
            logs.add(disk(&self.shared.folder(&view.record.id)), runs);
        }
        let mut volumes = Used::default();
        for volume in self.shared.volumes.list(&self.shared.records)? {
            let bytes = croft_images::store::size(&self.shared.volumes.data(&volume.name));
            volumes.add(bytes.map_or(0, |(_, bytes)| bytes), !volume.used_by.is_empty());
        }
        Ok(Usage { images, containers, volumes, logs })
    }

    /// Removes the containers that do not run, and what of images and volumes nobody needs then.
    ///
    /// # Errors
    /// When something cannot be removed; what was before it is.
    pub async fn prune(self: &Arc<Self>, asked: Prune) -> Result<PrunedSystem, Problem> {
        let mut pruned = PrunedSystem::default();
        for view in self.views() {
            if matches!(view.state, State::Running | State::Paused) {
                continue;
            }
            let bytes = self.shared.roots.written(&view.record.id);
            // One that has been started meanwhile, or is being restarted by its policy, refuses; one that is gone is gone.
            match self.remove(&view.record.id, Removal { force: false, volumes: false }).await {
                Ok(()) => {
                    pruned.bytes += bytes;
                    pruned.containers.push(view.record.name);
                }
                Err(problem) if matches!(problem.kind, Kind::WrongState | Kind::NotFound) => {}
                Err(problem) => return Err(problem),
            }
        }
        let daemon = Arc::clone(self);
        blocking(move || {
            if asked.volumes {
                let which = if asked.all { Which::All } else { Which::Anonymous };
                let volumes = daemon.shared.volumes.prune(&daemon.shared.records, which)?;
                pruned.bytes += volumes.bytes;
                pruned.volumes = volumes.volumes;
            }
            let images = daemon.shared.roots.prune(asked.all, &daemon.image_users()?)?;
            pruned.bytes += images.bytes;
            pruned.images = images.names;
            for (object, names) in [("volume", &pruned.volumes), ("image", &pruned.images)] {
                names.iter().for_each(|name| daemon.shared.happened_to(object, "delete", name, None));
            }
            Ok(pruned)
        })
        .await
    }
}
