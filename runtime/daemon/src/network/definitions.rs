//! Networks come and go: records and ranges only. What they are on the host comes with their containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use croft_api::network::{self as wire, Mode, Network};
use croft_api::problem::{Kind, Problem};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::known::Known;
use super::record::Definition;
use super::{DEFAULT, Networks, firewall, forwarding, links, of_failure, subnets};

/// What a new network shall be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its addresses, or any that are free.
    pub ipv4: Option<Ipv4Net>,
    /// Its addresses of IPv6, or any of its own.
    pub ipv6: Option<Ipv6Net>,
    /// The host's address in it, or the first.
    pub host4: Option<Ipv4Addr>,
    /// The host's address of IPv6 in it, or the first.
    pub host6: Option<Ipv6Addr>,
    /// The largest packet, or that of the host's way out.
    pub mtu: Option<u32>,
    /// How its containers are connected.
    pub mode: Mode,
    /// Whether it leads nowhere.
    pub internal: bool,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
}

/// Names that mean something else where a network is named.
const RESERVED: [&str; 5] = ["none", "host", "container", "bridge", "default"];

/// Addresses that no container can have: the kernel takes them for something else.
const UNUSABLE: [(&str, &str); 7] = [
    ("0.0.0.0/8", "which is no host's"),
    ("127.0.0.0/8", "which every host has for itself"),
    ("224.0.0.0/4", "which is multicast"),
    ("240.0.0.0/4", "which is reserved"),
    ("::/16", "which every host has for itself"),
    ("fe80::/10", "which every link has for itself"),
    ("ff00::/8", "which is multicast"),
];

fn unusable(net: IpNet) -> Option<(IpNet, &'static str)> {
    let ranges = UNUSABLE.iter().filter_map(|(range, what)| Some((range.parse::<IpNet>().ok()?, *what)));
    ranges.into_iter().find(|(range, _)| range.contains(&net) || net.contains(range))
}

impl TryFrom<wire::NewNetwork> for NewNetwork {
    type Error = Problem;

    fn try_from(asked: wire::NewNetwork) -> Result<Self, Problem> {
        let title = format!("create network {}", asked.name);
        let invalid = |why: String| Problem::new(Kind::Invalid, title.clone(), why);
        let (mode, internal, mtu) = (asked.mode, asked.internal, asked.mtu);
        let mut new = NewNetwork {
            name: asked.name,
            mode,
            internal,
            mtu,
            labels: asked.labels,
            ..NewNetwork::default()
        };
        for text in &asked.subnets {
            let net = text.parse().map_err(|_| {
                invalid(format!("{text:?} is no range of addresses")).hint("10.1.0.0/24, or fd00:1::/64")
            })?;
            if let Some((range, what)) = unusable(net) {
                let why = format!("{net} has addresses of {range}, {what}");
                return Err(
                    invalid(why).hint("10.1.0.0/24, or fd00:1::/64; without a range, a free one is found")
                );
            }
            let is_second = match net {
                IpNet::V4(net) => new.ipv4.replace(net).is_some(),
                IpNet::V6(net) => new.ipv6.replace(net).is_some(),
            };
            if is_second {
                let why = "a network has one range of IPv4 and one of IPv6";
                return Err(invalid(why.to_owned()).hint("a container may join several networks"));
            }
        }
        for gateway in asked.gateways {
            let (is_second, has_range) = match gateway {
                IpAddr::V4(ip) => (new.host4.replace(ip).is_some(), new.ipv4.is_some()),
                IpAddr::V6(ip) => (new.host6.replace(ip).is_some(), new.ipv6.is_some()),
            };
            if is_second || !has_range {
                let why =
                    format!("{gateway} belongs to no range that is asked for, or is its second gateway");
                return Err(invalid(why).hint("--gateway needs its own --subnet"));
            }
        }
        Ok(new)
    }
}

impl Networks {
    /// All networks.
    pub fn list(&self) -> Vec<Network> {
        let known = self.known();
        known.networks.values().map(|of| known.shown(of)).collect()
    }

    /// One network.
    ///
    /// # Errors
    /// When there is none.
    pub fn inspect(&self, name: &str) -> Result<Network, Problem> {
        let known = self.known();
        known.network(name, format!("inspect network {name}")).map(|of| known.shown(of))
    }

