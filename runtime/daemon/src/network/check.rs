//! What of the networks is missing or left over on the host, and mending it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use croft_api::network::{Mode, Rates};
use croft_api::problem::Problem;
use ipnet::Ipv4Net;

use super::firewall::{self, Content};
use super::links::limits::device;
use super::links::{Link, Links};
use super::netlink::Failure;
use super::record::{Attached, Definition};
use super::{Networks, forwarding, of_failure};

/// Something that should not be as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Which kind of thing.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// Why it is not right.
    pub why: String,
}

fn left(what: &'static str, name: impl Into<String>, why: &str) -> Left {
    Left { what, name: name.into(), why: why.to_owned() }
}

/// How long the kernel may take to end the cables of a network namespace that has gone: it does so later, many at a time
/// (`cleanup_net` of its net/core/net_namespace.c).
const SETTLING: Duration = Duration::from_secs(5);

/// The pause between two looks at a cable that may be going.
const LOOK: Duration = Duration::from_millis(20);

/// Whether a link is gone, or goes before `end`.
fn is_gone_by(end: Instant, host: &mut Links, name: &str) -> Result<bool, Failure> {
    while host.find(name)?.is_some() {
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

impl Networks {
    /// Removes cables that no container has any more.
    ///
    /// # Errors
    /// When they cannot be looked at or removed.
    pub fn sweep(&self) -> Result<(), Problem> {
        let failed = |f| of_failure("remove cables that nobody has", f);
        let mut host = Links::open().map_err(failed)?;
        // What is there first: what is being made has a record by then.
        let links = host.all().map_err(failed)?;
        let attached = self.attached.all::<Attached>()?;
        for link in self.stray_cables(&links, &attached) {
            host.remove(&link.name).map_err(failed)?;
        }
        Ok(())
    }

    /// Whether a device is one of croft's of a kind, by its name.
    fn is_own(&self, kind: char, link: &Link) -> bool {
        link.name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with(&format!("-{kind}")))
    }

    /// The cables that no container has.
    fn stray_cables<'a>(&self, links: &'a [Link], attached: &[(String, Attached)]) -> Vec<&'a Link> {
        let ports: HashSet<&String> = attached.iter().flat_map(|(_, attached)| &attached.ports).collect();
        links.iter().filter(|link| self.is_own('v', link) && !ports.contains(&link.name)).collect()
    }

    /// What is there that no record accounts for, and what records account for that is not there.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn check(&self) -> Result<Vec<Left>, Problem> {
        let title = "check the networks";
        let failed = |f| of_failure(title, f);
        let mut found = Vec::new();
        // What is there first, and then what should be: whatever is made has a record before.
        let mut host = Links::open().map_err(failed)?;
        let links = host.all().map_err(failed)?;
        let attached = self.attached.all::<Attached>()?;
        let networks: Vec<Definition> = self.known().networks.values().cloned().collect();
        let names: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        for (container, attached) in &attached {
            for port in attached.ports.iter().filter(|port| !names.contains(port.as_str())) {
                if host.find(port).map_err(failed)?.is_none() {
                    let why = format!("{container} should have it and has not: its namespace is gone");
                    found.push(left("cable", port, &why));
                }
            }
        }
        found.extend(unlimited(&mut host, &attached).map_err(failed)?.into_iter().map(|(port, _)| {
            left("limit", port, "what goes through a container's cable is not limited as it should be")
        }));
        let slowed: HashSet<String> =
            attached.iter().flat_map(|(_, attached)| attached.slowed()).map(|port| device(port)).collect();
        let end = Instant::now() + SETTLING;
        for link in self.stray_cables(&links, &attached) {
            if !is_gone_by(end, &mut host, &link.name).map_err(failed)? {
                found.push(left("cable", &link.name, "no container has it"));
            }
        }
        for link in &links {
            if self.is_own('i', link) && !slowed.contains(&link.name) {
                found.push(left("limit", &link.name, "no container has it"));
            }
            if self.is_own('b', link) && !networks.iter().any(|of| of.bridge == link.name) {
                found.push(left("bridge", &link.name, "no network has it"));
            }
        }
        for of in &networks {
            let is_used = attached.iter().any(|(_, a)| a.networks.iter().any(|n| n.name == of.name));
            if is_used && !names.contains(of.bridge.as_str()) {
                found.push(left(
                    "bridge",
                    &of.bridge,
                    &format!("containers of network {} have none", of.name),
                ));
            }
        }
        found.extend(self.strays()?.into_iter().map(|mac| left("shortcut", mac, "no container has it")));
        found.extend(
            self.ranges()?.into_iter().map(|net| left("range", net.to_string(), "no network has it")),
        );
        let setting_up = self.setting_up();
        let wanted = self.wanted(&setting_up)?;
        match self.firewall.content(forwarding::others(&self.state)).map_err(failed)? {
            None if wanted.is_empty() => {}
            None => found.push(left("firewall", "tables", "they are not there, or have not croft's rules")),
            Some(content) => {
                let more = difference(&content, &wanted)
                    .map(|name| left("firewall", name, "it is there and should not"));
                found.extend(more.chain(
                    difference(&wanted, &content).map(|name| left("firewall", name, "it is missing")),
                ));
            }
        }
        drop(setting_up);
        if !attached.is_empty() && !self.service.answers() {
            found.push(left("service", "network", "names and ports are not served"));
        }
        Ok(found)
    }

    /// Ranges that are taken for networks that are not there.
    fn ranges(&self) -> Result<Vec<Ipv4Net>, Problem> {
        // Held meanwhile, as a network that is being made has its range before it is there.
        let known = self.known();
        let mut own = self.subnets.own()?;
        own.retain(|(net, network)| known.networks.get(network).is_none_or(|of| of.ipv4 != *net));
        Ok(own.into_iter().map(|(net, _)| net).collect())
    }

    /// What must be in the firewall: what is of networks that have a bridge, and of containers.
    fn wanted(&self, _: &MutexGuard<'_, ()>) -> Result<Content, Problem> {
        let failed = |f| of_failure("look at the bridges", f);
        let links = Links::open().and_then(|mut links| links.all()).map_err(failed)?;
        let names: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let networks: Vec<Definition> = self.known().networks.values().cloned().collect();
        let attached = self.attached.all::<Attached>()?;
        let of_networks =
            networks.iter().filter(|of| names.contains(of.bridge.as_str())).map(firewall::of_network);
        let of_attached = attached.iter().map(|(_, attached)| firewall::of_attached(attached));
        let mut wanted = Content::new();
        for (set, elements) in of_networks.chain(of_attached).flatten() {
            wanted.entry(set).or_default().extend(elements);
        }
        Ok(wanted)
    }

    /// Puts croft's tables back as they must be, in one transaction, and touches no others.
    pub(super) fn put_back_firewall(&self, setting_up: &MutexGuard<'_, ()>) -> Result<(), Problem> {
        let wanted = self.wanted(setting_up)?;
        self.firewall.load(forwarding::others(&self.state), &wanted)
    }

    /// Puts back what is missing and takes away what is left over. The daemon calls it when it starts, and now and then: a firewall that
    /// is reloaded may have removed croft's tables.
    ///
    /// # Errors
    /// For the first thing that cannot be mended.
    pub fn mend(&self) -> Result<(), Problem> {
        let title = "mend the networks";
        let failed = |f| of_failure(title, f);
        let attached = self.attached.all::<Attached>()?;
        let networks: Vec<Definition> = self.known().networks.values().cloned().collect();
        for of in &networks {
            self.subnets.keep(&of.name, of.ipv4)?;
        }
        for net in self.ranges()? {
            self.subnets.give_back(net);
        }
        let mut links = Links::open().map_err(failed)?;
        // First, as it closes what must be closed, whatever else cannot be mended.
        self.mend_shortcut()?;
        let all = links.all().map_err(failed)?;
        let used: HashSet<&str> =
            attached.iter().flat_map(|(_, a)| &a.networks).map(|of| of.bridge.as_str()).collect();
        let filters_bridges = forwarding::filters_bridges();
        let is_changed = self.filtered_bridges.swap(u8::from(filters_bridges), Ordering::Relaxed)
            != u8::from(filters_bridges);
        let mut plugged = Vec::new();
        for of in networks.iter().filter(|of| used.contains(of.bridge.as_str())) {
            let bridge = self.set_up(title, of)?;
            for (container, attached) in &attached {
                let ports = attached.ports.iter().zip(&attached.lease.endpoints);
                for (port, endpoint) in ports.filter(|(_, endpoint)| endpoint.network == of.name) {
                    let Some(link) = all.iter().find(|link| link.name == *port) else { continue };
                    let is_plugged = link.bridge == Some(bridge);
                    match of.mode {
                        Mode::Bridge if !is_plugged => {
                            links.plug(link, bridge).map_err(failed)?;
                            let there = Link { bridge: Some(bridge), ..link.clone() };
                            links.know(&there, endpoint.mac).map_err(failed)?;
                            plugged.push(container.clone());
                        }
                        Mode::Bridge => {}
                        Mode::Routed => links.route_to(of, endpoint, port).map_err(failed)?,
                    }
                    if of.mode == Mode::Bridge && (is_changed || !is_plugged) {
                        links.lead_back(link, filters_bridges).map_err(failed)?;
                    }
                }
            }
        }
        {
            let setting_up = self.setting_up();
            // Read again: a limit may have been changed since.
            let attached = self.attached.all::<Attached>()?;
            for (port, rates) in unlimited(&mut links, &attached).map_err(failed)? {
                links.limit(&port, rates).map_err(failed)?;
            }
            let wanted = self.wanted(&setting_up)?;
            match self.firewall.content(forwarding::others(&self.state)).map_err(failed)? {
                None if wanted.is_empty() => {}
                None => self.put_back_firewall(&setting_up)?,
                Some(content) => {
                    self.firewall.remove(&minus(&content, &wanted)).map_err(failed)?;
                    self.firewall.add(&minus(&wanted, &content)).map_err(failed)?;
                }
            }
        }
        self.shorten_all(&plugged)?;
        for left in self.check()? {
            if matches!(
                (left.what, left.why.as_str()),
                ("cable" | "limit", "no container has it") | ("bridge", "no network has it")
            ) {
                links.remove(&left.name).map_err(failed)?;
            }
        }
        if !attached.is_empty() && !self.service.answers() {
            self.service.start(title)?;
        }
        Ok(())
    }

    /// Takes the tables of the firewall and all bridges away, when no container is attached: for who removes croft from a host.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn tear_down(&self) -> Result<(), Problem> {
        let failed = |f| of_failure("take the networks away", f);
        self.firewall.unload()?;
        let mut links = Links::open().map_err(failed)?;
        for of in self.known().networks.values() {
            links.remove(&of.bridge).map_err(failed)?;
        }
        Ok(())
    }
}

