//! Mounts through the descriptor API: `fsopen`, `fsmount`, `open_tree`, `move_mount`, `mount_setattr`, and `pivot_root`.
//!
//! Targets are descriptors, never paths, so that nothing can be swapped between the check and the mount.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::error::{Call, Error, Result};

/// Whether a call acts on one mount or on it and all below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// This mount alone.
    One,
    /// This mount and every mount below it.
    Recursive,
}

/// The change that [`set_attributes`] makes; see mount_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 for no change.
    pub propagation: u64,
}

impl Attributes {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn setattr(mount: BorrowedFd<'_>, depth: Depth, attr: &libc::mount_attr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if depth == Depth::Recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated empty string, attr is a live struct of the size given.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr as *const libc::mount_attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if r == 0 { Ok(()) } else { Err(Error::last("mount_setattr")) }
}

/// Changes the attributes of the mount behind `mount`.
pub fn set_attributes(mount: BorrowedFd<'_>, depth: Depth, attributes: Attributes) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let mut clear = attributes.clear;
    if attributes.set & libc::MOUNT_ATTR__ATIME != 0
        || attributes.set & ATIME_SETTINGS != 0
        || clear & libc::MOUNT_ATTR__ATIME != 0
    {
        // The access-time modes are one field: the kernel wants the whole of it cleared when any of them is set.
        clear |= libc::MOUNT_ATTR__ATIME;
    }
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    setattr(mount, depth, &attr)
}

/// The bits of the access-time field other than relatime, which is 0.
const ATIME_SETTINGS: u64 = libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_STRICTATIME;

/// Maps the ids of a detached mount by the user namespace behind `userns`.
pub fn set_idmap(mount: BorrowedFd<'_>, depth: Depth, userns: BorrowedFd<'_>) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd() as u64,
    };
    setattr(mount, depth, &attr)
}

/// Clones the mount at `path` (under `dir` unless absolute) into a detached one; with [`Depth::Recursive`] all mounts below too.
pub fn open_tree(dir: BorrowedFd<'_>, path: &Path, depth: Depth) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if depth == Depth::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(dir, path, flags).call("open_tree")
}

/// Attaches the detached mount `mount` on the file or folder `target`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags).call("move_mount")
}

/// One parameter of a new file system, as in the comma-separated data of mount(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its name.
    pub key: &'a str,
    /// Its value; a flag has none.
    pub value: Option<&'a str>,
}

/// A new file system that could not be made, with the kernel's own explanation where it gave one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}{}", if message.is_empty() { String::new() } else { format!(" ({message})") })]
pub struct FilesystemError {
    /// The call that failed.
    pub error: Error,
    /// The messages of the file system context, in order, joined by "; ".
    pub message: String,
}

/// Makes a new file system of the type `fstype` and returns it as a detached mount with the attributes `attr` (`MOUNT_ATTR_*`).
pub fn new_filesystem(
    fstype: &str,
    source: &str,
    parameters: &[Parameter<'_>],
    attr: u64,
) -> std::result::Result<OwnedFd, FilesystemError> {
    let plain = |error| FilesystemError { error, message: String::new() };
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).call("fsopen").map_err(plain)?;
    let explain = |error| FilesystemError { error, message: context_messages(context.as_fd()) };
    if !source.is_empty() {
        rustix::mount::fsconfig_set_string(&context, "source", source)
            .call("fsconfig source")
            .map_err(explain)?;
    }
    for p in parameters {
        match p.value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, p.key, value),
            None => rustix::mount::fsconfig_set_flag(&context, p.key),
        }
        .call("fsconfig")
        .map_err(|error| {
            let mut e = explain(error);
            if e.message.is_empty() {
                e.message = format!("option {}", p.key);
            }
            e
        })?;
    }
    rustix::mount::fsconfig_create(&context).call("fsconfig create").map_err(explain)?;
    let attr = MountAttrFlags::from_bits_retain(attr as u32);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attr).call("fsmount").map_err(explain)
}

/// Reads what the kernel wrote about a failure into the file system context: lines such as "e tmpfs: Bad value for 'size'".
fn context_messages(context: BorrowedFd<'_>) -> String {
    let mut messages = Vec::new();
    let mut buffer = [0u8; 512];
    while let Ok(n @ 1..) = rustix::io::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..n]);
        messages.push(text.trim_start_matches(['e', 'w', 'i']).trim().to_owned());
        if messages.len() == 16 {
            break;
        }
    }
    messages.join("; ")
}

/// Changes the propagation of every mount of the caller's mount namespace.
pub fn set_propagation_of_all(propagation: u64) -> Result<()> {
    let root = crate::path::open_path(rustix::fs::CWD, Path::new("/"))?;
    set_attributes(root.as_fd(), Depth::Recursive, Attributes { propagation, ..Default::default() })
}

/// Makes `root`, the root folder of a mount, the root of the mount namespace and drops the old one.
///
/// The old root is stacked on the new one and detached from there, so that no folder is needed for it (pivot_root(2), NOTES).
pub fn pivot_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).call("fchdir to the new root")?;
    rustix::process::pivot_root(".", ".").call("pivot_root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).call("umount of the old root")?;
    rustix::process::chdir("/").call("chdir to the new root")
}

/// Makes `root` the caller's root by chroot: for hosts whose root is an initial ramfs, where pivot_root(2) is refused, and for
/// a mount namespace whose root others have too. The old root stays mounted beneath.
pub fn chroot(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).call("fchdir to the new root")?;
    rustix::process::chroot(".").call("chroot")?;
    rustix::process::chdir("/").call("chdir to the new root")
}

/// Detaches what is mounted on the folder `dir`, with all below it. Nothing mounted, or no folder, is fine.
pub fn unmount_tree(dir: &Path) -> Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        other => other.call("umount2"),
    }
}

/// Whether something is mounted on `path`: `STATX_ATTR_MOUNT_ROOT` (statx(2), kernel 5.8). Nothing there is no mount. It takes the same
/// time however many mounts there are, as reading mountinfo does not.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e).call("statx"),
    }
}

/// Sets a parameter of a mounted file system's superblock by name, as a remount would: `ro` or `rw`.
pub fn reconfigure(mount: BorrowedFd<'_>, flags: &[&str]) -> Result<()> {
    let context = rustix::mount::fspick(
        mount,
        c"",
        rustix::mount::FsPickFlags::FSPICK_EMPTY_PATH | rustix::mount::FsPickFlags::FSPICK_CLOEXEC,
    )
    .call("fspick")?;
    for flag in flags {
        let name = CString::new(*flag).map_err(|_| Error::new("fsconfig", rustix::io::Errno::INVAL))?;
        rustix::mount::fsconfig_set_flag(&context, name).call("fsconfig")?;
    }
    rustix::mount::fsconfig_reconfigure(&context).call("fsconfig reconfigure")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_known_by_itself() {
        for (path, is) in [("/proc", true), ("/proc/self", false), ("/", true), ("/nonexistent", false)] {
            assert_eq!(is_mount_point(Path::new(path)).unwrap(), is, "{path}");
        }
    }
}
