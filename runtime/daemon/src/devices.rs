//! Devices of the host in a container: nodes of croftd's own making, which belong to the container's ids.
//!
//! A node of the host's /dev cannot be given as it is: its owner is nobody in the container's user namespace, and root there could not open
//! it. So each gets a second node beside the container's bundle, with the same owner in the container's numbers, and that is bound.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use croft_api::container::Device;
use rustix::fs::{CWD, Dev, FileType, Mode};

use crate::cdi::DeviceNode;
use crate::ids::Range;
use crate::joins::For;

/// What a container is asked to get.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Devices by their paths.
    pub devices: &'a [Device],
    /// Nodes of devices by their names.
    pub nodes: &'a [DeviceNode],
    /// Whether it gets all that the host has.
    pub privileged: bool,
}

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

/// A node before it is made.
#[derive(Debug, Clone)]
struct Wanted {
    /// For messages: the node of the host.
    from: PathBuf,
    node: Node,
    /// Its permissions.
    mode: u32,
    /// Its owner, in the container's numbers.
    uid: u32,
    /// Its group, in the container's numbers.
    gid: u32,
}

impl Wanted {
    /// As the node `from` is; none when it is no device.
    fn like(from: &Path, data: &Metadata, target: &str, access: &str) -> Option<Self> {
        let kind = match data.file_type() {
            kind if kind.is_char_device() => Kind::Char,
            kind if kind.is_block_device() => Kind::Block,
            _ => return None,
        };
        let (major, minor) = (rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev()));
        let (node, target, access) = (PathBuf::new(), target.to_owned(), access.to_owned());
        let node = Node { node, target, kind, major, minor, access };
        Some(Wanted {
            from: from.to_owned(),
            node,
            mode: data.mode() & 0o777,
            uid: data.uid(),
            gid: data.gid(),
        })
    }
}

