//! A folder of files that only we can write, for what is costly to make and cheap to find again. Files come into being by rename, and
//! the oldest go.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// No file that we write is larger: a seccomp profile is a part of config.json, a program has its limit.
const LARGEST: u64 = 4 << 20;

/// How many files a folder keeps; the oldest go.
const MOST_FILES: usize = 64;

/// Where root keeps the folder `name`, and an ordinary user in its runtime folder. Beside the folder of the containers, not in it, where
/// it could be taken for one of them.
pub(crate) fn place(name: &str) -> Option<PathBuf> {
    let (_, euid) = croft_sys::credentials::user();
    let runtime = match euid {
        0 => Some(PathBuf::from("/run")),
        _ => std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
    };
    runtime.map(|folder| folder.join(name))
}

/// A folder that only we can write.
pub(crate) struct Folder {
    fd: OwnedFd,
}

impl Folder {
    /// Opens the folder, which is made if its parent is there. Refused unless it is ours and nobody else may write to it.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                rustix::fs::openat(CWD, path, flags, Mode::empty())?
            }
            opened => opened?,
        };
        check_ours(&fd)?;
        Ok(Folder { fd })
    }

    /// What the file `name` holds, if it is there and ours.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).ok()?;
        check_ours(&fd).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut bytes = Vec::with_capacity(stat.st_size.clamp(0, LARGEST as i64) as usize + 1);
        File::from(fd).take(LARGEST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Keeps `bytes` as the file `name`. Two processes may do so at once: each writes a file of its own, and one of them stays.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = format!(".{name}.{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = match rustix::fs::openat(&self.fd, unfinished.as_str(), flags, mode) {
            // Left by a process of this number that was killed here.
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&self.fd, unfinished.as_str(), AtFlags::empty())?;
                rustix::fs::openat(&self.fd, unfinished.as_str(), flags, mode)?
            }
            opened => opened?,
        };
        let written = File::from(fd).write_all(bytes).and_then(|()| {
            rustix::fs::renameat(&self.fd, unfinished.as_str(), &self.fd, name).map_err(io::Error::from)
        });
        if written.is_err() {
            // The first error is the one to tell.
            let _ = rustix::fs::unlinkat(&self.fd, unfinished.as_str(), AtFlags::empty());
        }
        written?;
        self.forget_oldest()
    }

    /// Removes the oldest files above the most that are kept, among them what killed processes left unfinished.
    fn forget_oldest(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_owned();
            if name.as_c_str() == c"." || name.as_c_str() == c".." {
                continue;
            }
            // Another process may have removed it just now.
            if let Ok(stat) = rustix::fs::statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                files.push((Duration::new(stat.st_mtime as u64, stat.st_mtime_nsec as u32), name));
            }
        }
        files.sort();
        for (_, name) in files.iter().take(files.len().saturating_sub(MOST_FILES)) {
            match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Refuses what others could have written: it would decide what a container may do.
fn check_ours(fd: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(fd)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!("it belongs to uid {}", stat.st_uid)));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(io::Error::other(format!("others may write to it (mode {:o})", stat.st_mode & 0o7777)));
    }
    Ok(())
}

/// The name of the file that is found by `key`, which has to be in it: another key may have the same sum.
pub(crate) fn file_name(key: &[u8]) -> String {
    format!("{:016x}", sum(key))
}

/// FNV-1a over words of eight bytes: against accidents, not against malice, which the folder's mode and the whole key are for. Each
/// step can be undone, so that two inputs that differ in one word never have the same sum.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(word)
    });
    let start = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    let sum = words.fold(start, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3));
    sum ^ sum >> 32
}
