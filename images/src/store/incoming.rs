//! An image on its way into the store: blobs and layers are staged, and all become visible together at the end.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use croft_sys::path::open_path;

use super::record::Parts;
use super::{Hold, Image, ImageLayer, Origin, Scratch, Store, sync_folder};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::layer::Limits;
use crate::manifest::{Config, Descriptor, Manifest, chain_ids};
use crate::reference::Reference;
use crate::unpack::{Unpacked, settle, unpack};

/// What is staged for one image. Dropped without [`Incoming::publish`], nothing of it was ever there.
#[derive(Debug)]
pub struct Incoming {
    store: Arc<Store>,
    folder: Scratch,
    _hold: Hold,
}

/// A layer that is unpacked, but not yet adapted to those below it.
#[derive(Debug)]
pub struct StagedLayer {
    folder: PathBuf,
    /// What was found in it.
    pub unpacked: Unpacked,
}

/// Where a layer's tree is, or will come from.
#[derive(Debug)]
pub enum Source {
    /// In the store already.
    Stored,
    /// Staged.
    Staged(StagedLayer),
}

impl Incoming {
    /// Begins; until this is dropped, nothing is removed from the store.
    pub fn new(store: &Arc<Store>) -> Result<Self> {
        let hold = store.hold()?;
        let tmp = store.tmp();
        let folder = Scratch::new(&tmp, "incoming-")?;
        Ok(Self { store: store.clone(), folder, _hold: hold })
    }

