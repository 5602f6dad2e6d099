//! Compiled programs in a folder, one file each.
//!
//! A file's name is a hash of its key, and the file holds the whole key, which is compared: who chooses profiles cannot choose one
//! that is mistaken for another. It also holds a sum of itself, so that half a file is no file.
//!
//! ```text
//! magic 8 | sum of all that follows 8 | lengths of key, warnings, program 4 each | key | warnings, JSON | program
//! ```

use super::{Entry, compile};
use crate::cache::{self, file_name, sum};
use croft_sys::seccomp::{MAX_INSTRUCTIONS, SockFilter};
use oci_spec::runtime::LinuxSeccomp;
use std::io;
use std::path::Path;

/// Which code made a program: raised with every change of what `compile` or `enosys` generate.
const GENERATOR: u32 = 2;

const MAGIC: &[u8; 8] = b"croftBPF";
const HEADER: usize = 8 + 8 + 3 * 4;

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

/// A folder of programs.
pub(super) struct Folder(cache::Folder);

impl Folder {
    /// As [`cache::Folder::open`].
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        cache::Folder::open(path).map(Folder)
    }

    /// The entry for `key`, if a whole and unchanged one is there. Anything else is as good as none: it will be written anew.
    pub(super) fn find(&self, key: &[u8]) -> Option<Entry> {
        decode(&self.0.read(&file_name(key))?, key)
    }

    /// Keeps an entry for `key`.
    pub(super) fn keep(&self, key: &[u8], entry: &Entry) -> io::Result<()> {
        self.0.write(&file_name(key), &encode(key, entry))
    }
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
