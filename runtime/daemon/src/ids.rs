//! Ranges of user and group ids: every container has its own, and no two croftd of a host give out the same.
//!
//! A range is taken by making a symbolic link with its number in a folder that all croftd of the host share, which the kernel does for one of
//! them only. What it leads to is no file: it says whose the range is, and is there from the link's first moment, even if croftd dies. The folder is on a file system that a reboot empties: ids on disk are the containers' own, so that a container may have
//! other ids of the host after it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use croft_api::problem::{Kind, Problem};

/// Ids of the host that belong to one container, for users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// How many ids a container has: what a user name's number may be (useradd(8), systemd's `nobody` is 65534).
pub const COUNT: u32 = 65_536;

/// The first range's number: above what useradd(8) gives users as their subordinate ids, which end at 600,100,000.
const FIRST: u32 = 600_100_000 / COUNT + 1;

/// After the last: ids above 2^31 are signed in some programs.
const LAST: u32 = (1 << 31) / COUNT;

/// The host's ranges.
#[derive(Debug)]
pub struct Ids {
    folder: PathBuf,
    owner: String,
    /// Where the search for the next one begins: those before it were taken when they were last seen, and are tried last.
    next: AtomicU32,
}

impl Ids {
    /// The ranges in `folder`, given out in the name of the croftd whose root folder is `owner`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path, owner: &Path) -> std::io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        Ok(Ids {
            folder: folder.to_owned(),
            owner: owner.to_string_lossy().into_owned(),
            next: AtomicU32::new(FIRST),
        })
    }

    /// Takes a range for a container.
    ///
    /// # Errors
    /// When none is left, or the folder cannot be written to.
    pub fn take(&self, container: &str) -> Result<Range, Problem> {
        let title = "take a range of ids";
        let next = self.next.load(Ordering::Relaxed);
        for number in (next..LAST).chain(FIRST..next) {
            let path = self.folder.join(number.to_string());
            match symlink(self.line(container), &path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Problem::of_file(title, &path, &e)),
                Ok(()) => {
                    self.next.store(number + 1, Ordering::Relaxed);
                    return Ok(Range { start: number * COUNT, count: COUNT });
                }
            }
        }
        let why = format!("all {} are taken; see {}", LAST - FIRST, self.folder.display());
        Err(Problem::new(Kind::Internal, title, why))
    }

    /// Gives a range back. One that is not there is fine.
    ///
    /// # Errors
    /// When the folder cannot be written to: it is taken still.
    pub fn give_back(&self, start: u32) -> Result<(), Problem> {
        let path = self.folder.join((start / COUNT).to_string());
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Problem::of_file("give a range of ids back", &path, &e))
            }
            _ => {
                self.next.fetch_min(start / COUNT, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Takes again the range of a container that runs already, or runs on.
    ///
    /// # Errors
    /// When another has it.
    pub fn keep(&self, start: u32, container: &str) -> Result<(), Problem> {
        let path = self.folder.join((start / COUNT).to_string());
        match symlink(self.line(container), &path) {
            Ok(()) => Ok(()),
            Err(_) => match fs::read_link(&path) {
                Ok(line) if line.as_os_str() == self.line(container).as_str() => Ok(()),
                Ok(line) => Err(format!("{} has it", line.display())),
                Err(e) => Err(e.to_string()),
            },
        }
        .map_err(|why| Problem::new(Kind::Conflict, format!("keep the ids of {container}"), why))
    }

    /// The ranges of this croftd, with the containers that they were taken for.
    pub fn own(&self) -> Vec<(Range, String)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let of_ours = |entry: fs::DirEntry| {
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_link(entry.path()).ok()?;
            let (container, owner) = line.to_str()?.split_once(' ')?;
            (owner == self.owner)
                .then(|| (Range { start: number * COUNT, count: COUNT }, container.to_owned()))
        };
        entries.flatten().filter_map(of_ours).collect()
    }

    fn line(&self, container: &str) -> String {
        format!("{container} {}", self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_containers_of_a_host_get_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["/a", "/b"].map(|owner| Ids::open(folder.path(), Path::new(owner)).unwrap());
        let ranges = [a.take("x").unwrap(), b.take("y").unwrap(), a.take("z").unwrap()];
        assert!(ranges[0].start + COUNT <= ranges[1].start && ranges[1].start + COUNT <= ranges[2].start);
        assert_eq!(a.own().len(), 2);
        a.give_back(ranges[0].start).unwrap();
        // One that another has given back is found when those after it are taken.
        b.next.store(LAST, Ordering::Relaxed);
        assert_eq!(b.take("w").unwrap(), ranges[0]);
        a.give_back(ranges[0].start).unwrap();
        assert_eq!(a.take("v").unwrap(), ranges[0]);
        assert!(a.keep(ranges[2].start, "z").is_ok() && a.keep(ranges[1].start, "y").is_err());
    }
}
