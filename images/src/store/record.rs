//! What a name stands for: one JSON file a name.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Store, sync_folder, write_file};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::manifest::{Descriptor, History, Platform};
use crate::reference::Reference;

/// The form of the records; one that is higher was written by a newer croft.
const VERSION: u32 = 1;

/// How an image came into the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From a registry.
    Pulled,
    /// From an archive or a folder.
    Imported,
    /// From a container.
    Committed,
    /// Made here.
    Built,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// The packed layer.
    pub blob: Descriptor,
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The name of the layer with all below it.
    pub chain_id: Digest,
}

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The form of this record.
    version: u32,
    /// Its name.
    pub reference: Reference,
    /// Its manifest.
    pub manifest: Descriptor,
    /// The index that the manifest was chosen from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// Its configuration; the digest is the image's id.
    pub config: Digest,
    /// What it is for.
    pub platform: Platform,
    /// Its layers, the lowest first.
    pub layers: Vec<ImageLayer>,
    /// When it was made, as its maker says (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// When it came into the store, in seconds since 1970.
    pub stored: u64,
    /// How.
    pub origin: Origin,
}

/// The parts of a new record; the rest is the same for all.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub reference: Reference,
    pub manifest: Descriptor,
    pub index: Option<Digest>,
    pub config: Digest,
    pub platform: Platform,
    pub layers: Vec<ImageLayer>,
    pub created: Option<String>,
    pub origin: Origin,
}

impl Image {
    pub(crate) fn new(parts: Parts) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let Parts { reference, manifest, index, config, platform, layers, created, origin } = parts;
        let stored = now.as_secs();
        Self {
            version: VERSION,
            reference,
            manifest,
            index,
            config,
            platform,
            layers,
            created,
            stored,
            origin,
        }
    }

    /// The bytes of its packed layers.
    pub fn packed_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.blob.size).sum()
    }
}

impl Store {
    fn record(&self, reference: &Reference) -> PathBuf {
        // A name can be longer than a file name can.
        let name = Digest::of(reference.to_string().as_bytes()).hex();
        self.folder("images").join(name + ".json")
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Image>> {
        let folder = self.folder("images");
        let mut images = Vec::new();
        for entry in fs::read_dir(&folder).on_file("read", &folder)? {
            images.extend(read(&entry.on_file("read", &folder)?.path())?);
        }
        images.sort_by_cached_key(|image| image.reference.to_string());
        Ok(images)
    }

    /// The image with exactly this name.
    pub fn get(&self, reference: &Reference) -> Result<Option<Image>> {
        read(&self.record(reference))
    }

    /// Gives the image another name too. If the name stood for another image, it does no more.
    pub fn tag(&self, image: &Image, reference: &Reference) -> Result<Image> {
        if reference.digest().is_some() {
            let why = "a name to give has a tag, not a digest".to_owned();
            return Err(Error::Reference { text: reference.to_string(), why });
        }
        let _hold = self.hold()?;
        let image = Image { reference: reference.clone(), ..image.clone() };
        // It may have been removed since it was found.
        if !self.has_blob(&image.manifest.digest) {
            return Err(Error::NotFound { kind: "image", name: image.config.to_string() });
        }
        self.put(&image)?;
        Ok(image)
    }

    /// Forgets the name. What it stood for stays until [`Store::prune`](crate::gc).
    pub fn remove(&self, reference: &Reference) -> Result<()> {
        let path = self.record(reference);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::NotFound { kind: "image", name: reference.familiar() })
            }
            removed => removed.on_file("remove", &path),
        }?;
        sync_folder(&self.folder("images"))
    }

    /// How the image came about: each step with the layer that it made, the newest first.
    pub fn history(&self, image: &Image) -> Result<Vec<(History, Option<ImageLayer>)>> {
        let config = self.config(image)?;
        let mut layers = image.layers.iter().cloned();
        let mut steps: Vec<_> = config
            .history
            .into_iter()
            .map(|step| {
                let layer = if step.empty_layer { None } else { layers.next() };
                (step, layer)
            })
            .collect();
        steps.extend(layers.map(|layer| (History::default(), Some(layer))));
        steps.reverse();
        Ok(steps)
    }

    pub(super) fn put(&self, image: &Image) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(image).map_err(|e| Error::malformed("image record", e))?;
        write_file(self, &self.record(&image.reference), &bytes)
    }
}

fn read(path: &std::path::Path) -> Result<Option<Image>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.on_file("read", path)?,
    };
    let what = || format!("image record {}", path.display());
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(&bytes).map_err(|e| Error::malformed(what(), e))?;
    if version > VERSION {
        return Err(Error::malformed(what(), format!("it has the form {version}: a newer croft wrote it")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::malformed(what(), e))
}