    /// Makes a network. The host's side of it comes with its first container.
    ///
    /// # Errors
    /// When the name or the range is taken, or no range is left.
    pub fn create(&self, new: NewNetwork) -> Result<Network, Problem> {
        let title = format!("create network {}", new.name);
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !new.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !new.name.chars().all(good)
            || new.name.len() > 63
        {
            let problem =
                Problem::new(Kind::Invalid, title, format!("{:?} is no name of a network", new.name));
            return Err(problem.hint("up to 63 letters, digits, '_', '.' and '-', a letter or digit first"));
        }
        if RESERVED.contains(&new.name.as_str()) {
            let why = format!("--network {} means something else", new.name);
            return Err(Problem::new(Kind::Invalid, title, why).hint("choose another name"));
        }
        if let Some(mtu) = new.mtu.filter(|mtu| !(1280..=65_535).contains(mtu)) {
            let why = format!("a largest packet of {mtu} bytes is not possible");
            return Err(Problem::new(Kind::Invalid, title, why).hint("1280 to 65535"));
        }
        let mut known = self.known();
        if known.networks.contains_key(&new.name) {
            return Err(Problem::new(Kind::Conflict, title, "it is there already").hint("croft network ls"));
        }
        let of = self.define(&title, new, &known)?;
        if let Err(problem) = self.networks.save(&of.name, &of) {
            self.subnets.give_back(of.ipv4);
            return Err(problem);
        }
        let shown = known.shown(&of);
        known.networks.insert(of.name.clone(), of);
        Ok(shown)
    }

    fn define(&self, title: &str, new: NewNetwork, known: &Known) -> Result<Definition, Problem> {
        let failed = |why: String| Problem::new(Kind::Internal, title.to_owned(), why);
        let mut links = links::Links::open().map_err(|f| of_failure(title, f))?;
        let (mut routes, way_out) = links.routes().map_err(|f| of_failure(title, f))?;
        let mut mtu = new.mtu;
        if mtu.is_none()
            && let Some(index) = way_out
        {
            let all = links.all().map_err(|f| of_failure(title, f))?;
            mtu = all.into_iter().find(|link| link.index == index).map(|link| link.mtu.max(1280));
        }
        routes.extend(known.networks.values().filter_map(|of| of.ipv6).map(IpNet::V6));
        let ipv6 = match new.ipv6.map(|net| net.trunc()) {
            None if forwarding::has_ipv6() => {
                Some(subnets::unique_local(&routes).map_err(|e| failed(e.to_string()))?)
            }
            None => None,
            Some(net) => {
                if !(16..=112).contains(&net.prefix_len()) {
                    let why = format!("{net} has no sensible size: /16 to /112");
                    return Err(Problem::new(Kind::Invalid, title, why));
                }
                if let Some(problem) = overlap6(title, net, known, &routes) {
                    return Err(problem);
                }
                Some(net)
            }
        };
        let outside = |ip: IpAddr, net: IpNet| {
            let why = format!("the host cannot have {ip} in {net}");
            Err(Problem::new(Kind::Invalid, title, why)
                .hint("an address of the range, not its first or last"))
        };
        let is_host = |ip: IpAddr, net: IpNet| {
            net.contains(&ip) && ip != net.network() && (ip.is_ipv6() || ip != net.broadcast())
        };
        let hosts = [
            (new.host4.map(IpAddr::V4), new.ipv4.map(IpNet::V4)),
            (new.host6.map(IpAddr::V6), ipv6.map(IpNet::V6)),
        ];
        for (ip, net) in hosts {
            match ip.zip(net) {
                Some((ip, net)) if !is_host(ip, net) => return outside(ip, net),
                _ => {}
            }
        }
        let numbers = 0..=known.networks.len();
        let free = |bridge: &String| known.networks.values().all(|of| of.bridge != *bridge);
        let bridge = numbers.map(|number| format!("{}-b{number}", self.prefix)).find(free);
        let bridge = bridge.expect("one of more names than there are networks is free");
        let ipv4 = self.subnets.take(&new.name, new.ipv4, &routes)?;
        let NewNetwork { name, host4, host6, mode, internal, labels, .. } = new;
        let mtu = mtu.unwrap_or(1500);
        Ok(Definition { name, bridge, ipv4, ipv6, mtu, host4, host6, mode, internal, labels })
    }

