//! procfs through a handle that was checked to be procfs, so that a mount over a file of it is noticed and not written to.
//!
//! A container that can arrange what is mounted on /proc could otherwise have the runtime write a label or a sysctl into a
//! harmless file, or into another one (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Call, Error, Result};

const PROC_ROOT_INODE: u64 = 1;

/// A procfs, held by its root folder.
#[derive(Debug)]
pub struct Proc {
    root: Option<OwnedFd>,
}

/// A process's state letter and start time, from `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: `R`, `S`, `D`, `Z` and so on.
    pub state: char,
    /// Field 4: the parent's pid.
    pub parent: i32,
    /// Field 22, in clock ticks since boot.
    pub start_time: u64,
}

impl Proc {
    /// Opens `/proc` and checks that it is the root of a procfs.
    pub fn open() -> Result<Self> {
        let root = crate::path::open_path(rustix::fs::CWD, Path::new("/proc"))?;
        Self::check(root.as_fd())?;
        Ok(Self { root: Some(root) })
    }

    /// The descriptor of its root folder. EBADF: it is closed.
    pub fn root(&self) -> Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Error::new("use of /proc after it was closed", Errno::BADF))
    }

    /// Closes it: everything that asks for something below fails from now on.
    pub fn close(&mut self) {
        self.root = None;
    }

    fn check(root: BorrowedFd<'_>) -> Result<()> {
        let magic = rustix::fs::fstatfs(root).call("fstatfs /proc")?.f_type;
        let inode = rustix::fs::fstat(root).call("fstat /proc")?.st_ino;
        if magic as i64 != rustix::fs::PROC_SUPER_MAGIC || inode != PROC_ROOT_INODE {
            return Err(Error::new("/proc is not procfs", Errno::NOTSUP));
        }
        Ok(())
    }

    /// Opens a file below; crossing a mount or a magic link fails, so what is opened is procfs's own file.
    pub fn open_file(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let root = self.root()?;
        loop {
            match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.call("open in /proc"),
            }
        }
    }

    /// Reads a whole file below.
    pub fn read(&self, path: &str) -> Result<String> {
        let mut file = std::fs::File::from(self.open_file(path, OFlags::RDONLY)?);
        // procfs tells no length: without room to begin with, a file is read in pieces of 32 bytes, 64 and so on.
        let mut text = String::with_capacity(4096);
        file.read_to_string(&mut text).call("read in /proc")?;
        Ok(text)
    }

    /// Writes `text` to a file below with one write(2), as procfs wants it.
    pub fn write(&self, path: &str, text: &[u8]) -> Result<()> {
        let mut file = std::fs::File::from(self.open_file(path, OFlags::WRONLY)?);
        file.write_all(text).call("write in /proc")
    }

    /// Reads a link below without following it.
    pub fn read_link(&self, path: &str) -> Result<PathBuf> {
        let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
        let dir = self.open_file(dir, OFlags::PATH | OFlags::DIRECTORY)?;
        let target = rustix::fs::readlinkat(&dir, name, Vec::new()).call("readlink in /proc")?;
        Ok(PathBuf::from(std::ffi::OsString::from(String::from_utf8_lossy(target.as_bytes()).into_owned())))
    }

    /// Opens the namespace file `name` (`mnt`, `net`, `pid_for_children`...) of process `pid` ("self" or a number).
    ///
    /// The last part is a magic link by nature, so it alone is followed, below a folder that was reached without any.
    pub fn open_namespace(&self, pid: &str, name: &str) -> Result<OwnedFd> {
        let dir = self.open_file(&format!("{pid}/ns"), OFlags::PATH | OFlags::DIRECTORY)?;
        rustix::fs::openat(&dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).call("open namespace")
    }

    /// Opens again, with `flags`, the file behind `fd`, which was opened as a location.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
        let dir = self.open_file("self/fd", OFlags::PATH | OFlags::DIRECTORY)?;
        rustix::fs::openat(&dir, fd.as_raw_fd().to_string(), flags | OFlags::CLOEXEC, Mode::empty())
            .call("reopen")
    }

    /// Reads a process's state and start time.
    pub fn stat(&self, pid: i32) -> Result<Stat> {
        let text = self.read(&format!("{pid}/stat"))?;
        parse_stat(&text).ok_or(Error::new("parse /proc/PID/stat", Errno::BADMSG))
    }

    /// The status, as of wait(2), that process `pid` waits with to be reaped. `None`: it is no zombie, or hidden from the caller.
    pub fn status_of_zombie(&self, pid: i32) -> Option<i32> {
        let text = self.read(&format!("{pid}/stat")).ok()?;
        let mut fields = text.get(text.rfind(')')? + 2..)?.split_ascii_whitespace();
        // Fields 3 and 52.
        (fields.next()? == "Z").then(|| fields.nth(48)?.parse().ok()).flatten()
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in field 2 may hold spaces and parentheses: count from the last one.
    let rest = text.get(text.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_hostile_name() {
        let text = "7 (a) S 1 (b)) R 3 7 7 0 -1 4 0 0 0 0 1 2 3 4 20 0 1 0 4242 99 1 2";
        assert_eq!(parse_stat(text), Some(Stat { state: 'R', parent: 3, start_time: 4242 }));
    }

    #[test]
    fn reads_its_own_stat() {
        let proc = Proc::open().unwrap();
        let stat = proc.stat(std::process::id() as i32).unwrap();
        assert!(stat.start_time > 0);
    }

    #[test]
    fn a_zombie_tells_its_status() {
        let mut child = std::process::Command::new("sh");
        let mut child =
            child.args(["-c", "read x; exit 7"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let proc = Proc::open().unwrap();
        assert_eq!(proc.status_of_zombie(child.id() as i32), None);
        let pidfd = crate::wait::pidfd_open(child.id() as i32).unwrap();
        drop(child.stdin.take());
        crate::wait_readable(pidfd.as_fd()).unwrap();
        assert_eq!(proc.status_of_zombie(child.id() as i32), Some(7 << 8));
        child.wait().unwrap();
    }

    #[test]
    fn a_magic_link_is_not_followed() {
        let proc = Proc::open().unwrap();
        let error = proc.open_file("self/root/etc/passwd", OFlags::RDONLY).unwrap_err();
        assert_eq!(error.errno(), Errno::LOOP);
    }
}
