//! Devices by their names in CDI specifications (`vendor.com/class=name`): what a driver's installer writes of what its devices need in a
//! container. The specification is SPEC.md of cncf-tags/container-device-interface; versions 0.3 to 1.1 are read.
//!
//! | module | what |
//! |---|---|
//! | `file` | one file: its fields, and what of them is refused |
//!
//! The files are read anew for every start: which devices a host has changes while croftd runs.

mod file;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use file::{Device, Malformed, Specification};
pub use file::{DeviceNode, Edits, Hook, Mount};

/// The folders that specifications are in.
#[derive(Debug, Clone)]
pub struct Cdi {
    /// A device in a later one takes the place of one of the same name in an earlier one.
    folders: Vec<PathBuf>,
}

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is none.
    #[error("{0:?} is no name of a CDI device: VENDOR/CLASS=NAME, as nvidia.com/gpu=all")]
    Name(String),
    /// No file has it.
    #[error("no CDI specification has the device {name}: {hint}; looked in {folders}{broken}")]
    Unknown {
        /// The device.
        name: String,
        /// What there is instead.
        hint: String,
        /// Where was looked.
        folders: String,
        /// Which files there cannot be read, and why.
        broken: String,
    },
    /// Two files of one folder have it.
    #[error("the CDI device {name} is in {} and in {}: remove it from one of them", .one.display(), .other.display())]
    Twice {
        /// The device.
        name: String,
        /// A file.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A folder cannot be read.
    #[error("read the CDI specifications in {}: {source}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Two devices ask for what can be given once.
    #[error(
        "the CDI device {0} asks for another intelRdt than a device before it: a process is in one class of service"
    )]
    Rdt(String),
}

/// A file that was read.
struct Read {
    /// The place of its folder among the folders.
    folder: usize,
    path: PathBuf,
    specification: Specification,
}

impl Read {
    /// Its devices, by their full names.
    fn names(&self) -> impl Iterator<Item = String> {
        self.specification.devices.iter().map(|device| format!("{}={}", self.specification.kind, device.name))
    }
}

/// What is in all folders.
#[derive(Default)]
struct Files {
    read: Vec<Read>,
    /// Those that cannot be read, and why.
    broken: Vec<(PathBuf, Malformed)>,
}

impl Files {
    /// All devices.
    fn names(&self) -> BTreeSet<String> {
        self.read.iter().flat_map(Read::names).collect()
    }
}

impl Cdi {
    /// Reads these folders when it is asked.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Cdi { folders }
    }

    /// What a container with the devices of these names needs, in their order; what a file says for all of its devices comes once, before
    /// that of the first.
    ///
    /// # Errors
    /// [`Error`], for the first device that cannot be had. A file that cannot be read only matters to who asks for what no other has.
    pub fn edits(&self, names: &[String]) -> Result<Edits, Error> {
        let mut all = Edits::default();
        if names.is_empty() {
            return Ok(all);
        }
        let files = self.read()?;
        let mut begun = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for name in names {
            if !taken.insert(name) {
                continue;
            }
            let (file, device) = self.find(name, &files)?;
            let of_all = begun.insert(&file.path).then_some(&file.specification.container_edits);
            for edits in of_all.into_iter().chain([&device.container_edits]) {
                if !all.add(edits) {
                    return Err(Error::Rdt(name.clone()));
                }
            }
        }
        Ok(all)
    }

    /// The device called `name`, and the file that has it.
    fn find<'a>(&self, name: &str, files: &'a Files) -> Result<(&'a Read, &'a Device), Error> {
        let (kind, own) = file::qualified(name).ok_or_else(|| Error::Name(name.to_owned()))?;
        let of_kind = files.read.iter().filter(|file| file.specification.kind == kind);
        let having: Vec<(&Read, &Device)> = of_kind
            .flat_map(|file| file.specification.devices.iter().map(move |device| (file, device)))
            .filter(|(_, device)| device.name == own)
            .collect();
        let last = having.iter().map(|(file, _)| file.folder).max();
        let mut counting = having.iter().filter(|(file, _)| Some(file.folder) == last);
        match (counting.next(), counting.next()) {
            (Some(one), None) => Ok(*one),
            (Some((one, _)), Some((other, _))) => {
                Err(Error::Twice { name: name.to_owned(), one: one.path.clone(), other: other.path.clone() })
            }
            (None, _) => Err(self.unknown(name, files)),
        }
    }

    /// The names of all devices of the files that can be read.
    pub fn names(&self) -> Vec<String> {
        // In a folder that cannot be read there is nothing that could be had.
        self.read().map(|files| files.names().into_iter().collect()).unwrap_or_default()
    }

    fn unknown(&self, name: &str, files: &Files) -> Error {
        let known = files.names();
        let hint = match croft_api::names::nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("there is {near}"),
            None if known.is_empty() => "there is none at all, the device's driver brings one".to_owned(),
            None => format!("there is {}", known.iter().cloned().collect::<Vec<_>>().join(", ")),
        };
        let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        let broken = files
            .broken
            .iter()
            .map(|(path, why)| format!("; {} is left out: {why}", path.display()))
            .collect();
        Error::Unknown { name: name.to_owned(), hint, folders: folders.join(" and "), broken }
    }

    /// All files that can be read, and those that cannot.
    fn read(&self) -> Result<Files, Error> {
        let mut files = Files::default();
        for (n, folder) in self.folders.iter().enumerate() {
            let found = paths(folder).map_err(|source| Error::Folder { folder: folder.clone(), source })?;
            for path in found {
                match file::read(&path) {
                    Ok(specification) => files.read.push(Read { folder: n, path, specification }),
                    Err(why) => files.broken.push((path, why)),
                }
            }
        }
        Ok(files)
    }
}

/// The specifications in a folder, by their names; none where there is no folder.
fn paths(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let is_one = |path: &PathBuf| path.extension().is_some_and(|end| end == "json" || end == "yaml");
    let mut paths: Vec<PathBuf> = paths.into_iter().filter(is_one).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
