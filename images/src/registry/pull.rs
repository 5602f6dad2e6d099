//! Pulling: manifest, configuration, then the layers, several at once, each unpacked as it arrives.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use oci_client::RegistryOperation;
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::growing::{self, Writer};
use super::source::{Retry, Source as Host, Told, blocking, is_final};
use super::{Event, Registry, Settings, refused};
use crate::digest::{Digest, HashingReader};
use crate::error::{Context, Error, Result};
use crate::layer::Limits;
use crate::manifest::{Config, Descriptor, Document, LARGEST_DOCUMENT, Manifest, chain_ids, media};
use crate::reference::Reference;
use crate::store::{Image, Incoming, Keep, NewImage, Origin, Source, Store};

const DOCUMENTS: [&str; 4] = [media::MANIFEST, media::INDEX, media::DOCKER_MANIFEST, media::DOCKER_INDEX];

/// What a pull did.
#[derive(Debug, Clone)]
pub struct Pull {
    /// The image.
    pub image: Image,
    /// Whether the name stood for another image before, or for none.
    pub changed: bool,
}

/// A manifest that was found, with what led to it.
struct Found {
    host: Host,
    descriptor: Descriptor,
    manifest: Manifest,
    documents: Vec<Vec<u8>>,
    index: Option<Digest>,
}

impl Registry {
    /// Pulls the image `reference` into the store. A pull that fails or is dropped leaves downloads to be resumed, and nothing else; one
    /// for which the disk was too full does not leave those.
    pub async fn pull(&self, store: &Arc<Store>, reference: &Reference, told: Told) -> Result<Pull> {
        let found = self.find(reference).await?;
        let Found { host, descriptor, manifest, documents, index } = found;
        let bytes = manifest.layers.iter().map(|layer| layer.size).sum();
        told.event(Event::Resolved { manifest: descriptor.digest, layers: manifest.layers.len(), bytes });
        let config_bytes = self.document(&host, &manifest.config).await?;
        let config = Config::parse(&config_bytes, manifest.layers.len())?;
        let incoming = {
            let store = store.clone();
            blocking(move || {
                let incoming = Incoming::new(&store)?;
                for document in documents.iter().chain([&config_bytes]) {
                    incoming.add_document(document)?;
                }
                Ok(Arc::new(incoming))
            })
            .await?
        };
        let sources = self.layers(&incoming, &host, &manifest, &config, &told).await?;
        let new =
            NewImage { reference: reference.clone(), manifest: descriptor, index, origin: Origin::Pulled };
        let before = store.get(reference)?;
        let image = blocking(move || {
            let incoming = Arc::into_inner(incoming).ok_or_else(|| Error::Registry {
                op: "pull".to_owned(),
                why: "a layer is still being unpacked".to_owned(),
            })?;
            incoming.publish(new, sources)
        })
        .await?;
        told.event(Event::Done);
        let changed = before.is_none_or(|before| before.manifest.digest != image.manifest.digest);
        Ok(Pull { image, changed })
    }

    /// Asks the mirrors and then the registry for the manifest.
    async fn find(&self, reference: &Reference) -> Result<Found> {
        let mut failed = None;
        for host in self.hosts(reference) {
            let found = match self.source(reference, &host, RegistryOperation::Pull).await {
                Ok(source) => self.find_at(source, reference).await,
                Err(e) => Err(e),
            };
            match found {
                Ok(found) => return Ok(found),
                // What is said in the end is what the registry itself said, since it is asked last.
                Err(e) => failed = Some(e),
            }
        }
        Err(failed.unwrap_or_else(|| Error::NotFound { kind: "image", name: reference.familiar() }))
    }

