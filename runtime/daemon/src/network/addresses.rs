//! Which addresses of a network a container gets. Pure: what is taken comes in, what is given goes out.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use croft_api::problem::{Kind, Problem};

use super::mac::Mac;
use super::record::{Definition, Endpoint};

/// What is asked for in one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The network's name.
    pub network: String,
    /// This address, or any.
    pub ipv4: Option<Ipv4Addr>,
    /// This address of IPv6, or any.
    pub ipv6: Option<Ipv6Addr>,
    /// This hardware address, or any.
    pub mac: Option<Mac>,
}

/// The addresses of one network that are given out.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    ipv4: HashSet<Ipv4Addr>,
    ipv6: HashSet<Ipv6Addr>,
    mac: HashSet<Mac>,
    newest: u32,
}

impl Taken {
    /// Counts an endpoint among those that are there.
    pub fn add(&mut self, of: &Definition, endpoint: &Endpoint) {
        self.ipv4.insert(endpoint.ipv4);
        self.ipv6.extend(endpoint.ipv6);
        self.mac.insert(endpoint.mac);
        self.newest = endpoint.ipv4.to_bits() - of.ipv4.network().to_bits();
    }

    /// Counts an endpoint no longer.
    pub fn remove(&mut self, endpoint: &Endpoint) {
        self.ipv4.remove(&endpoint.ipv4);
        if let Some(ipv6) = endpoint.ipv6 {
            self.ipv6.remove(&ipv6);
        }
        self.mac.remove(&endpoint.mac);
    }

    /// Whether nobody has an address.
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_empty()
    }

    /// Finds addresses for a container. One that was given back is given out again as late as can be, since others may remember who had it.
    ///
    /// # Errors
    /// When what is asked for is taken or not of this network, or nothing is left.
    pub fn choose(&self, of: &Definition, wanted: &Wanted) -> Result<Endpoint, Problem> {
        let title = format!("join network {}", of.name);
        let taken = |what: String| Problem::new(Kind::Conflict, title.clone(), format!("{what} is taken"));
        let invalid = |why: String| Problem::new(Kind::Invalid, title.clone(), why);
        if let Some(ipv4) = wanted.ipv4 {
            if !of.ipv4.contains(&ipv4) || ipv4 == of.ipv4.network() || ipv4 == of.ipv4.broadcast() {
                return Err(invalid(format!("{ipv4} is no address of {}", of.ipv4)));
            }
            if ipv4 == of.gateway4() || self.ipv4.contains(&ipv4) {
                return Err(taken(ipv4.to_string()));
            }
        }
        if let Some(ipv6) = wanted.ipv6 {
            let net = of.ipv6.ok_or_else(|| invalid(format!("network {} has no IPv6", of.name)))?;
            if !net.contains(&ipv6) || ipv6 == net.network() {
                return Err(invalid(format!("{ipv6} is no address of {net}")));
            }
            if Some(ipv6) == of.gateway6() || self.ipv6.contains(&ipv6) {
                return Err(taken(ipv6.to_string()));
            }
        }
        if let Some(mac) = wanted.mac.filter(|mac| self.mac.contains(mac) || *mac == Mac::of(of.gateway4())) {
            return Err(taken(mac.to_string()));
        }
        let first = of.ipv4.network().to_bits();
        let last = of.ipv4.broadcast().to_bits() - first;
        // Numbers of hosts go from 2, round and round; one that is asked for is the only candidate.
        let (from, count) = match wanted.ipv4 {
            Some(ipv4) => (ipv4.to_bits() - first - 2, 1),
            None => (self.newest.max(1) - 1, last - 2),
        };
        let given = (from..from + count).find_map(|n| {
            let number = n % (last - 2) + 2;
            let ipv4 = Ipv4Addr::from_bits(first + number);
            let of_number =
                of.ipv6.map(|net| Ipv6Addr::from_bits(net.network().to_bits() + u128::from(number)));
            let endpoint = Endpoint {
                network: of.name.clone(),
                ipv4,
                ipv6: wanted.ipv6.or(of_number),
                mac: wanted.mac.unwrap_or(Mac::of(ipv4)),
            };
            let free = !self.ipv4.contains(&ipv4)
                && !endpoint.ipv6.is_some_and(|ipv6| self.ipv6.contains(&ipv6))
                && !self.mac.contains(&endpoint.mac);
            free.then_some(endpoint)
        });
        given.ok_or_else(|| {
            let why = format!("no address of {} is left: {} are taken", of.ipv4, self.ipv4.len());
            Problem::new(Kind::Conflict, title, why)
                .hint("remove containers, or make another network: croft network create")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(ipv4: &str) -> Definition {
        let (bridge, name) = ("t-b0".to_owned(), "n".to_owned());
        Definition { name, bridge, ipv4: ipv4.parse().unwrap(), ipv6: "fd00:1::/64".parse().ok(), mtu: 1500 }
    }

    fn any() -> Wanted {
        Wanted::default()
    }

    #[test]
    fn every_address_is_given_once_until_none_is_left() {
        let (of, mut taken) = (network("10.0.0.0/29"), Taken::default());
        let mut given = Vec::new();
        while let Ok(endpoint) = taken.choose(&of, &any()) {
            taken.add(&of, &endpoint);
            given.push(endpoint);
        }
        let numbers: Vec<u8> = given.iter().map(|e| e.ipv4.octets()[3]).collect();
        assert_eq!(numbers, [2, 3, 4, 5, 6]);
        assert_eq!(given[3].ipv6, "fd00:1::5".parse().ok());
        let problem = taken.choose(&of, &any()).unwrap_err();
        assert_eq!(problem.kind, Kind::Conflict);
        assert!(problem.detail.contains("10.0.0.0/29"), "{problem}");
        taken.remove(&given[1]);
        taken.remove(&given[2]);
        assert_eq!(taken.choose(&of, &any()).unwrap(), given[1], "after the last comes the first");
        taken.add(&of, &given[1]);
        taken.remove(&given[0]);
        assert_eq!(taken.choose(&of, &any()).unwrap(), given[2], "what has been free for longer goes first");
    }

    #[test]
    fn what_is_asked_for_is_given_or_refused() {
        let (of, mut taken) = (network("10.0.0.0/24"), Taken::default());
        let wanted = Wanted { ipv4: "10.0.0.9".parse().ok(), mac: "02:00:00:00:00:01".parse().ok(), ..any() };
        let endpoint = taken.choose(&of, &wanted).unwrap();
        assert_eq!((endpoint.ipv4.octets()[3], endpoint.mac.0[5]), (9, 1));
        taken.add(&of, &endpoint);
        let refused = |wanted: Wanted| taken.choose(&of, &wanted).unwrap_err().detail;
        assert!(refused(wanted.clone()).contains("10.0.0.9 is taken"));
        assert!(refused(Wanted { mac: wanted.mac, ..any() }).contains("02:00:00:00:00:01 is taken"));
        assert!(
            refused(Wanted { ipv4: "10.0.0.1".parse().ok(), ..any() }).contains("is taken"),
            "the host's"
        );
        for wrong in ["10.0.1.1", "10.0.0.0", "10.0.0.255"] {
            assert!(refused(Wanted { ipv4: wrong.parse().ok(), ..any() }).contains("no address of"));
        }
        assert!(refused(Wanted { ipv6: "fd00:1::9".parse().ok(), ..any() }).contains("is taken"));
        assert!(refused(Wanted { ipv6: "fd00:2::9".parse().ok(), ..any() }).contains("no address of"));
    }
}
