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

/// The host's address that a port is of; none for all of them.
fn address(port: &Publish) -> Option<IpAddr> {
    port.address.filter(|address| !address.is_unspecified())
}

fn meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

/// The first of `ports` that is there twice.
pub(super) fn twice(ports: &[Publish]) -> Option<&Publish> {
    let same = |a: &Publish, b: &Publish| {
        a.protocol == b.protocol && a.host == b.host && meet(address(a), address(b))
    };
    ports
        .iter()
        .enumerate()
        .find(|(at, port)| ports[..*at].iter().any(|other| same(port, other)))
        .map(|(_, port)| port)
}

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
            let address = address(port);
            let takers = self.published.entry((port.protocol, port.host)).or_default();
            if let Some((_, who)) = takers.iter().find(|(other, _)| meet(*other, address)) {
                let lease = self.leases.get(who);
                let who = lease.map_or(who.as_str(), Lease::name);
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
            let name = lease.name().to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<&str>, host: u16, protocol: Protocol) -> Publish {
        Publish { address: address.map(|text| text.parse().unwrap()), host, container: 80, protocol }
    }

    #[test]
    fn a_port_leads_to_one() {
        use Protocol::{Tcp, Udp};
        let [one, other, every] = ["127.0.0.1", "127.0.0.2", "0.0.0.0"].map(Some);
        for apart in [
            [port(None, 1, Tcp), port(None, 1, Udp)],
            [port(None, 1, Tcp), port(None, 2, Tcp)],
            [port(one, 1, Tcp), port(other, 1, Tcp)],
        ] {
            assert_eq!(twice(&apart), None);
        }
        for same in [
            [port(None, 1, Tcp), port(None, 1, Tcp)],
            [port(one, 1, Tcp), port(every, 1, Tcp)],
            [port(None, 1, Udp), port(other, 1, Udp)],
        ] {
            assert_eq!(twice(&same), Some(&same[1]));
        }
    }

    #[test]
    fn who_has_a_port_is_told_by_name() {
        let mut known = Known::default();
        let lease = Lease {
            container: "c0ffee".into(),
            names: vec!["web".into()],
            endpoints: Vec::new(),
            publish: Vec::new(),
        };
        known.leases.insert("c0ffee".into(), lease);
        let ports = [port(None, 8080, Protocol::Tcp)];
        known.publish("connect web", "c0ffee", &ports).unwrap();
        let refused = known.publish("connect other", "beef", &ports).unwrap_err();
        assert_eq!(refused.detail, "port 8080 of the host leads to web already");
    }
}
