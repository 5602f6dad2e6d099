//! Networks of containers: a bridge for each, addresses, cables, the firewall, published ports, names.
//!
//! | module | what |
//! |---|---|
//! | `record` | what is kept, and where |
//! | `subnets`, `addresses` | which ranges networks have, and which addresses containers |
//! | `attach` | a container's way in and out, in this order: record, firewall, ports and names, cable |
//! | `links`, `netlink` | the kernel's devices, addresses and routes |
//! | `firewall` | croft's own tables of nftables |
//! | `service` | the process that answers for names and holds published ports while croftd is away |
//! | `check` | what is missing or left over, and mending it |
//!
//! A container's network namespace is made by croft-oci, together with the container's user namespace, so that it belongs to that: only
//! so may root in the container give addresses, bind ports below 1024, use raw sockets and mount sysfs there. croftd puts a cable into it
//! between create and start, when the namespace is there and nothing of the container has run yet. It has no name and no mount: it goes
//! with the container's last process and takes the cable along, so that no crash leaves one behind.

pub mod addresses;
mod attach;
mod check;
mod files;
mod firewall;
mod forwarding;
mod links;
mod mac;
mod netlink;
mod record;
pub mod service;
mod subnets;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use croft_api::network::{Network, Protocol, Publish};
use croft_api::problem::{Kind, Problem};
use ipnet::{Ipv4Net, Ipv6Net};

use addresses::{Taken, Wanted};
use firewall::Firewall;
use record::{Folder, Life};
use service::client::Client;
use subnets::Subnets;

pub use check::Left;
pub use files::Files;
pub use links::Traffic;
pub use mac::Mac;
pub use record::{Attached, Definition, Endpoint, Lease};

/// The network that is there without being made.
pub const DEFAULT: &str = "croft";

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of what survives a reboot.
    pub root: PathBuf,
    /// The folder of what does not.
    pub state: PathBuf,
    /// The folder that all croftd of the host share.
    pub host_state: PathBuf,
    /// How names of bridges, cables and tables begin; no two croftd of a host have the same.
    pub prefix: String,
    /// The command that runs [`service::run`]; the state folder is its last argument.
    pub service: Vec<OsString>,
}

/// What a container wants of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The networks; the first is its way out.
    pub networks: Vec<Wanted>,
    /// By which names others find it.
    pub names: Vec<String>,
    /// The ports of the host that lead to it.
    pub publish: Vec<Publish>,
}

/// What a new network shall be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its addresses, or any that are free.
    pub ipv4: Option<Ipv4Net>,
    /// Its addresses of IPv6, or any of its own.
    pub ipv6: Option<Ipv6Net>,
    /// The largest packet, or that of the host's way out.
    pub mtu: Option<u32>,
}

/// What is known of networks; the files have the same.
#[derive(Debug, Default)]
struct Known {
    networks: BTreeMap<String, Definition>,
    leases: HashMap<String, Lease>,
    taken: HashMap<String, Taken>,
    /// The ports that lead to containers that are attached.
    published: HashMap<(Protocol, u16), Vec<Taker>>,
}

/// Of which of the host's addresses a port leads to a container, and to which one.
type Taker = (Option<IpAddr>, String);

/// The networks of one croftd.
#[derive(Debug)]
pub struct Networks {
    prefix: String,
    state: PathBuf,
    subnets: Subnets,
    networks: Folder,
    leases: Folder,
    attached: Folder,
    firewall: Firewall,
    service: Client,
    known: Mutex<Known>,
    /// Held by who changes the host's side: what must be there is read, and put there, in one go. It is taken before `known`.
    setting_up: Mutex<()>,
    next_port: AtomicU32,
    /// No other croftd has the same folders.
    _lock: File,
}

/// Letters of a prefix: an interface's name has 15, and "-v" with six digits follow.
const LONGEST_PREFIX: usize = 7;

