//! Compiled programs in a folder, one file each.
//!
//! A file's name is a hash of its key, and the file holds the whole key, which is compared: who chooses profiles cannot choose one
//! that is mistaken for another. It also holds a sum of itself, so that half a file is no file. Files come into being by rename.
//!
//! ```text
//! magic 8 | sum of all that follows 8 | lengths of key, warnings, program 4 each | key | warnings, JSON | program
//! ```

use super::{Entry, compile};
use croft_sys::seccomp::{MAX_INSTRUCTIONS, SockFilter};
use oci_spec::runtime::LinuxSeccomp;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// Which code made a program: raised with every change of what `compile` or `enosys` generate.
const GENERATOR: u32 = 1;

const MAGIC: &[u8; 8] = b"croftBPF";
const HEADER: usize = 8 + 8 + 3 * 4;

/// No file that we write is larger: a profile is a part of config.json, the program has its limit.
const LARGEST: u64 = 4 << 20;

/// How many programs the folder keeps; the oldest go.
const MOST_FILES: usize = 64;

/// What decides the program: the profile but for what is no rule of it, the architectures in it, and who compiles.
pub(super) fn key(profile: &LinuxSeccomp) -> Vec<u8> {
    let mut rules = profile.clone();
    rules.set_flags(None).set_listener_metadata(None);
    // Only whether there is a listener matters: a path may be different for every container.
    let listener = rules.listener_path().is_some();
    rules.set_listener_path(None);
    let library = libseccomp::ScmpVersion::current()
        .map(|version| format!("{}.{}.{}", version.major, version.minor, version.micro))
        .unwrap_or_default();
    let native = super::check::NATIVE;
    let mut key =
        format!("generator {GENERATOR} libseccomp {library} native {native:x} listener {listener}\n")
            .into_bytes();
    serde_json::to_writer(&mut key, &rules).expect("a profile that was parsed can be written");
    key
}

/// A folder that only we can write.
pub(super) struct Folder {
    fd: OwnedFd,
}

impl Folder {
    /// Opens the folder, which is made if its parent is there. Refused unless it is ours and nobody else may write to it.
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
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

    /// The entry for `key`, if a whole and unchanged one is there. Anything else is as good as none: it will be written anew.
    pub(super) fn find(&self, key: &[u8]) -> Option<Entry> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, file_name(key), flags, Mode::empty()).ok()?;
        check_ours(&fd).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut bytes = Vec::with_capacity(stat.st_size.clamp(0, LARGEST as i64) as usize + 1);
        File::from(fd).take(LARGEST).read_to_end(&mut bytes).ok()?;
        decode(&bytes, key)
    }

    /// Keeps an entry for `key`. Two processes may do so at once: each writes a file of its own, and one of them stays.
    pub(super) fn keep(&self, key: &[u8], entry: &Entry) -> io::Result<()> {
        let name = file_name(key);
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
        let written = File::from(fd).write_all(&encode(key, entry)).and_then(|()| {
            rustix::fs::renameat(&self.fd, unfinished.as_str(), &self.fd, name.as_str())
                .map_err(io::Error::from)
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

fn file_name(key: &[u8]) -> String {
    format!("{:016x}", sum(key))
}

/// FNV-1a over words of eight bytes: against accidents, not against malice, which the folder's mode and the whole key are for. Each
/// step can be undone, so that two inputs that differ in one word never have the same sum.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(word)
    });
    let start = 0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64;
    let sum = words.fold(start, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3));
    sum ^ sum >> 32
}

pub(super) fn encode(key: &[u8], entry: &Entry) -> Vec<u8> {
    let warnings = serde_json::to_vec(&entry.warnings).expect("strings can be written");
    let mut rest = Vec::new();
    for length in [key.len(), warnings.len(), entry.program.len() * 8] {
        rest.extend((length as u32).to_ne_bytes());
    }
    rest.extend(key);
    rest.extend(warnings);
    for SockFilter { code, jt, jf, k } in &entry.program {
        rest.extend(code.to_ne_bytes());
        rest.extend([*jt, *jf]);
        rest.extend(k.to_ne_bytes());
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(sum(&rest).to_ne_bytes());
    bytes.extend(rest);
    bytes
}

pub(super) fn decode(bytes: &[u8], key: &[u8]) -> Option<Entry> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let sum_there = u64::from_ne_bytes(header[8..16].try_into().ok()?);
    if &header[..8] != MAGIC || sum_there != sum(&bytes[16..]) {
        return None;
    }
    let length = |at: usize| Some(u32::from_ne_bytes(header[at..at + 4].try_into().ok()?) as usize);
    let (key_there, body) = body.split_at_checked(length(16)?)?;
    let (warnings, program) = body.split_at_checked(length(20)?)?;
    let fits = program.len() == length(24)? && program.len().is_multiple_of(8) && !program.is_empty();
    if key_there != key || !fits || program.len() / 8 > MAX_INSTRUCTIONS {
        return None;
    }
    Some(Entry { program: compile::instructions(program), warnings: serde_json::from_slice(warnings).ok()? })
}
