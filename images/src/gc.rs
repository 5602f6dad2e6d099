//! What nothing needs is removed: not what an image with a name, or the snapshot of a container, is made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::digest::{Digest, HashingReader};
use crate::error::{Context, Error, Result};
use crate::store::{Scratch, Store, remove, sync_folder};

/// What a [`Store::prune`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Packed layers and documents.
    pub blobs: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// Downloads that were cut off.
    pub partial: u64,
    /// Bytes of blobs and cut-off downloads.
    pub bytes: u64,
}

/// What is wrong in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The image or snapshot that suffers, or the blob.
    pub what: String,
    /// What is wrong, and what helps.
    pub why: String,
}

/// How closely [`Store::check`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Whether all is there.
    Names,
    /// Whether every blob is what its name says, too: reads everything.
    Content,
}

/// The parts that are needed.
#[derive(Debug, Default)]
struct Needed {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
}

impl Store {
    /// Removes blobs, layers and cut-off downloads that no image and no snapshot needs.
    ///
    /// # Errors
    /// Somebody is adding to the store, or a record cannot be read: then nothing is removed, since it may need anything.
    pub fn prune(&self) -> Result<Pruned> {
        let Some(_alone) = self.alone()? else {
            let by = "a pull, an import or a push is under way: try again when it is done".to_owned();
            return Err(Error::InUse { what: "the image store".to_owned(), by });
        };
        let needed = self.needed()?;
        let mut pruned = Pruned::default();
        let unneeded = |folder: &str, keep: &BTreeSet<Digest>| -> Result<Vec<std::path::PathBuf>> {
            let folder = self.folder(folder);
            let mut found = Vec::new();
            for entry in fs::read_dir(&folder).on_file("read", &folder)? {
                let entry = entry.on_file("read", &folder)?;
                let digest = entry.file_name().to_str().and_then(Digest::from_hex);
                if digest.is_none_or(|digest| !keep.contains(&digest)) {
                    found.push(entry.path());
                }
            }
            Ok(found)
        };
        // First the layers: one without its blob can be used, one whose blob is there can be made again.
        for layer in unneeded("layers", &needed.layers)? {
            self.discard(&layer)?;
            pruned.layers += 1;
        }
        for blob in unneeded("blobs/sha256", &needed.blobs)? {
            pruned.bytes += size(&blob);
            remove(&blob)?;
            pruned.blobs += 1;
        }
        for partial in unneeded("partial", &BTreeSet::new())? {
            pruned.bytes += size(&partial);
            remove(&partial)?;
            pruned.partial += 1;
        }
        sync_folder(&self.folder("blobs/sha256"))?;
        Ok(pruned)
    }

    /// Takes a folder's name away at once, and then removes it.
    fn discard(&self, folder: &Path) -> Result<()> {
        let tmp = self.tmp();
        let gone = Scratch::new(&tmp, "removed-")?;
        fs::rename(folder, gone.path().join("layer")).on_file("rename", folder)?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
        remove(gone.path())
    }

    fn needed(&self) -> Result<Needed> {
        let mut needed = Needed::default();
        for image in self.list()? {
            needed.blobs.extend([image.manifest.digest, image.config].into_iter().chain(image.index));
            needed.blobs.extend(image.layers.iter().map(|layer| layer.blob.digest));
            needed.layers.extend(image.layers.iter().map(|layer| layer.chain_id));
        }
        for (snapshot, _) in self.snapshots()? {
            needed.blobs.extend([snapshot.manifest, snapshot.config].into_iter().chain(snapshot.blobs));
            needed.layers.extend(snapshot.layers);
        }
        Ok(needed)
    }

    /// Looks for what is missing or damaged.
    pub fn check(&self, depth: Depth) -> Result<Vec<Fault>> {
        let _hold = self.hold()?;
        let needed = self.needed()?;
        let mut faults = Vec::new();
        for layer in needed.layers.iter().filter(|layer| !self.has_layer(layer)) {
            let why = "the unpacked layer is missing: pull the image again".to_owned();
            faults.push(Fault { what: format!("layer {layer}"), why });
        }
        for blob in &needed.blobs {
            let what = format!("blob {blob}");
            let path = self.blob(blob);
            if !path.exists() {
                faults.push(Fault { what, why: "it is missing: pull the image again".to_owned() });
            } else if depth == Depth::Content {
                let file = fs::File::open(&path).on_file("open", &path)?;
                let (found, _) = HashingReader::new(file).finish().on_file("read", &path)?;
                if found != *blob {
                    let why = "its content is another: remove the image, prune, and pull it again".to_owned();
                    faults.push(Fault { what, why });
                }
            }
        }
        Ok(faults)
    }
}

fn size(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |data| data.len())
}
