//! Volumes: folders in croftd's care that containers mount, each with a record that is written before the folder is made and goes after it.
//!
//! ```text
//! volumes/NAME/data       its files; owners are the container's own numbers (0-based), which mounts shift
//! volumes/NAME/filling    what the image has at that path, while it is copied: a crash leaves no half of it in `data`
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use croft_api::container::{Config, Mount};
use croft_api::problem::{Kind, Problem};
use croft_api::volume::{Pruned, Volume};
use croft_images::store::{remove, size};
use serde::{Deserialize, Serialize};

use crate::records::{Record, Records};
use crate::roots::Roots;
use crate::{clock, names, roots};

/// The longest name: a file's may have 255 bytes, and people have to read it.
const LONGEST: usize = 128;

/// What is kept of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether nobody gave it a name.
    pub anonymous: bool,
    /// The container whose creation made it; none for one that was asked for by itself.
    pub made_for: Option<String>,
    /// How far it is.
    pub phase: VolumePhase,
}

/// How far a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumePhase {
    /// Its folder is being made.
    Making,
    /// It is there; the first container to mount it fills it.
    Empty,
    /// It is there, with what it was first filled with.
    Made,
    /// It is being removed.
    Removing,
}

/// The volumes of a croftd.
#[derive(Debug)]
pub struct Volumes {
    folder: PathBuf,
    /// Held while one is made, filled or removed.
    changes: Mutex<()>,
}

/// Which volumes a prune is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that nobody gave a name.
    Anonymous,
    /// All.
    All,
}

impl Volumes {
    /// The volumes in the folder `volumes` of croftd's root folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        let folder = root.join("volumes");
        // Files in it have set-user-id bits that mean something to containers only.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Volumes { folder, changes: Mutex::new(()) })
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        // It guards no value: what was half done is in the records.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder that is mounted for the volume `name`.
    pub fn data(&self, name: &str) -> PathBuf {
        self.own(name).join("data")
    }

    /// Makes a volume; one that is there stays as it is.
    ///
    /// # Errors
    /// When the name is none, or the folder cannot be made.
    pub fn create(
        &self,
        records: &Records,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume, Problem> {
        let made_up = made_up();
        let name_given = name.unwrap_or(&made_up);
        let new = VolumeRecord { labels, ..new_record(name_given, None, name.is_none()) };
        let _alone = self.alone();
        let record = self.ensure(records, new)?;
        Ok(self.shown(record, &[]))
    }

    /// Makes the volumes of a container that are not there, and fills those that nobody has used. The container's record, which
    /// names them, is written already.
    ///
    /// # Errors
    /// When one cannot be made or filled.
    pub fn prepare(
        &self,
        records: &Records,
        roots: &Roots,
        container: &Record,
        anonymous: &[String],
    ) -> Result<(), Problem> {
        let _alone = self.alone();
        for mount in &container.config.mounts {
            let Mount::Volume { name, target, no_copy, .. } = mount else { continue };
            let new = new_record(name, Some(&container.id), anonymous.contains(name));
            let mut record = self.ensure(records, new)?;
            if record.phase == VolumePhase::Empty && !no_copy {
                self.fill(roots, container, name, target)?;
                record.phase = VolumePhase::Made;
                records.put_volume(&record)?;
            }
        }
        Ok(())
    }

    /// The record of the volume of that name, which is there then.
    fn ensure(&self, records: &Records, new: VolumeRecord) -> Result<VolumeRecord, Problem> {
        let title = format!("create volume {}", new.name);
        check_name(&new.name).map_err(|why| Problem::new(Kind::Invalid, &*title, why))?;
        if let Some(there) = records.volume(&new.name)? {
            match there.phase {
                VolumePhase::Empty | VolumePhase::Made => return Ok(there),
                VolumePhase::Making | VolumePhase::Removing => self.finish_removal(records, &there)?,
            }
        }
        records.put_volume(&new)?;
        let data = self.data(&new.name);
        // Who is in the container decides who may enter: the folder above is closed to everybody else.
        if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o755).create(&data) {
            let failed = Problem::of_file(title, &data, &error);
            self.finish_removal(records, &new)?;
            return Err(failed);
        }
        let made = VolumeRecord { phase: VolumePhase::Empty, ..new };
        records.put_volume(&made)?;
        Ok(made)
    }

