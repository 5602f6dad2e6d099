//! Networks of containers: a bridge for each, addresses, cables, the firewall, published ports, names.
//!
//! | module | what |
//! |---|---|
//! | `record` | what is kept, and where |
//! | `subnets`, `addresses` | which ranges networks have, and which addresses containers |
//! | `definitions`, `leases`, `known` | networks, and who has which addresses in them, as records and in memory |
//! | `attach`, `connect` | a container's way in and out, in this order: record, firewall, ports and names, cable |
//! | `links`, `netlink` | the kernel's devices, addresses and routes |
//! | `firewall` | croft's own tables of nftables |
//! | `shortcut` | the way between containers of a bridge that goes past the bridge |
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
mod connect;
mod definitions;
mod files;
mod firewall;
mod forwarding;
mod known;
mod leases;
mod links;
mod mac;
mod netlink;
mod record;
pub mod service;
mod shortcut;
mod subnets;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU32};
use std::sync::{Mutex, MutexGuard, PoisonError};

use croft_api::network::Publish;
use croft_api::problem::{Kind, Problem};

use addresses::Wanted;
use firewall::Firewall;
use known::Known;
use record::{Folder, Life};
use service::client::Client;
use shortcut::Shortcut;
use subnets::Subnets;

pub use check::Left;
pub use definitions::NewNetwork;
pub use files::Files;
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
    /// Whether packets between containers of a bridge go past the bridge, where they can.
    pub shortcut: bool,
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
    shortcut: Shortcut,
    known: Mutex<Known>,
    /// Held by who changes the host's side: what must be there is read, and put there, in one go. It is taken before `known`.
    setting_up: Mutex<()>,
    next_port: AtomicU32,
    /// Whether the host's rules saw what stays on bridges when that was looked at: 0 or 1, and something else before.
    filtered_bridges: AtomicU8,
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
        let Settings { root, state, host_state, prefix, service, shortcut } = settings;
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
        let failed = |path: &PathBuf, e: std::io::Error| Problem::of_file(title, path, &e);
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
            shortcut: Shortcut::new(shortcut),
            known: Mutex::default(),
            setting_up: Mutex::default(),
            next_port: AtomicU32::new(u32::from_ne_bytes(random)),
            filtered_bridges: AtomicU8::new(u8::MAX),
            _lock: lock,
            prefix,
            state,
        };
        networks.read()?;
        Ok(networks)
    }

    fn read(&self) -> Result<(), Problem> {
        [&self.networks, &self.leases, &self.attached].into_iter().for_each(Folder::sweep);
        self.leases.sweep_cut_off();
        let mut known = self.known();
        known.networks = self.networks.all()?.into_iter().collect();
        for (container, mut lease) in self.leases.all::<Lease>()? {
            while let Some(at) = lease.endpoints.iter().position(|endpoint| endpoint.interface.is_empty()) {
                lease.endpoints[at].interface = lease.free_interface();
            }
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

    fn setting_up(&self) -> MutexGuard<'_, ()> {
        self.setting_up.lock().unwrap_or_else(PoisonError::into_inner)
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
