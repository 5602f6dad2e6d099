//! Layers to folders: an archive that may be hostile is unpacked below a folder, in the form in which overlayfs wants it.
//!
//! Nothing is trusted: each name is resolved by the kernel below the root (openat2(2)), files are made and never opened when they
//! are there already, and everything is counted against [`Limits`]. Layers can be unpacked in any order, also at once; what depends
//! on those below ([`Unpacked::implied`], [`Unpacked::links`]) is done by [`settle()`] when they are there.

mod entry;
mod pipe;
mod settle;
mod tree;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::{self, Compression, Limits, Marker};
use crate::pack::Owners;

pub use settle::settle;
pub(crate) use settle::{attributes, copy_attributes, find};

/// What came out of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the archive as it came.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// How it was packed.
    pub compression: Compression,
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Its length.
    pub unpacked: u64,
    /// How many entries it had.
    pub entries: u64,
    /// Folders that no entry names but that were needed; the empty path is the root.
    pub implied: BTreeSet<PathBuf>,
    /// Hard links to files that this layer does not have: (name, target).
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// Unpacks the archive `source` (plain, gzip or zstd) below the empty folder `root`, and reads it to its end.
///
/// Decompression runs on a thread of its own. On an error the folder holds a part, and is to be thrown away.
///
/// # Errors
/// An entry that leads outside, makes no sense or is over a limit; a damaged archive; a full disk.
pub fn unpack(root: BorrowedFd<'_>, source: impl Read + Send, limits: &Limits) -> Result<Unpacked> {
    read(root, source, limits, None)
}

/// Unpacks the archive `source` below the folder `root`, which may have files, as those of `owners`: names of layers mean nothing.
///
/// A folder that is there stays with what it has; anything else that is in the way is replaced.
///
/// # Errors
/// As [`unpack`]; what was unpacked before stays.
pub fn unpack_files(
    root: BorrowedFd<'_>,
    source: impl Read + Send,
    limits: &Limits,
    owners: Owners,
) -> Result<()> {
    let unpacked = read(root, source, limits, Some(owners))?;
    match unpacked.links.first() {
        Some((name, target)) => {
            let why = format!("a hard link to {}, which is not there", target.display());
            Err(Error::entry(name, why))
        }
        None => Ok(()),
    }
}

/// `files`: whose they are, for files that are no layer.
fn read(
    root: BorrowedFd<'_>,
    source: impl Read + Send,
    limits: &Limits,
    files: Option<Owners>,
) -> Result<Unpacked> {
    std::thread::scope(|scope| {
        let (to, from) = sync_channel(pipe::PIECES);
        let decoder = scope.spawn(move || pipe::decompress(source, &to));
        let unpacked = write(root, pipe::Archive::new(from, *limits), limits, files);
        let packed = match decoder.join() {
            Ok(packed) => packed?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let (tree, (diff_id, length)) = unpacked?;
        // The writer saw the end of the pieces, so the reader saw the end of its source.
        let packed = packed.ok_or_else(|| Error::malformed("layer", "it ended early"))?;
        Ok(Unpacked {
            digest: packed.digest,
            size: packed.size,
            compression: packed.compression,
            diff_id,
            unpacked: length,
            entries: tree.entries,
            implied: tree.implied,
            links: tree.links,
        })
    })
}

/// What is left to know of a tree that was written.
struct Written {
    entries: u64,
    implied: BTreeSet<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
}

fn write(
    root: BorrowedFd<'_>,
    (archive, allowance): (pipe::Archive, pipe::Allowance),
    limits: &Limits,
    files: Option<Owners>,
) -> Result<(Written, (Digest, u64))> {
    let mut tree = tree::Tree::new(root, *limits, files.unwrap_or(Owners::Same));
    let mut archive = tar::Archive::new(archive);
    let mut name = PathBuf::new();
    let mut entries = archive.entries().map_err(|e| pipe::read_error(&name, e))?;
    loop {
        // Between two entries only headers are read, and the tar crate holds them in memory: so much of them and no more.
        allowance.set(limits.header);
        let Some(next) = entries.next() else { break };
        allowance.set(u64::MAX);
        let mut file = next.map_err(|e| pipe::read_error(&name, e))?;
        let raw = file.path_bytes().into_owned();
        let broken = |why: &str| Error::entry(Path::new(&*String::from_utf8_lossy(&raw)), why);
        if file.header().entry_type().is_pax_global_extensions() {
            drain(&mut file, &name)?;
            continue;
        }
        name = layer::clean(&raw).map_err(broken)?;
        tree.count(1)?;
        let marker = if files.is_some() { Marker::None } else { layer::marker(&name).map_err(broken)? };
        match marker {
            Marker::None => tree.add(&name, &mut file)?,
            Marker::Whiteout(path) => tree.hide(path),
            Marker::Opaque(path) => tree.hide_below(path),
            Marker::Leftover => {}
        }
        drain(&mut file, &name)?;
    }
    let archive = archive.into_inner();
    let digest = archive.finish().map_err(|e| pipe::read_error(&name, e))?;
    Ok((tree.finish()?, digest))
}

/// Reads what is left of an entry, so that the next read is of a header.
fn drain(file: &mut impl Read, name: &Path) -> Result<()> {
    std::io::copy(file, &mut std::io::sink()).map_err(|e| pipe::read_error(name, e)).map(drop)
}
