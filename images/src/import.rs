//! Images from files: OCI layouts (folders and archives), what `docker save` writes, and plain root filesystems.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use croft_sys::OFlags;
use croft_sys::path::{open_in_root, open_path};
use croft_sys::proc::Proc;
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::layer::Limits;
use crate::manifest::{
    Config, Defaults, Descriptor, Document, History, Index, LARGEST_DOCUMENT, Manifest, Platform, chain_ids,
    media,
};
use crate::reference::Reference;
use crate::store::{Image, Incoming, Keep, NewImage, Origin, Scratch, Source, StagedLayer, Store};
use crate::unpack::unpack;

/// How an import is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name to give; without it the names in the archive are taken.
    pub reference: Option<Reference>,
    /// Which image of an index is taken.
    pub platform: Platform,
    /// How large layers may be.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { reference: None, platform: Platform::here(), limits: Limits::default() }
    }
}

/// Imports the OCI layout in the folder `folder`, as `skopeo copy ... oci:folder` writes it.
pub fn layout(store: &Arc<Store>, folder: &Path, options: &Options) -> Result<Vec<Image>> {
    let folder = open_path(croft_sys::fs::CWD, folder).map_err(|e| Error::file("open", folder, e))?;
    bundle(store, &Bundle { folder }, options)
}

/// Imports an archive of an OCI layout, or one by `docker save`, packed or not.
pub fn archive(store: &Arc<Store>, source: impl Read + Send, options: &Options) -> Result<Vec<Image>> {
    let tmp = store.tmp();
    // While this is held, nobody who opens the store takes the folder for a crash's leftover.
    let _hold = store.hold()?;
    let folder = Scratch::new(&tmp, "import-")?;
    let root =
        open_path(croft_sys::fs::CWD, folder.path()).map_err(|e| Error::file("open", folder.path(), e))?;
    // An archive is as hostile as a layer, and is unpacked by the same rules.
    unpack(root.as_fd(), source, &options.limits)?;
    bundle(store, &Bundle { folder: root }, options)
}

/// Imports a root filesystem, a tar archive packed or not, as an image of one layer under the name `reference`.
pub fn rootfs(
    store: &Arc<Store>,
    source: impl Read + Send,
    reference: &Reference,
    defaults: Defaults,
    options: &Options,
) -> Result<Image> {
    let incoming = Incoming::new(store)?;
    let staged = incoming.unpack(source, &options.limits, Keep::Blob)?;
    if staged.unpacked.entries == 0 {
        return Err(Error::malformed("root filesystem", "it is an empty archive, or none"));
    }
    let mut config = Config::empty(None);
    config.platform = options.platform.clone();
    config.config = defaults;
    single_layer(incoming, staged, config, reference, (Origin::Imported, "imported root filesystem"))
}

/// Publishes an image of this one layer.
pub(crate) fn single_layer(
    incoming: Incoming,
    staged: StagedLayer,
    mut config: Config,
    reference: &Reference,
    (origin, comment): (Origin, &str),
) -> Result<Image> {
    config.rootfs.diff_ids = vec![staged.unpacked.diff_id];
    config.history = vec![History { comment: Some(comment.to_owned()), ..History::default() }];
    let layer = &staged.unpacked;
    let layer = Descriptor::new(layer.digest, layer.size, layer.compression.media_type());
    finish(incoming, &config, vec![layer], vec![Source::Staged(staged)], (reference, origin))
}

/// Writes configuration and manifest and publishes the image.
pub(crate) fn finish(
    incoming: Incoming,
    config: &Config,
    layers: Vec<Descriptor>,
    sources: Vec<Source>,
    (reference, origin): (&Reference, Origin),
) -> Result<Image> {
    let config = serde_json::to_vec(config).map_err(|e| Error::malformed("image configuration", e))?;
    incoming.add_document(&config)?;
    let manifest = Manifest::new(Descriptor::of(&config, media::CONFIG), layers);
    let manifest = serde_json::to_vec(&manifest).map_err(|e| Error::malformed("manifest", e))?;
    incoming.add_document(&manifest)?;
    let manifest = Descriptor::of(&manifest, media::MANIFEST);
    incoming.publish(NewImage { reference: reference.clone(), manifest, index: None, origin }, sources)
}

/// A folder that holds images; its names are resolved below it.
struct Bundle {
    folder: OwnedFd,
}

