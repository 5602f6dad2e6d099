//! A mount namespace with next to nothing in it, for containers' processes to be born in; see croft_plan's `build::birth`.
//!
//! It is made once by who has many containers made, and lives as long as its descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use croft_sys::clone::{CLONE_NEWNS, Parent, Side, clone3};
use croft_sys::fs::{self, CWD, FileType, Mode};
use croft_sys::mount::{self, Attributes, Depth};
use croft_sys::proc::Proc;
use croft_sys::{credentials, path, socket, wait};

use crate::apply::Cause;
use crate::error::{Context, Error, Result};

/// `MS_PRIVATE` of mount(2).
const PRIVATE: u64 = 1 << 18;
/// `MOUNT_ATTR_RDONLY` of mount_setattr(2).
const RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`, `NODEV` and `NOEXEC`.
const PLAIN: u64 = 0x2 | 0x4 | 0x8;
/// What the process that makes the namespace says at most, in bytes.
const LONGEST: usize = 1024;

/// Makes the namespace, by a child.
///
/// # Errors
/// When the caller has threads, or may not mount.
pub fn make() -> Result<OwnedFd> {
    let (ours, theirs) = socket::packet_pair().on(|| "make a socket".into())?;
    let proc = Proc::open().on(|| "open /proc".into())?;
    match clone3(CLONE_NEWNS, None, Parent::Caller).on(|| "clone a process".into())? {
        Side::Child => {
            drop(ours);
            let sent = match fill().and_then(|()| Ok(proc.open_namespace("self", "mnt")?)) {
                Ok(made) => socket::send(theirs.as_fd(), b"made", &[made.as_fd()]),
                Err(cause) => socket::send(theirs.as_fd(), cause.reason.as_bytes(), &[]),
            };
            std::process::exit(if sent.is_ok() { 0 } else { 1 })
        }
        Side::Parent(child) => {
            drop(theirs);
            let mut said = [0; LONGEST];
            let received = socket::receive(ours.as_fd(), &mut said);
            wait::wait(child.pidfd.as_fd()).on(|| "wait for a process".into())?;
            let (n, mut fds) = received.on(|| "hear from a process".into())?;
            fds.pop()
                .ok_or_else(|| Error::refused("make a mount namespace", String::from_utf8_lossy(&said[..n])))
        }
    }
}

/// Leaves of the caller's mounts, which are a copy of the host's, what a container's process looks for in its first moments: a
/// procfs and a sysfs without anything on them, without which the kernel lets no user namespace have its own
/// (user_namespaces(7)), and the null device.
fn fill() -> std::result::Result<(), Cause> {
    // A root of a user namespace, who owns nothing here, goes through these folders, whatever the caller's mask.
    credentials::set_umask(Mode::empty());
    mount::set_propagation_of_all(PRIVATE)?;
    let null = mount::open_tree(open_path(CWD, "/dev/null")?.as_fd(), Path::new(""), Depth::One)?;
    let root = mount::new_filesystem("tmpfs", "croft", &[], PLAIN)?;
    mount::attach(root.as_fd(), open_path(CWD, "/")?.as_fd())?;
    for dir in ["proc", "sys", "dev"] {
        fs::mkdirat(&root, dir, Mode::from_raw_mode(0o755)).map_err(std::io::Error::from)?;
    }
    for (fstype, dir) in [("proc", "proc"), ("sysfs", "sys")] {
        let made = mount::new_filesystem(fstype, fstype, &[], PLAIN)?;
        mount::attach(made.as_fd(), open_path(root.as_fd(), dir)?.as_fd())?;
    }
    let file = "dev/null";
    fs::mknodat(&root, file, FileType::RegularFile, Mode::from_raw_mode(0o444), 0)
        .map_err(std::io::Error::from)?;
    mount::attach(null.as_fd(), open_path(root.as_fd(), file)?.as_fd())?;
    let read_only = Attributes { set: RDONLY, ..Attributes::default() };
    mount::set_attributes(root.as_fd(), Depth::One, read_only)?;
    Ok(mount::pivot_root(root.as_fd())?)
}

fn open_path(dir: BorrowedFd<'_>, name: &str) -> croft_sys::Result<OwnedFd> {
    path::open_path(dir, Path::new(name))
}
