//! Images: what is asked of them beyond making containers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use croft_api::image::{BuildRootfs, Details, Image, Login, Progress, PrunedImages, Step};
use croft_api::problem::{Kind, Problem};
use croft_images::build::{self, Debian};
use croft_images::registry::{Credentials, Event, Registry, Settings};
use croft_images::{Reference, export, import};

use super::{Roots, problem, shown};

/// Who makes containers from images: the images' ids, with the containers' names.
pub type Users = BTreeMap<String, Vec<String>>;

impl Roots {
    /// The image that `name` means.
    ///
    /// # Errors
    /// [`Kind::NotFound`] with the nearest name.
    pub(super) fn find(&self, name: &str, title: &str) -> Result<croft_images::store::Image, Problem> {
        let missing = match self.store.find(name) {
            Ok(image) => return Ok(image),
            Err(error) => problem(title)(error),
        };
        if missing.kind != Kind::NotFound {
            return Err(missing);
        }
        let known: Vec<String> = self.list()?.into_iter().flat_map(|image| image.names).collect();
        // `latest` is what nobody types.
        let bare: Vec<&str> = known.iter().map(|name| name.strip_suffix(":latest").unwrap_or(name)).collect();
        let asked = name.strip_suffix(":latest").unwrap_or(name);
        Err(match croft_api::names::nearest(asked, bare.into_iter()) {
            Some(near) => missing.hint(format!("there is {near}")),
            None => missing.hint(format!("croft image pull {name}, or croft image ls for what there is")),
        })
    }

    /// All that is known of an image.
    ///
    /// # Errors
    /// When there is none of that name, or its documents are damaged.
    pub fn details(&self, name: &str, users: &Users) -> Result<Details, Problem> {
        let title = format!("image {name}");
        let failed = problem(&title);
        let image = self.find(name, &title)?;
        let config = self.store.config(&image).map_err(&failed)?;
        let names =
            self.store.list().map_err(&failed)?.into_iter().filter(|other| other.config == image.config);
        let internal = |e: serde_json::Error| Problem::new(Kind::Internal, &*title, e.to_string());
        let id = image.config.to_string();
        Ok(Details {
            names: names.map(|other| other.reference.familiar()).collect(),
            digest: image.manifest.digest.to_string(),
            platform: format!("{}/{}", image.platform.os, image.platform.architecture),
            created: image.created.clone(),
            size: image.packed_size(),
            layers: image.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
            config: serde_json::to_value(&config.config).map_err(internal)?,
            used_by: users.get(&id).cloned().unwrap_or_default(),
            id,
        })
    }

    /// How an image came about, the newest step first.
    ///
    /// # Errors
    /// As [`Roots::details`].
    pub fn history(&self, name: &str) -> Result<Vec<Step>, Problem> {
        let title = format!("history of {name}");
        let image = self.find(name, &title)?;
        let steps = self.store.history(&image).map_err(problem(&title))?;
        let step =
            |(step, layer): (croft_images::manifest::History, Option<croft_images::store::ImageLayer>)| {
                Step {
                    size: layer.as_ref().map_or(0, |layer| layer.blob.size),
                    layer: layer.map(|layer| layer.blob.digest.to_string()),
                    created: step.created,
                    created_by: step.created_by,
                    author: step.author,
                    comment: step.comment,
                }
            };
        Ok(steps.into_iter().map(step).collect())
    }

    /// Gives an image another name too.
    ///
    /// # Errors
    /// When there is no such image, or the name is none.
    pub fn tag(&self, name: &str, new: &str) -> Result<(), Problem> {
        let title = format!("tag {name} as {new}");
        let reference: Reference = new.parse().map_err(problem(&title))?;
        let image = self.find(name, &title)?;
        self.store.tag(&image, &reference).map(drop).map_err(problem(&title))
    }

