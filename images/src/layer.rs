//! What the entries of a layer mean: names, whiteouts, compression, limits. Nothing here touches a file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar archive.
    None,
    /// gzip(1).
    Gzip,
    /// zstd(1).
    Zstd,
}

impl Compression {
    /// How many leading bytes [`Compression::detect`] wants to see.
    pub const MAGIC: usize = 6;

    /// What these first bytes say. Media types are not asked: registries hold layers whose type is wrong.
    ///
    /// # Errors
    /// The name of a compression that is not supported.
    pub fn detect(start: &[u8]) -> Result<Self, &'static str> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Err("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Err("bzip2"),
            _ => Ok(Self::None),
        }
    }

    /// The media type of a layer that is packed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// How large a layer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes unpacked: those of the archive, and those that its sparse files claim.
    pub bytes: u64,
    /// Entries, and folders that they imply.
    pub entries: u64,
    /// Bytes unpacked for each byte packed, from [`Limits::RATIO_FROM`] bytes on.
    pub ratio: u64,
    /// Bytes of headers before one entry: long names and extended attributes are held in memory.
    pub header: u64,
}

impl Limits {
    /// Up to here the ratio is not looked at: small archives of zeroes are harmless and common in tests.
    pub const RATIO_FROM: u64 = 256 << 20;

    /// None but the disk: for files that are there already.
    pub const NONE: Limits = Limits { bytes: u64::MAX, entries: u64::MAX, ratio: u64::MAX, header: 1 << 20 };
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 128 << 30, entries: 8 << 20, ratio: 400, header: 1 << 20 }
    }
}

/// The name of an entry below the root: without a leading slash, without `.`; the root itself is empty.
///
/// # Errors
/// What is wrong with it.
pub fn clean(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.contains(&0) {
        return Err("a name with a NUL byte");
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("a name with .."),
            part if part.len() > 255 => return Err("a name longer than 255 bytes"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    if path.as_os_str().len() >= 4095 {
        return Err("a path longer than 4094 bytes");
    }
    Ok(path)
}

/// What a name says about lower layers, by the rules of the OCI image specification ("Whiteouts").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    /// Nothing: an entry of this layer.
    None,
    /// This file of the lower layers is gone.
    Whiteout(PathBuf),
    /// All that lower layers have in this folder is gone.
    Opaque(PathBuf),
    /// A leftover of aufs.
    Leftover,
}

/// What the cleaned name `path` stands for.
///
/// # Errors
/// What is wrong with it.
pub fn marker(path: &Path) -> Result<Marker, &'static str> {
    let Some(name) = path.file_name() else { return Ok(Marker::None) };
    let folder = path.parent().unwrap_or(Path::new(""));
    // A folder of that form could be made by an entry below it alone.
    let hidden = |name: &OsStr| name.as_bytes().starts_with(b".wh.");
    if folder.iter().any(|name| hidden(name) && !name.as_bytes().starts_with(b".wh..wh.")) {
        return Err("an entry below a whiteout");
    }
    if folder.iter().any(hidden) {
        return Ok(Marker::Leftover);
    }
    match name.as_bytes().strip_prefix(b".wh.") {
        None => Ok(Marker::None),
        Some(b".wh..opq") => Ok(Marker::Opaque(folder.to_owned())),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Marker::Leftover),
        Some(b"" | b"." | b"..") => Err("a whiteout of no file"),
        Some(rest) => Ok(Marker::Whiteout(folder.join(OsStr::from_bytes(rest)))),
    }
}

/// Whether an extended attribute of a layer is set on the file.
///
/// overlayfs keeps its own state in attributes: a layer that brings them could make one file of the image stand for another, or
/// claim to be read already. Labels of a security module are the host's, not the image's.
pub fn keeps_attribute(name: &[u8]) -> bool {
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let capability = name == b"security.capability";
    let kept = [&b"user."[..], b"trusted.", b"system.posix_acl_"].iter().any(|start| name.starts_with(start));
    !overlay && (capability || kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (name, path) in [("./", ""), ("/", ""), ("./a//b/./c/", "a/b/c"), ("/etc/passwd", "etc/passwd")] {
            assert_eq!(clean(name.as_bytes()).unwrap(), Path::new(path), "{name}");
        }
        let (long, deep) = ("x".repeat(256), "x/".repeat(2048));
        for name in ["..", "../x", "a/../b", "a/..", "/..", "a\0b", &long, &deep] {
            assert!(clean(name.as_bytes()).is_err(), "{:.20}", name);
        }
    }

    #[test]
    fn markers_are_told_from_entries() {
        let of = |name: &str| marker(Path::new(name));
        assert_eq!(of("a/b"), Ok(Marker::None));
        assert_eq!(of(""), Ok(Marker::None));
        assert_eq!(of("a/.wh.b"), Ok(Marker::Whiteout("a/b".into())));
        assert_eq!(of(".wh..wh..opq"), Ok(Marker::Opaque("".into())));
        assert_eq!(of("a/.wh..wh..opq"), Ok(Marker::Opaque("a".into())));
        assert_eq!(of(".wh..wh.plnk"), Ok(Marker::Leftover));
        assert_eq!(of(".wh..wh.plnk/12.34"), Ok(Marker::Leftover));
        for name in [".wh.", "a/.wh..", "a/.wh...", "a/.wh.b/c"] {
            assert!(of(name).is_err(), "{name}");
        }
    }

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        assert_eq!(Compression::detect(&[0x1f, 0x8b, 8, 0]), Ok(Compression::Gzip));
        assert_eq!(Compression::detect(&[0x28, 0xb5, 0x2f, 0xfd]), Ok(Compression::Zstd));
        assert_eq!(Compression::detect(b"usr/bin"), Ok(Compression::None));
        assert_eq!(Compression::detect(b""), Ok(Compression::None));
        assert_eq!(Compression::detect(&[0xfd, b'7', b'z', b'X', b'Z', 0]), Err("xz"));
    }

    #[test]
    fn overlay_state_is_not_taken_from_a_layer() {
        for name in ["trusted.overlay.redirect", "user.overlay.opaque", "security.selinux", "security.ima"] {
            assert!(!keeps_attribute(name.as_bytes()), "{name}");
        }
        for name in ["security.capability", "user.x", "system.posix_acl_access"] {
            assert!(keeps_attribute(name.as_bytes()), "{name}");
        }
    }
}
