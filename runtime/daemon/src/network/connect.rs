//! Containers join and leave networks, running or not.
//!
//! What a container should have is its lease, which changes first. What it has is compared with that and made so, by the same steps whether
//! somebody asked for it now or a croftd that was killed had begun with it.

use std::os::fd::BorrowedFd;

use croft_api::network::{Join, Rates};
use croft_api::problem::{Kind, Problem};

use super::addresses::Wanted;
use super::check::minus;
use super::links::Links;
use super::record::{Attached, Endpoint, Lease};
use super::{DEFAULT, Networks, firewall, of_failure};

impl Networks {
    /// Lets a container join one more network, at once if it runs in `namespace`.
    ///
    /// # Errors
    /// When the network is not there or the container's already, an address is taken, or the kernel does not want to; the container has what
    /// it had before then.
    pub fn connect(
        &self,
        container: &str,
        wanted: &Wanted,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), Problem> {
        if wanted.network == DEFAULT {
            self.make_default()?;
        }
        let title = format!("join network {}", wanted.network);
        let before = self.lease_of(&title, container)?;
        {
            let mut known = self.known();
            let endpoint = known.choose(&before, wanted)?;
            let mut lease = before.clone();
            lease.endpoints.push(endpoint.clone());
            self.leases.save(container, &lease)?;
            known.take_one(&endpoint);
            known.leases.insert(container.to_owned(), lease);
        }
        let Some(namespace) = namespace else { return Ok(()) };
        let joined = self.settle(&title, container, namespace);
        if joined.is_err() {
            let back = self.leave(before).and_then(|()| self.settle(&title, container, namespace));
            if let Err(problem) = back {
                tracing::error!(container, %problem, "something of a network that could not be joined is left");
            }
        }
        joined
    }

    /// Lets a container leave a network, at once if it runs in `namespace`. What its published ports lead to, and its way out, are the
    /// next network's then.
    ///
    /// # Errors
    /// When it is not in it, or the kernel does not want to; what is left then is finished by [`Networks::mend`].
    pub fn disconnect(
        &self,
        container: &str,
        network: &str,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), Problem> {
        let title = format!("leave network {network}");
        let mut lease = self.lease_of(&title, container)?;
        let count = lease.endpoints.len();
        lease.endpoints.retain(|endpoint| endpoint.network != network);
        if lease.endpoints.len() == count {
            let problem = Problem::new(Kind::NotFound, title, "the container is not in it");
            return Err(problem.hint("croft inspect shows its networks"));
        }
        self.leave(lease)?;
        namespace.map_or(Ok(()), |namespace| self.settle(&title, container, namespace))
    }

    /// Limits what goes between a container and a network, at once if it runs.
    ///
    /// # Errors
    /// When the container is not in the network, the rates make no sense, or the kernel does not want to.
    pub fn limit(&self, container: &str, network: &str, limits: Rates) -> Result<(), Problem> {
        let title = format!("limit what goes through network {network}");
        Wanted::try_from(&Join { limits, ..Join::any(network) })?;
        let mut lease = self.lease_of(&title, container)?;
        let of = |endpoint: &Endpoint| endpoint.network == network;
        let Some(endpoint) = lease.endpoints.iter_mut().find(|endpoint| of(endpoint)) else {
            return Err(Problem::new(Kind::NotFound, title, "the container is not in it"));
        };
        endpoint.limits = limits;
        self.leases.save(container, &lease)?;
        self.known().leases.insert(container.to_owned(), lease.clone());
        let Some(attached) = self.attached.read::<Attached>(container)? else { return Ok(()) };
        let attached = Attached { lease, ..attached };
        self.attached.save(container, &attached)?;
        let mut ends = attached.ports.iter().zip(&attached.lease.endpoints);
        let Some((port, endpoint)) = ends.find(|(_, endpoint)| of(endpoint)) else { return Ok(()) };
        let failed = |f| of_failure(&title, f);
        let mut host = Links::open().map_err(failed)?;
        let setting_up = self.setting_up();
        let there = host.find(port).map_err(failed)?;
        let of = attached.networks.iter().find(|of| of.name == network);
        if let Some(of) = of {
            self.lengthen(of, endpoint, &setting_up)?;
        }
        host.limit(port, limits).map_err(failed)?;
        if let Some((of, there)) = of.zip(there) {
            self.shorten_at(&mut host, (of, endpoint), &there, &setting_up)?;
        }
        Ok(())
    }