    /// Sends an image to the registry that its name says.
    ///
    /// # Errors
    /// When there is no such image, or the registry does not take it.
    pub async fn push(
        &self,
        name: &str,
        tell: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Image, Problem> {
        let title = format!("push {name}");
        let image = self.find(name, &title)?;
        let settings = Settings { docker_config: Some(docker_config()), ..Settings::default() };
        let registry = Registry::new(settings);
        let pushed = registry.push(&self.store, &image, &image.reference, Arc::new(Teller(tell)));
        pushed.await.map_err(problem(&title))?;
        Ok(Image { names: vec![image.reference.familiar()], ..shown(&image) })
    }

    /// Writes images to an archive that is an OCI layout and what `docker load` reads.
    ///
    /// # Errors
    /// When one is not there, before anything is written; when it cannot be written.
    pub fn save(&self, names: &[String], to: impl Write) -> Result<(), Problem> {
        let title = format!("export {}", names.join(", "));
        let images = names.iter().map(|name| self.find(name, &title)).collect::<Result<Vec<_>, _>>()?;
        if images.is_empty() {
            return Err(Problem::new(Kind::Invalid, title, "no image is named"));
        }
        export::archive(&self.store, &images, to).map_err(problem(&title))
    }

    /// Takes images with their names from an archive that `docker save` or [`Roots::save`] wrote.
    ///
    /// # Errors
    /// When it is none.
    pub fn load(&self, from: impl Read + Send) -> Result<Vec<Image>, Problem> {
        let loaded =
            import::archive(&self.store, from, &import::Options::default()).map_err(problem("load"))?;
        Ok(loaded
            .iter()
            .map(|image| Image { names: vec![image.reference.familiar()], ..shown(image) })
            .collect())
    }

    /// Makes an image of Debian's packages. Takes minutes.
    ///
    /// # Errors
    /// When mmdebstrap fails.
    pub fn build_rootfs(&self, asked: &BuildRootfs) -> Result<Image, Problem> {
        let title = format!("build {}", asked.name);
        let failed = problem(&title);
        let reference: Reference = asked.name.parse().map_err(&failed)?;
        let BuildRootfs { suite, variant, packages, mirrors, .. } = asked.clone();
        let variant = if variant.is_empty() { "minbase".to_owned() } else { variant };
        let what = Debian { suite, variant, packages, mirrors, arguments: Vec::new() };
        let image =
            build::debian(&self.store, &what, &reference, &import::Options::default()).map_err(failed)?;
        Ok(Image { names: vec![reference.familiar()], ..shown(&image) })
    }

    /// Removes what no image and no container needs; with `all`, the names too of images that no container is made from.
    ///
    /// # Errors
    /// When an image is just being added or used.
    pub fn prune(&self, all: bool, users: &Users) -> Result<PrunedImages, Problem> {
        let title = "prune images";
        let mut names = Vec::new();
        if all {
            for image in self.store.list().map_err(problem(title))? {
                if !users.contains_key(&image.config.to_string()) {
                    self.store.remove(&image.reference).map_err(problem(title))?;
                    names.push(image.reference.familiar());
                }
            }
        }
        let before = self.layer_bytes();
        let pruned = self.store.prune().map_err(problem(title))?;
        let unpacked = before.saturating_sub(self.layer_bytes());
        Ok(PrunedImages { names, layers: pruned.layers, blobs: pruned.blobs, bytes: pruned.bytes + unpacked })
    }

    fn layer_bytes(&self) -> u64 {
        self.store.disk_usage().map_or(0, |usage| usage.layer_bytes)
    }

    /// Bytes of images on the disk, and how many of them nothing needs but images that no container is made from.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn usage(&self, users: &Users) -> Result<(u64, u64), Problem> {
        let failed = problem("look at the disk");
        let usage = self.store.disk_usage().map_err(&failed)?;
        let total = usage.blob_bytes + usage.layer_bytes + usage.partial_bytes;
        let mut used = BTreeSet::new();
        for image in self.store.list().map_err(&failed)? {
            if users.contains_key(&image.config.to_string()) {
                let documents = [self.store.blob(&image.manifest.digest), self.store.blob(&image.config)];
                let index = image.index.map(|index| self.store.blob(&index));
                used.extend(documents.into_iter().chain(index));
                for layer in &image.layers {
                    used.insert(self.store.blob(&layer.blob.digest));
                    used.extend(self.store.layer(&layer.chain_id).parent().map(Path::to_owned));
                }
            }
        }
        let size = |path: &PathBuf| match path.is_dir() {
            true => croft_images::store::size(path).map_or(0, |(_, bytes)| bytes),
            false => path.metadata().map_or(0, |data| std::os::unix::fs::MetadataExt::blocks(&data) * 512),
        };
        let needed: u64 = used.iter().map(size).sum();
        Ok((total, total.saturating_sub(needed)))
    }

    /// Bytes of a container's writable layer on the disk.
    pub fn written(&self, container: &str) -> u64 {
        let changes = self.store.changes(container).ok();
        changes.and_then(|folder| croft_images::store::size(&folder).ok()).map_or(0, |(_, bytes)| bytes)
    }

    /// Asks a registry whether it knows the user, and keeps what to say to it.
    ///
    /// # Errors
    /// When it does not, or does not answer.
    pub async fn log_in(&self, login: Login) -> Result<(), Problem> {
        let title = format!("log in at {}", login.registry);
        let Login { registry, user, password } = login;
        Registry::new(Settings::default())
            .log_in(&registry, &user, &password)
            .await
            .map_err(problem(&title))?;
        let kept = move || {
            let file = docker_config();
            if let Some(folder) = file.parent() {
                let made =
                    std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
                        .create(folder);
                made.map_err(|e| {
                    Problem::new(Kind::Internal, &*title, format!("{}: {e}", folder.display()))
                })?;
            }
            Credentials::new(&file).log_in(&registry, &user, &password).map_err(problem(&title))
        };
        crate::daemon::blocking(kept).await
    }

    /// Forgets what to say to a registry.
    ///
    /// # Errors
    /// When there is nothing to forget.
    pub fn log_out(&self, registry: &str) -> Result<(), Problem> {
        let title = format!("log out of {registry}");
        match Credentials::new(&docker_config()).log_out(registry).map_err(problem(&title))? {
            true => Ok(()),
            false => Err(Problem::new(Kind::NotFound, title, "nobody is logged in there")),
        }
    }
}

/// Where Docker's users keep their credentials: those of who runs croftd.
pub(super) fn docker_config() -> PathBuf {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".docker");
    folder.unwrap_or_else(home).join("config.json")
}

/// Passes on how far a pull or push is.
pub(super) struct Teller<T>(pub T);

impl<T: Fn(Progress) + Send + Sync> croft_images::registry::Progress for Teller<T> {
    fn event(&self, event: Event) {
        let progress = match event {
            Event::Transferred { blob, done, total } => {
                Progress::Layer { digest: blob.to_string(), done, total }
            }
            Event::Present(blob) => Progress::Present { digest: blob.to_string() },
            Event::Retry { blob, from, why } => Progress::Retry { digest: blob.to_string(), from, why },
            Event::Unpacked(blob) => Progress::Unpacked { digest: blob.to_string() },
            Event::Resolved { .. } | Event::Done => return,
        };
        (self.0)(progress);
    }
}
