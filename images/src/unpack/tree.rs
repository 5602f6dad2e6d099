//! The folder that a layer is unpacked into.
//!
//! Every name goes through the kernel's own resolution below the root, so a link that the layer brings leads nowhere else, however
//! it is swapped. Files are only ever made new: what is in the way is removed, never opened.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use croft_sys::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use croft_sys::{Errno, path};

use super::Written;
use super::entry::{self, Attributes, Kind};
use super::pipe::read_error;
use crate::error::{Context, Error, Result};
use crate::layer::Limits;
use crate::pack::Owners;

/// overlayfs's mark of a folder that hides those below.
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

pub(super) struct Tree<'r> {
    root: BorrowedFd<'r>,
    limits: Limits,
    owners: Owners,
    entries: u64,
    claimed: u64,
    /// The folder of the last entry: entries of one folder mostly come together.
    last: Option<(PathBuf, Rc<OwnedFd>)>,
    implied: BTreeSet<PathBuf>,
    /// Times of folders, set when nothing changes them any more.
    folders: Vec<(PathBuf, Timespec)>,
    whiteouts: BTreeSet<PathBuf>,
    opaque: BTreeSet<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
    buffer: Vec<u8>,
}

impl<'r> Tree<'r> {
    pub fn new(root: BorrowedFd<'r>, limits: Limits, owners: Owners) -> Self {
        Self {
            root,
            limits,
            owners,
            entries: 0,
            claimed: 0,
            last: None,
            implied: BTreeSet::from([PathBuf::new()]),
            folders: Vec::new(),
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
            links: Vec::new(),
            buffer: vec![0; 256 << 10],
        }
    }

    /// Counts entries, and folders that they imply.
    pub fn count(&mut self, more: u64) -> Result<()> {
        self.entries += more;
        let limit = self.limits.entries;
        if self.entries > limit { Err(Error::Limit { limit, of: "entries" }) } else { Ok(()) }
    }

    /// Lower layers' `path` is gone. What this layer has of that name stays, whichever comes first.
    pub fn hide(&mut self, path: PathBuf) {
        self.whiteouts.insert(path);
    }

    /// What lower layers have in the folder `path` is gone.
    pub fn hide_below(&mut self, path: PathBuf) {
        self.opaque.insert(path);
    }

    /// Makes what the entry says.
    pub fn add<R: Read>(&mut self, name: &Path, file: &mut tar::Entry<'_, R>) -> Result<()> {
        let (kind, mut attributes) = entry::read(name, file)?;
        for id in [&mut attributes.uid, &mut attributes.gid] {
            let unknown =
                || Error::entry(name, format!("it belongs to {id}, which the container does not have"));
            *id = self.owners.outside(*id).ok_or_else(unknown)?;
        }
        if name.as_os_str().is_empty() {
            self.implied.remove(name);
            let root = path::open_in_root(self.root, Path::new("/"), OFlags::RDONLY)
                .map_err(|e| Error::entry(name, e))?;
            return self.adorn_folder(name, root.as_fd(), &attributes);
        }
        let (folder, last) = self.parent(name)?;
        match kind {
            Kind::Directory => self.directory(name, folder.as_fd(), last, &attributes),
            Kind::File { size, sparse } => {
                self.claimed = self.claimed.saturating_add(size);
                if self.claimed > self.limits.bytes {
                    return Err(Error::Limit { limit: self.limits.bytes, of: "bytes" });
                }
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
                let made = self.make(name, folder.as_fd(), last, || {
                    fs::openat(&*folder, last, flags, Mode::from_raw_mode(0o600))
                })?;
                let made = std::fs::File::from(made);
                if let Err(error) = self.fill(name, &made, file, size, sparse) {
                    // What there is of it is of no use, and takes what a full disk has not.
                    let _ = fs::unlinkat(&*folder, last, AtFlags::empty());
                    return Err(error);
                }
                adorn(name, made.as_fd(), &attributes)?;
                fs::futimens(&made, &times(&attributes)).on_file("set times of", name)
            }
            Kind::Link(target) => match self.link(name, folder.as_fd(), last, &target)? {
                true => Ok(()),
                false => {
                    // Its target may come later, or be in a layer below. What was there before is not this file any more.
                    self.clear(folder.as_fd(), last).on_file("replace", name)?;
                    self.links.push((name.to_owned(), target));
                    Ok(())
                }
            },
            Kind::Symlink(target) => {
                let target = OsStr::from_bytes(&target);
                self.make(name, folder.as_fd(), last, || fs::symlinkat(target, &*folder, last))?;
                adorn_by_name(name, folder.as_fd(), last, &attributes, None)
            }
            Kind::Fifo => self.node(name, folder.as_fd(), last, &attributes, (FileType::Fifo, 0)),
            Kind::Device { block, major, minor } => {
                let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.node(name, folder.as_fd(), last, &attributes, (kind, fs::makedev(major, minor)))
            }
        }
    }