    /// The store that it goes to.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn staged(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join(format!("blob-{}", digest.hex()))
    }

    /// Where the blob is: staged, or in the store.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let staged = self.staged(digest);
        if staged.exists() { staged } else { self.store.blob(digest) }
    }

    /// Whether the blob is staged or in the store.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob(digest).exists()
    }

    /// Stages a document.
    pub fn add_document(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.staged(&digest);
        fs::write(&path, bytes).on_file("write", &path)?;
        Ok(digest)
    }

    /// Stages the file `path`, which is moved here and whose content was checked to have this digest.
    pub fn add_blob_file(&self, digest: &Digest, path: &Path) -> Result<()> {
        fs::rename(path, self.staged(digest)).on_file("move", path)
    }

    /// Unpacks the layer `source`; with `keep`, what was read is staged as a blob too.
    pub fn unpack(&self, source: impl Read + Send, limits: &Limits, keep: Keep) -> Result<StagedLayer> {
        let folder = Scratch::new(self.folder.path(), "unpack-")?;
        let tree = folder.path().join("fs");
        fs::create_dir(&tree).on_file("make folder", &tree)?;
        fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .on_file("set mode of", &tree)?;
        let root = open(&tree)?;
        let unpacked = match keep {
            Keep::Nothing => unpack(root.as_fd(), source, limits)?,
            Keep::Blob => {
                let copy = tempfile::NamedTempFile::new_in(self.folder.path());
                let copy = copy.on_file("make a file in", self.folder.path())?;
                let tee = Tee { source, copy: copy.as_file() };
                let unpacked = unpack(root.as_fd(), tee, limits)?;
                let path = self.staged(&unpacked.digest);
                copy.persist(&path).map_err(|e| e.error).on_file("write", &path)?;
                unpacked
            }
        };
        Ok(StagedLayer { folder: folder.keep(), unpacked })
    }

    /// Adapts the layers to those below them, syncs everything, gives it its final name, and then the image its own.
    ///
    /// `layers` are the trees of the manifest's layers in their order.
    pub fn publish(self, image: NewImage, layers: Vec<Source>) -> Result<Image> {
        let NewImage { reference, manifest, index, origin } = image;
        let manifest_bytes = self.staged_document(&manifest.digest)?;
        let parsed: Manifest =
            serde_json::from_slice(&manifest_bytes).map_err(|e| Error::malformed("manifest", e))?;
        let config = Config::parse(&self.staged_document(&parsed.config.digest)?, parsed.layers.len())?;
        let chain = chain_ids(&config.rootfs.diff_ids);
        let staged = self.settle(&config.rootfs.diff_ids, &chain, layers)?;
        let root = File::open(self.store.root()).on_file("open", self.store.root())?;
        // One sync of the file system instead of one for each of the thousands of files.
        croft_sys::fs::syncfs(&root).on_file("sync the file system of", self.store.root())?;
        self.name_blobs()?;
        for (folder, chain) in staged {
            let place = self.store.folder("layers").join(chain.hex());
            match fs::rename(&folder, &place) {
                // Somebody else was faster; both are the same.
                Err(_) if place.join("fs").exists() => {}
                renamed => renamed.on_file("rename", &folder)?,
            }
        }
        sync_folder(&self.store.folder("layers"))?;
        let parts = parsed.layers.into_iter().zip(config.rootfs.diff_ids).zip(chain);
        let layers =
            parts.map(|((blob, diff_id), chain_id)| ImageLayer { blob, diff_id, chain_id }).collect();
        let (created, platform) = (config.created, config.platform);
        let config = parsed.config.digest;
        let image =
            Image::new(Parts { reference, manifest, index, config, platform, layers, created, origin });
        self.store.put(&image)?;
        Ok(image)
    }

    /// The staged layers with their chain ids, complete.
    fn settle(
        &self,
        diff_ids: &[Digest],
        chain: &[Digest],
        layers: Vec<Source>,
    ) -> Result<Vec<(PathBuf, Digest)>> {
        let mut below: Vec<OwnedFd> = Vec::new();
        let mut staged = Vec::new();
        for ((diff_id, chain), source) in diff_ids.iter().zip(chain).zip(layers) {
            match source {
                Source::Stored => below.insert(0, open(&self.store.layer(chain))?),
                Source::Staged(layer) => {
                    if layer.unpacked.diff_id != *diff_id {
                        let (expected, found) = (diff_id.to_string(), layer.unpacked.diff_id.to_string());
                        return Err(Error::Mismatch { what: "unpacked layer".to_owned(), expected, found });
                    }
                    let root = open(&layer.folder.join("fs"))?;
                    settle(root.as_fd(), &below, &layer.unpacked)?;
                    below.insert(0, root);
                    staged.push((layer.folder, *chain));
                }
            }
        }
        Ok(staged)
    }

    fn staged_document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.staged(digest);
        if path.exists() { fs::read(&path).on_file("read", &path) } else { self.store.document(digest) }
    }

    fn name_blobs(&self) -> Result<()> {
        for entry in fs::read_dir(self.folder.path()).on_file("read", self.folder.path())? {
            let entry = entry.on_file("read", self.folder.path())?;
            let name = entry.file_name();
            if let Some(hex) = name.to_str().and_then(|name| name.strip_prefix("blob-")) {
                let place = self.store.folder("blobs/sha256").join(hex);
                fs::rename(entry.path(), &place).on_file("rename", &entry.path())?;
            }
        }
        sync_folder(&self.store.folder("blobs/sha256"))
    }
}

/// Whether the packed layer is kept beside the unpacked one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is, as a blob.
    Blob,
    /// It is not: it is a blob already.
    Nothing,
}

/// What [`Incoming::publish`] records beside the layers.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// The name.
    pub reference: Reference,
    /// The manifest, staged or stored.
    pub manifest: Descriptor,
    /// The index that it was chosen from, staged or stored.
    pub index: Option<Digest>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Copies what is read.
struct Tee<'f, R> {
    source: R,
    copy: &'f File,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.copy.write_all(&buffer[..count])?;
        Ok(count)
    }
}

fn open(folder: &Path) -> Result<OwnedFd> {
    open_path(croft_sys::fs::CWD, folder).map_err(|e| Error::file("open", folder, e))
}