/// An image of the list in an archive by `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Bundle {
    fn open(&self, name: &str) -> Result<File> {
        let path = Path::new("/").join(name.trim_start_matches('/'));
        let malformed = |why: String| Error::malformed(format!("image archive: {name}"), why);
        let found = open_in_root(self.folder.as_fd(), &path, OFlags::PATH);
        let found = File::from(found.map_err(|e| malformed(e.to_string()))?);
        // Only then is it opened: of a device, that alone may do something, and of a pipe it may never end.
        if !found.metadata().on_file("look at", &path)?.is_file() {
            return Err(malformed("it is no file".to_owned()));
        }
        let opened = Proc::open().and_then(|proc| proc.reopen(found.as_fd(), OFlags::RDONLY));
        Ok(File::from(opened.map_err(|e| Error::file("open in the image's archive", Path::new(name), e))?))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = LARGEST_DOCUMENT;
        self.open(name)?.take(limit + 1).read_to_end(&mut bytes).on_file("read", Path::new(name))?;
        if bytes.len() as u64 > limit {
            return Err(Error::malformed(format!("image archive: {name}"), "it is too long for a document"));
        }
        Ok(bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.document(&blob_name(&descriptor.digest))?;
        let found = Digest::of(&bytes);
        if found == descriptor.digest {
            return Ok(bytes);
        }
        let expected = descriptor.digest.to_string();
        Err(Error::Mismatch { what: "image archive".to_owned(), expected, found: found.to_string() })
    }

    fn has(&self, name: &str) -> bool {
        open_in_root(self.folder.as_fd(), &Path::new("/").join(name), OFlags::PATH).is_ok()
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn bundle(store: &Arc<Store>, bundle: &Bundle, options: &Options) -> Result<Vec<Image>> {
    if bundle.has("manifest.json") {
        saved(store, bundle, options)
    } else if bundle.has("index.json") {
        indexed(store, bundle, options)
    } else {
        let why = "it has neither index.json (an OCI layout) nor manifest.json (docker save); \
                   a plain root filesystem is imported as such";
        Err(Error::malformed("image archive", why))
    }
}

fn json<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::malformed(format!("image archive: {name}"), e))
}

/// By the list of `docker save`.
fn saved(store: &Arc<Store>, bundle: &Bundle, options: &Options) -> Result<Vec<Image>> {
    let list: Vec<Saved> = json("manifest.json", &bundle.document("manifest.json")?)?;
    if options.reference.is_some() && list.len() != 1 {
        return Err(several(list.len()));
    }
    let mut images = Vec::new();
    for one in &list {
        let tags = one.repo_tags.iter().flatten().map(|tag| tag.parse::<Reference>());
        let names = match &options.reference {
            Some(name) => vec![name.clone()],
            None => tags.collect::<Result<Vec<_>>>()?,
        };
        let (first, rest) = names.split_first().ok_or_else(nameless)?;
        let config_bytes = bundle.document(&one.config)?;
        let config = Config::parse(&config_bytes, one.layers.len())?;
        let incoming = Incoming::new(store)?;
        incoming.add_document(&config_bytes)?;
        let chain = chain_ids(&config.rootfs.diff_ids);
        let jobs = one.layers.iter().zip(chain).map(|(name, chain)| {
            // Which blob it is, is known only when it was read; so it is always read.
            Ok(Job { file: Some(bundle.open(name)?), blob: None, unpack: !store.has_layer(&chain) })
        });
        let taken = take(&incoming, &options.limits, jobs.collect::<Result<Vec<_>>>()?)?;
        let (layers, sources) = taken.into_iter().unzip();
        let manifest = Manifest::new(Descriptor::of(&config_bytes, media::CONFIG), layers);
        let manifest = serde_json::to_vec(&manifest).map_err(|e| Error::malformed("manifest", e))?;
        incoming.add_document(&manifest)?;
        let manifest = Descriptor::of(&manifest, media::MANIFEST);
        let new = NewImage { reference: first.clone(), manifest, index: None, origin: Origin::Imported };
        let image = incoming.publish(new, sources)?;
        let more = rest.iter().map(|name| store.tag(&image, name)).collect::<Result<Vec<_>>>()?;
        images.push(image);
        images.extend(more);
    }
    Ok(images)
}

