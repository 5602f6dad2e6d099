//! Files of a container's root, in and out as archives. The root may be a running container's: every name is resolved by the kernel
//! below it (openat2(2)), whatever links are there and however they are swapped.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use croft_sys::fs::{self, FileType};
use croft_sys::path::{self, open_in_root};
use croft_sys::{Errno, OFlags, credentials};

use crate::error::{Context, Error, Result};
use crate::layer::Limits;
use crate::pack::{Owners, pack_files};
use crate::snapshot::IdRange;
use crate::unpack::unpack_files;

/// The root of a container.
#[derive(Debug)]
pub struct Root {
    /// Its folder.
    pub top: OwnedFd,
    /// Whose its files are.
    pub owners: Owners,
}

/// What is meant by a name whose last part is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The link.
    Itself,
    /// What it leads to.
    Followed,
    /// The folder that it leads to, and nothing else.
    Folder,
}

/// What is there under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What kind of file.
    pub kind: FileType,
    /// Its permissions.
    pub mode: u32,
    /// Its length in bytes.
    pub size: u64,
    /// Where it leads, for a link.
    pub target: Option<PathBuf>,
}

fn none(path: &Path, last: Last) -> Error {
    let kind = if last == Last::Folder { "folder in the container" } else { "file in the container" };
    Error::NotFound { kind, name: path.display().to_string() }
}

impl Root {
    fn open(&self, path: &Path, last: Last) -> Result<OwnedFd> {
        let kind = match last {
            Last::Itself => OFlags::NOFOLLOW,
            Last::Followed => OFlags::empty(),
            Last::Folder => OFlags::DIRECTORY,
        };
        let inside = Path::new("/").join(path);
        match open_in_root(self.top.as_fd(), &inside, OFlags::PATH | kind) {
            Err(e) if [Errno::NOENT, Errno::NOTDIR].contains(&e.errno()) => Err(none(path, last)),
            // A zero byte, a name that is too long, links without end: no file system has a file of that name.
            Err(e) if [Errno::INVAL, Errno::NAMETOOLONG, Errno::LOOP].contains(&e.errno()) => {
                Err(Error::Refused {
                    what: format!("{:?}", path.display().to_string()),
                    why: e.errno().to_string(),
                })
            }
            other => other.map_err(|e| Error::file("open in the container", path, e)),
        }
    }

    /// What is there under the name `path`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nothing is.
    pub fn look(&self, path: &Path, last: Last) -> Result<Found> {
        let file = self.open(path, last)?;
        let stat = fs::fstat(&file).on_file("look at", path)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let target = match kind {
            FileType::Symlink => {
                let target = match fs::readlinkat(&file, "", Vec::new()) {
                    // Links of procfs lead to nothing for who is not in the container.
                    Err(Errno::NOENT) => return Err(none(path, last)),
                    target => target.on_file("read link", path)?,
                };
                Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
            }
            _ => None,
        };
        Ok(Found { kind, mode: stat.st_mode & 0o7777, size: stat.st_size as u64, target })
    }

    /// Writes the file or folder `path` as an archive whose entries begin with its last name; the root's begin with none.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn pack(&self, path: &Path, last: Last, to: impl Write) -> Result<()> {
        let file = self.open(path, last)?;
        pack_files(file.as_fd(), Path::new(path.file_name().unwrap_or_default()), to, self.owners).map(drop)
    }

    /// Unpacks an archive into the folder `path`, which is there. What is in the way is replaced.
    ///
    /// # Errors
    /// When it is no folder, or the archive cannot be unpacked; what was unpacked before stays.
    pub fn unpack(&self, path: &Path, source: impl Read + Send) -> Result<()> {
        let folder = self.open(path, Last::Followed)?;
        if path::kind(folder.as_fd()).map_err(|e| Error::file("look at", path, e))? != path::Kind::Directory {
            let why = "it is no folder in the container".to_owned();
            return Err(Error::Refused { what: path.display().to_string(), why });
        }
        let work = || {
            // What is made belongs to the container from the start: a file system of its own takes nothing of another's.
            if let Owners::Of(IdRange { start, .. }) = self.owners {
                let kernel =
                    |source| Error::Kernel { op: "take the ids of the container".to_owned(), source };
                let (effective, permitted, inheritable) = credentials::capabilities().map_err(kernel)?;
                credentials::set_filesystem_ids(start, start).map_err(kernel)?;
                credentials::set_capabilities(effective, permitted, inheritable).map_err(kernel)?;
            }
            unpack_files(folder.as_fd(), source, &Limits::NONE, self.owners)
        };
        // Ids are changed for this thread, which ends.
        let done = std::thread::scope(|scope| scope.spawn(work).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Copies what the folder `path` has into the empty folder `to`. Nothing there is fine.
    ///
    /// # Errors
    /// When it is no folder, or cannot be copied.
    pub fn copy_folder(&self, path: &Path, to: BorrowedFd<'_>) -> Result<()> {
        let failed = |e: croft_sys::Error| Error::file("open in the container", path, e);
        let from = match open_in_root(self.top.as_fd(), path, OFlags::PATH) {
            Err(e) if e.errno() == Errno::NOENT => return Ok(()),
            other => other.map_err(failed)?,
        };
        if path::kind(from.as_fd()).map_err(failed)? != path::Kind::Directory {
            let why = "it is no folder".to_owned();
            return Err(Error::Refused { what: path.display().to_string(), why });
        }
        let (reader, writer) = std::io::pipe().on_file("make a pipe for", path)?;
        let (packed, unpacked) = std::thread::scope(|scope| {
            let packer =
                scope.spawn(|| pack_files(from.as_fd(), Path::new(""), writer, self.owners).map(drop));
            // It has no other limit than the image had.
            let unpacked = unpack_files(to, reader, &Limits::NONE, Owners::Same);
            (packer.join(), unpacked)
        });
        let packed = packed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Where the copy fails, who packs only knows that nobody reads.
        unpacked.and(packed)
    }
}
