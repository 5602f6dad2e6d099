//! A folder in overlayfs's form as the archive of a layer: the way back from [`crate::unpack`].
//!
//! The folder may be a running container's, which may swap names while it is read: everything is opened below the folder's own
//! descriptor, no link is followed, and what is told of a file is asked of its descriptor.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use croft_sys::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use croft_sys::{Errno, path};

use crate::error::{Context, Error, Result};
use crate::snapshot::IdRange;
use crate::unpack::attributes;

/// Writes the tree `root` as a layer's archive to `to`, in a fixed order.
pub fn pack<W: Write>(root: BorrowedFd<'_>, to: W) -> Result<W> {
    write(root, Path::new(""), to, Form::Layer)
}

/// Writes the file or folder `top` as an archive to `to`, under the name `name`; empty: what is in the folder, without one.
///
/// No link is followed below `top`. Files are told to be those of `owners`.
pub fn pack_files<W: Write>(top: BorrowedFd<'_>, name: &Path, to: W, owners: Owners) -> Result<W> {
    write(top, name, to, Form::Files(owners))
}

fn write<W: Write>(top: BorrowedFd<'_>, name: &Path, to: W, form: Form) -> Result<W> {
    let mut archive = Archive { builder: tar::Builder::new(to), form, names: BTreeMap::new() };
    let stat = fs::fstat(top).on_file("look at", name)?;
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        let folder = path::open_in_root(top, Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY);
        archive.folder(folder.map_err(|e| Error::entry(name, e))?, name)?;
    } else {
        archive.other(top, name)?;
    }
    archive.builder.into_inner().on_file("write", Path::new("archive"))
}

/// Whose the files are, by the numbers of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Who the descriptors say.
    Same,
    /// Those of a container whose own ids are seen as these of the host.
    Of(IdRange),
}

/// The owner of what belongs to nobody of a container.
const NOBODY: u32 = 65_534;

impl Owners {
    /// The number in the container of `id`, which the host sees.
    pub(crate) fn inside(self, id: u32) -> u32 {
        match self {
            Owners::Same => id,
            Owners::Of(IdRange { start, size }) => {
                id.checked_sub(start).filter(|id| *id < size).unwrap_or(NOBODY)
            }
        }
    }

    /// The number on the host of the container's `id`; none for one that it does not have.
    pub(crate) fn outside(self, id: u32) -> Option<u32> {
        match self {
            Owners::Same => Some(id),
            Owners::Of(IdRange { start, size }) => (id < size).then(|| start + id),
        }
    }
}

/// What an archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A layer: overlayfs's marks become those of an image.
    Layer,
    /// Files as they are.
    Files(Owners),
}

struct Archive<W: Write> {
    builder: tar::Builder<W>,
    form: Form,
    /// The first name of each file that has several.
    names: BTreeMap<(u64, u64), PathBuf>,
}

/// The types of procfs, sysfs and both versions of cgroupfs (statfs(2)).
const KERNEL: [fs::FsWord; 4] = [fs::PROC_SUPER_MAGIC, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];

