//! `mounts`: each with its options sorted into what the kernel takes where; see runtime-spec config.md (Linux mount options).

use std::path::PathBuf;

use oci_spec::runtime as oci;

use super::{IdMapping, SpecError, clean};

// The bits of mount_setattr(2), as in linux/mount.h.
const RDONLY: u64 = 0x01;
const NOSUID: u64 = 0x02;
const NODEV: u64 = 0x04;
const NOEXEC: u64 = 0x08;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const ATIME_FIELD: u64 = 0x70;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Mount attribute bits to set and to clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
}

impl Attributes {
    /// Whether nothing is asked.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn add(&mut self, set: u64, clear: u64) {
        self.set = (self.set & !clear) | set;
        self.clear = (self.clear & !set) | clear;
    }
}

/// How a mount passes mount events on; see mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Neither gives nor takes.
    Private,
    /// Gives and takes.
    Shared,
    /// Takes only.
    Slave,
    /// As private, and cannot be bound.
    Unbindable,
}

impl Propagation {
    /// Reads `private`, `rslave` and so on; true when it is the recursive form.
    pub fn parse(text: &str) -> Option<(Self, bool)> {
        let (name, recursive) = text.strip_prefix('r').map_or((text, false), |rest| (rest, true));
        let kind = match name {
            "private" => Self::Private,
            "shared" => Self::Shared,
            "slave" => Self::Slave,
            "unbindable" => Self::Unbindable,
            _ => return None,
        };
        Some((kind, recursive))
    }

    /// The word for one mount.
    pub fn word(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Slave => "slave",
            Self::Unbindable => "unbindable",
        }
    }
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// A file or folder of the host.
    Bind {
        /// With all mounts below it.
        recursive: bool,
    },
    /// A new file system.
    Filesystem,
    /// The container's control groups, whatever hierarchies the host has.
    Cgroup,
    /// Nothing new: what is mounted there changes its options.
    Remount,
}

/// How ids on a mount are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idmap {
    /// As they are.
    None,
    /// By the mappings given, or the container's own where none are.
    Mapped {
        /// With all mounts below.
        recursive: bool,
        /// Mappings of user ids.
        uids: Vec<IdMapping>,
        /// Mappings of group ids.
        gids: Vec<IdMapping>,
    },
}

/// A mount's options, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// For this mount.
    pub attributes: Attributes,
    /// For this mount and all below (`rro` and so on).
    pub recursive: Attributes,
    /// Propagation changes in order; true for this mount and all below.
    pub propagation: Vec<(Propagation, bool)>,
    /// Flags of the superblock that a new file system takes as parameters: `sync`, `dirsync`, `lazytime`, `mand`.
    pub superblock: Vec<&'static str>,
    /// The file system's own parameters.
    pub data: Vec<(String, Option<String>)>,
    /// Whether a tmpfs starts with a copy of what it hides.
    pub copy_up: bool,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where, inside the container; absolute and clean.
    pub destination: PathBuf,
    /// What.
    pub kind: MountKind,
    /// The file system type as written; empty for a bind.
    pub fstype: String,
    /// The source as written.
    pub source: PathBuf,
    /// How.
    pub options: Options,
    /// Whose ids.
    pub idmap: Idmap,
}

/// Options that set or clear an attribute of a mount: name, bits to set, bits to clear. With `r` before them: recursively.
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
    // The access-time modes are one field of which relatime is 0: naming one clears the others.
    ("relatime", 0, ATIME_FIELD),
    ("norelatime", STRICTATIME, ATIME_FIELD & !STRICTATIME),
    ("noatime", NOATIME, ATIME_FIELD & !NOATIME),
    ("atime", 0, ATIME_FIELD),
    ("strictatime", STRICTATIME, ATIME_FIELD & !STRICTATIME),
    ("nostrictatime", 0, ATIME_FIELD),
];

/// Options of the superblock, and those that change nothing on a new mount.
const SUPERBLOCK: &[(&str, Option<&str>)] = &[
    ("sync", Some("sync")),
    ("async", None),
    ("dirsync", Some("dirsync")),
    ("lazytime", Some("lazytime")),
    ("nolazytime", None),
    ("mand", Some("mand")),
    ("nomand", None),
    ("silent", None),
    ("loud", None),
    ("defaults", None),
    ("noiversion", None),
    ("acl", None),
];

/// Options that are neither an attribute nor the superblock's.
const OTHERS: &[&str] = &["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"];

/// The names of all mount options that do not belong to a file system, in order.
pub fn mount_options() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().flat_map(|(name, ..)| [(*name).to_owned(), format!("r{name}")]);
    let kinds = [Propagation::Private, Propagation::Shared, Propagation::Slave, Propagation::Unbindable];
    let propagation = kinds.iter().flat_map(|p| [p.word().to_owned(), format!("r{}", p.word())]);
    let superblock = SUPERBLOCK.iter().map(|(name, _)| (*name).to_owned());
    let others = OTHERS.iter().map(|name| (*name).to_owned());
    let mut all: Vec<String> = attributes.chain(propagation).chain(superblock).chain(others).collect();
    all.sort();
    all
}