    async fn find_at(&self, host: Host, reference: &Reference) -> Result<Found> {
        let bytes = self.manifest(&host, &host.name).await?;
        let descriptor = |bytes: &[u8], kind: &Option<String>, other: &str| {
            Descriptor::of(bytes, kind.as_deref().unwrap_or(other))
        };
        match Document::parse(&bytes)? {
            Document::Manifest(manifest) => {
                let descriptor = descriptor(&bytes, &manifest.media_type, media::MANIFEST);
                Ok(Found { host, descriptor, manifest, documents: vec![bytes], index: None })
            }
            Document::Index(list) => {
                let chosen = list.choose(&self.settings.platform, &reference.familiar())?;
                let name = host.name.clone_with_digest(chosen.digest.to_string());
                let inner = self.manifest(&host, &name).await?;
                let Document::Manifest(manifest) = Document::parse(&inner)? else {
                    return Err(Error::malformed("index", "it names an index for this platform"));
                };
                let descriptor = descriptor(&inner, &manifest.media_type, media::MANIFEST);
                let index = Some(Digest::of(&bytes));
                Ok(Found { host, descriptor, manifest, documents: vec![bytes, inner], index })
            }
        }
    }

    async fn manifest(&self, host: &Host, name: &oci_client::Reference) -> Result<Vec<u8>> {
        let mut retry = Retry::new(self.settings.attempts);
        let bytes = loop {
            match host.client.pull_manifest_raw(name, &host.auth, &DOCUMENTS).await {
                Ok((bytes, _)) => break bytes.to_vec(),
                Err(e) => retry.after(&format!("pull the manifest of {name}"), e).await?,
            }
        };
        // The client checks what the registry promises; what was asked for is checked here.
        if let Some(expected) = name.digest() {
            check(&format!("manifest of {name}"), expected, Digest::of(&bytes))?;
        }
        Ok(bytes)
    }

