//! A container's way into its networks and out of them.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use croft_api::network::{Counters, Rates};
use croft_api::problem::{Kind, Problem};
use rustix::io::Errno;

use super::links::{End, Links, Role};
use super::record::{Attached, Definition};
use super::{Networks, firewall, forwarding, of_failure};

impl Networks {
    /// Wires a container whose processes are in `namespace`, before any of them runs. What it has was decided by [`Networks::reserve`].
    /// Its packets go by the bridge until [`Networks::shorten`].
    ///
    /// # Errors
    /// When a port is taken, or the kernel does not want to; nothing of it is left then.
    pub fn attach(&self, container: &str, namespace: BorrowedFd<'_>) -> Result<(), Problem> {
        let (title, lease, networks) = {
            let known = self.known();
            let lease = known.leases.get(container).cloned();
            let lease = lease.ok_or_else(|| {
                Problem::new(Kind::Internal, format!("connect {container}"), "it has no addresses")
            })?;
            let title = format!("connect {}", lease.name());
            let of = |endpoint: &super::Endpoint| known.network(&endpoint.network, title.clone()).cloned();
            let networks = lease.endpoints.iter().map(of).collect::<Result<Vec<_>, _>>()?;
            (title, lease, networks)
        };
        // A croftd that was killed may have left it so.
        self.detach(container)?;
        self.known().publish(&title, container, &lease.publish)?;
        let ports = networks.iter().map(|_| self.port()).collect();
        let attached = Attached { lease, ports, networks };
        let saved = self.attached.save(container, &attached);
        if saved.is_err() {
            self.known().unpublish(container, &attached.lease.publish);
            return saved;
        }
        let all: Vec<usize> = (0..attached.networks.len()).collect();
        let wired = self.wire(&title, &attached, &all, namespace);
        if wired.is_err() {
            self.cut(&attached);
            if let Err(problem) = self.detach(container) {
                tracing::error!(container, %problem, "something of a container that could not be connected is left");
            }
        }
        wired
    }

    /// A name for the host's end of a cable. Always another, since the one that a container had before may take a while to go.
    pub(super) fn port(&self) -> String {
        format!("{}-v{:06x}", self.prefix, self.next_port.fetch_add(1, Ordering::Relaxed) & 0x00ff_ffff)
    }

