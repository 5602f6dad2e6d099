//! The /dev/shm of a container that lets others share it: mounted by croftd, and bound into each of them.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The usual size in bytes.
const USUAL: u64 = 64 << 20;

/// Mounts it in `bundle`. Gives where.
///
/// # Errors
/// When the kernel refuses.
pub fn make(bundle: &Path, size: Option<u64>) -> io::Result<PathBuf> {
    let path = bundle.join("shm");
    std::fs::create_dir_all(&path)?;
    // What a start before this one left.
    unmake(bundle);
    let options = format!("mode=1777,size={}", size.unwrap_or(USUAL));
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", &path, "tmpfs", flags, Some(&*options))?;
    Ok(path)
}

/// Unmounts it; not mounted is fine.
pub fn unmake(bundle: &Path) {
    let path = bundle.join("shm");
    match unmount(&path, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "a /dev/shm stays mounted"),
    }
}
