//! The store: a folder with blobs by digest, unpacked layers by chain id, and records of the images that names stand for.
//!
//! ```text
//! blobs/sha256/HEX      manifests, configurations and packed layers, as they came
//! layers/HEX/fs         an unpacked layer in overlayfs's form, named by the chain of it and all below: shared by images
//! images/HEX.json       what one name stands for (HEX: SHA-256 of the name)
//! containers/ID/        the writable layers of containers; see `snapshot`
//! mount-points/         the layer below all others of a container: what something is mounted on
//! partial/HEX           downloads that were cut off, to be resumed
//! tmp/                  everything else that is not complete
//! ```
//!
//! What has its final name is complete and on disk: it was made in `tmp` and synced, and only then renamed. A crash at any point
//! leaves something in `tmp` at most, which the next [`Store::open`] removes. Removal goes the other way: renamed into `tmp` first.
//! A lock on the store (shared by all who add or use, exclusive for who removes) keeps what is being added or used.

mod incoming;
mod record;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::manifest::{Config, LARGEST_DOCUMENT, Manifest};
use crate::reference::Reference;

pub(crate) use incoming::{Incoming, Keep, NewImage, Source, StagedLayer};
pub use record::{Image, ImageLayer, Origin};

/// A store of images.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// While this lives, nothing is removed from the store.
#[derive(Debug)]
pub struct Hold(File);

impl Drop for Hold {
    fn drop(&mut self) {
        // Closing would not be enough: a process that is just being started has a copy of the descriptor until it is.
        let _ = self.0.unlock();
    }
}

/// How much of the disk a store takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DiskUsage {
    /// Names of images.
    pub images: u64,
    /// Packed layers and documents.
    pub blobs: u64,
    /// Bytes of them.
    pub blob_bytes: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// Bytes of them on the disk.
    pub layer_bytes: u64,
    /// Writable layers of containers.
    pub containers: u64,
    /// Bytes of them on the disk.
    pub container_bytes: u64,
    /// Bytes of downloads that were cut off.
    pub partial_bytes: u64,
}

const FOLDERS: [&str; 6] = ["blobs/sha256", "layers", "images", "containers", "partial", "tmp"];

/// The layer below all others in the root of a container.
const MOUNT_POINTS: &str = "mount-points";

impl Store {
    /// Opens the store in the folder `root`, making it if need be, and removes what a crash left incomplete.
    ///
    /// The folder is for root alone: unpacked layers hold set-user-id programs and devices.
    pub fn open(root: &Path) -> Result<Self> {
        for folder in FOLDERS {
            let folder = root.join(folder);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .on_file("make folder", &folder)?;
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).on_file("set mode of", root)?;
        let store = Self { root: root.canonicalize().on_file("resolve", root)? };
        // Somebody at work owns what is in tmp; whoever is alone cleans up.
        if let Some(_alone) = store.alone()? {
            store.clean()?;
        }
        store.make_mount_points()?;
        Ok(store)
    }

