//! Paths inside a root folder that may be hostile: resolved by the kernel under that root (openat2(2)), never by string.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Call, Error, Result};

/// Opens `path` as a location only (`O_PATH`), following links as the caller would: for paths that the host's administrator gave.
pub fn open_path(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).call("open")
}

/// The caller's working folder as getcwd(2) gives it: without a leading slash when it is outside of the caller's root.
pub fn current_directory() -> Result<Vec<u8>> {
    rustix::process::getcwd(Vec::new()).call("getcwd").map(|path| path.into_bytes())
}

/// Makes the folder `dir` the caller's working folder.
pub fn enter(dir: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(dir).call("fchdir")
}

/// Makes the folder `path` the caller's working folder, following links as the kernel does: [`current_directory`] tells where it
/// led.
pub fn enter_by_name(path: &Path) -> Result<()> {
    rustix::process::chdir(path).call("chdir")
}

/// Opens `path` inside `root` with `flags`; links and `..` are resolved as if `root` were `/`, and no magic link is followed.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // EAGAIN: a rename elsewhere raced with a ".."; the kernel asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other.call("openat2"),
        }
    }
}

/// Opens `path` inside `root` as a location, following no link at all.
pub fn open_without_links(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).call("openat2")
}

/// Opens `path` below the mount `dir` as a location, without leaving that mount and without following a link.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_XDEV
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).call("openat2")
}

/// What a mount target is to be when it does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// Anything else: an empty file.
    File,
}

/// The kind of the file behind `fd`.
pub fn kind(fd: BorrowedFd<'_>) -> Result<Kind> {
    let stat = rustix::fs::fstat(fd).call("fstat")?;
    let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    Ok(if directory { Kind::Directory } else { Kind::File })
}

/// Opens the mount target `path` inside `root` as `O_PATH`; makes it and the folders before it when it is not there.
pub fn open_or_create(root: BorrowedFd<'_>, path: &Path, want: Kind) -> Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH) {
        Err(e) if e.errno() == Errno::NOENT => {}
        found => return found,
    }
    match want {
        Kind::Directory => mkdir_all(root, path),
        Kind::File => {
            let (parent, name) = split(path)?;
            let parent = mkdir_all(root, parent)?;
            let made = rustix::fs::openat(
                &parent,
                name,
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY,
                Mode::from_raw_mode(0o644),
            );
            match made {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(e) => return Err(Error::new("create file", e)),
            }
            open_in_root(root, path, OFlags::PATH)
        }
    }
}

/// Makes the folder `path` inside `root` with all before it (mode 0755), and opens it.
pub fn mkdir_all(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    match open_in_root(root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(e) if e.errno() == Errno::NOENT => {}
        found => return found,
    }
    let mut here = rustix::io::fcntl_dupfd_cloexec(root, 0).call("dup")?;
    let mut so_far = PathBuf::new();
    for component in path.components() {
        let name = match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => name,
            Component::ParentDir | Component::Prefix(_) => return Err(Error::new("mkdir", Errno::INVAL)),
        };
        so_far.push(name);
        here = match open_in_root(root, &so_far, OFlags::PATH | OFlags::DIRECTORY) {
            Err(e) if e.errno() == Errno::NOENT => make_and_open(here.as_fd(), name)?,
            found => found?,
        };
    }
    Ok(here)
}

/// Makes the folder `name` in `parent`. What took its place meanwhile is not followed: a link that leads nowhere is an error.
fn make_and_open(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open_without_links(parent, Path::new(name)),
        Err(e) => Err(Error::new("mkdir", e)),
    }
}

/// Splits a path into its folder and its last name.
pub fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(Error::new("path without a last name", Errno::INVAL)),
    }
}

/// Opens the folder before `path`'s last name inside `root`, making it if need be, and returns it with that name.
pub fn open_parent<'p>(root: BorrowedFd<'_>, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
    let (parent, name) = split(path)?;
    Ok((mkdir_all(root, parent)?, name))
}

/// The path by which the kernel knows the open file `fd` in the caller's root, through the process's own procfs.
pub fn of_fd(proc: &crate::proc::Proc, fd: BorrowedFd<'_>) -> Result<PathBuf> {
    use std::os::fd::AsRawFd;
    proc.read_link(&format!("self/fd/{}", fd.as_raw_fd()))
}

/// Whether two descriptors stand for the same file (device and inode).
pub fn same_file(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Result<bool> {
    let (a, b) = (rustix::fs::fstat(a).call("fstat")?, rustix::fs::fstat(b).call("fstat")?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_link_stays_inside_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        let fd = open_path(rustix::fs::CWD, root.path()).unwrap();
        let made = open_or_create(fd.as_fd(), Path::new("/link/x"), Kind::File);
        assert!(made.is_err(), "the link's target does not exist inside the root");
        assert!(!outside.path().join("x").exists());
    }

    #[test]
    fn folders_are_made_through_links_inside_the_root_and_through_none_that_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        std::os::unix::fs::symlink("/run", root.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.path().join("dangling")).unwrap();
        let fd = open_path(rustix::fs::CWD, root.path()).unwrap();
        mkdir_all(fd.as_fd(), Path::new("/var/a/./b")).unwrap();
        assert!(root.path().join("run/a/b").is_dir());
        assert!(mkdir_all(fd.as_fd(), Path::new("/dangling/a")).is_err());
        assert_eq!(mkdir_all(fd.as_fd(), Path::new("/x/../y")).unwrap_err().errno(), Errno::INVAL);
        assert!(!root.path().join("nowhere").exists());
    }

    #[test]
    fn makes_folders_and_files() {
        let root = tempfile::tempdir().unwrap();
        let fd = open_path(rustix::fs::CWD, root.path()).unwrap();
        open_or_create(fd.as_fd(), Path::new("/a/b/c"), Kind::File).unwrap();
        open_or_create(fd.as_fd(), Path::new("/d/e"), Kind::Directory).unwrap();
        assert!(root.path().join("a/b/c").is_file());
        assert!(root.path().join("d/e").is_dir());
        assert_eq!(
            kind(open_in_root(fd.as_fd(), Path::new("d"), OFlags::PATH).unwrap().as_fd()).unwrap(),
            Kind::Directory
        );
    }
}