impl Networks {
    /// Opens what is kept. Nothing of the host is touched.
    ///
    /// # Errors
    /// When a file cannot be read, or another croftd has the folders.
    pub fn open(settings: Settings) -> Result<Self, Problem> {
        let Settings { root, state, host_state, prefix, service } = settings;
        let title = "open the networks";
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if prefix.is_empty()
            || prefix.len() > LONGEST_PREFIX
            || !prefix.starts_with(|c: char| c.is_ascii_lowercase())
            || !prefix.chars().all(letters)
        {
            let why = format!("{prefix:?} cannot begin the names of bridges");
            return Err(Problem::new(Kind::Invalid, title, why)
                .hint("one to seven small letters and digits, a letter first"));
        }
        let (root, state) = (root.join("network"), state.join("network"));
        let failed = |path: &PathBuf, e: std::io::Error| {
            Problem::new(Kind::Internal, title, format!("{}: {e}", path.display()))
        };
        for folder in [&root, &state] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|e| failed(folder, e))?;
        }
        let lock_path = root.join(".lock");
        let lock = File::create(&lock_path).map_err(|e| failed(&lock_path, e))?;
        if lock.try_lock().is_err() {
            let why = format!("another croftd has {}", root.display());
            return Err(
                Problem::new(Kind::Conflict, title, why).hint("give this one its own --root and --state")
            );
        }
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Problem::new(Kind::Internal, title, e.to_string()))?;
        let networks = Networks {
            subnets: Subnets::open(&host_state.join("subnets"), &root)?,
            networks: Folder::open(root.join("networks"), Life::Durable)?,
            leases: Folder::open(root.join("leases"), Life::Durable)?,
            attached: Folder::open(state.join(service::ATTACHED), Life::Boot)?,
            firewall: Firewall::new(format!("croft_{prefix}"), &format!("{prefix}-v")),
            service: Client::new(service, &state),
            known: Mutex::default(),
            setting_up: Mutex::default(),
            next_port: AtomicU32::new(u32::from_ne_bytes(random)),
            _lock: lock,
            prefix,
            state,
        };
        networks.read()?;
        Ok(networks)
    }

    fn read(&self) -> Result<(), Problem> {
        [&self.networks, &self.leases, &self.attached].into_iter().for_each(Folder::sweep);
        let mut known = self.known();
        known.networks = self.networks.all()?.into_iter().collect();
        for (container, lease) in self.leases.all::<Lease>()? {
            known.take(&lease);
            known.leases.insert(container, lease);
        }
        for (container, attached) in self.attached.all::<Attached>()? {
            known.publish("open the networks", &container, &attached.lease.publish)?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
        routes.extend(known.networks.values().filter_map(|of| of.ipv6).map(ipnet::IpNet::V6));
        let ipv6 = match new.ipv6.map(|net| net.trunc()) {
            None if forwarding::has_ipv6() => {
                Some(subnets::unique_local(&routes).map_err(|e| failed(e.to_string()))?)
            }
            None => None,
            Some(net) if net.prefix_len() > 112 => {
                return Err(Problem::new(Kind::Invalid, title, format!("{net} is too small: /112 at least")));
            }
            Some(net) => {
                let overlaps = |route: &&ipnet::IpNet| matches!(route, ipnet::IpNet::V6(r) if r.prefix_len() > 0 && (r.contains(&net) || net.contains(r)));
                if let Some(route) = routes.iter().find(overlaps) {
                    return Err(Problem::new(
                        Kind::Conflict,
                        title,
                        format!("{net} overlaps the host's route to {route}"),
                    ));
                }
                Some(net)
            }
        };
        let numbers = 0..=known.networks.len();
        let free = |bridge: &String| known.networks.values().all(|of| of.bridge != *bridge);
        let bridge = numbers.map(|number| format!("{}-b{number}", self.prefix)).find(free);
        let bridge = bridge.expect("one of more names than there are networks is free");
        let ipv4 = self.subnets.take(&new.name, new.ipv4, &routes)?;
        Ok(Definition { name: new.name, bridge, ipv4, ipv6, mtu: mtu.unwrap_or(1500) })
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
        let users = known.containers(name);
        if !users.is_empty() {
            let problem =
                Problem::new(Kind::Conflict, title, format!("it is of use to {}", users.join(", ")));
            return Err(problem.hint("remove these containers first"));
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

    /// Takes addresses for a container; they are its own until [`Networks::release`], whatever happens. One that has a lease keeps it.
    ///
    /// # Errors
    /// When a network is not there, or an address taken, or none left.
    pub fn reserve(&self, container: &str, wish: &Wish) -> Result<Lease, Problem> {
        if wish.networks.iter().any(|wanted| wanted.network == DEFAULT)
            && !self.known().networks.contains_key(DEFAULT)
        {
            let made = self.create(NewNetwork { name: DEFAULT.to_owned(), ..NewNetwork::default() });
            // Another container may have been quicker.
            made.map(drop).or_else(|p| {
                if p.kind == Kind::Conflict && self.known().networks.contains_key(DEFAULT) {
                    Ok(())
                } else {
                    Err(p)
                }
            })?;
        }
        let mut known = self.known();
        if let Some(lease) = known.leases.get(container) {
            return Ok(lease.clone());
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for wanted in &wish.networks {
            let of = known.network(&wanted.network, format!("join network {}", wanted.network))?;
            if endpoints.iter().any(|endpoint| endpoint.network == wanted.network) {
                let title = format!("join network {}", wanted.network);
                return Err(Problem::new(Kind::Invalid, title, "it is named twice"));
            }
            let none = Taken::default();
            endpoints.push(known.taken.get(&wanted.network).unwrap_or(&none).choose(of, wanted)?);
        }
        let (names, publish) = (wish.names.clone(), wish.publish.clone());
        let lease = Lease { container: container.to_owned(), names, endpoints, publish };
        self.leases.save(container, &lease)?;
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

    fn setting_up(&self) -> MutexGuard<'_, ()> {
        self.setting_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn network(&self, name: &str, title: String) -> Result<&Definition, Problem> {
        self.networks.get(name).ok_or_else(|| {
            let problem = Problem::new(Kind::NotFound, title, format!("there is no network {name}"));
            problem.hint(format!("croft network create {name}"))
        })
    }

    fn take(&mut self, lease: &Lease) {
        for endpoint in &lease.endpoints {
            if let Some(of) = self.networks.get(&endpoint.network) {
                self.taken.entry(endpoint.network.clone()).or_default().add(of, endpoint);
            }
        }
    }

    fn give_back(&mut self, lease: &Lease) {
        for endpoint in &lease.endpoints {
            self.taken.entry(endpoint.network.clone()).or_default().remove(endpoint);
        }
    }

    /// Gives ports to a container, all or none, which no other has.
    fn publish(&mut self, title: &str, container: &str, ports: &[Publish]) -> Result<(), Problem> {
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

    fn unpublish(&mut self, container: &str, ports: &[Publish]) {
        for port in ports {
            if let Some(takers) = self.published.get_mut(&(port.protocol, port.host)) {
                takers.retain(|(_, who)| who != container);
            }
        }
    }

    fn containers(&self, network: &str) -> Vec<String> {
        let of_it = |lease: &&Lease| lease.endpoints.iter().any(|endpoint| endpoint.network == network);
        let mut containers: Vec<String> =
            self.leases.values().filter(of_it).map(|lease| lease.container.clone()).collect();
        containers.sort();
        containers
    }

    fn shown(&self, of: &Definition) -> Network {
        let (ipv4, ipv6): (Ipv4Addr, Option<Ipv6Addr>) = links::gateways(of);
        Network {
            name: of.name.clone(),
            bridge: of.bridge.clone(),
            subnets: std::iter::once(of.ipv4.to_string()).chain(of.ipv6.map(|net| net.to_string())).collect(),
            gateways: std::iter::once(ipv4.to_string()).chain(ipv6.map(|ip| ip.to_string())).collect(),
            containers: self.containers(&of.name),
        }
    }
}

/// What the kernel did not do, as a problem.
fn of_failure(title: &str, failure: netlink::Failure) -> Problem {
    let detail = format!("{}: {}", failure.what, failure.error);
    let problem = Problem::new(Kind::Internal, title, detail);
    match failure.errno() {
        Some(rustix::io::Errno::PERM) => problem.hint("croftd needs CAP_NET_ADMIN"),
        Some(rustix::io::Errno::OPNOTSUPP) => {
            problem.hint("the kernel lacks bridge, veth or nf_tables: modprobe them")
        }
        _ => problem,
    }
}