    /// Removes a network that no container has.
    ///
    /// # Errors
    /// When there is none, or a container has it.
    pub fn remove(&self, name: &str) -> Result<(), Problem> {
        let title = format!("remove network {name}");
        let _setting_up = self.setting_up();
        let mut known = self.known();
        let of = known.network(name, title.clone())?.clone();
        let users: Vec<String> = known.members(&of).into_iter().map(|member| member.name).collect();
        if !users.is_empty() {
            let problem =
                Problem::new(Kind::Conflict, title, format!("containers are in it: {}", users.join(", ")));
            return Err(problem.hint(format!("croft network disconnect {name} {}", users[0])));
        }
        let failed = |f| of_failure(&title, f);
        let mut links = links::Links::open().map_err(failed)?;
        links.remove(&of.bridge).map_err(failed)?;
        self.firewall.remove(&firewall::of_network(&of)).map_err(failed)?;
        self.networks.remove(name)?;
        self.subnets.give_back(of.ipv4);
        known.networks.remove(name);
        known.taken.remove(name);
        Ok(())
    }

    /// Removes all networks that no container is in, but for the one that is there without being made. Gives their names.
    ///
    /// # Errors
    /// When one cannot be removed; those before it are.
    pub fn prune(&self) -> Result<Vec<String>, Problem> {
        let unused = |network: &Network| network.containers.is_empty() && network.name != DEFAULT;
        let mut removed = Vec::new();
        for network in self.list().into_iter().filter(unused) {
            match self.remove(&network.name) {
                // Somebody joined it meanwhile, or removed it.
                Err(problem) if matches!(problem.kind, Kind::Conflict | Kind::NotFound) => {}
                done => {
                    done?;
                    removed.push(network.name);
                }
            }
        }
        Ok(removed)
    }

    /// Makes the network that is there without being made, if it is not.
    ///
    /// # Errors
    /// When no range is left for it.
    pub fn make_default(&self) -> Result<(), Problem> {
        let is_there = || self.known().networks.contains_key(DEFAULT);
        if is_there() {
            return Ok(());
        }
        match self.create(NewNetwork { name: DEFAULT.to_owned(), ..NewNetwork::default() }) {
            // Somebody else may have been quicker.
            Err(problem) if problem.kind != Kind::Conflict || !is_there() => Err(problem),
            _ => Ok(()),
        }
    }
}

fn overlap6(title: &str, net: Ipv6Net, known: &Known, routes: &[IpNet]) -> Option<Problem> {
    let overlap = |other: &Ipv6Net| other.contains(&net) || net.contains(other);
    let mut networks = known.networks.values();
    let of = networks.find_map(|of| of.ipv6.filter(overlap).map(|other| format!("{other} of {}", of.name)));
    let what = of.or_else(|| {
        let routed = |route: &&IpNet| matches!(route, IpNet::V6(r) if r.prefix_len() > 0 && overlap(r));
        routes.iter().find(routed).map(|route| format!("the host's route to {route}"))
    })?;
    let problem = Problem::new(Kind::Conflict, title, format!("{net} overlaps {what}"));
    Some(problem.hint("without a range, a free one is found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_mean_something_else_are_refused() {
        let asked = |net: &str| {
            let subnets = vec![net.to_owned()];
            NewNetwork::try_from(wire::NewNetwork {
                name: "n".into(),
                subnets,
                ..wire::NewNetwork::default()
            })
        };
        for net in [
            "127.0.0.0/24",
            "224.1.0.0/24",
            "255.255.255.0/24",
            "0.0.0.0/8",
            "0.0.0.0/0",
            "ff02::/64",
            "::1/128",
            "fe80::/64",
        ] {
            let refused = asked(net).unwrap_err();
            assert!(
                refused.detail.contains("has addresses of") && refused.hint.is_some(),
                "{net}: {refused}"
            );
        }
        for net in [
            "10.0.0.0/24",
            "172.16.0.0/16",
            "192.168.1.0/24",
            "100.64.0.0/16",
            "fd00:1::/64",
            "2001:db8::/64",
        ] {
            assert!(asked(net).is_ok(), "{net}");
        }
        assert_eq!(
            UNUSABLE.iter().filter(|(range, _)| range.parse::<IpNet>().is_ok()).count(),
            UNUSABLE.len()
        );
    }
}
