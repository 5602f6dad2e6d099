//! Namespaces: leaving, joining, and the files that stand for them. See namespaces(7), setns(2), unshare(2).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{Call, Error, Result};
use crate::path;

/// Joins the namespace behind `fd`, a `/proc/PID/ns/*` file, which must be of the kind `flag` (`CLONE_NEW*`, or 0 for any);
/// or, when `fd` is a pidfd, all namespaces of that process whose flags are set.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    // SAFETY: two integers; the caller is single-threaded wherever the kernel demands it, or gets EINVAL.
    if unsafe { libc::setns(fd.as_raw_fd(), flags) } == 0 { Ok(()) } else { Err(Error::last("setns")) }
}

/// Moves the calling process into new namespaces (`CLONE_NEW*`). New pid and time namespaces take effect for children only.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: an integer. Descriptors are not unshared (no CLONE_FILES is passed by any caller of ours).
    if unsafe { libc::unshare(flags & !libc::CLONE_FILES) } == 0 {
        Ok(())
    } else {
        Err(Error::last("unshare"))
    }
}

/// The kind of the namespace file `fd` as a `CLONE_NEW*` flag (`NS_GET_NSTYPE`); fails for any other file.
pub fn kind(fd: BorrowedFd<'_>) -> Result<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this ioctl takes no argument; on a file that is no namespace it fails with ENOTTY.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(Error::last("ioctl NS_GET_NSTYPE")) } else { Ok(kind) }
}

/// The caller's root and working folder, which joining a mount namespace changes to the root of that one (setns(2)).
#[derive(Debug)]
pub struct Place {
    root: OwnedFd,
    working: OwnedFd,
}

impl Place {
    /// Where the caller is.
    ///
    /// # Errors
    /// When the caller may not look there.
    pub fn own() -> Result<Self> {
        let open = |name: &str| path::open_path(rustix::fs::CWD, Path::new(name));
        Ok(Self { root: open("/")?, working: open(".")? })
    }

    /// Goes there again, once the caller is back in the mount namespace that the place is in.
    ///
    /// # Errors
    /// When the caller may not change its root.
    pub fn go_back(&self) -> Result<()> {
        rustix::process::fchdir(&self.root).call("fchdir to the own root")?;
        rustix::process::chroot(".").call("chroot to the own root")?;
        rustix::process::fchdir(&self.working).call("fchdir to the own working folder")
    }
}
