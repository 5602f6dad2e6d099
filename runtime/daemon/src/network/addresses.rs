//! Which addresses of a network a container gets. Pure: what is taken comes in, what is given goes out.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use croft_api::network::{Join, Rates};
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
    /// Further names by which others find it there.
    pub aliases: Vec<String>,
    /// How much may go through.
    pub limits: Rates,
}

/// The least that an interface may be limited to, in bits per second: a packet every few seconds.
const LEAST_RATE: u64 = 8_000;

impl TryFrom<&Join> for Wanted {
    type Error = Problem;

    fn try_from(join: &Join) -> Result<Self, Problem> {
        let invalid =
            |why: String| Problem::new(Kind::Invalid, format!("join network {}", join.network), why);
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let is_name = |name: &&String| {
            name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(good) && name.len() < 64
        };
        if let Some(alias) = join.aliases.iter().find(|alias| !is_name(alias)) {
            return Err(invalid(format!("{alias:?} is no name that others could find it by")));
        }
        let rates = [join.limits.ingress, join.limits.egress];
        if let Some(rate) = rates.into_iter().flatten().find(|rate| *rate < LEAST_RATE) {
            return Err(invalid(format!("{rate} bit/s is too little: {LEAST_RATE} at least")));
        }
        Ok(Wanted {
            network: join.network.clone(),
            ipv4: join.ipv4,
            ipv6: join.ipv6,
            mac: join.mac.as_deref().map(str::parse).transpose().map_err(invalid)?,
            aliases: join.aliases.clone(),
            limits: join.limits,
        })
    }
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
        // Numbers of hosts go from 1, round and round; one that is asked for is the only candidate.
        let (from, count) = match wanted.ipv4 {
            Some(ipv4) => (ipv4.to_bits() - first - 1, 1),
            None => (self.newest, last - 1),
        };
        let given = (from..from + count).find_map(|n| {
            let number = n % (last - 1) + 1;
            let ipv4 = Ipv4Addr::from_bits(first + number);
            let of_number =
                of.ipv6.map(|net| Ipv6Addr::from_bits(net.network().to_bits() + u128::from(number)));
            let endpoint = Endpoint {
                network: of.name.clone(),
                ipv4,
                ipv6: wanted.ipv6.or(of_number),
                mac: wanted.mac.unwrap_or(Mac::of(ipv4)),
                interface: String::new(),
                aliases: wanted.aliases.clone(),
                limits: wanted.limits,
            };
            let is_host =
                ipv4 == of.gateway4() || (endpoint.ipv6.is_some() && endpoint.ipv6 == of.gateway6());
            let free = !is_host
                && !self.ipv4.contains(&ipv4)
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
        let (ipv4, ipv6) = (ipv4.parse().unwrap(), "fd00:1::/64".parse().ok());
        Definition { name, bridge, ipv4, ipv6, mtu: 1500, ..Definition::default() }
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
    fn the_host_may_have_another_address_than_the_first() {
        let (host4, host6) = ("10.0.0.3".parse().ok(), "fd00:1::2".parse().ok());
        let (of, mut taken) = (Definition { host4, host6, ..network("10.0.0.0/29") }, Taken::default());
        let mut given = Vec::new();
        while let Ok(endpoint) = taken.choose(&of, &any()) {
            taken.add(&of, &endpoint);
            given.push(endpoint.ipv4.octets()[3]);
        }
        assert_eq!(given, [1, 4, 5, 6], "neither 3, nor 2, whose address of IPv6 is the host's");
        let first = Wanted { ipv4: "10.0.0.1".parse().ok(), ..any() };
        assert_eq!(Taken::default().choose(&of, &first).unwrap().ipv4.octets()[3], 1);
    }

    #[test]
    fn names_and_rates_that_make_no_sense_are_refused() {
        let refused = |join: Join| Wanted::try_from(&join).unwrap_err().detail;
        let limits = |ingress| Rates { ingress: Some(ingress), egress: None };
        assert!(refused(Join { aliases: vec!["a b".into()], ..Join::any("n") }).contains("a b"));
        assert!(refused(Join { limits: limits(7_999), ..Join::any("n") }).contains("7999 bit/s"));
        assert!(refused(Join { mac: Some("x".into()), ..Join::any("n") }).contains("no hardware address"));
        let join = Join { aliases: vec!["db.a-1".into()], limits: limits(8_000), ..Join::any("n") };
        assert_eq!(Wanted::try_from(&join).unwrap().aliases, ["db.a-1"]);
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
