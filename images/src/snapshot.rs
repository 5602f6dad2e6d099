//! A container's writable root: an overlay of the mount points that each has, an image's layers, and one of its own, in `containers/ID`.
//!
//! ```text
//! containers/ID/snapshot.json   which layers
//! containers/ID/mount.json      how it is mounted, since this boot
//! containers/ID/data/upper      what the container changed; ids are the container's own (0-based)
//! containers/ID/data/work       overlayfs's
//! ```
//!
//! With a mapping every layer, the writable one too, is seen through a mount that shifts ids, so nothing is ever chowned. overlayfs
//! writes with the ids of who mounted it, and on such a layer those have to be mapped: the mount is made by a thread whose
//! file-system ids are the range's first.
//!
//! Nothing here is synced: waiting for the disk five times took longer than all the rest of a start. A power cut may take what was made in
//! the seconds before it; a snapshot that is gone or damaged then is made again by [`Store::create_snapshot`].

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use croft_sys::mount::{self, Depth, FilesystemError, Parameter};
use croft_sys::proc::Proc;
use croft_sys::{Errno, credentials, idmap, ns, path};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::reference::Reference;
use crate::store::{Image, Scratch, Store, remove, write_file};
use crate::unpack::copy_attributes;

const VERSION: u32 = 1;
/// The file of a snapshot's record.
const RECORD: &str = "snapshot.json";
/// The file that says how it is mounted. Only of use until a reboot.
const MOUNT: &str = "mount.json";
/// fsconfig(2) takes no longer value.
const LONGEST_VALUE: usize = 255;

/// The ids of a container on the host: those on the disk, from 0 on, are seen as these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first one.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// Whether device files in the root are devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Devices {
    /// They are, for whom the device filter lets.
    Usable,
    /// They are files that cannot be opened.
    Inert,
}

/// How a snapshot is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// On which folder, which exists.
    pub target: PathBuf,
    /// Through which ids; `None`: those on the disk.
    pub ids: Option<IdRange>,
    /// What device files are.
    pub devices: Devices,
}

/// A container's writable layer over an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    /// The container's id.
    pub id: String,
    /// The image's name when it was made.
    pub reference: Reference,
    /// The image's manifest.
    pub manifest: Digest,
    /// The image's configuration.
    pub config: Digest,
    /// The image's packed layers, the lowest first.
    pub blobs: Vec<Digest>,
    /// The image's unpacked layers, by chain id, the lowest first.
    pub layers: Vec<Digest>,
    /// How it is mounted, or was to be: written before the mount is made.
    #[serde(skip)]
    pub mount: Option<MountOptions>,
}

/// Whether a snapshot is mounted where its record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    Mounted,
    /// It is not: never was, or a crash or a reboot came between.
    Unmounted,
}