impl<W: Write> Archive<W> {
    fn folder(&mut self, folder: OwnedFd, name: &Path) -> Result<()> {
        let stat = fs::fstat(&folder).on_file("look at", name)?;
        self.entry(
            name,
            &stat,
            tar::EntryType::Directory,
            (None, &xattrs(folder.as_fd(), name)?),
            std::io::empty(),
        )?;
        let is_layer = self.form == Form::Layer;
        if is_layer && fs::fgetxattr(&folder, "trusted.overlay.opaque", &mut [0u8; 4]).is_ok() {
            self.marker(&name.join(".wh..wh..opq"), &stat)?;
        }
        let of = fs::fstatfs(&folder).on_file("look at", name)?.f_type;
        // What the kernel makes up while it is read is nobody's to copy, and some of it cannot be read at all.
        if KERNEL.contains(&of) {
            return Ok(());
        }
        for entry in sorted(folder.as_fd(), name)? {
            let inner = name.join(&entry);
            let stat = match fs::statat(&folder, &entry, AtFlags::SYMLINK_NOFOLLOW) {
                // Removed meanwhile.
                Err(Errno::NOENT) => continue,
                stat => stat.on_file("look at", &inner)?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let folder = fs::openat(&folder, &entry, flags, Mode::empty()).on_file("open", &inner)?;
                    self.folder(folder, &inner)?;
                }
                FileType::RegularFile => self.file(folder.as_fd(), &entry, &inner)?,
                FileType::Symlink => {
                    let target = fs::readlinkat(&folder, &entry, Vec::new()).on_file("read link", &inner)?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    self.entry(
                        &inner,
                        &stat,
                        tar::EntryType::Symlink,
                        (Some(&target), &[]),
                        std::io::empty(),
                    )?;
                }
                FileType::CharacterDevice if stat.st_rdev == 0 && is_layer => {
                    let mut hidden = OsString::from(".wh.");
                    hidden.push(&entry);
                    self.marker(&name.join(hidden), &stat)?;
                }
                FileType::CharacterDevice => {
                    self.entry(&inner, &stat, tar::EntryType::Char, (None, &[]), std::io::empty())?;
                }
                FileType::BlockDevice => {
                    self.entry(&inner, &stat, tar::EntryType::Block, (None, &[]), std::io::empty())?;
                }
                FileType::Fifo => {
                    self.entry(&inner, &stat, tar::EntryType::Fifo, (None, &[]), std::io::empty())?
                }
                // A socket lives as long as who made it.
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, folder: BorrowedFd<'_>, entry: &OsStr, name: &Path) -> Result<()> {
        // Not blocking: a pipe may have taken its place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(folder, entry, flags, Mode::empty()).on_file("open", name)?;
        self.opened_file(file, name)
    }

    fn opened_file(&mut self, file: OwnedFd, name: &Path) -> Result<()> {
        let stat = fs::fstat(&file).on_file("look at", name)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Error::entry(name, "it changed while it was read: stop or pause the container"));
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.names.get(&(stat.st_dev, stat.st_ino)).cloned() {
                return self.entry(name, &stat, tar::EntryType::Link, (Some(&first), &[]), std::io::empty());
            }
            self.names.insert((stat.st_dev, stat.st_ino), name.to_owned());
        }
        let attributes = xattrs(file.as_fd(), name)?;
        // One that shrinks meanwhile is filled up: the header with its length is written already.
        let size = stat.st_size as u64;
        let content = File::from(file).take(size).chain(std::io::repeat(0)).take(size);
        self.entry(name, &stat, tar::EntryType::Regular, (None, &attributes), content)
    }

    /// What is no folder, from its own descriptor.
    fn other(&mut self, place: BorrowedFd<'_>, name: &Path) -> Result<()> {
        let stat = fs::fstat(place).on_file("look at", name)?;
        let plain = |kind| (kind, None);
        let (kind, link) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                // The descriptor's own link in procfs leads to the file, whatever its name has become.
                let path = format!("/proc/self/fd/{}", place.as_raw_fd());
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                return self.opened_file(fs::open(path, flags, Mode::empty()).on_file("open", name)?, name);
            }
            FileType::Symlink => {
                let target = fs::readlinkat(place, "", Vec::new()).on_file("read link", name)?;
                (tar::EntryType::Symlink, Some(PathBuf::from(OsString::from_vec(target.into_bytes()))))
            }
            FileType::CharacterDevice => plain(tar::EntryType::Char),
            FileType::BlockDevice => plain(tar::EntryType::Block),
            FileType::Fifo => plain(tar::EntryType::Fifo),
            _ => return Err(Error::entry(name, "a socket cannot be copied")),
        };
        self.entry(name, &stat, kind, (link.as_deref(), &[]), std::io::empty())
    }

    /// An empty file whose name means something.
    fn marker(&mut self, name: &Path, folder: &Stat) -> Result<()> {
        let mut stat = *folder;
        (stat.st_size, stat.st_mode, stat.st_uid, stat.st_gid) = (0, 0o100600, 0, 0);
        self.entry(name, &stat, tar::EntryType::Regular, (None, &[]), std::io::empty())
    }

    fn entry(
        &mut self,
        name: &Path,
        stat: &Stat,
        kind: tar::EntryType,
        (link, attributes): (Option<&Path>, &[(String, Vec<u8>)]),
        content: impl Read,
    ) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        let owners = if let Form::Files(owners) = self.form { owners } else { Owners::Same };
        header.set_uid(owners.inside(stat.st_uid).into());
        header.set_gid(owners.inside(stat.st_gid).into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(if kind == tar::EntryType::Regular { stat.st_size as u64 } else { 0 });
        if [tar::EntryType::Char, tar::EntryType::Block].contains(&kind) {
            let device = stat.st_rdev;
            let set = header
                .set_device_major(fs::major(device))
                .and_then(|()| header.set_device_minor(fs::minor(device)));
            set.map_err(|e| Error::entry(name, e))?;
        }
        // What the header has no room for, goes before it.
        let mut records: Vec<(String, Vec<u8>)> =
            attributes.iter().map(|(key, value)| (format!("SCHILY.xattr.{key}"), value.clone())).collect();
        if stat.st_mtime_nsec != 0 || stat.st_mtime < 0 {
            records.push(("mtime".to_owned(), time(stat.st_mtime, stat.st_mtime_nsec as i64).into_bytes()));
        }
        let shown = if name.as_os_str().is_empty() { Path::new("./") } else { name };
        let fields = header.as_gnu_mut().ok_or_else(|| Error::entry(name, "no header"))?;
        let mut put = |field: &mut [u8; 100], value: &[u8], key: &str| {
            if value.len() > field.len() {
                records.push((key.to_owned(), value.to_vec()));
            }
            let length = value.len().min(field.len());
            field[..length].copy_from_slice(&value[..length]);
        };
        put(&mut fields.name, shown.as_os_str().as_bytes(), "path");
        if let Some(link) = link {
            put(&mut fields.linkname, link.as_os_str().as_bytes(), "linkpath");
        }
        header.set_cksum();
        let written = match records.is_empty() {
            true => Ok(()),
            false => self
                .builder
                .append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), &value[..]))),
        };
        written.and_then(|()| self.builder.append(&header, content)).on_file("write entry", name)
    }
}

/// Seconds and a fraction, as PAX wants it.
fn time(seconds: i64, nanoseconds: i64) -> String {
    match (seconds, nanoseconds) {
        (..0, 1..) if seconds == -1 => format!("-0.{:09}", 1_000_000_000 - nanoseconds),
        (..0, 1..) => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanoseconds),
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

fn xattrs(file: BorrowedFd<'_>, name: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let found = attributes(file).on_file("read extended attributes of", name)?;
    Ok(found.into_iter().map(|(key, value)| (key.to_string_lossy().into_owned(), value)).collect())
}

fn sorted(folder: BorrowedFd<'_>, name: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).on_file("read", name)? {
        let entry = entry.on_file("read", name)?;
        if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
            names.push(OsString::from_vec(entry.file_name().to_bytes().to_vec()));
        }
    }
    names.sort();
    Ok(names)
}