impl Mount {
    pub(super) fn resolve(raw: &oci::Mount) -> Result<Self, SpecError> {
        let fstype = raw.typ().clone().unwrap_or_default();
        let mut mount = Mount {
            destination: clean(raw.destination()),
            kind: match fstype.as_str() {
                "bind" => MountKind::Bind { recursive: false },
                "cgroup" | "cgroup2" => MountKind::Cgroup,
                _ => MountKind::Filesystem,
            },
            source: raw.source().clone().unwrap_or_default(),
            options: Options::default(),
            idmap: Idmap::None,
            fstype,
        };
        if raw.destination().as_os_str().is_empty() {
            return Err(SpecError::Missing("mounts.destination"));
        }
        let mut idmap = None;
        for option in raw.options().iter().flatten() {
            mount.add_option(option, &mut idmap);
        }
        mount.finish(raw, idmap)
    }

    fn add_option(&mut self, option: &str, idmap: &mut Option<bool>) {
        let options = &mut self.options;
        let attribute = |name: &str| ATTRIBUTES.iter().find(|(n, ..)| *n == name).copied();
        match option {
            "bind" => self.kind = MountKind::Bind { recursive: self.is_recursive_bind() },
            "rbind" => self.kind = MountKind::Bind { recursive: true },
            "remount" => self.kind = MountKind::Remount,
            "tmpcopyup" => options.copy_up = true,
            "idmap" => *idmap = Some(false),
            "ridmap" => *idmap = Some(true),
            _ => {
                if let Some((_, set, clear)) = attribute(option) {
                    options.attributes.add(set, clear);
                } else if let Some(propagation) = Propagation::parse(option) {
                    options.propagation.push(propagation);
                } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(attribute) {
                    options.recursive.add(set, clear);
                } else if let Some((_, flag)) = SUPERBLOCK.iter().find(|(n, _)| *n == option) {
                    options.superblock.extend(*flag);
                } else {
                    let (key, value) =
                        option.split_once('=').map_or((option, None), |(k, v)| (k, Some(v.to_owned())));
                    options.data.push((key.to_owned(), value));
                }
            }
        }
    }

    fn is_recursive_bind(&self) -> bool {
        matches!(self.kind, MountKind::Bind { recursive: true })
    }

    fn finish(mut self, raw: &oci::Mount, idmap: Option<bool>) -> Result<Self, SpecError> {
        let at = || format!("mounts[{}]", self.destination.display());
        let mappings = |list: &Option<Vec<oci::LinuxIdMapping>>| -> Vec<IdMapping> {
            list.iter().flatten().map(IdMapping::resolve).collect()
        };
        let (uids, gids) = (mappings(raw.uid_mappings()), mappings(raw.gid_mappings()));
        if uids.is_empty() != gids.is_empty() {
            return Err(SpecError::invalid(at(), "idmap", "needs both uidMappings and gidMappings"));
        }
        if idmap.is_some() || !uids.is_empty() {
            if !matches!(self.kind, MountKind::Bind { .. }) {
                return Err(SpecError::invalid(at(), "idmap", "works on bind mounts only"));
            }
            self.idmap = Idmap::Mapped { recursive: idmap.unwrap_or(false), uids, gids };
        }
        if matches!(self.kind, MountKind::Bind { .. }) {
            if self.source.as_os_str().is_empty() {
                return Err(SpecError::invalid(at(), "bind", "has no source"));
            }
            self.fstype.clear();
        } else if self.kind == MountKind::Filesystem && self.fstype.is_empty() {
            return Err(SpecError::invalid(at(), "type", "is missing, and no option says bind"));
        }
        if self.options.copy_up && self.fstype != "tmpfs" {
            return Err(SpecError::invalid(at(), "tmpcopyup", "works on tmpfs only"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(json: &str) -> Result<Mount, SpecError> {
        Mount::resolve(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn options_are_sorted() {
        let m = mount(
            r#"{"destination":"/a/../b","type":"tmpfs","source":"tmpfs",
            "options":["nosuid","suid","noexec","rro","rprivate","slave","size=64k","sync","noatime","strictatime"]}"#,
        )
        .unwrap();
        assert_eq!(m.destination, PathBuf::from("/b"));
        assert_eq!(m.options.attributes.set, NOEXEC | STRICTATIME);
        assert_eq!(m.options.attributes.clear & NOSUID, NOSUID);
        assert_eq!(m.options.recursive.set, RDONLY);
        assert_eq!(m.options.propagation, [(Propagation::Private, true), (Propagation::Slave, false)]);
        assert_eq!(m.options.superblock, ["sync"]);
        assert_eq!(m.options.data, [("size".to_owned(), Some("64k".to_owned()))]);
    }

    #[test]
    fn every_option_that_is_listed_is_understood() {
        for option in mount_options() {
            let json = format!(
                r#"{{"destination":"/b","source":"/c","type":"tmpfs","options":["bind","{option}"]}}"#
            );
            if let Ok(mount) = mount(&json) {
                assert_eq!(mount.options.data, [], "{option} is taken for a parameter of the file system");
            }
        }
    }

    #[test]
    fn rbind_stays_recursive_after_bind() {
        let m = mount(r#"{"destination":"/b","source":"/c","options":["rbind","bind","rw"]}"#).unwrap();
        assert_eq!(m.kind, MountKind::Bind { recursive: true });
    }

    #[test]
    fn refusals() {
        for (json, why) in [
            (r#"{"destination":"/b","options":["bind"]}"#, "has no source"),
            (r#"{"destination":"/b"}"#, "no option says bind"),
            (r#"{"destination":"/b","type":"proc","options":["tmpcopyup"]}"#, "works on tmpfs only"),
            (r#"{"destination":"/b","type":"tmpfs","options":["idmap"]}"#, "works on bind mounts only"),
        ] {
            let error = mount(json).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