    /// Whiteouts, opaque folders, late links, and the folders' times.
    pub fn finish(mut self) -> Result<Written> {
        for (name, target) in std::mem::take(&mut self.links) {
            let (folder, last) = self.parent(&name)?;
            if !self.link(&name, folder.as_fd(), last, &target)? {
                self.links.push((name, target));
            }
        }
        for name in std::mem::take(&mut self.whiteouts) {
            let (folder, last) = self.parent(&name)?;
            match fs::mknodat(&*folder, last, FileType::CharacterDevice, Mode::empty(), 0) {
                Err(Errno::EXIST) => match fs::statat(&*folder, last, AtFlags::SYMLINK_NOFOLLOW) {
                    // Removed and made anew: nothing of the old one shows through the new one.
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                        self.opaque.insert(name);
                    }
                    other => drop(other.on_file("look at", &name)?),
                },
                made => made.on_file("make whiteout", &name)?,
            }
        }
        for name in std::mem::take(&mut self.opaque) {
            let folder = self.open_folder(&name)?;
            fs::fsetxattr(&folder, OPAQUE, b"y", XattrFlags::empty()).on_file("mark as opaque", &name)?;
        }
        for (name, modified) in self.folders.iter().rev() {
            // A folder that was replaced later has another entry, or is none.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            if let Ok(folder) = path::open_in_root(self.root, &rooted(name), flags) {
                let times = Timestamps { last_access: *modified, last_modification: *modified };
                fs::futimens(&folder, &times).on_file("set times of", name)?;
            }
        }
        Ok(Written { entries: self.entries, implied: self.implied, links: self.links })
    }

    /// The folder before the last name of `name`, made if need be, and that name.
    fn parent<'n>(&mut self, name: &'n Path) -> Result<(Rc<OwnedFd>, &'n OsStr)> {
        let (folder, last) = path::split(name).map_err(|e| Error::entry(name, e))?;
        if let Some((known, fd)) = &self.last
            && known == folder
        {
            return Ok((fd.clone(), last));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match path::open_in_root(self.root, &rooted(folder), flags) {
            Err(e) if e.errno() == Errno::NOENT => self.make_folders(folder)?,
            other => other.map_err(|e| Error::entry(name, format!("its folder cannot be used: {e}")))?,
        };
        let fd = Rc::new(fd);
        self.last = Some((folder.to_owned(), fd.clone()));
        Ok((fd, last))
    }

    fn open_folder(&mut self, name: &Path) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match path::open_in_root(self.root, &rooted(name), flags) {
            Err(e) if e.errno() == Errno::NOENT => {
                self.make_folders(name)?;
                path::open_in_root(self.root, &rooted(name), flags)
            }
            other => other,
        }
        .map_err(|e| Error::entry(name, e))
    }

    /// Makes the folder `folder` with all before it.
    fn make_folders(&mut self, folder: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let open = |path: &Path| path::open_in_root(self.root, &rooted(path), flags);
        let mut so_far = PathBuf::new();
        let mut here = open(&so_far).map_err(|e| Error::entry(folder, e))?;
        let mut made = Vec::new();
        for name in folder {
            so_far.push(name);
            here = match open(&so_far) {
                Err(e) if e.errno() == Errno::NOENT => {
                    match fs::mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                        // Not there for who follows links, and there: a link that leads nowhere in this layer.
                        Err(Errno::EXIST) => {
                            return Err(Error::entry(folder, "its folder is a link that leads nowhere"));
                        }
                        made => made.on_file("make folder", &so_far)?,
                    }
                    // Whatever the caller's umask: an unpacked layer follows from the layer alone.
                    set_mode(here.as_fd(), name, 0o755).on_file("set mode of", &so_far)?;
                    made.push(so_far.clone());
                    open(&so_far)
                }
                other => other,
            }
            .map_err(|e| Error::entry(&so_far, e))?;
        }
        self.count(made.len() as u64)?;
        self.implied.extend(made);
        Ok(here)
    }

    fn directory(
        &mut self,
        name: &Path,
        folder: BorrowedFd<'_>,
        last: &OsStr,
        attributes: &Attributes,
    ) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = match fs::mkdirat(folder, last, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => match fs::openat(folder, last, flags, Mode::empty()) {
                Ok(there) => Ok(there),
                // A file or a link is in the way.
                Err(_) => self
                    .clear(folder, last)
                    .and_then(|()| fs::mkdirat(folder, last, Mode::from_raw_mode(0o700)))
                    .and_then(|()| fs::openat(folder, last, flags, Mode::empty())),
            },
            Err(e) => Err(e),
            Ok(()) => fs::openat(folder, last, flags, Mode::empty()),
        };
        self.implied.remove(name);
        self.adorn_folder(name, made.on_file("make folder", name)?.as_fd(), attributes)
    }

    fn adorn_folder(&mut self, name: &Path, folder: BorrowedFd<'_>, attributes: &Attributes) -> Result<()> {
        self.folders.push((name.to_owned(), attributes.modified));
        adorn(name, folder, attributes)
    }

    fn node(
        &mut self,
        name: &Path,
        folder: BorrowedFd<'_>,
        last: &OsStr,
        attributes: &Attributes,
        (kind, device): (FileType, fs::Dev),
    ) -> Result<()> {
        self.make(name, folder, last, || {
            fs::mknodat(folder, last, kind, Mode::from_raw_mode(0o600), device)
        })?;
        adorn_by_name(name, folder, last, attributes, Some(attributes.mode))
    }

    /// Links `name` to `target`; false when there is no such target in this layer.
    fn link(&mut self, name: &Path, folder: BorrowedFd<'_>, last: &OsStr, target: &Path) -> Result<bool> {
        let (before, target_last) = path::split(target).map_err(|e| Error::entry(name, e))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(before) = path::open_in_root(self.root, &rooted(before), flags) else { return Ok(false) };
        let stat = match fs::statat(&before, target_last, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            stat => stat.on_file("look at", target)?,
        };
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(Error::entry(name, "a hard link to a folder"));
        }
        if fs::statat(folder, last, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| (s.st_dev, s.st_ino) == (stat.st_dev, stat.st_ino))
        {
            return Ok(true);
        }
        self.make(name, folder, last, || fs::linkat(&before, target_last, folder, last, AtFlags::empty()))?;
        Ok(true)
    }

    /// Runs `make`, which makes `last` in `folder`; what is there already is removed first.
    fn make<T>(
        &mut self,
        name: &Path,
        folder: BorrowedFd<'_>,
        last: &OsStr,
        make: impl Fn() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => self.clear(folder, last).and_then(|()| make()),
            other => other,
        }
        .on_file("make", name)
    }

    /// Removes `last` in `folder`, a folder with all below it. Nothing there is fine.
    fn clear(&mut self, folder: BorrowedFd<'_>, last: &OsStr) -> std::result::Result<(), Errno> {
        match fs::unlinkat(folder, last, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                // The folder may be the one that is held for the next entry.
                self.last = None;
                // The descriptor's own link in procfs leads to it, whatever its name has become; below it nothing follows a link.
                let there = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(last);
                std::fs::remove_dir_all(there).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
            }
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Writes the entry's content. Only what was declared to be sparse becomes so.
    fn fill(
        &mut self,
        name: &Path,
        made: &std::fs::File,
        from: &mut impl Read,
        size: u64,
        sparse: bool,
    ) -> Result<()> {
        let mut position = 0;
        loop {
            let count = from.read(&mut self.buffer).map_err(|e| read_error(name, e))?;
            let piece = &self.buffer[..count];
            if count == 0 {
                break;
            }
            if !sparse {
                (&*made).write_all(piece).on_file("write", name)?;
            } else if piece.iter().any(|byte| *byte != 0) {
                made.write_all_at(piece, position).on_file("write", name)?;
            }
            position += count as u64;
        }
        if position != size {
            return Err(Error::entry(name, format!("the archive ends after {position} of its {size} bytes")));
        }
        if sparse { made.set_len(size).on_file("write", name) } else { Ok(()) }
    }
}