    /// Gives a container's addresses back that are not in `lease`.
    fn leave(&self, lease: Lease) -> Result<(), Problem> {
        let mut known = self.known();
        self.leases.save(&lease.container, &lease)?;
        let stays = |endpoint: &Endpoint| lease.endpoints.iter().any(|e| e.network == endpoint.network);
        let before = known.leases.insert(lease.container.clone(), lease.clone());
        let left = before.into_iter().flat_map(|before| before.endpoints);
        left.filter(|endpoint| !stays(endpoint)).for_each(|endpoint| known.give_back_one(&endpoint));
        Ok(())
    }

    /// Gives a container another name, by which others find it from now on.
    ///
    /// # Errors
    /// When that cannot be recorded.
    pub fn rename(&self, container: &str, before: &str, name: &str) -> Result<(), Problem> {
        let title = format!("rename {before}");
        let Ok(mut lease) = self.lease_of(&title, container) else { return Ok(()) };
        lease.names.iter_mut().filter(|known| *known == before).for_each(|known| name.clone_into(known));
        self.leases.save(container, &lease)?;
        self.known().leases.insert(container.to_owned(), lease.clone());
        let Some(attached) = self.attached.read::<Attached>(container)? else { return Ok(()) };
        let renamed = Lease { names: lease.names, ..attached.lease };
        self.attached.save(container, &Attached { lease: renamed, ..attached })?;
        self.service.add(&title, container)
    }

    fn lease_of(&self, title: &str, container: &str) -> Result<Lease, Problem> {
        let none =
            || Problem::new(Kind::WrongState, title.to_owned(), "the container is on no network of croft's");
        self.lease(container).ok_or_else(none)
    }

    /// Makes a running container have what its lease says: a croftd that was killed may have been about to. Of one that is not attached
    /// nothing is to be done.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn complete(&self, container: &str, namespace: BorrowedFd<'_>) -> Result<(), Problem> {
        self.settle(&format!("connect {container}"), container, namespace)
    }

    fn settle(&self, title: &str, container: &str, namespace: BorrowedFd<'_>) -> Result<(), Problem> {
        let failed = |f| of_failure(title, f);
        let Some(before) = self.attached.read::<Attached>(container)? else { return Ok(()) };
        let after = self.wanted_of(title, container, &before)?;
        let mut host = Links::open().map_err(failed)?;
        let mut missing = Vec::new();
        for (number, port) in after.ports.iter().enumerate() {
            if host.find(port).map_err(failed)?.is_none() {
                missing.push(number);
            }
        }
        if before == after && missing.is_empty() {
            return Ok(());
        }
        self.attached.save(container, &after)?;
        {
            let setting_up = self.setting_up();
            self.forget(&before, &after.ports, &setting_up)?;
            let over = minus(&firewall::of_attached(&before), &firewall::of_attached(&after));
            self.firewall.remove(&over).map_err(failed)?;
        }
        self.wire(title, &after, &missing, namespace)?;
        if let Some(number) = after.way_out().filter(|number| !missing.contains(number)) {
            let (of, endpoint) = (&after.networks[number], &after.lease.endpoints[number]);
            let inside = Links::within(namespace);
            inside.and_then(|mut inside| inside.lead_out(of, endpoint)).map_err(failed)?;
        }
        for port in before.ports.iter().filter(|port| !after.ports.contains(port)) {
            host.remove(port).and_then(|()| host.lift(port)).map_err(failed)?;
        }
        Ok(())
    }

    /// What a container should be wired with: a cable that it has stays.
    fn wanted_of(&self, title: &str, container: &str, before: &Attached) -> Result<Attached, Problem> {
        let lease = self.lease_of(title, container)?;
        let known = self.known();
        let (mut ports, mut networks) = (Vec::new(), Vec::new());
        for endpoint in &lease.endpoints {
            let mut had = before.lease.endpoints.iter().zip(&before.ports);
            let port = had.find(|(had, _)| had.network == endpoint.network && had.ipv4 == endpoint.ipv4);
            ports.push(port.map_or_else(|| self.port(), |(_, port)| port.clone()));
            networks.push(known.network(&endpoint.network, title.to_owned())?.clone());
        }
        Ok(Attached { lease, ports, networks })
    }
}