    /// What every container has something mounted on. Most images lack some of it: made in each container's own layer, that is five inodes
    /// on the disk, and a change of /etc where there is none.
    fn make_mount_points(&self) -> Result<()> {
        if self.mount_points().exists() {
            return Ok(());
        }
        let _hold = self.hold()?;
        let new = Scratch::new(&self.tmp(), "mount-points-")?;
        let readable = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).on_file("set mode of", path)
        };
        readable(new.path(), 0o755)?;
        for name in ["dev", "etc", "proc", "sys"] {
            let folder = new.path().join(name);
            fs::create_dir(&folder).on_file("make folder", &folder)?;
            readable(&folder, 0o755)?;
        }
        for name in ["hostname", "hosts", "resolv.conf"] {
            let file = new.path().join("etc").join(name);
            File::create(&file).on_file("make", &file)?;
            readable(&file, 0o644)?;
        }
        let (from, to) = (new.path(), self.mount_points());
        let (here, keep) = (croft_sys::fs::CWD, croft_sys::fs::RenameFlags::NOREPLACE);
        match croft_sys::fs::renameat_with(here, from, here, &to, keep) {
            // Another croftd was quicker.
            Err(croft_sys::Errno::EXIST) => Ok(()),
            renamed => renamed.on_file("rename", from),
        }
    }

    /// The layer with what containers have something mounted on.
    pub(crate) fn mount_points(&self) -> PathBuf {
        self.root.join(MOUNT_POINTS)
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Keeps everything in the store until the return value is dropped. Waits while somebody removes.
    pub fn hold(&self) -> Result<Hold> {
        let (file, path) = self.lock_file()?;
        file.lock_shared().on_file("lock", &path)?;
        Ok(Hold(file))
    }

    /// The lock of who removes; `None` while somebody adds or uses.
    pub(crate) fn alone(&self) -> Result<Option<Hold>> {
        let (file, path) = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Hold(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(Error::file("lock", &path, e)),
        }
    }

    fn lock_file(&self) -> Result<(File, PathBuf)> {
        let path = self.root.join("lock");
        let file = File::options().create(true).append(true).open(&path).on_file("open", &path)?;
        Ok((file, path))
    }

    fn clean(&self) -> Result<()> {
        let tmp = self.tmp();
        for entry in fs::read_dir(&tmp).on_file("read", &tmp)? {
            remove(&entry.on_file("read", &tmp)?.path())?;
        }
        Ok(())
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where the blob is, if it is there.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob(digest).exists()
    }

    /// Where the unpacked layer is, if it is there.
    pub fn layer(&self, chain: &Digest) -> PathBuf {
        self.root.join("layers").join(chain.hex()).join("fs")
    }

    /// Whether the layer is there, unpacked.
    pub fn has_layer(&self, chain: &Digest) -> bool {
        self.layer(chain).exists()
    }

    /// Where the download of a blob goes on.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    /// A small blob as a whole, checked again.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob(digest);
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotFound { kind: "blob", name: digest.to_string() });
            }
            file => file.on_file("open", &path)?,
        };
        let mut bytes = Vec::new();
        file.take(LARGEST_DOCUMENT + 1).read_to_end(&mut bytes).on_file("read", &path)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            let what = path.display().to_string();
            return Err(Error::Mismatch { what, expected: digest.to_string(), found: found.to_string() });
        }
        Ok(bytes)
    }

    /// An image's manifest.
    pub fn manifest(&self, image: &Image) -> Result<Manifest> {
        let bytes = self.document(&image.manifest.digest)?;
        serde_json::from_slice(&bytes).map_err(|e| Error::malformed("manifest", e))
    }

    /// An image's configuration: what it runs, and its history.
    pub fn config(&self, image: &Image) -> Result<Config> {
        Config::parse(&self.document(&image.config)?, image.layers.len())
    }

    /// The unpacked layers of an image, the highest first.
    pub fn trees(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().rev().map(|layer| self.layer(&layer.chain_id)).collect()
    }

    /// How much is there.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let (blobs, blob_bytes) = size(&self.folder("blobs/sha256"))?;
        let (layers, layer_bytes) = size(&self.folder("layers"))?;
        let (containers, container_bytes) = size(&self.folder("containers"))?;
        let (_, partial_bytes) = size(&self.folder("partial"))?;
        let images = self.list()?.len() as u64;
        Ok(DiskUsage {
            images,
            blobs,
            blob_bytes,
            layers,
            layer_bytes,
            containers,
            container_bytes,
            partial_bytes,
        })
    }
}

/// The number of entries of a folder, and the bytes that they and all below take on the disk. Hard links count once.
pub fn size(folder: &Path) -> Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    let mut seen = std::collections::HashSet::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        let entries = match fs::read_dir(&next) {
            // Gone meanwhile, or nested deeper than a path can say.
            Err(_) if next != folder => continue,
            entries => entries.on_file("read", &next)?,
        };
        for entry in entries {
            let entry = entry.on_file("read", &next)?;
            let Ok(data) = entry.metadata() else { continue };
            count += u64::from(next == folder);
            if data.nlink() == 1 || data.is_dir() || seen.insert((data.dev(), data.ino())) {
                bytes += data.blocks() * 512;
            }
            if data.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok((count, bytes))
}

/// A folder in `tmp` that goes with this value.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder in `folder`, whose name begins so.
    pub fn new(folder: &Path, prefix: &str) -> Result<Self> {
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(folder);
        Ok(Self(made.on_file("make a folder in", folder)?.keep()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// It stays; who has the path looks after it.
    pub fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // What cannot be removed now is, when the store is opened next.
            let _ = remove(&self.0);
        }
    }
}

/// Removes a file, or a folder with all below it, without following a link. Nothing there is fine.
pub fn remove(path: &Path) -> Result<()> {
    let folder = path.symlink_metadata().is_ok_and(|data| data.is_dir());
    let removed = match folder {
        true => empty(path).and_then(|()| fs::remove_dir(path)),
        false => fs::remove_file(path),
    };
    match removed {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.on_file("remove", path),
    }
}

