//! Devices of the host in a container: nodes of croftd's own making, which belong to the container's ids.
//!
//! A node of the host's /dev cannot be given as it is: its owner is nobody in the container's user namespace, and root there could not open
//! it. So each gets a second node beside the container's bundle, with the same owner in the container's numbers, and that is bound.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use croft_api::container::Device;
use rustix::fs::{CWD, FileType, Mode};

use crate::ids::Range;
use crate::joins::For;

/// A device that a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node that is bound.
    pub node: PathBuf,
    /// Where, in the container.
    pub target: String,
    /// What it is.
    pub kind: Kind,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// What may be done with it: some of `rwm`.
    pub access: String,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Characters.
    Char,
    /// Blocks.
    Block,
}

impl Kind {
    /// Its letter in a rule.
    pub fn letter(self) -> &'static str {
        match self {
            Kind::Char => "c",
            Kind::Block => "b",
        }
    }
}

/// What of /dev a privileged container does not get from the host: it has its own.
const OWN: [&str; 12] = [
    "/dev/console",
    "/dev/fd",
    "/dev/full",
    "/dev/mqueue",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// How deep folders of devices are looked through.
const DEEPEST: usize = 8;

/// Makes the nodes of the devices that are asked for, or of all, in `folder`; for a check they are only looked for.
///
/// # Errors
/// In words: for what is no device, or cannot be made.
pub fn make(
    asked: &[Device],
    privileged: bool,
    folder: &Path,
    ids: Option<Range>,
    wanted: For,
) -> Result<Vec<Node>, String> {
    let mut found = Vec::new();
    if privileged {
        find(Path::new("/dev"), "/dev", "rwm", DEEPEST, &mut found);
    }
    for Device { source, target, access } in asked {
        let before = found.len();
        // By its own path and not through links: /dev/cdrom is one.
        let path = std::fs::canonicalize(source).map_err(|e| format!("device {source}: {e}"))?;
        find(&path, target, access, DEEPEST, &mut found);
        if found.len() == before {
            return Err(format!("device {source}: is no device"));
        }
        if access.is_empty() || access.contains(|letter| !"rwm".contains(letter)) {
            return Err(format!("device {source}: {access:?} is not made of r, w and m"));
        }
    }
    // The later one takes the place of the earlier.
    let mut nodes: Vec<(PathBuf, Node)> = Vec::new();
    for (from, node) in found {
        nodes.retain(|(_, other)| other.target != node.target);
        nodes.push((from, node));
    }
    if wanted == For::Start && !nodes.is_empty() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    nodes
        .into_iter()
        .enumerate()
        .map(|(n, (from, node))| {
            let path = folder.join(n.to_string());
            if wanted == For::Start {
                copy(&from, &path, ids).map_err(|e| format!("device {}: {e}", from.display()))?;
            }
            Ok(Node { node: path, ..node })
        })
        .collect()
}

/// The device at `path`, or all below it. What is neither, or goes away meanwhile, is passed over.
fn find(path: &Path, target: &str, access: &str, deeper: usize, found: &mut Vec<(PathBuf, Node)>) {
    let Ok(data) = std::fs::symlink_metadata(path) else { return };
    let kind = match data.file_type() {
        kind if kind.is_char_device() => Kind::Char,
        kind if kind.is_block_device() => Kind::Block,
        kind if kind.is_dir() && deeper > 0 => {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let mut names: Vec<_> =
                entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort();
            for name in names {
                let (path, target) = (path.join(&name), format!("{}/{name}", target.trim_end_matches('/')));
                if !OWN.iter().any(|own| path == Path::new(own)) {
                    find(&path, &target, access, deeper - 1, found);
                }
            }
            return;
        }
        _ => return,
    };
    let (major, minor) = (rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()));
    let (target, access) = (target.to_owned(), access.to_owned());
    found.push((path.to_owned(), Node { node: PathBuf::new(), target, kind, major, minor, access }));
}

/// Makes a node of the same device at `to`.
fn copy(from: &Path, to: &Path, ids: Option<Range>) -> std::io::Result<()> {
    let data = std::fs::symlink_metadata(from)?;
    let kind =
        if data.file_type().is_block_device() { FileType::BlockDevice } else { FileType::CharacterDevice };
    // One that a start before this one left may be of another device, or for other ids.
    match std::fs::remove_file(to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    rustix::fs::mknodat(CWD, to, kind, Mode::empty(), data.rdev())?;
    // Numbers that the container does not have are its root's.
    let own = |id: u32| match ids {
        Some(Range { start, count }) => start + if id < count { id } else { 0 },
        None => id,
    };
    std::os::unix::fs::chown(to, Some(own(data.uid())), Some(own(data.gid())))?;
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(data.mode() & 0o777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_below_folders_and_nothing_else_is_one() {
        let mut found = Vec::new();
        find(Path::new("/dev/null"), "/dev/nothing", "r", 1, &mut found);
        let (_, node) = &found[0];
        assert_eq!((node.kind, node.major, node.minor), (Kind::Char, 1, 3));
        assert_eq!((node.target.as_str(), node.access.as_str()), ("/dev/nothing", "r"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let refused = |source: &Path, access: &str| {
            let source = source.display().to_string();
            let asked = Device { source, target: "/dev/x".into(), access: access.into() };
            make(&[asked], false, &folder.path().join("nodes"), None, For::Start).unwrap_err()
        };
        assert!(refused(&folder.path().join("file"), "rwm").contains("is no device"));
        assert!(refused(folder.path(), "rwm").contains("is no device"));
        assert!(refused(Path::new("/none/such"), "rwm").contains("/none/such"));
        assert!(refused(Path::new("/dev/null"), "rx").contains("rx"));
        assert!(!folder.path().join("nodes").exists());
    }
}
