//! Files of a container's root, in and out as archives. The root may be a running container's: every name is resolved by the kernel
//! below it (openat2(2)), whatever links are there and however they are swapped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use croft_sys::path::{self, open_in_root};
use croft_sys::{Errno, OFlags};

use crate::error::{Context, Error, Result};
use crate::layer::Limits;
use crate::pack::{Owners, pack_files};
use crate::unpack::unpack_files;

/// The root of a container.
#[derive(Debug)]
pub struct Root {
    /// Its folder.
    pub top: OwnedFd,
    /// Whose its files are.
    pub owners: Owners,
}

impl Root {
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