/// By the index of an OCI layout.
fn indexed(store: &Arc<Store>, bundle: &Bundle, options: &Options) -> Result<Vec<Image>> {
    let index: Index = json("index.json", &bundle.document("index.json")?)?;
    let mut images = Vec::new();
    for entry in &index.manifests {
        let annotation = |key: &str| entry.annotations.get(key).map(String::as_str);
        let tag = annotation("org.opencontainers.image.ref.name");
        let name = match (&options.reference, index.manifests.len()) {
            (Some(name), 1) => name.clone(),
            (Some(name), _) if tag.is_some() && tag == name.tag() => name.clone(),
            (Some(_), _) => continue,
            // A bare tag is the name of no image.
            (None, _) => {
                let whole = tag.filter(|tag| tag.contains(['/', ':']));
                annotation("io.containerd.image.name").or(whole).ok_or_else(nameless)?.parse()?
            }
        };
        let (descriptor, document, index) = match Document::parse(&bundle.blob(entry)?)? {
            Document::Manifest(manifest) => (entry.clone(), manifest, None),
            Document::Index(inner) => {
                let chosen = inner.choose(&options.platform, &name.familiar())?.clone();
                match Document::parse(&bundle.blob(&chosen)?)? {
                    Document::Manifest(manifest) => (chosen, manifest, Some(entry)),
                    Document::Index(_) => {
                        return Err(Error::malformed("image archive", "an index in an index in an index"));
                    }
                }
            }
        };
        let incoming = Incoming::new(store)?;
        for part in [Some(&descriptor), Some(&document.config), index].into_iter().flatten() {
            incoming.add_document(&bundle.blob(part)?)?;
        }
        let config = Config::parse(&bundle.blob(&document.config)?, document.layers.len())?;
        let chain = chain_ids(&config.rootfs.diff_ids);
        let jobs = document.layers.iter().zip(chain).map(|(layer, chain)| {
            let (stored, unpack) = (store.has_blob(&layer.digest), !store.has_layer(&chain));
            let file = if stored && !unpack { None } else { Some(bundle.open(&blob_name(&layer.digest))?) };
            Ok(Job { file, blob: Some(layer.clone()), unpack })
        });
        let taken = take(&incoming, &options.limits, jobs.collect::<Result<Vec<_>>>()?)?;
        let sources = taken.into_iter().map(|(_, source)| source).collect();
        let index = index.map(|index| index.digest);
        let new = NewImage { reference: name, manifest: descriptor, index, origin: Origin::Imported };
        images.push(incoming.publish(new, sources)?);
    }
    if images.is_empty() { Err(several(index.manifests.len())) } else { Ok(images) }
}

fn nameless() -> Error {
    let why = "the archive does not name its image: give a name";
    Error::Refused { what: "import".to_owned(), why: why.to_owned() }
}

fn several(count: usize) -> Error {
    let why =
        format!("the archive has {count} images, none of them with this tag: give no name to import all");
    Error::Refused { what: "import".to_owned(), why }
}

/// A layer to take in.
struct Job {
    /// `None` when the store has all of it.
    file: Option<File>,
    /// What it has to be, where that is known before.
    blob: Option<Descriptor>,
    unpack: bool,
}

/// Takes in layers, several at once.
fn take(incoming: &Incoming, limits: &Limits, jobs: Vec<Job>) -> Result<Vec<(Descriptor, Source)>> {
    // Each has a thread that decompresses and one that writes.
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).min(jobs.len()).min(4);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(number) else { return done };
            done.push((number, take_one(incoming, limits, job)));
        }
    };
    let mut taken: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    });
    taken.sort_by_key(|(number, _)| *number);
    taken.into_iter().map(|(_, outcome)| outcome).collect()
}

fn take_one(incoming: &Incoming, limits: &Limits, job: &Job) -> Result<(Descriptor, Source)> {
    let (Some(file), blob) = (&job.file, &job.blob) else {
        let stored =
            job.blob.clone().ok_or_else(|| Error::malformed("image archive", "a layer without a file"))?;
        return Ok((stored, Source::Stored));
    };
    let staged = incoming.unpack(file, limits, Keep::Blob)?;
    let found = &staged.unpacked;
    if let Some(blob) = blob
        && blob.digest != found.digest
    {
        let (expected, found) = (blob.digest.to_string(), found.digest.to_string());
        return Err(Error::Mismatch { what: "layer".to_owned(), expected, found });
    }
    let descriptor = match blob {
        Some(blob) => blob.clone(),
        None => Descriptor::new(found.digest, found.size, found.compression.media_type()),
    };
    Ok((descriptor, if job.unpack { Source::Staged(staged) } else { Source::Stored }))
}