    /// Makes the cables of some of a container's endpoints, `which` by their places, and all that is not a cable of all of them.
    pub(super) fn wire(
        &self,
        title: &str,
        attached: &Attached,
        which: &[usize],
        namespace: BorrowedFd<'_>,
    ) -> Result<(), Problem> {
        let failed = |f| of_failure(title, f);
        let mut host = Links::open().map_err(failed)?;
        let mut bridges = Vec::new();
        for number in which {
            let of = &attached.networks[*number];
            let there = {
                // One that is just being made has no addresses yet, and nobody can listen there.
                let _setting_up = self.setting_up();
                host.find(&of.bridge).map_err(failed)?
            };
            bridges.push(match there {
                Some(bridge) => bridge.index,
                None => self.set_up(title, of)?,
            });
        }
        self.service.add(title, &attached.lease.container)?;
        // First what must not be done on a cable, then the cable.
        {
            let setting_up = self.setting_up();
            match self.firewall.add(&firewall::of_attached(attached)) {
                Err(failure) if failure.errno() == Some(Errno::NOENT) => {
                    self.put_back_firewall(&setting_up)?
                }
                added => added.map_err(failed)?,
            }
        }
        let mut inside = Links::within(namespace).map_err(failed)?;
        inside.loopback().map_err(failed)?;
        for (number, bridge) in which.iter().zip(bridges) {
            let (of, endpoint) = (&attached.networks[*number], &attached.lease.endpoints[*number]);
            let port = &attached.ports[*number];
            let end = End { namespace, name: &endpoint.interface, mac: endpoint.mac };
            host.cable(of, bridge, port, &end).map_err(failed)?;
            host.route_to(of, endpoint, port).map_err(failed)?;
            if endpoint.limits != Rates::default() {
                let _setting_up = self.setting_up();
                host.limit(port, endpoint.limits).map_err(failed)?;
            }
            let role = if attached.way_out() == Some(*number) { Role::WayOut } else { Role::Further };
            inside.equip(of, endpoint, role).map_err(failed)?;
            // The bridge learns by a work queue that the cable has another end now, and its device that it has a cable; what comes before
            // is dropped. Asking for them makes the kernel (6.8 and later) do that work first, so that the very first packet arrives.
            let there = host.find(port).map_err(failed)?;
            host.find(&of.bridge).map_err(failed)?;
            if let Some(there) = there {
                host.know(&there, endpoint.mac).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes the host's side of a network.
    pub(super) fn set_up(&self, title: &str, of: &Definition) -> Result<u32, Problem> {
        let failed = |f| of_failure(title, f);
        let setting_up = self.setting_up();
        self.subnets.keep(&of.name, of.ipv4)?;
        forwarding::on(&self.state).map_err(|e| Problem::new(Kind::Internal, title.to_owned(), e))?;
        let bridge = Links::open().and_then(|mut links| links.bridge(of)).map_err(failed)?;
        match self.firewall.add(&firewall::of_network(of)) {
            Err(failure) if failure.errno() == Some(Errno::NOENT) => self.put_back_firewall(&setting_up)?,
            added => added.map_err(failed)?,
        }
        Ok(bridge)
    }

    /// Takes a container's network away: its ports, its names, its rights on the cable. The cable itself goes with the container's
    /// namespace, of its own and soon; removing it here would hold up everybody for the 20 ms that the kernel needs for it. Where
    /// the namespace stays, because a connection of a process that was killed still has bytes to deliver, [`Networks::sweep`] takes
    /// it. The addresses stay the container's.
    ///
    /// # Errors
    /// When something of it cannot be taken away; what is recorded stays then.
    pub fn detach(&self, container: &str) -> Result<(), Problem> {
        let Some(attached) = self.attached.read::<Attached>(container)? else { return Ok(()) };
        let title = format!("disconnect {container}");
        // The record goes last: a croftd that is killed in between does all of it again.
        let freed = self.service.remove(&title, container);
        for port in attached.slowed() {
            Links::open().and_then(|mut links| links.lift(port)).map_err(|f| of_failure(&title, f))?;
        }
        {
            let setting_up = self.setting_up();
            let forgotten = self.forget(&attached, &[], &setting_up);
            self.firewall.remove(&firewall::of_attached(&attached)).map_err(|f| of_failure(&title, f))?;
            // Without the record nobody would ask the service again, and it would listen on the container's ports for ever.
            freed.and(forgotten)?;
            self.attached.remove(container)?;
        }
        self.known().unpublish(container, &attached.lease.publish);
        Ok(())
    }

    /// Removes a container's cables now.
    fn cut(&self, attached: &Attached) {
        for port in &attached.ports {
            let removed = Links::open().and_then(|mut links| {
                links.remove(port)?;
                links.lift(port)
            });
            if let Err(failure) = removed {
                tracing::error!(port, what = failure.what, error = %failure.error, "a cable is left");
            }
        }
    }

    /// The containers that are wired: those that do not run should be detached.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn attached(&self) -> Result<Vec<String>, Problem> {
        Ok(self.attached.all::<Attached>()?.into_iter().map(|(container, _)| container).collect())
    }

    /// What went through a container's interfaces since they were connected; nothing of one that does not run.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn counters(&self, container: &str) -> Result<Vec<Counters>, Problem> {
        let Some(attached) = self.attached.read::<Attached>(container)? else { return Ok(Vec::new()) };
        let failed = |f| of_failure(&format!("count the packets of {container}"), f);
        let mut links = Links::open().map_err(failed)?;
        let mut counters = Vec::new();
        for ((port, endpoint), of) in
            attached.ports.iter().zip(attached.lease.endpoints).zip(&attached.networks)
        {
            let Some(link) = links.find(port).map_err(failed)? else { continue };
            let (past, traffic) = (self.sent_past(of, &endpoint)?, link.traffic);
            counters.push(Counters {
                network: endpoint.network,
                interface: endpoint.interface,
                received_bytes: traffic.received_bytes + past.bytes,
                received_packets: traffic.received_packets + past.packets,
                sent_bytes: traffic.sent_bytes,
                sent_packets: traffic.sent_packets,
            });
        }
        Ok(counters)
    }
}
