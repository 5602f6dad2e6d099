//! Which addresses containers have, whether they run or not.

use croft_api::network::Connection;
use croft_api::problem::{Kind, Problem};

use super::addresses::{Taken, Wanted};
use super::known::{self, Known};
use super::record::{Endpoint, Lease};
use super::{DEFAULT, Networks, Wish};

impl Known {
    /// Finds addresses for a container that has `lease`, in one more network.
    ///
    /// # Errors
    /// When the network is not there, or is one of the container's already, or an address is taken or none left.
    pub(super) fn choose(&self, lease: &Lease, wanted: &Wanted) -> Result<Endpoint, Problem> {
        let title = format!("join network {}", wanted.network);
        let of = self.network(&wanted.network, title.clone())?;
        if lease.endpoints.iter().any(|endpoint| endpoint.network == wanted.network) {
            return Err(Problem::new(Kind::Conflict, title, "the container is in it already"));
        }
        let none = Taken::default();
        let chosen = self.taken.get(&wanted.network).unwrap_or(&none).choose(of, wanted)?;
        Ok(Endpoint { interface: lease.free_interface(), ..chosen })
    }
}

impl Networks {
    /// Takes addresses for a container; they are its own until [`Networks::release`], whatever happens but a power cut in the seconds
    /// after. One that has a lease keeps it.
    ///
    /// # Errors
    /// When a network is not there, or an address taken, or none left.
    pub fn reserve(&self, container: &str, wish: &Wish) -> Result<Lease, Problem> {
        if wish.networks.iter().any(|wanted| wanted.network == DEFAULT) {
            self.make_default()?;
        }
        let mut known = self.known();
        if let Some(lease) = known.leases.get(container) {
            return Ok(lease.clone());
        }
        if let Some(port) = known::twice(&wish.publish) {
            let why = format!("port {} of the host is to lead to two of the container's", port.host);
            return Err(Problem::new(Kind::Invalid, "publish ports", why).hint("publish another one"));
        }
        let (names, publish) = (wish.names.clone(), wish.publish.clone());
        let mut lease = Lease { container: container.to_owned(), names, endpoints: Vec::new(), publish };
        for wanted in &wish.networks {
            let endpoint = known.choose(&lease, wanted)?;
            lease.endpoints.push(endpoint);
        }
        self.leases.save_at_leisure(container, &lease)?;
        known.take(&lease);
        known.leases.insert(container.to_owned(), lease.clone());
        Ok(lease)
    }

    /// Gives a container's addresses back, when it is removed. Of one that has none nothing is to be done.
    ///
    /// # Errors
    /// When it is still attached and cannot be detached, or the record cannot be removed.
    pub fn release(&self, container: &str) -> Result<(), Problem> {
        self.detach(container)?;
        let mut known = self.known();
        self.leases.remove(container)?;
        if let Some(lease) = known.leases.remove(container) {
            known.give_back(&lease);
        }
        Ok(())
    }

    /// What a container has, if it has anything.
    pub fn lease(&self, container: &str) -> Option<Lease> {
        self.known().leases.get(container).cloned()
    }

    /// The containers that have addresses: those that are gone should give them back.
    pub fn leased(&self) -> Vec<String> {
        self.known().leases.keys().cloned().collect()
    }

    /// What a container has in each of its networks.
    pub fn connections(&self, container: &str) -> Vec<Connection> {
        let known = self.known();
        let Some(lease) = known.leases.get(container) else { return Vec::new() };
        let shown = |endpoint: &Endpoint| Connection {
            network: endpoint.network.clone(),
            interface: endpoint.interface.clone(),
            addresses: known
                .networks
                .get(&endpoint.network)
                .map(|of| of.addresses(endpoint))
                .unwrap_or_default(),
            mac: endpoint.mac.to_string(),
            aliases: endpoint.aliases.clone(),
            limits: endpoint.limits,
        };
        lease.endpoints.iter().map(shown).collect()
    }
}