    /// A small blob.
    async fn document(&self, host: &Host, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let what = format!("configuration of {}", host.name);
        if descriptor.size > LARGEST_DOCUMENT {
            return Err(Error::malformed(what, "it is too long for a document"));
        }
        let digest = descriptor.digest.to_string();
        let mut retry = Retry::new(self.settings.attempts);
        let bytes = loop {
            match small_blob(host, &digest, descriptor.size).await {
                Ok(bytes) => break bytes,
                Err(e) => retry.after(&format!("pull the {what}"), e).await?,
            }
        };
        check(&what, &digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// All layers, in the manifest's order.
    async fn layers(
        &self,
        incoming: &Arc<Incoming>,
        host: &Host,
        manifest: &Manifest,
        config: &Config,
        told: &Told,
    ) -> Result<Vec<Source>> {
        let permits = Arc::new(Semaphore::new(self.settings.parallel.max(1)));
        let mut tasks = JoinSet::new();
        let full = Arc::new(AtomicBool::new(false));
        for (number, (layer, chain)) in
            manifest.layers.iter().zip(chain_ids(&config.rootfs.diff_ids)).enumerate()
        {
            let job = Job {
                incoming: incoming.clone(),
                host: host.clone(),
                layer: layer.clone(),
                unpack: !incoming.store().has_layer(&chain),
                settings: self.settings.clone(),
                told: told.clone(),
                full: full.clone(),
            };
            let permits = permits.clone();
            tasks.spawn(async move {
                let _permit = permits.acquire_owned().await;
                (number, job.run().await)
            });
        }
        let mut sources: Vec<(usize, Source)> = Vec::new();
        while let Some(done) = tasks.join_next().await {
            // On an error the rest is dropped: their downloads end, and so do the readers of them.
            match done {
                Ok((number, Ok(source))) => sources.push((number, source)),
                Ok((_, Err(error))) => {
                    tasks.shutdown().await;
                    return Err(error);
                }
                Err(e) => match e.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(e) => return Err(Error::Registry { op: "pull".to_owned(), why: e.to_string() }),
                },
            }
        }
        sources.sort_by_key(|(number, _)| *number);
        Ok(sources.into_iter().map(|(_, source)| source).collect())
    }
}

fn check(what: &str, expected: &str, found: Digest) -> Result<()> {
    let found = found.to_string();
    if found == expected {
        return Ok(());
    }
    Err(Error::Mismatch { what: what.to_owned(), expected: expected.to_owned(), found })
}

/// A blob of `size` bytes as a whole; one that is longer is not read to its end.
async fn small_blob(
    host: &Host,
    digest: &str,
    size: u64,
) -> std::result::Result<Vec<u8>, OciDistributionError> {
    let mut stream = host.client.pull_blob_stream(&host.name, digest).await?;
    let mut bytes = Vec::new();
    while bytes.len() as u64 <= size
        && let Some(piece) = stream.next().await
    {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// One layer to pull.
struct Job {
    incoming: Arc<Incoming>,
    host: Host,
    layer: Descriptor,
    unpack: bool,
    settings: Settings,
    told: Told,
    /// Whether the pull ends because the disk is full.
    full: Arc<AtomicBool>,
}

/// A download that another pull may resume, unless it ends because it takes the disk's last room.
struct Partial {
    path: PathBuf,
    full: Arc<AtomicBool>,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.full.load(Ordering::SeqCst) {
            // An error has been told already, and `prune` finds what stays.
            let _ = crate::store::remove(&self.path);
        }
    }
}

impl Job {
    async fn run(self) -> Result<Source> {
        let digest = self.layer.digest;
        let path = self.incoming.store().partial(&digest);
        // Two pulls, or two layers of one, that share a blob do not write the same file: the second waits here.
        let (file, path, stored) = {
            let incoming = self.incoming.clone();
            blocking(move || Ok((lock(&path)?, path, incoming.has_blob(&digest)))).await?
        };
        // Dropped before the file, whose lock makes it this pull's own.
        let _partial = Partial { path: path.clone(), full: self.full.clone() };
        if stored {
            self.told.event(Event::Present(digest));
            crate::store::remove(&path)?;
            return self.stored().await;
        }
        let there = file.metadata().on_file("look at", &path)?.len();
        if there > 0 && there <= self.layer.size {
            match self.fetch(&path, &file, there).await {
                // What an earlier pull left may be damaged: once more, from the start.
                Err(Error::Mismatch { .. } | Error::Malformed { .. } | Error::Entry { .. }) => {}
                other => return self.noted(other),
            }
        }
        file.set_len(0).on_file("cut", &path)?;
        let fetched = self.fetch(&path, &file, 0).await;
        if let Err(
            Error::Mismatch { .. } | Error::Malformed { .. } | Error::Entry { .. } | Error::Limit { .. },
        ) = fetched
        {
            // Nobody shall resume from this.
            crate::store::remove(&path)?;
        }
        self.noted(fetched)
    }

    /// Lets all downloads of this pull know where the disk is full.
    fn noted<T>(&self, fetched: Result<T>) -> Result<T> {
        if fetched.as_ref().is_err_and(Error::is_full) {
            self.full.store(true, Ordering::SeqCst);
        }
        fetched
    }

    /// The blob is there already.
    async fn stored(self) -> Result<Source> {
        if !self.unpack {
            return Ok(Source::Stored);
        }
        let Job { incoming, layer, settings, told, .. } = self;
        blocking(move || {
            let path = incoming.blob(&layer.digest);
            let file = File::open(&path).on_file("open", &path)?;
            let staged = incoming.unpack(file, &settings.limits, Keep::Nothing)?;
            check("stored layer", &layer.digest.to_string(), staged.unpacked.digest)?;
            told.event(Event::Unpacked(layer.digest));
            Ok(Source::Staged(staged))
        })
        .await
    }

    /// Downloads the blob into `file` at `path` from byte `from` on, while it is unpacked. The file is kept on failure.
    async fn fetch(&self, path: &Path, file: &File, from: u64) -> Result<Source> {
        let (writer, reader) = growing::pair(file.try_clone().on_file("open", path)?, from);
        let (incoming, unpack, limits) = (self.incoming.clone(), self.unpack, self.settings.limits);
        let consumer = blocking(move || consume(&incoming, reader, unpack, &limits));
        // Both at once, and in this task: dropped, both end.
        let (downloaded, used) = tokio::join!(self.download(file, writer, from, path), consumer);
        // A download that failed makes the reader fail, and a reader that failed ends the download: the cause is told.
        downloaded?;
        let (found, source) = used?;
        let digest = self.layer.digest;
        check(&format!("layer of {}", self.host.name), &digest.to_string(), found)?;
        self.incoming.add_blob_file(&digest, path)?;
        self.told.event(Event::Unpacked(digest));
        Ok(source)
    }

    /// Appends the blob to `file` from byte `done` on; a transfer that breaks off is resumed.
    async fn download(&self, file: &File, writer: Writer, mut done: u64, path: &Path) -> Result<()> {
        let (blob, total) = (self.layer.digest, self.layer.size);
        let mut attempt = 1;
        while done < total && writer.wanted() {
            let before = done;
            match self.transfer(file, &writer, &mut done, path).await? {
                Ok(()) => {}
                Err(e) => {
                    // Progress is a reason to go on for longer than without.
                    attempt = if done > before { 1 } else { attempt + 1 };
                    let op = format!("pull layer {blob} of {}", self.host.name);
                    if attempt > self.settings.attempts || is_final(&e) {
                        let error = refused(op, &e);
                        writer.finish(Err(error.to_string()));
                        return Err(error);
                    }
                    self.told.event(Event::Retry { blob, from: done, why: e.to_string() });
                    tokio::time::sleep(Retry::pause(attempt)).await;
                }
            }
        }
        writer.finish(Ok(()));
        Ok(())
    }

    /// One transfer: the inner result is the registry's, the outer one this host's.
    async fn transfer(
        &self,
        file: &File,
        writer: &Writer,
        done: &mut u64,
        path: &Path,
    ) -> Result<std::result::Result<(), OciDistributionError>> {
        let (blob, total) = (self.layer.digest, self.layer.size);
        let digest = blob.to_string();
        let answer = if *done == 0 {
            self.host.client.pull_blob_stream(&self.host.name, digest.as_str()).await.map(BlobResponse::Full)
        } else {
            self.host.client.pull_blob_stream_partial(&self.host.name, digest.as_str(), *done, None).await
        };
        // A registry that cannot resume sends everything: what is there already is skipped.
        let (mut stream, mut skip) = match answer {
            Ok(BlobResponse::Full(stream)) => (stream, *done),
            Ok(BlobResponse::Partial(stream)) => (stream, 0),
            Err(e) => return Ok(Err(e)),
        };
        while let Some(piece) = stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                // All bytes came: whether they are right, the reader finds out.
                Err(_) if *done == total => return Ok(Ok(())),
                Err(e) => return Ok(Err(e.into())),
            };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= skipped as u64;
            let piece = &piece[skipped..];
            if *done + piece.len() as u64 > total {
                let why = format!("the registry sends more than the {total} bytes that the manifest says");
                return Err(Error::malformed(format!("layer {blob}"), why));
            }
            // A write to the page cache of some kilobytes, as short as handing it to another thread.
            file.write_all_at(piece, *done).on_file("write", path)?;
            *done += piece.len() as u64;
            writer.grown(*done);
            self.told.event(Event::Transferred { blob, done: *done, total });
            if !writer.wanted() {
                return Ok(Ok(()));
            }
        }
        if *done < total {
            let e = std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("it ended after {done} of {total} bytes"),
            );
            return Ok(Err(e.into()));
        }
        Ok(Ok(()))
    }
}

/// Unpacks what arrives, or only hashes it when the layer is there already.
fn consume(
    incoming: &Incoming,
    reader: growing::Reader,
    unpack: bool,
    limits: &Limits,
) -> Result<(Digest, Source)> {
    if unpack {
        let staged = incoming.unpack(reader, limits, Keep::Nothing)?;
        return Ok((staged.unpacked.digest, Source::Staged(staged)));
    }
    let hashed = HashingReader::new(reader).finish().map_err(|e| Error::malformed("layer", e))?;
    Ok((hashed.0, Source::Stored))
}

/// Opens the file at `path`, alone; waits for who has it.
fn lock(path: &Path) -> Result<File> {
    loop {
        let mut options = File::options();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(path).on_file("open", path)?;
        file.lock().on_file("lock", path)?;
        // Who had it may have finished it: then it has another name now, and is not ours to write.
        let ours = file.metadata().on_file("look at", path)?;
        if std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}