/// The path as seen from the root: an empty one would be no path.
fn rooted(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

fn times(attributes: &Attributes) -> Timestamps {
    Timestamps { last_access: attributes.modified, last_modification: attributes.modified }
}

/// Owner, mode, and extended attributes: in this order, since a change of owner clears the set-id bits and file capabilities.
fn adorn(name: &Path, file: BorrowedFd<'_>, attributes: &Attributes) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    fs::fchown(file, Some(uid), Some(gid)).on_file("set owner of", name)?;
    fs::fchmod(file, Mode::from_raw_mode(attributes.mode)).on_file("set mode of", name)?;
    for (key, value) in &attributes.extended {
        fs::fsetxattr(file, key.as_c_str(), value, XattrFlags::empty())
            .on_file("set an extended attribute of", name)?;
    }
    Ok(())
}

/// Sets the mode of `last` in `folder`, which may be a running container's: a link that took its place is not followed.
fn set_mode(folder: BorrowedFd<'_>, last: &OsStr, mode: u32) -> std::result::Result<(), Errno> {
    let file = fs::openat(folder, last, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), Mode::from_raw_mode(mode))
}

/// As [`adorn`], with the times, for what cannot be opened: links, devices, pipes.
fn adorn_by_name(
    name: &Path,
    folder: BorrowedFd<'_>,
    last: &OsStr,
    attributes: &Attributes,
    mode: Option<u32>,
) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    fs::chownat(folder, last, Some(uid), Some(gid), no_follow).on_file("set owner of", name)?;
    if let Some(mode) = mode {
        set_mode(folder, last, mode).on_file("set mode of", name)?;
    }
    // Attributes of users are for files and folders alone; the kernel refuses them here.
    let kept = |(key, _): &&(CString, Vec<u8>)| key.as_bytes().starts_with(b"trusted.");
    for (key, value) in attributes.extended.iter().filter(kept) {
        let there = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(last);
        fs::lsetxattr(&there, key.as_c_str(), value, XattrFlags::empty())
            .on_file("set an extended attribute of", name)?;
    }
    fs::utimensat(folder, last, &times(attributes), no_follow).on_file("set times of", name)
}
