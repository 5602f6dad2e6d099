//! Device nodes, links and folders in the container's root.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use croft_plan::spec::{Device, DeviceKind};
use croft_sys::fs::{self, AtFlags, FileType, Gid, Mode, Uid};
use croft_sys::{Errno, OFlags, path};

use super::{Cause, Outcome};
use crate::world::World;

fn io(e: Errno) -> Cause {
    Cause::from(std::io::Error::from(e))
}

/// Refuses anything but the null device, character 1:3.
pub(super) fn check_null(fd: BorrowedFd<'_>) -> Outcome {
    let stat = fs::fstat(fd).map_err(io)?;
    if FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == fs::makedev(1, 3) {
        return Ok(());
    }
    Err(Cause::because("/dev/null is not the null device"))
}

pub(super) fn node(world: &World, device: &Device) -> Outcome {
    let (parent, name) = path::open_parent(world.root()?, &device.path)?;
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    };
    let number = fs::makedev(device.major, device.minor);
    // The mode asked for is the mode: no mask of the caller's applies.
    let mask = croft_sys::credentials::set_umask(Mode::empty());
    let made = fs::mknodat(&parent, name, kind, Mode::from_raw_mode(device.mode), number);
    croft_sys::credentials::set_umask(mask);
    match made {
        Ok(()) => {}
        Err(Errno::EXIST) => return accept_existing(&parent, name, kind, number),
        Err(e) => return Err(io(e)),
    }
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
    }
    Ok(())
}

/// A root folder may bring the node along; anything else at its place is refused rather than trusted.
fn accept_existing(parent: &OwnedFd, name: &OsStr, kind: FileType, number: u64) -> Outcome {
    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
    let same =
        FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == number);
    if same { Ok(()) } else { Err(Cause::because("something else is there")) }
}

pub(super) fn link(world: &World, to: &str, path: &Path) -> Outcome {
    let (parent, name) = path::open_parent(world.root()?, path)?;
    match fs::symlinkat(to, &parent, name) {
        Err(Errno::EXIST) if name == "ptmx" => {
            // A /dev/ptmx of the image's own would give a pty of the host's devpts.
            fs::unlinkat(&parent, name, AtFlags::empty()).map_err(io)?;
            fs::symlinkat(to, &parent, name).map_err(io)
        }
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(io(e)),
    }
}

/// Copies what is in `from` to `to`: folders, files, links and fifos, with owner, mode and times; the top folder's too.
pub(super) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Outcome {
    for entry in fs::Dir::read_from(from).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                fs::mkdirat(to, name, mode).map_err(io)?;
                let source = fs::openat(from, name, flags, Mode::empty()).map_err(io)?;
                let target = fs::openat(to, name, flags, Mode::empty()).map_err(io)?;
                copy_tree(source.as_fd(), target.as_fd())?;
            }
            FileType::RegularFile => {
                let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = fs::openat(from, name, flags | OFlags::RDONLY, Mode::empty()).map_err(io)?;
                let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let target = fs::openat(to, name, flags, mode).map_err(io)?;
                std::io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
            }
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new()).map_err(io)?;
                fs::symlinkat(target.as_c_str(), to, name).map_err(io)?;
            }
            kind => fs::mknodat(to, name, kind, mode, stat.st_rdev).map_err(io)?,
        }
        same_metadata(to, name, &stat)?;
    }
    let stat = fs::fstat(from).map_err(io)?;
    fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).map_err(io)?;
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(io)
}

fn same_metadata(dir: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &fs::Stat) -> Outcome {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
    if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
        // After chown, which clears the set-id bits.
        fs::chmodat(dir, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty()).map_err(io)?;
    }
    let times = fs::Timestamps {
        last_access: fs::Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: fs::Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    };
    fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io)
}