impl Store {
    fn container(&self, id: &str) -> Result<PathBuf> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(valid) {
            let why = "letters, digits, _ . and - only, not beginning with a dot, 128 at most".to_owned();
            return Err(Error::Refused { what: format!("snapshot id {id:?}"), why });
        }
        Ok(self.folder("containers").join(id))
    }

    /// Makes a writable layer for the container `id` over the image. Complete or not there at all, unless the power goes: one whose
    /// record is gone or damaged is completed, with what the container had changed.
    pub fn create_snapshot(&self, id: &str, image: &Image) -> Result<Snapshot> {
        let folder = self.container(id)?;
        let _hold = self.hold()?;
        let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.chain_id).collect();
        if let Some(missing) = layers.iter().find(|chain| !self.has_layer(chain)) {
            return Err(Error::NotFound { kind: "unpacked layer", name: missing.to_string() });
        }
        let blobs = image.layers.iter().map(|layer| layer.blob.digest).collect();
        let (reference, manifest, config) = (image.reference.clone(), image.manifest.digest, image.config);
        let snapshot = Snapshot {
            version: VERSION,
            id: id.to_owned(),
            reference,
            manifest,
            config,
            blobs,
            layers,
            mount: None,
        };
        let tmp = self.tmp();
        let new = Scratch::new(&tmp, "snapshot-")?;
        for name in ["data", "data/upper", "data/work"] {
            fs::create_dir(new.path().join(name)).on_file("make folder", &new.path().join(name))?;
        }
        // The root of the container looks as the highest layer says.
        if let Some(top) = snapshot.layers.last() {
            let (from, to) = (self.layer(top), new.path().join("data/upper"));
            let open = |path: &Path| fs::File::open(path).on_file("open", path);
            copy_attributes(open(&from)?.as_fd(), open(&to)?.as_fd(), Path::new("/"))?;
        }
        let bytes =
            serde_json::to_vec_pretty(&snapshot).map_err(|e| Error::malformed("snapshot record", e))?;
        let record = new.path().join(RECORD);
        fs::write(&record, &bytes).on_file("write", &record)?;
        let renamed = croft_sys::fs::renameat_with(
            croft_sys::fs::CWD,
            new.path(),
            croft_sys::fs::CWD,
            &folder,
            croft_sys::fs::RenameFlags::NOREPLACE,
        );
        match renamed {
            Err(Errno::EXIST) if !is_damaged(&folder) => {
                return Err(Error::Exists { kind: "snapshot", name: id.to_owned() });
            }
            Err(Errno::EXIST) => {
                for name in ["data", "data/upper", "data/work"] {
                    let place = folder.join(name);
                    if !place.exists() {
                        fs::rename(new.path().join(name), &place).on_file("make folder", &place)?;
                    }
                }
                write_file(self, &folder.join(RECORD), &bytes)?;
            }
            renamed => renamed.on_file("rename", new.path())?,
        }
        Ok(snapshot)
    }

    /// The snapshot of the container `id`.
    pub fn snapshot(&self, id: &str) -> Result<Snapshot> {
        let folder = self.container(id)?;
        let path = folder.join(RECORD);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !folder.exists() => {
                return Err(Error::NotFound { kind: "snapshot", name: id.to_owned() });
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::malformed(format!("snapshot {id}"), "it has no record"));
            }
            bytes => bytes.on_file("read", &path)?,
        };
        let mut snapshot: Snapshot = serde_json::from_slice(&bytes)
            .map_err(|e| Error::malformed(format!("snapshot record {}", path.display()), e))?;
        if snapshot.version > VERSION {
            return Err(Error::malformed(
                format!("snapshot record {}", path.display()),
                "a newer croft wrote it",
            ));
        }
        // A damaged one is of before a power cut, and that mount is gone.
        let mount = fs::read(folder.join(MOUNT)).ok();
        snapshot.mount = mount.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(snapshot)
    }

    /// All snapshots, and whether they are mounted: what a new daemon adopts.
    pub fn snapshots(&self) -> Result<Vec<(Snapshot, State)>> {
        let mounts = overlays()?;
        let mut all = Vec::new();
        for id in self.snapshot_ids()? {
            let snapshot = self.snapshot(&id)?;
            let state = self.state_among(&snapshot, &mounts);
            all.push((snapshot, state));
        }
        all.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        Ok(all)
    }

    /// Whether the snapshot is mounted where its record says.
    pub fn state(&self, snapshot: &Snapshot) -> Result<State> {
        let Some(MountOptions { target, .. }) = &snapshot.mount else { return Ok(State::Unmounted) };
        // At a start nothing is there: the list of all mounts, which grows with the containers, need not be read.
        if !mount::is_mount_point(target).map_err(|e| Error::file("look at", target, e))? {
            return Ok(State::Unmounted);
        }
        Ok(self.state_among(snapshot, &overlays()?))
    }

    fn state_among(&self, snapshot: &Snapshot, mounts: &[(PathBuf, Vec<u8>)]) -> State {
        let source = self.source(&snapshot.id);
        let ours = |target: &Path| mounts.iter().any(|(at, from)| at == target && *from == source.as_bytes());
        let mounted = snapshot.mount.as_ref().is_some_and(|mount| ours(&mount.target));
        if mounted { State::Mounted } else { State::Unmounted }
    }

    /// By this the mount is known again. Several stores on one host have containers of the same id.
    fn source(&self, id: &str) -> String {
        let store = Digest::of(self.root().as_os_str().as_bytes()).hex();
        format!("croft:{}:{id}", &store[..12])
    }

    /// Mounts the container's root. It is mounted there already: fine.
    pub fn mount_snapshot(&self, id: &str, options: &MountOptions) -> Result<()> {
        let _hold = self.hold()?;
        let snapshot = self.snapshot(id)?;
        if self.state(&snapshot)? == State::Mounted {
            if snapshot.mount.as_ref() == Some(options) {
                return Ok(());
            }
            let by = "it is mounted otherwise: unmount it first".to_owned();
            return Err(Error::InUse { what: format!("snapshot {id}"), by });
        }
        let target = options.target.canonicalize().on_file("resolve mount point", &options.target)?;
        let options = MountOptions { target: target.clone(), ..options.clone() };
        let record = self.container(id)?.join(MOUNT);
        let bytes = serde_json::to_vec(&options).map_err(|e| Error::malformed("mount record", e))?;
        // Before the mount: whoever finds one finds out whose it is.
        fs::write(&record, bytes).on_file("write", &record)?;
        let mount = self.overlay(&snapshot)?.make(&options)?;
        let place =
            path::open_path(croft_sys::fs::CWD, &target).map_err(|e| Error::file("open", &target, e))?;
        let kernel =
            |source| Error::Kernel { op: format!("mount snapshot {id} on {}", target.display()), source };
        mount::attach(mount.as_fd(), place.as_fd()).map_err(kernel)
    }

    /// The container's root, which is not mounted, as a mount that nobody but the caller sees and that ends with it. Ids are those on
    /// the disk. While it is there, the root cannot be mounted.
    pub fn view_snapshot(&self, id: &str) -> Result<OwnedFd> {
        let _hold = self.hold()?;
        let snapshot = self.snapshot(id)?;
        if self.state(&snapshot)? == State::Mounted {
            let by = "it is mounted".to_owned();
            return Err(Error::InUse { what: format!("snapshot {id}"), by });
        }
        let overlay = self.overlay(&snapshot)?;
        // Nobody opens a device through it.
        overlay.make(&MountOptions { target: PathBuf::new(), ids: None, devices: Devices::Inert })
    }

    fn overlay(&self, snapshot: &Snapshot) -> Result<Overlay> {
        let layers = snapshot.layers.iter().rev().map(|chain| self.layer(chain));
        let layers = layers.chain([self.mount_points()]).collect();
        let data = self.container(&snapshot.id)?.join("data");
        Ok(Overlay { layers, data, source: self.source(&snapshot.id), scratch: self.tmp() })
    }

    /// The containers that have a snapshot, be it a damaged one.
    pub fn snapshot_ids(&self) -> Result<Vec<String>> {
        let folder = self.folder("containers");
        let names = fs::read_dir(&folder).on_file("read", &folder)?;
        names
            .map(|entry| Ok(entry.on_file("read", &folder)?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// The containers that have a snapshot, be it a damaged one, and whether it is mounted anywhere.
    pub fn snapshot_states(&self) -> Result<Vec<(String, State)>> {
        let sources: HashSet<Vec<u8>> = overlays()?.into_iter().map(|(_, source)| source).collect();
        let mut ids = self.snapshot_ids()?;
        ids.sort();
        let state = |id: &String| match sources.contains(self.source(id).as_bytes()) {
            true => State::Mounted,
            false => State::Unmounted,
        };
        Ok(ids.into_iter().map(|id| (id.clone(), state(&id))).collect())
    }

    /// Unmounts the container's root; not mounted is fine. Who uses it still does, until they let go.
    pub fn unmount_snapshot(&self, id: &str) -> Result<()> {
        let snapshot = match self.snapshot(id) {
            // It is of before a power cut, and so was a mount of it.
            Err(Error::Malformed { .. }) if is_damaged(&self.container(id)?) => return Ok(()),
            snapshot => snapshot?,
        };
        // Something else may be there by now, or nothing.
        while self.state(&snapshot)? == State::Mounted {
            if let Some(MountOptions { target, .. }) = &snapshot.mount {
                mount::unmount_tree(target).map_err(|e| Error::file("unmount", target, e))?;
            }
        }
        Ok(())
    }

    /// Unmounts and removes the container's writable layer. The image's layers stay.
    pub fn remove_snapshot(&self, id: &str) -> Result<()> {
        self.unmount_snapshot(id)?;
        let folder = self.container(id)?;
        let tmp = self.tmp();
        let _hold = self.hold()?;
        let gone = Scratch::new(&tmp, "removed-")?;
        fs::rename(&folder, gone.path().join("snapshot")).on_file("rename", &folder)?;
        remove(gone.path())
    }

    /// The folder with what the container changed, in overlayfs's form.
    pub fn changes(&self, id: &str) -> Result<PathBuf> {
        Ok(self.container(id)?.join("data/upper"))
    }
}

/// Whether the record of the snapshot in `folder` is gone or cut off, and not only of a newer croft or hard to read.
fn is_damaged(folder: &Path) -> bool {
    match fs::read(folder.join(RECORD)) {
        Ok(bytes) => serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// The mount points of all overlays in this mount namespace, with their sources.
fn overlays() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read(path).on_file("read", path)?;
    let parse = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ');
        let point = fields.nth(4)?;
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, source) = (rest.next()?, rest.next()?);
        (kind == b"overlay")
            .then(|| (PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(point))), unescape(source)))
    };
    Ok(text.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

/// An overlay to make.
struct Overlay {
    /// The highest first.
    layers: Vec<PathBuf>,
    /// The folder with `upper` and `work`.
    data: PathBuf,
    source: String,
    /// A folder on which something may be mounted in a mount namespace of our own.
    scratch: PathBuf,
}

/// How the layers are named to overlayfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// By descriptors of detached mounts (kernel 6.15).
    Descriptors,
    /// By folders in a mount namespace that ends with the thread.
    Folders,
}