/// Removes what is in the folder `top`, however deep: a container can nest folders deeper than descriptors or a stack reach, so each
/// is moved up before it is emptied.
fn empty(top: &Path) -> std::io::Result<()> {
    use croft_sys::fs::{self, AtFlags, Dir, FileType, OFlags, RenameFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = fs::open(top, flags, croft_sys::Mode::empty())?;
    let mut number = 0u64;
    loop {
        let mut found = false;
        for entry in Dir::read_from(&top)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            found = true;
            match fs::unlinkat(&top, name, AtFlags::empty()) {
                Err(croft_sys::Errno::ISDIR) => {}
                other => {
                    other?;
                    continue;
                }
            }
            let folder = fs::openat(&top, name, flags, croft_sys::Mode::empty())?;
            for inner in Dir::read_from(&folder)? {
                let inner = inner?;
                let inner_name = inner.file_name();
                let is_folder = match inner.file_type() {
                    _ if [c".", c".."].contains(&inner_name) => continue,
                    FileType::Unknown => {
                        let stat = fs::statat(&folder, inner_name, AtFlags::SYMLINK_NOFOLLOW)?;
                        FileType::from_raw_mode(stat.st_mode).is_dir()
                    }
                    kind => kind.is_dir(),
                };
                if !is_folder {
                    fs::unlinkat(&folder, inner_name, AtFlags::empty())?;
                    continue;
                }
                loop {
                    number += 1;
                    let up = format!(".removed-{number}");
                    match fs::renameat_with(&folder, inner_name, &top, &up, RenameFlags::NOREPLACE) {
                        Err(croft_sys::Errno::EXIST) => {}
                        moved => break moved?,
                    }
                }
            }
            fs::unlinkat(&top, name, AtFlags::REMOVEDIR)?;
        }
        if !found {
            return Ok(());
        }
    }
}

/// Writes the file `path` such that after a crash it has its old content or its new one: beside it, synced, then renamed.
pub(crate) fn write_file(store: &Store, path: &Path, bytes: &[u8]) -> Result<()> {
    let tmp = store.tmp();
    let mut file = tempfile::NamedTempFile::new_in(&tmp).on_file("make a file in", &tmp)?;
    file.write_all(bytes).on_file("write", file.path())?;
    file.as_file().sync_all().on_file("sync", file.path())?;
    file.persist(path).map_err(|e| e.error).on_file("write", path)?;
    sync_folder(path.parent().unwrap_or(path))
}

/// Makes the names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).on_file("sync", folder)
}

/// An image by any of the ways in which people say it: a name, or the start of its id.
impl Store {
    /// The image that `text` stands for: a name, or at least four digits of an id (the digest of the configuration).
    pub fn find(&self, text: &str) -> Result<Image> {
        let missing = || Error::NotFound { kind: "image", name: text.to_owned() };
        if let Ok(reference) = text.parse::<Reference>()
            && let Some(image) = self.get(&reference)?
        {
            return Ok(image);
        }
        let id = text.strip_prefix("sha256:").unwrap_or(text);
        if id.len() < 4 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut found = self.list()?;
        found.retain(|image| {
            image.config.hex().starts_with(id) || image.manifest.digest.hex().starts_with(id)
        });
        match &found[..] {
            [] => Err(missing()),
            [first, rest @ ..] if rest.iter().all(|image| image.config == first.config) => Ok(first.clone()),
            _ => Err(Error::Ambiguous(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_removed_however_deep_it_is() {
        let at = tempfile::tempdir().unwrap();
        let store = Store::open(at.path()).unwrap();
        let deep = Scratch::new(&store.tmp(), "deep-").unwrap();
        let flags = croft_sys::OFlags::RDONLY | croft_sys::OFlags::DIRECTORY;
        let open = |folder: &std::os::fd::OwnedFd, name: &str| {
            croft_sys::fs::mkdirat(folder, name, croft_sys::Mode::from_raw_mode(0o700)).unwrap();
            croft_sys::fs::openat(folder, name, flags, croft_sys::Mode::empty()).unwrap()
        };
        let mut here = std::os::fd::OwnedFd::from(File::open(deep.path()).unwrap());
        for depth in 0..2500 {
            croft_sys::fs::symlinkat("/", &here, "link").unwrap();
            open(&here, ".removed-1");
            here = open(&here, &format!("d{depth}"));
        }
        drop(here);
        let path = deep.keep();
        // The next who opens the store finds it, as after a crash.
        Store::open(at.path()).unwrap();
        assert!(!path.exists());
        assert!(store.disk_usage().is_ok());
    }
}