    /// Copies what the container's image has at `target`. Files that somebody put there stay instead.
    fn fill(&self, roots: &Roots, container: &Record, name: &str, target: &str) -> Result<(), Problem> {
        let title = format!("fill volume {name} from {target} of the image");
        let failed = |path: &Path, e: std::io::Error| Problem::of_file(&*title, path, &e);
        let data = self.data(name);
        let is_empty = fs::read_dir(&data).map_err(|e| failed(&data, e))?.next().is_none();
        if !is_empty {
            return Ok(());
        }
        let filling = self.own(name).join("filling");
        remove(&filling).map_err(roots::problem(&title))?;
        fs::DirBuilder::new().mode(0o755).create(&filling).map_err(|e| failed(&filling, e))?;
        let to = fs::File::open(&filling).map_err(|e| failed(&filling, e))?;
        let copied = roots.copy_out(&container.id, Path::new(target), to.as_fd(), &title);
        let copied = copied.and_then(|()| {
            rustix::fs::syncfs(&to).map_err(|e| failed(&filling, e.into()))?;
            fs::rename(&filling, &data).map_err(|e| failed(&data, e))
        });
        if copied.is_err() {
            // What is left goes with the volume, or before the next attempt.
            let _ = remove(&filling);
        }
        copied
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn find(&self, records: &Records, name: &str) -> Result<Volume, Problem> {
        let containers = records.all()?;
        let all = self.usable(records)?;
        match all.iter().find(|record| record.name == name) {
            Some(record) => Ok(self.shown(record.clone(), &containers)),
            None => {
                let problem =
                    Problem::new(Kind::NotFound, format!("find volume {name}"), "no volume is called so");
                Err(match croft_api::names::nearest(name, all.iter().map(|record| record.name.as_str())) {
                    Some(near) => problem.hint(format!("there is {near}")),
                    None => problem.hint("croft volume ls lists what there is"),
                })
            }
        }
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn list(&self, records: &Records) -> Result<Vec<Volume>, Problem> {
        let containers = records.all()?;
        Ok(self.usable(records)?.into_iter().map(|record| self.shown(record, &containers)).collect())
    }

    fn usable(&self, records: &Records) -> Result<Vec<VolumeRecord>, Problem> {
        let mut all = records.volumes()?;
        all.retain(|record| matches!(record.phase, VolumePhase::Empty | VolumePhase::Made));
        Ok(all)
    }

    fn shown(&self, record: VolumeRecord, containers: &[Record]) -> Volume {
        let used_by = users(containers, &record.name).map(|container| container.name.clone()).collect();
        let mountpoint = self.data(&record.name).display().to_string();
        let VolumeRecord { name, created, labels, anonymous, .. } = record;
        Volume { name, created, mountpoint, anonymous, labels, used_by }
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when one has.
    pub fn remove(&self, records: &Records, name: &str) -> Result<(), Problem> {
        let _alone = self.alone();
        let volume = self.find(records, name)?;
        if let Some(container) = volume.used_by.first() {
            let who = volume.used_by.join(", ");
            let problem =
                Problem::new(Kind::Conflict, format!("remove volume {name}"), format!("{who} uses it"));
            return Err(problem.hint(format!("croft rm {container}")));
        }
        self.remove_now(records, name)
    }

    /// Removes what no container has.
    ///
    /// # Errors
    /// When one cannot be removed; those before it are.
    pub fn prune(&self, records: &Records, which: Which) -> Result<Pruned, Problem> {
        let _alone = self.alone();
        let mut pruned = Pruned::default();
        for volume in self.list(records)? {
            if volume.used_by.is_empty() && (which == Which::All || volume.anonymous) {
                let bytes = size(&self.data(&volume.name)).map_or(0, |(_, bytes)| bytes);
                self.remove_now(records, &volume.name)?;
                pruned.bytes += bytes;
                pruned.volumes.push(volume.name);
            }
        }
        Ok(pruned)
    }

    /// Removes the volumes that go with a container, which is still recorded: those without names where it was asked for, and all that
    /// were made for one whose creation failed. What another container has stays.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_with(&self, records: &Records, container: &Record, which: With) -> Result<(), Problem> {
        let _alone = self.alone();
        let containers = records.all()?;
        for record in records.volumes()? {
            let is_its = container.config.mounts.iter().any(|mount| names_volume(mount, &record.name));
            let goes = match which {
                With::Failed => record.made_for.as_deref() == Some(&container.id),
                With::Anonymous => is_its && record.anonymous,
            };
            if goes && users(&containers, &record.name).all(|user| user.id == container.id) {
                self.remove_now(records, &record.name)?;
            }
        }
        Ok(())
    }

    fn remove_now(&self, records: &Records, name: &str) -> Result<(), Problem> {
        let Some(record) = records.volume(name)? else { return Ok(()) };
        let record = VolumeRecord { phase: VolumePhase::Removing, ..record };
        records.put_volume(&record)?;
        self.finish_removal(records, &record)
    }

    fn finish_removal(&self, records: &Records, record: &VolumeRecord) -> Result<(), Problem> {
        let folder = self.own(&record.name);
        remove(&folder).map_err(roots::problem(&format!("remove volume {}", record.name)))?;
        records.remove_volume(&record.name)
    }

    /// Finishes or takes back what a croftd before has left half done.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn take_up(&self, records: &Records) -> Result<(), Problem> {
        for record in records.volumes()? {
            match record.phase {
                VolumePhase::Empty | VolumePhase::Made => {
                    // It was killed while it copied.
                    let _ = remove(&self.own(&record.name).join("filling"));
                }
                VolumePhase::Making | VolumePhase::Removing => {
                    tracing::info!(volume = record.name, phase = ?record.phase, "a half-done volume is removed");
                    self.finish_removal(records, &record)?;
                }
            }
        }
        Ok(())
    }

    /// What no record accounts for, and records of what is not there: the name, and why.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn check(&self, records: &Records) -> Result<Vec<(String, &'static str)>, Problem> {
        let recorded = records.volumes()?;
        let mut found = Vec::new();
        for record in &recorded {
            if matches!(record.phase, VolumePhase::Making | VolumePhase::Removing) {
                found.push((record.name.clone(), "it is half made or half removed"));
            } else if !self.data(&record.name).is_dir() {
                found.push((record.name.clone(), "the volume has a record and no folder"));
            }
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !recorded.iter().any(|record| record.name == name) {
                found.push((entry.path().display().to_string(), "the folder is of no volume"));
            }
        }
        Ok(found)
    }
}