impl Overlay {
    /// The overlay as a detached mount.
    fn make(&self, options: &MountOptions) -> Result<OwnedFd> {
        match self.make_by(options, Naming::Descriptors) {
            // Older kernels take no layer outside of the caller's mount namespace.
            Err(Error::Mount { source, .. }) if source.error.errno() == Errno::INVAL => {
                self.make_by(options, Naming::Folders)
            }
            other => other,
        }
    }

    fn make_by(&self, options: &MountOptions, naming: Naming) -> Result<OwnedFd> {
        let op = || format!("make the overlay over {}", self.data.display());
        let kernel = |source| Error::Kernel { op: op(), source };
        let ids = match options.ids {
            None => None,
            Some(IdRange { start, size }) => {
                let proc = Proc::open().map_err(kernel)?;
                let range = idmap::Range { inside: 0, outside: start, size };
                Some((start, idmap::namespace(&proc, &[range]).map_err(kernel)?))
            }
        };
        // Ids, working folder and mount namespace are changed for this thread, which ends.
        let made =
            std::thread::scope(|scope| scope.spawn(|| self.on_thread(options, naming, ids.as_ref())).join());
        match made {
            Ok(made) => made.map_err(|source| Error::Mount { op: op(), source }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn on_thread(
        &self,
        options: &MountOptions,
        naming: Naming,
        ids: Option<&(u32, OwnedFd)>,
    ) -> std::result::Result<OwnedFd, FilesystemError> {
        let plain = |error| FilesystemError { error, message: String::new() };
        if naming == Naming::Folders {
            ns::unshare(croft_sys::clone::CLONE_NEWNS | libc::CLONE_FS).map_err(plain)?;
            mount::set_propagation_of_all(libc::MS_PRIVATE).map_err(plain)?;
        }
        let view = |folder: &Path| {
            let clone = mount::open_tree(croft_sys::fs::CWD, folder, Depth::One)?;
            if let Some((_, namespace)) = ids {
                mount::set_idmap(clone.as_fd(), Depth::One, namespace.as_fd())?;
            }
            Ok(clone)
        };
        let layers = self.layers.iter().map(|layer| view(layer)).collect::<croft_sys::Result<Vec<_>>>();
        let layers = layers.map_err(plain)?;
        let data = view(&self.data).map_err(plain)?;
        let (names, data_name) = match naming {
            Naming::Descriptors => {
                let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
                (layers.iter().map(name).collect::<Vec<_>>(), name(&data))
            }
            Naming::Folders => self.attach_here(&layers, &data).map_err(plain)?,
        };
        if let Some((start, _)) = ids {
            let (effective, permitted, inheritable) = credentials::capabilities().map_err(plain)?;
            credentials::set_filesystem_ids(*start, *start).map_err(plain)?;
            credentials::set_capabilities(effective, permitted, inheritable).map_err(plain)?;
        }
        let attributes = if options.devices == Devices::Inert { libc::MOUNT_ATTR_NODEV } else { 0 };
        overlay(&self.source, &names, &data_name, attributes)
    }

    /// Puts the mounts on folders of a small file system over the scratch folder, which becomes the working folder.
    fn attach_here(&self, layers: &[OwnedFd], data: &OwnedFd) -> croft_sys::Result<(Vec<String>, String)> {
        let small = mount::new_filesystem("tmpfs", "croft", &[], 0).map_err(|e| e.error)?;
        let scratch = path::open_path(croft_sys::fs::CWD, &self.scratch)?;
        mount::attach(small.as_fd(), scratch.as_fd())?;
        path::enter(small.as_fd())?;
        let put = |mount: &OwnedFd, name: &str| {
            let place = path::mkdir_all(small.as_fd(), Path::new(name))?;
            mount::attach(mount.as_fd(), place.as_fd())
        };
        let names: Vec<String> = (0..layers.len()).map(|n| n.to_string()).collect();
        layers.iter().zip(&names).try_for_each(|(layer, name)| put(layer, name))?;
        put(data, "d")?;
        Ok((names, "d".to_owned()))
    }
}

fn overlay(
    source: &str,
    layers: &[String],
    data: &str,
    attributes: u64,
) -> std::result::Result<OwnedFd, FilesystemError> {
    let (joined, upper, work) = (layers.join(":"), format!("{data}/upper"), format!("{data}/work"));
    // One value where it is short enough: kernels before 6.8 know nothing else.
    let lower: Vec<(&str, &str)> = if joined.len() <= LONGEST_VALUE {
        vec![("lowerdir", &joined)]
    } else {
        layers.iter().map(|layer| ("lowerdir+", layer.as_str())).collect()
    };
    // index and nfs_export give files lasting handles, without which a checkpoint cannot name what a process watches. A folder
    // that is moved is copied (EXDEV, as on every Docker host): a redirect would tie the changes to this very image.
    let rest = [
        ("upperdir", upper.as_str()),
        ("workdir", &work),
        ("index", "on"),
        ("nfs_export", "on"),
        ("redirect_dir", "off"),
        ("metacopy", "off"),
    ];
    let parameters: Vec<Parameter<'_>> =
        lower.into_iter().chain(rest).map(|(key, value)| Parameter { key, value: Some(value) }).collect();
    mount::new_filesystem("overlay", source, &parameters, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of kernels before 6.15 works on newer ones too, so it is tried here and not only there.
    #[test]
    fn both_ways_of_naming_layers_make_the_same_overlay() {
        if credentials::user().1 != 0 {
            return eprintln!("SKIPPED both_ways_of_naming_layers_make_the_same_overlay: needs root");
        }
        let at = tempfile::tempdir().unwrap();
        for name in ["low", "high", "data/upper", "data/work", "scratch"] {
            fs::create_dir_all(at.path().join(name)).unwrap();
        }
        fs::write(at.path().join("low/file"), "low").unwrap();
        fs::write(at.path().join("high/file"), "high").unwrap();
        let layers = ["high", "low"].map(|name| at.path().join(name)).to_vec();
        let path = |name: &str| at.path().join(name);
        let overlay =
            Overlay { layers, data: path("data"), source: "croft:test".to_owned(), scratch: path("scratch") };
        for (naming, ids) in [
            (Naming::Folders, None),
            (Naming::Folders, Some(IdRange { start: 400_000, size: 65536 })),
            (Naming::Descriptors, Some(IdRange { start: 500_000, size: 65536 })),
        ] {
            let options = MountOptions { target: path("none"), ids, devices: Devices::Inert };
            let mount = match (overlay.make_by(&options, naming), naming) {
                (Err(_), Naming::Descriptors) => continue,
                (made, _) => made.unwrap(),
            };
            let file =
                path::open_in_root(mount.as_fd(), Path::new("/file"), croft_sys::OFlags::RDONLY).unwrap();
            assert_eq!(
                croft_sys::fs::fstat(&file).unwrap().st_uid,
                ids.map_or(0, |ids| ids.start),
                "{naming:?}"
            );
            assert_eq!(std::io::read_to_string(fs::File::from(file)).unwrap(), "high");
        }
        assert_eq!(fs::read_dir(path("scratch")).unwrap().count(), 0);
    }

    #[test]
    fn escapes_of_mountinfo_are_read() {
        assert_eq!(unescape(br"/a\040b\134c\011"), b"/a b\\c\t");
        assert_eq!(unescape(br"/a\04"), br"/a\04");
    }
}