/// The cables that are not limited as they should be, and how they should.
fn unlimited(links: &mut Links, attached: &[(String, Attached)]) -> Result<Vec<(String, Rates)>, Failure> {
    let endpoints = attached.iter().flat_map(|(_, a)| a.ports.iter().zip(&a.lease.endpoints));
    let wanted: Vec<(&String, Rates)> = endpoints
        .map(|(port, endpoint)| (port, endpoint.limits))
        .filter(|(_, limits)| *limits != Rates::default())
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let limited = links.limited()?;
    let indices: HashMap<String, u32> =
        links.all()?.into_iter().map(|link| (link.name, link.index)).collect();
    let is_limited = |name: &String| indices.get(name).is_some_and(|index| limited.contains(index));
    let lacks = |(port, limits): &(&String, Rates)| {
        // One that is gone with its container is not to be limited.
        indices.contains_key(*port)
            && (limits.ingress.is_some() && !is_limited(port)
                || limits.egress.is_some() && !is_limited(&device(port)))
    };
    Ok(wanted.into_iter().filter(lacks).map(|(port, limits)| (port.clone(), limits)).collect())
}

/// What `a` has and `b` has not.
pub(super) fn minus(a: &Content, b: &Content) -> Content {
    let none = BTreeSet::new();
    let rest = |(set, elements): (&firewall::Set, &BTreeSet<firewall::Element>)| {
        (*set, elements.difference(b.get(set).unwrap_or(&none)).cloned().collect::<BTreeSet<_>>())
    };
    a.iter().map(rest).filter(|(_, elements)| !elements.is_empty()).collect()
}

fn difference(a: &Content, b: &Content) -> impl Iterator<Item = String> {
    let named = |(set, elements): (firewall::Set, BTreeSet<firewall::Element>)| {
        elements.into_iter().map(move |element| format!("{} {element}", set.name()))
    };
    minus(a, b).into_iter().flat_map(named)
}
