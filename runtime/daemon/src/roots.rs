//! Images, and the containers' root filesystems made of them.

mod images;

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use croft_api::files::Commit;
use croft_api::image::{Image, Progress};
use croft_api::problem::{Kind, Problem};
use croft_images::diff::Change;
use croft_images::files::Root;
use croft_images::manifest::{Config, Defaults, Platform};
use croft_images::pack::Owners;
use croft_images::registry::{Registry, Settings};
use croft_images::snapshot::{Devices, IdRange, MountOptions, State};
use croft_images::store::Store;
use croft_images::{Digest, Error, Reference, import};

use crate::ids::Range;
use crate::spec::ImageDefaults;

pub use images::Users;

/// The store of images, and where roots are mounted.
#[derive(Debug)]
pub struct Roots {
    store: Arc<Store>,
    mounts: PathBuf,
}

/// What croftd needs to know of a container's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// What a container runs unless its user says otherwise.
    pub defaults: ImageDefaults,
    /// Who it runs as.
    pub user: Option<String>,
    /// What asks it to end.
    pub stop_signal: Option<String>,
    /// Folders that are to be volumes.
    pub volumes: Vec<String>,
    /// How its health is looked at, in Docker's form.
    pub health: Option<serde_json::Value>,
}

/// What a failure of images is to whoever asked croftd for `title`.
pub fn problem(title: &str) -> impl Fn(Error) -> Problem {
    move |error| {
        let kind = match &error {
            Error::Reference { .. } | Error::Refused { .. } | Error::Ambiguous(_) => Kind::Invalid,
            Error::NotFound { .. } => Kind::NotFound,
            Error::Exists { .. } | Error::InUse { .. } => Kind::Conflict,
            Error::Denied { .. } => Kind::Forbidden,
            Error::Registry { .. } => Kind::Upstream,
            Error::Malformed { .. } | Error::Mismatch { .. } | Error::Entry { .. } | Error::Limit { .. } => {
                Kind::Invalid
            }
            Error::File { .. } | Error::Kernel { .. } | Error::Mount { .. } | Error::Program { .. } => {
                Kind::Internal
            }
        };
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let detail = format!("{error}{cause}");
        if error.is_full() { Problem::no_space(title, detail) } else { Problem::new(kind, title, detail) }
    }
}