/// Makes the nodes of the devices that are asked for in `folder`; for a check they are only looked for.
///
/// # Errors
/// In words: for what is no device, or cannot be made.
pub fn make(asked: &Asked<'_>, folder: &Path, ids: Option<Range>, purpose: For) -> Result<Vec<Node>, String> {
    let mut found = Vec::new();
    if asked.privileged {
        find(Path::new("/dev"), "/dev", "rwm", DEEPEST, &mut found);
    }
    for Device { source, target, access } in asked.devices {
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
    for node in asked.nodes {
        found.push(specified(node)?);
    }
    // The later one takes the place of the earlier.
    let mut nodes: Vec<Wanted> = Vec::new();
    for wanted in found {
        nodes.retain(|other| other.node.target != wanted.node.target);
        nodes.push(wanted);
    }
    if purpose == For::Start && !nodes.is_empty() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    nodes
        .into_iter()
        .enumerate()
        .map(|(n, wanted)| {
            let path = folder.join(n.to_string());
            if purpose == For::Start {
                place(&wanted, &path, ids).map_err(|e| format!("device {}: {e}", wanted.from.display()))?;
            }
            Ok(Node { node: path, ..wanted.node })
        })
        .collect()
}

/// The device at `path`, or all below it. What is neither, or goes away meanwhile, is passed over.
fn find(path: &Path, target: &str, access: &str, deeper: usize, found: &mut Vec<Wanted>) {
    let Ok(data) = std::fs::symlink_metadata(path) else { return };
    if !data.is_dir() {
        found.extend(Wanted::like(path, &data, target, access));
        return;
    }
    if deeper == 0 {
        return;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    for name in names {
        let (path, target) = (path.join(&name), format!("{}/{name}", target.trim_end_matches('/')));
        if !OWN.iter().any(|own| path == Path::new(own)) {
            find(&path, &target, access, deeper - 1, found);
        }
    }
}

/// What a specification says of a node, completed by the node of the host where there is one. A specification that says which device it is
/// needs none: a driver may not have made it yet.
fn specified(asked: &DeviceNode) -> Result<Wanted, String> {
    let from = asked.host_path.as_ref().unwrap_or(&asked.path);
    let access = asked.permissions.as_deref().unwrap_or("rwm");
    let kind = asked.kind.as_deref().map(|kind| if kind == "b" { Kind::Block } else { Kind::Char });
    let host = std::fs::metadata(from).map(|data| Wanted::like(Path::new(from), &data, &asked.path, access));
    let mut wanted = match (host, kind, asked.major, asked.minor) {
        (Ok(Some(like)), kind, ..) if kind.is_none_or(|kind| kind == like.node.kind) => like,
        (_, Some(kind), Some(major), Some(minor)) => {
            let (node, target, access) = (PathBuf::new(), asked.path.clone(), access.to_owned());
            let node = Node { node, target, kind, major, minor, access };
            Wanted { from: from.into(), node, mode: 0o666, uid: 0, gid: 0 }
        }
        (Err(e), ..) => return Err(format!("device {from}: {e}")),
        (Ok(Some(_)), ..) => {
            return Err(format!("device {from}: is of another type than its specification says"));
        }
        (Ok(None), ..) => return Err(format!("device {from}: is no device")),
    };
    wanted.node.major = asked.major.unwrap_or(wanted.node.major);
    wanted.node.minor = asked.minor.unwrap_or(wanted.node.minor);
    wanted.mode = asked.file_mode.map_or(wanted.mode, |mode| mode & 0o777);
    wanted.uid = asked.uid.unwrap_or(wanted.uid);
    wanted.gid = asked.gid.unwrap_or(wanted.gid);
    Ok(wanted)
}

/// Makes a node at `to`.
fn place(wanted: &Wanted, to: &Path, ids: Option<Range>) -> std::io::Result<()> {
    let Node { kind, major, minor, .. } = wanted.node;
    let device: Dev = rustix::fs::makedev(major, minor);
    // One that a start before this one left may be of another device, or for other ids.
    match std::fs::remove_file(to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let kind = if kind == Kind::Block { FileType::BlockDevice } else { FileType::CharacterDevice };
    rustix::fs::mknodat(CWD, to, kind, Mode::empty(), device)?;
    // Numbers that the container does not have are its root's.
    let own = |id: u32| match ids {
        Some(Range { start, count }) => start + if id < count { id } else { 0 },
        None => id,
    };
    std::os::unix::fs::chown(to, Some(own(wanted.uid)), Some(own(wanted.gid)))?;
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(wanted.mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_below_folders_and_nothing_else_is_one() {
        let mut found = Vec::new();
        find(Path::new("/dev/null"), "/dev/nothing", "r", 1, &mut found);
        let node = &found[0].node;
        assert_eq!((node.kind, node.major, node.minor), (Kind::Char, 1, 3));
        assert_eq!((node.target.as_str(), node.access.as_str()), ("/dev/nothing", "r"));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let refused = |source: &Path, access: &str| {
            let source = source.display().to_string();
            let asked = Device { source, target: "/dev/x".into(), access: access.into() };
            let asked = Asked { devices: &[asked], nodes: &[], privileged: false };
            make(&asked, &folder.path().join("nodes"), None, For::Start).unwrap_err()
        };
        assert!(refused(&folder.path().join("file"), "rwm").contains("is no device"));
        assert!(refused(folder.path(), "rwm").contains("is no device"));
        assert!(refused(Path::new("/none/such"), "rwm").contains("/none/such"));
        assert!(refused(Path::new("/dev/null"), "rx").contains("rx"));
        assert!(!folder.path().join("nodes").exists());
    }

    #[test]
    fn a_specification_goes_before_the_host_and_the_host_before_nothing() {
        let specified = |text: &str| {
            let node: DeviceNode = serde_json::from_str(text).unwrap();
            super::specified(&node).map(|Wanted { node, mode, uid, gid, .. }| {
                (
                    format!(
                        "{} {} {} {} {}",
                        node.target,
                        node.kind.letter(),
                        node.major,
                        node.minor,
                        node.access
                    ),
                    (mode, uid, gid),
                )
            })
        };
        let host = std::fs::metadata("/dev/zero").unwrap();
        let own = (host.mode() & 0o777, host.uid(), host.gid());
        assert_eq!(specified(r#"{"path": "/dev/zero"}"#), Ok(("/dev/zero c 1 5 rwm".into(), own)));
        let given = r#"{"path": "/dev/x", "hostPath": "/dev/zero", "minor": 3, "fileMode": 384, "permissions": "r", "uid": 7, "gid": 8}"#;
        assert_eq!(specified(given), Ok(("/dev/x c 1 3 r".into(), (0o600, 7, 8))));
        let absent = r#"{"path": "/dev/none/such", "type": "u", "major": 200, "minor": 1}"#;
        assert_eq!(specified(absent), Ok(("/dev/none/such c 200 1 rwm".into(), (0o666, 0, 0))));
        for (text, word) in [
            (r#"{"path": "/dev/none/such", "type": "c", "major": 200}"#, "No such file"),
            (r#"{"path": "/dev/zero", "type": "b"}"#, "another type"),
            (r#"{"path": "/dev/x", "hostPath": "/"}"#, "is no device"),
        ] {
            let error = specified(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