/// Which volumes go with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// Those that were made for it: it could not be created.
    Failed,
    /// Those that nobody gave a name.
    Anonymous,
}

fn new_record(name: &str, made_for: Option<&str>, anonymous: bool) -> VolumeRecord {
    VolumeRecord {
        name: name.to_owned(),
        created: clock::now(),
        labels: BTreeMap::new(),
        anonymous,
        made_for: made_for.map(str::to_owned),
        phase: VolumePhase::Making,
    }
}

/// A name for a volume that was given none.
fn made_up() -> String {
    names::id()
}

/// Gives the volumes without names one, and volumes to the folders that the image wants kept and nothing is mounted on. Gives the new
/// names.
pub fn name_all(config: &mut Config, of_image: &[String]) -> Vec<String> {
    let mounts = &mut config.mounts;
    for target in of_image {
        if !mounts.iter().any(|mount| mount.target().trim_end_matches('/') == target.trim_end_matches('/')) {
            let target = target.clone();
            mounts.push(Mount::Volume { name: String::new(), target, read_only: false, no_copy: false });
        }
    }
    let mut new = Vec::new();
    for mount in mounts {
        if let Mount::Volume { name, .. } = mount
            && name.is_empty()
        {
            *name = made_up();
            new.push(name.clone());
        }
    }
    new
}

fn names_volume(mount: &Mount, volume: &str) -> bool {
    matches!(mount, Mount::Volume { name, .. } if name == volume)
}

/// The containers that have the volume `name`.
fn users<'a>(containers: &'a [Record], name: &'a str) -> impl Iterator<Item = &'a Record> {
    containers
        .iter()
        .filter(move |container| container.config.mounts.iter().any(|mount| names_volume(mount, name)))
}

/// Refuses a name that is none, or could be taken for a path.
fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && name.chars().all(fits) && name.len() <= LONGEST {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name of a volume: it begins with a letter or a digit, goes on with those, '_', '.' and '-', and has at \
         most {LONGEST} of them; a folder of the host begins with / or ./"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "a/b", ".", "..", "-v", "a b", &"a".repeat(129)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["data", "web_1.db-2", &made_up()] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn the_image_s_volumes_are_those_that_nothing_is_mounted_on() {
        let mount = |name: &str, target: &str| {
            let (name, target) = (name.to_owned(), target.to_owned());
            Mount::Volume { name, target, read_only: false, no_copy: false }
        };
        let mounts = vec![mount("", "/own"), mount("data", "/data/")];
        let mut config = Config { mounts, ..Config::default() };
        let new = name_all(&mut config, &["/data".to_owned(), "/more".to_owned()]);
        let mounts = [mount(&new[0], "/own"), mount("data", "/data/"), mount(&new[1], "/more")];
        assert_eq!(config.mounts, mounts);
        assert!(new.len() == 2 && new[0] != new[1]);
    }

    #[test]
    fn what_a_crash_left_half_done_is_removed_at_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let records = Records::open(&root.path().join("db")).unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        volumes.create(&records, Some("whole"), BTreeMap::new()).unwrap();
        fs::create_dir(root.path().join("volumes/whole/filling")).unwrap();
        for phase in [VolumePhase::Making, VolumePhase::Removing] {
            let name = format!("{phase:?}");
            records.put_volume(&VolumeRecord { phase, ..new_record(&name, None, false) }).unwrap();
            fs::create_dir_all(root.path().join("volumes").join(&name).join("data/some")).unwrap();
        }
        fs::create_dir(root.path().join("volumes/stray")).unwrap();
        assert_eq!(volumes.check(&records).unwrap().len(), 3);
        volumes.take_up(&records).unwrap();
        let found = volumes.check(&records).unwrap();
        assert!(found.len() == 1 && found[0].0.ends_with("stray"), "{found:?}");
        let names: Vec<String> = volumes.list(&records).unwrap().into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["whole"]);
        assert!(!root.path().join("volumes/whole/filling").exists());
        fs::remove_dir_all(root.path().join("volumes/whole")).unwrap();
        assert_eq!(volumes.check(&records).unwrap().len(), 2);
    }
}
