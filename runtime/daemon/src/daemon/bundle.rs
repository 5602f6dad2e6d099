//! What a container has beside its record: its mounted root, its bundle, its cable. Made for a start, taken back at its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use croft_api::container::{Ipc, Mount, NetworkMode};
use croft_api::problem::{Kind, Problem};
use croftd_network::addresses::Wanted;
use croftd_network::{Files, Wish};

use super::check::entries;
use super::{Prepared, SHORT_ID, Shared, blocking};
use crate::ids::Range;
use crate::joins::{For, Joined};
use crate::records::{Phase, Record};
use crate::volumes::With;
use crate::{devices, resolv, shm, spec, users};

impl Shared {
    /// Makes what a container has whether it runs or not: its folder, its addresses, its root. What is there already stays.
    ///
    /// # Errors
    /// When an address is taken, or the image is gone.
    pub(super) fn make_lasting(&self, record: &Record) -> Result<(), Problem> {
        let folder = self.folder(&record.id);
        std::fs::create_dir_all(&folder)
            .map_err(|e| Problem::of_file(format!("create {}", record.name), &folder, &e))?;
        if let NetworkMode::Networks(joins) = &record.config.network {
            let wish = Wish {
                networks: joins.iter().map(Wanted::try_from).collect::<Result<_, _>>()?,
                // As with Docker: by its name, and by its id as it is printed.
                names: vec![record.name.clone(), record.id.chars().take(SHORT_ID).collect()],
                publish: record.config.publish.clone(),
            };
            self.networks.reserve(&record.id, &wish)?;
        }
        self.roots.make(&record.id, &record.image_id)
    }

    /// Removes the folders that are none of these containers' and are empty, as those of containers are that were never made.
    pub(super) fn remove_empty_but(&self, known: impl Fn(&str) -> bool) {
        for id in entries(&self.root.join("containers")).into_iter().filter(|id| !known(id)) {
            // One with a log in it stays.
            let _ = std::fs::remove_dir(self.folder(&id));
        }
    }

    /// Mounts a container's root and writes its bundle. For a check nothing stays, be it possible or not.
    ///
    /// # Errors
    /// When the image is gone, or what was asked for is not possible.
    pub async fn prepare(self: &Arc<Self>, record: &Record, wanted: For) -> Result<Prepared, Problem> {
        let (shared, record) = (Arc::clone(self), record.clone());
        blocking(move || shared.prepare_now(&record, wanted)).await
    }

    fn prepare_now(&self, record: &Record, wanted: For) -> Result<Prepared, Problem> {
        let title = format!("start {}", record.name);
        let invalid = |detail: String| Problem::new(Kind::Invalid, title.clone(), detail);
        let failed = |path: &Path, e: std::io::Error| Problem::of_file(title.clone(), path, &e);
        let config = &record.config;
        let image = self.roots.image(&record.image_id)?;
        let edits = self.cdi.edits(&config.cdi).map_err(|e| invalid(e.to_string()))?;
        let joined = self.joined(&title, config, wanted)?;
        let ids = record.ids.or(joined.ids).map(|start| Range { start, count: crate::ids::COUNT });
        if let Some(start) = record.ids {
            self.ids.keep(start, &record.id)?;
        }
        for mount in &config.mounts {
            if let Mount::Bind { source, make, .. } = mount {
                let make = if *make { Missing::Made } else { Missing::Refused };
                bind_source(&title, Path::new(source), make, wanted)?;
            }
        }
        let bundle = self.run_folder(&record.id);
        if wanted == For::Start {
            std::fs::create_dir_all(&bundle).map_err(|e| failed(&bundle, e))?;
        }
        let user = config.user.as_deref().or(image.user.as_deref()).unwrap_or("");
        // A mount costs as much as all the rest: without names to look up there nothing in the root can be wrong.
        let is_mounted = wanted == For::Start || !users::are_numbers(user, &config.groups);
        let rootfs = match is_mounted {
            true => self.roots.mount(&record.id, ids)?,
            false => self.roots.place(&record.id),
        };
        let found = users::find(&rootfs, user).and_then(|mut user| {
            user.additional.extend(users::groups(&rootfs, &config.groups)?);
            Ok(user)
        });
        if is_mounted && wanted == For::Check {
            self.roots.unmount(&record.id)?;
        }
        let mut user = found.map_err(&invalid)?;
        user.additional.extend(&edits.additional_gids);
        let hostname = record.config.hostname.clone().unwrap_or_else(|| record.name.clone());
        let files =
            self.own_files(&bundle, record, &hostname, &joined, wanted).map_err(|e| failed(&bundle, e))?;
        let asked = devices::Asked {
            devices: &config.devices,
            nodes: &edits.device_nodes,
            privileged: config.privileged,
        };
        let nodes = devices::make(&asked, &bundle.join("devices"), ids, wanted);
        let own_shm = match config.ipc {
            Ipc::Shareable if wanted == For::Start => {
                Some(shm::make(&bundle, config.shm_size).map_err(|e| failed(&bundle.join("shm"), e))?)
            }
            _ => None,
        };
        let found = spec::Found {
            id: &record.id,
            hostname: &hostname,
            rootfs: &rootfs,
            ids,
            user,
            cgroup: &format!("/{}/{}", self.cgroup, record.id),
            joined: &joined.namespaces,
            shm: own_shm.as_deref().or(joined.shm.as_deref()),
            devices: &nodes.map_err(&invalid)?,
            edits: &edits,
            kernel: self.kernel,
            init: &self.init,
            files: &files,
            volumes: &|name| self.volumes.data(name),
            unified: self.unified,
        };
        let config =
            spec::config_json(config, &image.defaults, &found).map_err(|e| invalid(e.to_string()))?;
        let path = bundle.join("config.json");
        let text = serde_json::to_vec(&config).map_err(|e| invalid(e.to_string()))?;
        if wanted == For::Start {
            std::fs::write(&path, text).map_err(|e| failed(&path, e))?;
        }
        Ok(Prepared { bundle, joined })
    }

