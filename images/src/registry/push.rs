//! Pushing: the blobs that the registry lacks, then the manifest.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;

use super::source::{Retry, Source as Host, Told, blocking};
use super::{Event, Registry};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::manifest::media;
use crate::reference::Reference;
use crate::store::{Image, Store};

/// Bytes that are read and sent at once.
const PIECE: u64 = 1 << 20;

impl Registry {
    /// Pushes the image under the name `reference`, and tells the digest of its manifest.
    pub async fn push(
        &self,
        store: &Arc<Store>,
        image: &Image,
        reference: &Reference,
        told: Told,
    ) -> Result<Digest> {
        if reference.digest().is_some() {
            let why = "push to a tag: the digest follows from the image".to_owned();
            return Err(Error::Reference { text: reference.to_string(), why });
        }
        let hold = {
            let store = store.clone();
            blocking(move || store.hold()).await?
        };
        let manifest_bytes = store.document(&image.manifest.digest)?;
        let manifest = store.manifest(image)?;
        let host = self.source(reference, reference.registry(), RegistryOperation::Push).await?;
        let bytes = manifest.layers.iter().map(|layer| layer.size).sum();
        told.event(Event::Resolved { manifest: image.manifest.digest, layers: manifest.layers.len(), bytes });
        for part in manifest.layers.iter().chain([&manifest.config]) {
            self.push_blob(store, &host, part.digest, part.size, &told).await?;
        }
        let kind = manifest.media_type.as_deref().unwrap_or(media::MANIFEST);
        let kind = HeaderValue::from_str(kind).map_err(|e| Error::malformed("manifest", e))?;
        let mut retry = Retry::new(self.settings.attempts);
        while let Err(e) =
            host.client.push_manifest_raw(&host.name, manifest_bytes.clone(), kind.clone()).await
        {
            retry.after(&format!("push the manifest of {reference}"), e).await?;
        }
        drop(hold);
        told.event(Event::Done);
        Ok(image.manifest.digest)
    }

    async fn push_blob(
        &self,
        store: &Store,
        host: &Host,
        blob: Digest,
        total: u64,
        told: &Told,
    ) -> Result<()> {
        let digest = blob.to_string();
        let mut retry = Retry::new(self.settings.attempts);
        let there = loop {
            match host.client.blob_exists(&host.name, &digest).await {
                Ok(there) => break there,
                Err(e) => retry.after(&format!("ask {} for blob {blob}", host.name), e).await?,
            }
        };
        if there {
            told.event(Event::Present(blob));
            return Ok(());
        }
        let path = store.blob(&blob);
        let file = Arc::new(File::open(&path).on_file("open", &path)?);
        let mut retry = Retry::new(self.settings.attempts);
        loop {
            let pieces = pieces(file.clone(), blob, total, told.clone());
            match host.client.push_blob_stream(&host.name, pieces, &digest, Some(total)).await {
                Ok(_) => return Ok(()),
                Err(e) => retry.after(&format!("push blob {blob} to {}", host.name), e).await?,
            }
        }
    }
}

type Piece = std::result::Result<Bytes, OciDistributionError>;

/// The file's content, read piece by piece as it is sent.
fn pieces(
    file: Arc<File>,
    blob: Digest,
    total: u64,
    told: Told,
) -> impl stream::Stream<Item = Piece> + Send + 'static {
    stream::try_unfold(0, move |done| {
        let (file, told) = (file.clone(), told.clone());
        async move {
            if done >= total {
                return Ok(None);
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; usize::try_from(PIECE.min(total - done)).unwrap_or_default()];
                file.read_exact_at(&mut buffer, done).map(|()| buffer)
            });
            let buffer = read.await.map_err(std::io::Error::other)??;
            let done = done + buffer.len() as u64;
            told.event(Event::Transferred { blob, done, total });
            Ok(Some((Bytes::from(buffer), done)))
        }
    })
}
