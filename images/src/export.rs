//! Images to files: an OCI layout as a folder, or an archive that is an OCI layout and what `docker load` reads, both in one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::manifest::{Descriptor, Index, media};
use crate::store::{Image, Store};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image in the list that `docker load` reads.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes the images into the folder `folder`, which is made: an OCI layout.
pub fn layout(store: &Store, images: &[Image], folder: &Path) -> Result<()> {
    let _hold = store.hold()?;
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).on_file("make folder", &blobs)?;
    for digest in parts(images) {
        let (from, to) = (store.blob(&digest), blobs.join(digest.hex()));
        fs::copy(&from, &to).on_file("copy", &from)?;
    }
    for (name, bytes) in [("oci-layout", LAYOUT), ("index.json", &index(images)?)] {
        let path = folder.join(name);
        fs::write(&path, bytes).on_file("write", &path)?;
    }
    Ok(())
}

/// Writes an archive of the images: an OCI layout that `docker load`, `podman load` and skopeo read too.
pub fn archive(store: &Store, images: &[Image], to: impl Write) -> Result<()> {
    let _hold = store.hold()?;
    let mut archive = tar::Builder::new(to);
    let whole = Path::new("image archive");
    let mut add = |name: &str, size: u64, content: &mut dyn std::io::Read| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, name, content).on_file("write", whole)
    };
    for digest in parts(images) {
        let path = store.blob(&digest);
        let mut file = File::open(&path).on_file("open", &path)?;
        let size = file.metadata().on_file("look at", &path)?.len();
        add(&blob(&digest), size, &mut file)?;
    }
    let saved: Vec<Saved> = images
        .iter()
        .map(|image| Saved {
            config: blob(&image.config),
            repo_tags: image.reference.tag().map(|_| tagged(image)).into_iter().collect(),
            layers: image.layers.iter().map(|layer| blob(&layer.blob.digest)).collect(),
        })
        .collect();
    let saved = serde_json::to_vec(&saved).map_err(|e| Error::malformed("image archive", e))?;
    for (name, bytes) in [("oci-layout", LAYOUT), ("index.json", &index(images)?), ("manifest.json", &saved)]
    {
        add(name, bytes.len() as u64, &mut &*bytes)?;
    }
    archive.into_inner().and_then(|mut to| to.flush()).on_file("write", whole)
}

/// The name without a digest: `docker load` takes no other.
fn tagged(image: &Image) -> String {
    let name = image.reference.familiar();
    name.split('@').next().unwrap_or(&name).to_owned()
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Every blob that the images need, each once.
fn parts(images: &[Image]) -> BTreeSet<Digest> {
    let of = |image: &Image| {
        let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.blob.digest).collect();
        [image.manifest.digest, image.config].into_iter().chain(layers)
    };
    images.iter().flat_map(of).collect()
}

fn index(images: &[Image]) -> Result<Vec<u8>> {
    let manifests = images.iter().map(|image| {
        let mut entry = Descriptor { platform: Some(image.platform.clone()), ..image.manifest.clone() };
        let tag = image.reference.tag().map(str::to_owned);
        entry.annotations.extend(tag.map(|tag| ("org.opencontainers.image.ref.name".to_owned(), tag)));
        entry.annotations.insert("io.containerd.image.name".to_owned(), image.reference.to_string());
        entry
    });
    let index = Index {
        schema_version: 2,
        media_type: Some(media::INDEX.to_owned()),
        manifests: manifests.collect(),
    };
    serde_json::to_vec(&index).map_err(|e| Error::malformed("image archive", e))
}