    /// The files that croftd gives every container; for a check only where they would be.
    pub(super) fn own_files(
        &self,
        bundle: &Path,
        record: &Record,
        hostname: &str,
        joined: &Joined,
        wanted: For,
    ) -> std::io::Result<std::collections::BTreeMap<String, PathBuf>> {
        let hosts = bundle.join("hosts");
        let resolv = bundle.join("resolv.conf");
        let names = match &record.config.network {
            NetworkMode::Networks(_) => {
                self.networks.files(&record.id, hostname).map_err(std::io::Error::other)?
            }
            // Without a network there is nobody to ask; on the host's it is the host's to say who.
            other => Files {
                hosts: format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n"),
                resolv: match other {
                    NetworkMode::Host => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
                    _ => String::new(),
                },
            },
        };
        let write = |path: &Path, text: String| match wanted {
            For::Start => std::fs::write(path, text),
            For::Check => Ok(()),
        };
        // Who shares a network shares its names, those too that are added later.
        let (hosts, resolv) = match &joined.names {
            Some(theirs) => (theirs.join("hosts"), theirs.join("resolv.conf")),
            None => {
                write(&hosts, resolv::hosts(names.hosts, &record.config))?;
                write(&resolv, resolv::resolv_conf(&names.resolv, &record.config))?;
                (hosts, resolv)
            }
        };
        let name = bundle.join("hostname");
        write(&name, format!("{hostname}\n"))?;
        let files = [("/etc/hosts", hosts), ("/etc/hostname", name), ("/etc/resolv.conf", resolv)];
        Ok(files.into_iter().map(|(target, source)| (target.to_owned(), source)).collect())
    }

    /// Takes back what [`Shared::prepare`] and [`Shared::attach`] did. What cannot be is logged, and tried again when the container is
    /// removed.
    pub async fn release(self: &Arc<Self>, record: &Record) {
        if let Err(problem) = self.try_release(record).await {
            tracing::warn!(container = record.name, %problem, "something of a stopped container is left");
        }
    }

    /// As [`Shared::release`], for who wants to know.
    ///
    /// # Errors
    /// For the first thing that cannot be taken back; the others are.
    pub async fn try_release(self: &Arc<Self>, record: &Record) -> Result<(), Problem> {
        let (shared, id, title) = (Arc::clone(self), record.id.clone(), format!("release {}", record.name));
        blocking(move || {
            let folder = shared.run_folder(&id);
            // One that fails keeps nothing of the others.
            let (detached, unmounted) = (shared.networks.detach(&id), shared.roots.unmount(&id));
            shared.left.notify_one();
            shm::unmake(&folder);
            detached.and(unmounted).and(remove_all(&folder, &title))
        })
        .await
    }

    /// Removes all of a container: its process if there is one, its files, its ids, and its record last.
    ///
    /// # Errors
    /// When something of it cannot be removed; its record stays then.
    pub async fn unmake(self: &Arc<Self>, record: &Record) -> Result<(), Problem> {
        use croft_shim::protocol::{FailureKind, Request};
        let title = format!("remove {}", record.name);
        let deleted = self.shim.ask(Request::Delete { id: record.id.clone(), exec: None, force: true }).await;
        match deleted {
            Err(failure) if failure.kind != FailureKind::NotFound => {
                return Err(crate::supervise::problem(&title, &failure));
            }
            _ => {}
        }
        self.try_release(record).await?;
        let (shared, record) = (Arc::clone(self), record.clone());
        blocking(move || {
            shared.networks.release(&record.id)?;
            shared.roots.delete(&record.id)?;
            remove_all(&shared.folder(&record.id), &title)?;
            // Last: until here the record says whose they are.
            match record.phase {
                Phase::Making => shared.volumes.remove_with(&shared.records, &record, With::Failed)?,
                _ if record.volumes_go => {
                    shared.volumes.remove_with(&shared.records, &record, With::Anonymous)?;
                }
                _ => {}
            }
            record.ids.iter().try_for_each(|start| shared.ids.give_back(*start))?;
            shared.records.remove(&record)?;
            shared.happened("delete", &record.name, None);
            Ok(())
        })
        .await
    }
}

/// What becomes of a bind mount whose source is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// A folder is made.
    Made,
    /// It is an error.
    Refused,
}

/// Looks for the source of a bind mount, and makes it for a start where that is wanted.
fn bind_source(title: &str, source: &Path, missing: Missing, wanted: For) -> Result<(), Problem> {
    match std::fs::metadata(source) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Problem::of_file(title, source, &e)),
        Err(_) if missing == Missing::Refused => {
            let why = format!("the source of a bind mount is not there: {}", source.display());
            Err(Problem::new(Kind::Invalid, title, why).hint("make it; --volume makes a folder by itself"))
        }
        Err(_) if wanted == For::Start => {
            let mut folders = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(folders.recursive(true), 0o755)
                .create(source)
                .map_err(|e| Problem::of_file(title, source, &e))
        }
        _ => Ok(()),
    }
}

/// Removes a folder and what is in it; none is fine.
///
/// # Errors
/// When something of it stays.
pub(super) fn remove_all(folder: &Path, title: &str) -> Result<(), Problem> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Problem::of_file(title, folder, &e)),
        _ => Ok(()),
    }
}
