//! What of a layer depends on the layers below: folders that no entry names look as below, and links to files below get the file.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use croft_sys::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use croft_sys::{Errno, path};

use super::Unpacked;
use super::tree::OPAQUE;
use crate::error::{Context, Error, Result};
use crate::layer;

/// Completes the unpacked layer below `root` by the trees `below` it, the nearest first.
///
/// Without this a layer that brings `var/lib/x` alone would give `/var` the attributes of a new folder.
///
/// # Errors
/// A hard link to a file that no layer has.
pub fn settle(root: BorrowedFd<'_>, below: &[OwnedFd], layer: &Unpacked) -> Result<()> {
    let mut times = Vec::new();
    for (name, target) in &layer.links {
        for folder in [name.parent(), target.parent()].into_iter().flatten() {
            if let Ok(fd) = open(root, folder, OFlags::RDONLY | OFlags::DIRECTORY) {
                times.push((times_of(fd.as_fd(), folder)?, fd, folder));
            }
        }
        if !fetch(root, below, target)? {
            let why = format!("a hard link to {}, which is nowhere in the image", target.display());
            return Err(Error::entry(name, why));
        }
        let (folder, last) = path::open_parent(root, name).map_err(|e| Error::entry(name, e))?;
        let (before, target_last) = path::open_parent(root, target).map_err(|e| Error::entry(target, e))?;
        fs::linkat(&before, target_last, &folder, last, AtFlags::empty()).on_file("link", name)?;
    }
    // The first that was seen of a folder is from before the links.
    for (times, fd, folder) in times.iter().rev() {
        fs::futimens(fd, times).on_file("set times of", folder)?;
    }
    // The deepest first: nothing is changed in a folder whose times are set.
    for name in layer.implied.iter().rev() {
        if let Some(model) = find(below, name, OFlags::RDONLY | OFlags::DIRECTORY)? {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // What an entry replaced later is not a folder any more.
            if let Ok(folder) = path::open_in_root(root, &Path::new("/").join(name), flags) {
                copy_attributes(model.as_fd(), folder.as_fd(), name)?;
            }
        }
    }
    Ok(())
}

/// Opens `name` in the nearest layer that has it, unless one between hides it. No link is followed: overlayfs follows none either.
pub(crate) fn find(below: &[OwnedFd], name: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
    for tree in below {
        match open(tree.as_fd(), name, flags) {
            Ok(found) => return Ok(Some(found)),
            Err(Errno::NOENT) if !hides(tree.as_fd(), name) => {}
            // A whiteout, or a file where a folder would have to be.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(e) => return Err(Error::file("open", name, e)),
        }
    }
    Ok(None)
}

fn open(tree: BorrowedFd<'_>, name: &Path, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let resolve = fs::ResolveFlags::BENEATH | fs::ResolveFlags::NO_SYMLINKS | fs::ResolveFlags::NO_MAGICLINKS;
    let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
    fs::openat2(tree, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Whether a folder of `tree` on the way to `name` is opaque.
fn hides(tree: BorrowedFd<'_>, name: &Path) -> bool {
    name.ancestors().skip(1).any(|folder| {
        open(tree, folder, OFlags::RDONLY | OFlags::DIRECTORY)
            .is_ok_and(|folder| fs::fgetxattr(&folder, OPAQUE, &mut [0u8; 4]).is_ok())
    })
}

/// Copies the file `name` of a layer below into `root`, unless it is there. False when no layer has it.
fn fetch(root: BorrowedFd<'_>, below: &[OwnedFd], name: &Path) -> Result<bool> {
    let missing: Vec<&Path> = name
        .ancestors()
        .skip(1)
        .filter(|f| open(root, f, OFlags::PATH | OFlags::DIRECTORY).is_err())
        .collect();
    let (folder, last) = path::open_parent(root, name).map_err(|e| Error::entry(name, e))?;
    if fs::statat(&folder, last, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Ok(true);
    }
    let Some(place) = find(below, name, OFlags::PATH | OFlags::NOFOLLOW)? else { return Ok(false) };
    let stat = fs::fstat(&place).on_file("look at", name)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Error::entry(name, "a hard link to something else than a file in a layer below"));
    }
    let mut source =
        std::fs::File::from(find(below, name, OFlags::RDONLY)?.ok_or_else(|| Error::entry(name, "gone"))?);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let copy = fs::openat(&folder, last, flags, Mode::from_raw_mode(0o600)).on_file("make", name)?;
    let mut copy = std::fs::File::from(copy);
    std::io::copy(&mut source, &mut copy).on_file("copy", name)?;
    // The folders that were made for it were not there before: they look as below too.
    for folder in missing {
        if let Some(model) = find(below, folder, OFlags::RDONLY | OFlags::DIRECTORY)?
            && let Ok(made) = open(root, folder, OFlags::RDONLY | OFlags::DIRECTORY)
        {
            copy_attributes(model.as_fd(), made.as_fd(), folder)?;
        }
    }
    copy_attributes(source.as_fd(), copy.as_fd(), name)?;
    Ok(true)
}

/// Gives the file or folder `to` the owner, mode, attributes and times of `from`.
pub(crate) fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let stat = fs::fstat(from).on_file("look at", name)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::fchown(to, Some(uid), Some(gid)).on_file("set owner of", name)?;
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).on_file("set mode of", name)?;
    for (key, value) in attributes(from).on_file("read extended attributes of", name)? {
        fs::fsetxattr(to, &key, &value, XattrFlags::empty()).on_file("set an extended attribute of", name)?;
    }
    fs::futimens(to, &times_of(from, name)?).on_file("set times of", name)
}

fn times_of(file: BorrowedFd<'_>, name: &Path) -> Result<Timestamps> {
    let stat = fs::fstat(file).on_file("look at", name)?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    Ok(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    })
}

/// The extended attributes that belong to an image.
pub(crate) fn attributes(file: BorrowedFd<'_>) -> std::result::Result<Vec<(PathBuf, Vec<u8>)>, Errno> {
    let mut names = vec![0u8; 64 << 10];
    let length = match fs::flistxattr(file, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty() && layer::keeps_attribute(n)) {
        let name = PathBuf::from(OsStr::from_bytes(name));
        let mut value = vec![0u8; 64 << 10];
        let length = fs::fgetxattr(file, &name, &mut value[..])?;
        value.truncate(length);
        found.push((name, value));
    }
    Ok(found)
}
