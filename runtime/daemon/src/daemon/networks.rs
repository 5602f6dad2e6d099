//! What containers have of networks, while they run and while they do not.

use std::os::fd::AsFd;
use std::sync::Arc;

use croft_api::container::{Container, NetworkMode};
use croft_api::network::{Join, Rates};
use croft_api::problem::{Kind, Problem};
use croftd_network::addresses;

use super::{Shared, blocking};
use crate::container::View;
use crate::joins::{For, Joined};
use crate::records::Record;

/// A change of what networks a container is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkChange {
    /// It joins one.
    Join(Join),
    /// It leaves the one of this name.
    Leave(String),
    /// What goes between it and this one is limited to so much.
    Limit(String, Rates),
}

impl NetworkChange {
    fn title(&self, container: &str) -> String {
        match self {
            NetworkChange::Join(join) => format!("connect {container} to network {}", join.network),
            NetworkChange::Limit(network, _) => {
                format!("limit what goes between {container} and network {network}")
            }
            NetworkChange::Leave(network) => format!("disconnect {container} from network {network}"),
        }
    }
}

fn network_namespace(pid: i32) -> Result<std::fs::File, Problem> {
    let path = format!("/proc/{pid}/ns/net");
    std::fs::File::open(&path)
        .map_err(|e| Problem::new(Kind::Internal, "enter a container's network", format!("{path}: {e}")))
}

impl Shared {
    /// Puts a container's cable into its network namespace: between its creation and its start.
    ///
    /// # Errors
    /// When the host's side cannot be set up.
    pub async fn attach(self: &Arc<Self>, record: &Record, pid: i32) -> Result<(), Problem> {
        if !matches!(record.config.network, NetworkMode::Networks(_)) {
            return Ok(());
        }
        let (shared, id) = (Arc::clone(self), record.id.clone());
        blocking(move || shared.networks.attach(&id, network_namespace(pid)?.as_fd())).await?;
        self.has_joined(&record.id);
        Ok(())
    }

    /// Has a container's packets take the shortcut soon.
    fn has_joined(&self, id: &str) {
        // Nobody listens any more when croftd ends; the next one looks at all.
        let _ = self.joined.send(id.to_owned());
    }

    /// Has a running container what its networks say, where a croftd before this one did not finish.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub async fn complete(self: &Arc<Self>, record: &Record, pid: i32) -> Result<(), Problem> {
        let (shared, id) = (Arc::clone(self), record.id.clone());
        blocking(move || shared.networks.complete(&id, network_namespace(pid)?.as_fd())).await?;
        self.has_joined(&record.id);
        Ok(())
    }

    /// Lets a container join a network or leave one; `pid` is its process, if it runs.
    ///
    /// # Errors
    /// When it cannot; it has what it had before then.
    pub async fn change_networks(
        self: &Arc<Self>,
        record: &Record,
        pid: Option<i32>,
        change: NetworkChange,
    ) -> Result<(), Problem> {
        let title = change.title(&record.name);
        let asked = title.clone();
        if !matches!(record.config.network, NetworkMode::Networks(_)) {
            let why = "it was made with --network none, host or another container's";
            let hint = "make it anew, on a network: croft run --network NETWORK";
            return Err(Problem::new(Kind::WrongState, title, why).hint(hint));
        }
        let (shared, record) = (Arc::clone(self), record.clone());
        blocking(move || {
            let namespace = pid.map(network_namespace).transpose()?;
            let namespace = namespace.as_ref().map(AsFd::as_fd);
            match change {
                NetworkChange::Join(join) => {
                    let wanted = addresses::Wanted::try_from(&join)?;
                    shared.networks.connect(&record.id, &wanted, namespace)?;
                    shared.has_joined(&record.id);
                }
                NetworkChange::Leave(network) => {
                    shared.networks.disconnect(&record.id, &network, namespace)?;
                }
                NetworkChange::Limit(network, rates) => shared.networks.limit(&record.id, &network, rates)?,
            }
            // What runs has them mounted, one by one: written in place.
            let bundle = shared.run_folder(&record.id);
            if namespace.is_some() {
                let hostname = record.config.hostname.clone().unwrap_or_else(|| record.name.clone());
                let written = shared.own_files(&bundle, &record, &hostname, &Joined::default(), For::Start);
                written.map_err(|e| Problem::of_file(asked, &bundle, &e))?;
            }
            Ok(())
        })
        .await
        .map_err(|problem| Problem { title, ..problem })
    }

    /// A container as the API shows it.
    pub fn shown(&self, view: View) -> Container {
        let View { record, state, pid, health } = view;
        let networks = self.networks.connections(&record.id);
        Container {
            addresses: networks.iter().flat_map(|network| network.addresses.clone()).collect(),
            networks,
            id: record.id,
            name: record.name,
            state,
            pid,
            health,
            exit: record.exit,
            created: record.created,
            started: record.started,
            image_id: record.image_id,
            ids: record.ids,
            restarts: record.restarts,
            config: record.config,
        }
    }
}
