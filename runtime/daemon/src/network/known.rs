//! What is known of networks, in memory; the files have the same.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use croft_api::network::{Member, Network, Protocol, Publish};
use croft_api::problem::{Kind, Problem};

use super::addresses::Taken;
use super::links;
use super::record::{Definition, Endpoint, Lease};

/// What is known of networks.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub networks: BTreeMap<String, Definition>,
    pub leases: HashMap<String, Lease>,
    pub taken: HashMap<String, Taken>,
    /// The ports that lead to containers that are attached.
    pub published: HashMap<(Protocol, u16), Vec<Taker>>,
}

/// Of which of the host's addresses a port leads to a container, and to which one.
type Taker = (Option<IpAddr>, String);

impl Known {
    pub fn network(&self, name: &str, title: String) -> Result<&Definition, Problem> {
        self.networks.get(name).ok_or_else(|| {
            let problem = Problem::new(Kind::NotFound, title, format!("there is no network {name}"));
            problem.hint(format!("croft network create {name}"))
        })
    }

    pub fn take(&mut self, lease: &Lease) {
        lease.endpoints.iter().for_each(|endpoint| self.take_one(endpoint));
    }

    pub fn take_one(&mut self, endpoint: &Endpoint) {
        if let Some(of) = self.networks.get(&endpoint.network) {
            self.taken.entry(endpoint.network.clone()).or_default().add(of, endpoint);
        }
    }

    pub fn give_back(&mut self, lease: &Lease) {
        lease.endpoints.iter().for_each(|endpoint| self.give_back_one(endpoint));
    }

    pub fn give_back_one(&mut self, endpoint: &Endpoint) {
        self.taken.entry(endpoint.network.clone()).or_default().remove(endpoint);
    }

    /// Gives ports to a container, all or none, which no other has.
    pub fn publish(&mut self, title: &str, container: &str, ports: &[Publish]) -> Result<(), Problem> {
        for (number, port) in ports.iter().enumerate() {
            let address = port.address.filter(|address| !address.is_unspecified());
            let takers = self.published.entry((port.protocol, port.host)).or_default();
            let meets =
                |(other, _): &&(Option<IpAddr>, String)| other.zip(address).is_none_or(|(a, b)| a == b);
            if let Some((_, who)) = takers.iter().find(meets) {
                let why = format!("port {} of the host leads to {who} already", port.host);
                self.unpublish(container, &ports[..number]);
                let problem = Problem::new(Kind::Conflict, title, why);
                return Err(problem.hint("publish another port, or stop the other container"));
            }
            takers.push((address, container.to_owned()));
        }
        Ok(())
    }

    pub fn unpublish(&mut self, container: &str, ports: &[Publish]) {
        for port in ports {
            if let Some(takers) = self.published.get_mut(&(port.protocol, port.host)) {
                takers.retain(|(_, who)| who != container);
            }
        }
    }

    /// The containers of a network, in the order of their names.
    pub fn members(&self, of: &Definition) -> Vec<Member> {
        let member = |lease: &Lease| {
            let endpoint = lease.endpoints.iter().find(|endpoint| endpoint.network == of.name)?;
            let name = lease.names.first().unwrap_or(&lease.container).clone();
            Some(Member { id: lease.container.clone(), name, addresses: of.addresses(endpoint) })
        };
        let mut members: Vec<Member> = self.leases.values().filter_map(member).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    pub fn shown(&self, of: &Definition) -> Network {
        let (ipv4, ipv6): (Ipv4Addr, Option<Ipv6Addr>) = links::gateways(of);
        Network {
            name: of.name.clone(),
            bridge: of.bridge.clone(),
            subnets: std::iter::once(of.ipv4.to_string()).chain(of.ipv6.map(|net| net.to_string())).collect(),
            gateways: std::iter::once(ipv4.to_string()).chain(ipv6.map(|ip| ip.to_string())).collect(),
            mode: of.mode,
            mtu: of.mtu,
            internal: of.internal,
            labels: of.labels.clone(),
            containers: self.members(of),
        }
    }
}
