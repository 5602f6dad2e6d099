//! One entry of an archive, read: what kind of file, with which attributes.

use std::ffi::CString;
use std::io::Read;
use std::path::{Path, PathBuf};

use croft_sys::fs::Timespec;

use crate::error::{Error, Result};
use crate::layer;

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File {
        size: u64,
        sparse: bool,
    },
    Directory,
    /// Another name for the file of this cleaned name.
    Link(PathBuf),
    Symlink(Vec<u8>),
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Whose it is, who may use it, when it was changed, and what is attached to it.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Timespec,
    pub extended: Vec<(CString, Vec<u8>)>,
}

/// Reads the entry's headers.
pub(super) fn read<R: Read>(name: &Path, file: &mut tar::Entry<'_, R>) -> Result<(Kind, Attributes)> {
    let broken = |why: &dyn std::fmt::Display| Error::entry(name, why);
    let header = file.header().clone();
    // Some writers leave out what they take for granted.
    let blank = |field: &[u8]| field.iter().all(|byte| [0, b' '].contains(byte));
    let number = |value: std::io::Result<u64>, field: &[u8], what: &str| {
        let value = if blank(field) { Ok(0) } else { value };
        let value = value.map_err(|e| broken(&e))?;
        u32::try_from(value)
            .ok()
            .filter(|n| *n != u32::MAX)
            .ok_or_else(|| broken(&format!("{what} {value} is no id")))
    };
    let fields = header.as_old();
    let (uid, gid) =
        (number(header.uid(), &fields.uid, "owner")?, number(header.gid(), &fields.gid, "group")?);
    let mode = header.mode().map_err(|e| broken(&e))? & 0o7777;
    let seconds = if blank(&fields.mtime) { 0 } else { header.mtime().map_err(|e| broken(&e))? };
    let mut modified = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    let mut extended = Vec::new();
    let records = file.pax_extensions().map_err(|e| broken(&e))?;
    for record in records.into_iter().flatten() {
        let record = record.map_err(|e| broken(&e))?;
        match record.key_bytes() {
            b"mtime" => {
                modified = time(record.value_bytes()).ok_or_else(|| broken(&"a time that is no number"))?
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(broken(&"a sparse file in PAX form: pack the layer without --sparse"));
            }
            key => {
                let attribute =
                    key.strip_prefix(b"SCHILY.xattr.").filter(|name| layer::keeps_attribute(name));
                if let Some(attribute) = attribute {
                    let attribute = CString::new(attribute).map_err(|e| broken(&e))?;
                    extended.push((attribute, record.value_bytes().to_vec()));
                }
            }
        }
    }
    Ok((kind(name, file, &header)?, Attributes { mode, uid, gid, modified, extended }))
}

fn kind<R: Read>(name: &Path, file: &tar::Entry<'_, R>, header: &tar::Header) -> Result<Kind> {
    use tar::EntryType as T;
    let broken = |why: &dyn std::fmt::Display| Error::entry(name, why);
    let target =
        || file.link_name_bytes().filter(|t| !t.is_empty()).ok_or_else(|| broken(&"a link to nothing"));
    let kind = match header.entry_type() {
        // Before POSIX a folder was a file whose name ends in a slash.
        T::Regular if header.as_ustar().is_none() && file.path_bytes().ends_with(b"/") => Kind::Directory,
        T::Regular | T::Continuous => Kind::File { size: file.size(), sparse: false },
        T::GNUSparse => Kind::File { size: file.size(), sparse: true },
        T::Directory => Kind::Directory,
        T::Link => {
            let target = layer::clean(&target()?).map_err(|why| broken(&format!("a link to {why}")))?;
            if target.as_os_str().is_empty() {
                return Err(broken(&"a hard link to the root"));
            }
            if layer::marker(&target) != Ok(layer::Marker::None) {
                return Err(broken(&"a hard link to a whiteout"));
            }
            Kind::Link(target)
        }
        T::Symlink => {
            let target = target()?;
            if target.contains(&0) || target.len() >= 4096 {
                return Err(broken(&"a symbolic link that no file system can hold"));
            }
            Kind::Symlink(target.into_owned())
        }
        T::Fifo => Kind::Fifo,
        device @ (T::Char | T::Block) => {
            let number =
                |n: std::io::Result<Option<u32>>| n.map_err(|e| broken(&e)).map(Option::unwrap_or_default);
            let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
            Kind::Device { block: device == T::Block, major, minor }
        }
        other => {
            return Err(broken(&format!("an entry of the unknown type {:?}", char::from(other.as_byte()))));
        }
    };
    let only_root_folder = name.as_os_str().is_empty() && kind != Kind::Directory;
    if only_root_folder { Err(broken(&"the root has to be a folder")) } else { Ok(kind) }
}

/// Seconds with a fraction, as PAX writes times; may be negative.
fn time(text: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{:0<9.9}", fraction);
    let nanoseconds: i64 = digits.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (true, 1..) => Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanoseconds },
        _ => Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_lie_before_1970() {
        let of = |text: &str| time(text.as_bytes()).map(|t| (t.tv_sec, t.tv_nsec));
        assert_eq!(of("12"), Some((12, 0)));
        assert_eq!(of("12.5"), Some((12, 500_000_000)));
        assert_eq!(of("12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(of("-1.25"), Some((-2, 750_000_000)));
        for bad in ["", "x", "1.x", "1.-5", "99999999999999999999"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
