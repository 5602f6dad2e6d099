//! What a container changed: its writable layer beside those of its image.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use croft_sys::fs::{self, Dir, FileType, Mode, OFlags};
use croft_sys::path::open_path;

use crate::error::{Context, Error, Result};
use crate::store::Store;
use crate::unpack::find;

/// How a file is not as in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The image does not have it.
    Added,
    /// The image has another of that name, or a folder in which something is not as in the image.
    Changed,
    /// Only the image has it.
    Deleted,
}

/// A file that is not as in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub kind: Kind,
    /// Its path in the container.
    pub path: PathBuf,
}

/// What the container `id` changed, by path. It may run meanwhile.
///
/// # Errors
/// When it cannot be read.
pub fn diff(store: &Store, id: &str) -> Result<Vec<Change>> {
    let snapshot = store.snapshot(id)?;
    let open = |path: &Path| open_path(fs::CWD, path).map_err(|e| Error::file("open", path, e));
    let below = snapshot.layers.iter().rev().map(|chain| open(&store.layer(chain)));
    let mut walk = Walk { below: below.collect::<Result<_>>()?, changes: Vec::new() };
    let upper = store.changes(id)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = fs::open(&upper, flags, Mode::empty()).on_file("open", &upper)?;
    walk.folder(&top, Path::new(""))?;
    let mut changes = walk.changes;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

struct Walk {
    /// The image's layers, the highest first.
    below: Vec<OwnedFd>,
    changes: Vec<Change>,
}

impl Walk {
    fn add(&mut self, kind: Kind, name: &Path) {
        self.changes.push(Change { kind, path: Path::new("/").join(name) });
    }

    fn folder(&mut self, folder: &OwnedFd, name: &Path) -> Result<()> {
        if fs::fgetxattr(folder, "trusted.overlay.opaque", &mut [0u8; 4]).is_ok() {
            self.hidden(folder, name)?;
        }
        for entry in Dir::read_from(folder).on_file("read", name)? {
            let entry = entry.on_file("read", name)?;
            let last = entry.file_name();
            if [c".", c".."].contains(&last) {
                continue;
            }
            let inner = name.join(std::ffi::OsStr::from_bytes(last.to_bytes()));
            let stat = match fs::statat(folder, last, fs::AtFlags::SYMLINK_NOFOLLOW) {
                // Removed meanwhile.
                Err(croft_sys::Errno::NOENT) => continue,
                stat => stat.on_file("look at", &inner)?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let was_there = find(&self.below, &inner, OFlags::PATH | OFlags::NOFOLLOW)?.is_some();
            if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                // What was only there to mount on is nothing of the image's.
                if was_there {
                    self.add(Kind::Deleted, &inner);
                }
                continue;
            }
            self.add(if was_there { Kind::Changed } else { Kind::Added }, &inner);
            if kind.is_dir() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match fs::openat(folder, last, flags, Mode::empty()) {
                    Err(croft_sys::Errno::NOENT | croft_sys::Errno::NOTDIR) => {}
                    opened => self.folder(&opened.on_file("open", &inner)?, &inner)?,
                }
            }
        }
        Ok(())
    }

    /// The folder was removed and made anew: what the image had in it and the new one has not, is gone.
    fn hidden(&mut self, folder: &OwnedFd, name: &Path) -> Result<()> {
        let mut gone = std::collections::BTreeSet::new();
        for layer in &self.below {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let one = [layer.try_clone().on_file("open", name)?];
            let Some(old) = find(&one, name, flags)? else { continue };
            for entry in Dir::read_from(old.as_fd()).on_file("read", name)? {
                let entry = entry.on_file("read", name)?;
                if ![c".", c".."].contains(&entry.file_name()) {
                    gone.insert(entry.file_name().to_owned());
                }
            }
        }
        for last in gone {
            let inner = name.join(std::ffi::OsStr::from_bytes(last.to_bytes()));
            let is_new = fs::statat(folder, last.as_c_str(), fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
            // One that a layer had and a higher one removed was not there before.
            if !is_new && find(&self.below, &inner, OFlags::PATH | OFlags::NOFOLLOW)?.is_some() {
                self.add(Kind::Deleted, &inner);
            }
        }
        Ok(())
    }
}