impl Roots {
    /// Opens the store below `root`; roots are mounted below `state`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(root: &Path, state: &Path) -> anyhow::Result<Self> {
        let mounts = state.join("roots");
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o711)
            .create(&mounts)
            .with_context(|| format!("make {}", mounts.display()))?;
        Ok(Roots { store: Arc::new(Store::open(&root.join("images"))?), mounts })
    }

    /// The id of the image that `name` means, which has to be for `platform` if that is given.
    ///
    /// # Errors
    /// [`Kind::NotFound`], with the title `image NAME`, when it has to be pulled first.
    pub fn resolve(&self, name: &str, platform: Option<&str>) -> Result<String, Problem> {
        let title = format!("image {name}");
        let platform: Option<Platform> =
            platform.map(str::parse).transpose().map_err(problem(&format!("platform of {name}")))?;
        match self.find(name, &title) {
            Ok(image) if platform.as_ref().is_some_and(|wanted| !wanted.accepts(&image.platform)) => {
                let why = format!("it is for {}", image.platform);
                Err(Problem::new(Kind::NotFound, title, why))
            }
            Ok(image) => Ok(image.config.to_string()),
            Err(problem) => Err(problem),
        }
    }

    /// What the image with this id says of containers made from it.
    ///
    /// # Errors
    /// When its configuration is not there, or damaged.
    pub fn image(&self, id: &str) -> Result<ImageInfo, Problem> {
        let title = format!("image {id}");
        let digest: Digest = id.parse().map_err(problem(&title))?;
        let text = self.store.document(&digest).map_err(problem(&title))?;
        let config: Config =
            serde_json::from_slice(&text).map_err(|e| Problem::new(Kind::Internal, title, e.to_string()))?;
        let Defaults { user, env, entrypoint, cmd, working_dir, stop_signal, volumes, healthcheck, .. } =
            config.config;
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(ImageInfo {
            defaults: ImageDefaults { entrypoint, command: cmd, env, workdir: given(working_dir) },
            user: given(user),
            stop_signal: given(stop_signal),
            volumes: volumes.into_keys().collect(),
            health: healthcheck,
        })
    }

    /// All images.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Problem> {
        let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
        for image in self.store.list().map_err(problem("list images"))? {
            let name = image.reference.familiar();
            images.entry(image.config).or_insert_with(|| shown(&image)).names.push(name);
        }
        Ok(images.into_values().collect())
    }

    /// Takes an image from a file or folder: an OCI layout, a docker-save archive, or a root filesystem's tarball.
    ///
    /// # Errors
    /// When it is none of them, or the name is none.
    pub fn import(&self, path: &str, name: &str) -> Result<Image, Problem> {
        let title = format!("import {path}");
        let failed = problem(&title);
        let reference: Reference = name.parse().map_err(&failed)?;
        let options = import::Options { reference: Some(reference.clone()), ..import::Options::default() };
        let wrong = |why: String| Problem::new(Kind::Invalid, title.clone(), format!("{path}: {why}"));
        let open = || std::fs::File::open(path).map_err(|e| wrong(e.to_string()));
        let data = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
        // A pipe may never be opened, and a device never end.
        if !data.is_dir() && !data.is_file() {
            return Err(wrong("it is neither a file nor a folder".to_owned()));
        }
        let images = if data.is_dir() {
            import::layout(&self.store, Path::new(path), &options).map_err(&failed)?
        } else {
            match import::archive(&self.store, open()?, &options) {
                Ok(images) => images,
                // No archive of images: then its files are a root.
                Err(Error::Malformed { .. }) => {
                    let defaults = Defaults { cmd: vec!["/bin/sh".to_owned()], ..Defaults::default() };
                    vec![
                        import::rootfs(&self.store, open()?, &reference, defaults, &options)
                            .map_err(&failed)?,
                    ]
                }
                Err(other) => return Err(failed(other)),
            }
        };
        let image =
            images.first().ok_or_else(|| Problem::new(Kind::Invalid, &*title, "there is no image in it"))?;
        Ok(Image { names: vec![reference.familiar()], ..shown(image) })
    }

    /// Gets an image from a registry.
    ///
    /// # Errors
    /// When the registry does not give it.
    pub async fn pull(
        &self,
        name: &str,
        platform: Option<&str>,
        tell: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Image, Problem> {
        let title = format!("pull {name}");
        let reference: Reference = name.parse().map_err(problem(&title))?;
        let platform = platform.map_or(Ok(Platform::here()), str::parse).map_err(problem(&title))?;
        let settings =
            Settings { docker_config: Some(images::docker_config()), platform, ..Settings::default() };
        let told = Arc::new(images::Teller(tell));
        let pulled =
            Registry::new(settings).pull(&self.store, &reference, told).await.map_err(problem(&title))?;
        Ok(Image { names: vec![reference.familiar()], ..shown(&pulled.image) })
    }

    /// Removes a name of an image, and with its last one what nothing else needs. `used` has who is made from which image.
    ///
    /// # Errors
    /// [`Kind::Conflict`] for the last name of an image that a container is made from.
    pub fn remove_image(&self, name: &str, used: &Users) -> Result<(), Problem> {
        let title = format!("remove image {name}");
        let failed = problem(&title);
        let image = self.find(name, &title)?;
        let others = self.store.list().map_err(&failed)?;
        let is_last = others.iter().filter(|other| other.config == image.config).count() == 1;
        if let (true, Some(container)) =
            (is_last, used.get(&image.config.to_string()).and_then(|all| all.first()))
        {
            let problem =
                Problem::new(Kind::Conflict, &*title, format!("the container {container} is made from it"));
            return Err(problem.hint(format!("croft rm {container}")));
        }
        self.store.remove(&image.reference).map_err(&failed)?;
        match self.store.prune() {
            // Somebody is adding to the store: the next removal, or `image prune`, takes it along.
            Ok(_) | Err(Error::InUse { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes the root of a container. One that is there stays.
    ///
    /// # Errors
    /// When the image is gone.
    pub fn make(&self, container: &str, image: &str) -> Result<(), Problem> {
        if self.exists(container) {
            return Ok(());
        }
        let title = format!("image {image}");
        let image = self.store.find(image).map_err(problem(&title))?;
        self.store.create_snapshot(container, &image).map(drop).map_err(problem(&title))
    }

    /// Copies what a container's root, which is not mounted, has in the folder `path` into the empty folder `to`. Nothing there is
    /// fine.
    ///
    /// # Errors
    /// When it is no folder, or cannot be copied.
    pub fn copy_out(
        &self,
        container: &str,
        path: &Path,
        to: BorrowedFd<'_>,
        title: &str,
    ) -> Result<(), Problem> {
        let view = self.store.view_snapshot(container).map_err(problem(title))?;
        Root { top: view, owners: Owners::Same }.copy_folder(path, to).map_err(problem(title))
    }

    /// The root of a container that does not run, for as long as the value lives: it cannot be mounted meanwhile.
    ///
    /// # Errors
    /// When it is mounted, or not there.
    pub fn view(&self, container: &str, title: &str) -> Result<OwnedFd, Problem> {
        self.store.view_snapshot(container).map_err(problem(title))
    }

    /// Where a container's root is mounted, when it is.
    pub fn place(&self, container: &str) -> PathBuf {
        self.mounts.join(container)
    }

    /// What a container changed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn diff(&self, container: &str, title: &str) -> Result<Vec<Change>, Problem> {
        croft_images::diff::diff(&self.store, container).map_err(problem(title))
    }

    /// Makes an image `name` of a container's image and what it changed. `changes` are what containers of it do otherwise.
    ///
    /// # Errors
    /// When the name is none, or the disk is full.
    pub fn commit(&self, container: &str, asked: &Commit, title: &str) -> Result<Image, Problem> {
        let failed = problem(title);
        let reference: Reference = asked.image.parse().map_err(&failed)?;
        let snapshot = self.store.snapshot(container).map_err(&failed)?;
        let text = self.store.document(&snapshot.config).map_err(&failed)?;
        let config: Config =
            serde_json::from_slice(&text).map_err(|e| Problem::new(Kind::Internal, title, e.to_string()))?;
        let mut defaults = config.config;
        crate::changes::apply(&mut defaults, &asked.changes)
            .map_err(|why| Problem::new(Kind::Invalid, title, why))?;
        let about = croft_images::build::Commit {
            created: Some(crate::clock::now()),
            author: asked.author.clone(),
            comment: asked.message.clone(),
            defaults: Some(defaults),
        };
        let image = croft_images::build::commit(&self.store, container, &reference, about).map_err(failed)?;
        Ok(Image { names: vec![reference.familiar()], ..shown(&image) })
    }

    /// Mounts a container's root. Gives where.
    ///
    /// # Errors
    /// When it is not there, or the kernel refuses.
    pub fn mount(&self, container: &str, ids: Option<Range>) -> Result<PathBuf, Problem> {
        let title = format!("mount the root of {container}");
        let target = self.place(container);
        std::fs::create_dir_all(&target).map_err(|e| Problem::of_file(&*title, &target, &e))?;
        let ids = ids.map(|Range { start, count }| IdRange { start, size: count });
        // Which devices it may open is the device filter's to say.
        let options = MountOptions { target: target.clone(), ids, devices: Devices::Usable };
        self.store.mount_snapshot(container, &options).map_err(problem(&title))?;
        Ok(target)
    }

    /// Unmounts a container's root; not mounted is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unmount(&self, container: &str) -> Result<(), Problem> {
        match self.store.unmount_snapshot(container) {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(problem(&format!("unmount the root of {container}"))(error)),
        }
        let place = self.place(container);
        match std::fs::remove_dir(&place) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Problem::of_file(format!("unmount the root of {container}"), &place, &e))
            }
            _ => Ok(()),
        }
    }

    /// Removes a container's root; none is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn delete(&self, container: &str) -> Result<(), Problem> {
        match self.store.snapshot(container) {
            Err(Error::NotFound { .. }) => return Ok(()),
            other => drop(other),
        }
        let removed = self.store.remove_snapshot(container);
        removed.map_err(problem(&format!("remove the root of {container}")))
    }

    /// Removes the roots that are none of these containers', that nothing was ever changed in and that are not mounted: of containers that a
    /// power cut took while they were made. What somebody wrote, or uses, is for `croft system check --fix` to remove: the records may be an
    /// old copy.
    ///
    /// # Errors
    /// When they cannot be listed, or one cannot be removed.
    pub fn delete_untouched_but(&self, known: impl Fn(&str) -> bool) -> Result<(), Problem> {
        let ids = self.store.snapshot_ids().map_err(problem("list the roots"))?;
        if ids.iter().all(|id| known(id)) {
            return Ok(());
        }
        let unused = self.all()?.into_iter().filter(|(_, is_mounted)| !is_mounted).map(|(id, _)| id);
        for id in unused.filter(|id| !known(id)) {
            let id = id.as_str();
            let title = format!("remove the root of {id}");
            let changes = self.store.changes(id).map_err(problem(&title))?;
            if std::fs::read_dir(&changes).is_ok_and(|mut changes| changes.next().is_none()) {
                tracing::info!(container = id, "the root of a container that was never made is removed");
                self.store.remove_snapshot(id).map_err(problem(&title))?;
            }
        }
        Ok(())
    }

    /// Whether a container has a root.
    pub fn exists(&self, container: &str) -> bool {
        self.store.snapshot(container).is_ok()
    }

    /// The containers that have roots, and whether those are mounted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn all(&self) -> Result<Vec<(String, bool)>, Problem> {
        let snapshots = self.store.snapshot_states().map_err(problem("list the roots"))?;
        Ok(snapshots.into_iter().map(|(id, state)| (id, state == State::Mounted)).collect())
    }
}

fn shown(image: &croft_images::store::Image) -> Image {
    Image {
        id: image.config.to_string(),
        names: Vec::new(),
        size: image.packed_size(),
        created: image.created.clone(),
        layers: image.layers.len(),
    }
}
