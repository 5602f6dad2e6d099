//! Reading a file of a container's root from outside, where everything in it may be the container's making.

use std::io::Read;
use std::path::Path;

use croft_sys::fs::{self, OFlags};

/// The text of the regular file `path` below `rootfs`, of which every link leads below it too; at most `longest` bytes of it, with what is no
/// UTF-8 replaced.
///
/// # Errors
/// When there is no such file, or it is something else: a fifo would wait, a device could do anything.
pub fn read(rootfs: &Path, path: &Path, longest: usize) -> std::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(rootfs, flags, fs::Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file =
        std::fs::File::from(croft_sys::path::open_in_root(std::os::fd::AsFd::as_fd(&root), path, flags)?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(longest as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_root_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(folder.path().join("secret"), "host").unwrap();
        std::fs::write(root.join("own"), "inside").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/own", root.join("down")).unwrap();
        let read = |path: &str| read(&root, Path::new(path), 4);
        assert_eq!(read("own").unwrap(), "insi");
        assert_eq!(read("down").unwrap(), "insi");
        assert!(read("up").is_err() && read("../secret").is_err() && read(".").is_err());
    }
}
