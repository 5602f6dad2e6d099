//! The way between two containers of a bridge that goes past the bridge.
//!
//! A packet from container to container would go through the bridge's rules and the bridge, and wait a second time at the receiver's
//! cable: a tenth of what TCP takes. A program of eBPF at each port looks at it instead, checks that the sender is who it says it is, and
//! puts it in at the other end of the receiver's cable. Everything else goes on to the bridge: broadcasts, what neighbours ask each other,
//! what is for the host or elsewhere, what is limited. It is never needed: on a kernel without it all packets go by the bridge.
//!
//! The program and its tables belong to the kernel, which keeps them as long as one port has the program, whether croftd runs or not.
//! A croftd that starts finds them by the ports that it has a record of.
//!
//! Where the host's rules are to see what stays on a bridge (`br_netfilter`), it is not used: they would not see it.

mod element;
mod program;
mod tables;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard};

use croft_api::network::{Mode, Rates};
use croft_api::problem::{Kind, Problem};
use rustix::io::Errno;

use super::links::{Link, Links};
use super::netlink::Failure;
use super::record::{Attached, Definition, Endpoint};
use super::{Networks, forwarding, of_failure};

use element::{Place, Sender};
use tables::{NAME, Tables};

pub use element::Receiver;
pub use tables::Shortcut;

fn failed(error: &croft_sys::Error) -> Problem {
    Problem::new(Kind::Internal, "change the shortcut between containers", error.to_string())
}

/// Whether packets from and to a container may take it: not past a limit.
fn may_take(of: &Definition, endpoint: &Endpoint) -> bool {
    of.mode == Mode::Bridge && endpoint.limits == Rates::default()
}

/// The ports of a container in networks with a bridge.
fn on_bridges(attached: &Attached) -> impl Iterator<Item = (&String, &Endpoint, &Definition)> {
    let all = attached.ports.iter().zip(&attached.lease.endpoints).zip(&attached.networks);
    all.map(|((port, endpoint), of)| (port, endpoint, of)).filter(|(.., of)| of.mode == Mode::Bridge)
}

/// Runs the program at a port, if it does not.
fn run_at(host: &mut Links, tables: &Tables, port: &Link) -> Result<(), Failure> {
    match host.classifier(port.index)? {
        Some(id) if id == tables.id() => return Ok(()),
        // That of another version of croftd, with tables of its own.
        Some(_) => host.declassify(&port.name, port.index)?,
        None => {}
    }
    host.classify(port.index, tables.program(), NAME)
}

impl Networks {
    fn tables(&self) -> Option<Arc<Tables>> {
        self.shortcut.tables(|| self.programs().unwrap_or_default())
    }

    /// The programs at containers' ports.
    fn programs(&self) -> Result<BTreeSet<u32>, Problem> {
        let failed = |f| of_failure("look for the shortcut between containers", f);
        let attached = self.attached.all::<Attached>()?;
        let ports: BTreeSet<&String> = attached.iter().flat_map(|(_, attached)| &attached.ports).collect();
        let mut host = Links::open().map_err(failed)?;
        let mut programs = BTreeSet::new();
        for link in host.all().map_err(failed)?.iter().filter(|link| ports.contains(&link.name)) {
            programs.extend(host.classifier(link.index).map_err(failed)?);
        }
        Ok(programs)
    }

    /// Lets packets from and to a container take the shortcut, if they may, at a port that is there. Where that cannot be they go by the
    /// bridge.
    pub(super) fn shorten(
        &self,
        host: &mut Links,
        (of, endpoint): (&Definition, &Endpoint),
        port: &Link,
        _: &MutexGuard<'_, ()>,
    ) {
        if !self.shortcut.is_wanted() || !may_take(of, endpoint) || forwarding::filters_bridges() {
            return;
        }
        let (Some(tables), Some(bridge)) = (self.tables(), port.bridge) else { return };
        let opened = match run_at(host, &tables, port) {
            // It has gone with its container.
            Err(failure) if failure.errno() == Some(Errno::NODEV) => return,
            Err(failure) => Err(format!("{}: {}", failure.what, failure.error)),
            Ok(()) => tables.open(Sender::new(endpoint, bridge), port.index).map_err(|e| e.to_string()),
        };
        if let Err(why) = opened {
            tracing::warn!(port = port.name, why, "packets from and to a container all go by its bridge");
        }
    }

    /// Lets packets from and to a container go by the bridge.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub(super) fn lengthen(
        &self,
        port: &Link,
        endpoint: &Endpoint,
        _: &MutexGuard<'_, ()>,
    ) -> Result<(), Problem> {
        let (Some(tables), Some(bridge)) = (self.tables(), port.bridge) else { return Ok(()) };
        tables.close(Place { bridge, mac: endpoint.mac }).map_err(|e| failed(&e))
    }

    /// Forgets a container's ports that are not in `but`.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub(super) fn forget(
        &self,
        host: &mut Links,
        attached: &Attached,
        but: &[String],
        _: &MutexGuard<'_, ()>,
    ) -> Result<(), Problem> {
        let Some(tables) = self.tables() else { return Ok(()) };
        for (_, endpoint, of) in on_bridges(attached).filter(|(port, ..)| !but.contains(port)) {
            let bridge = host.find(&of.bridge).map_err(|f| of_failure("find a container's bridge", f))?;
            // Without its bridge, what is kept of it is found by [`Networks::mend`].
            let Some(bridge) = bridge else { continue };
            tables.remove(Place { bridge: bridge.index, mac: endpoint.mac }).map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// What a container was sent past its bridge.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) fn sent_past(&self, port: &Link, endpoint: &Endpoint) -> Result<Receiver, Problem> {
        let (Some(tables), Some(bridge)) = (self.tables(), port.bridge) else {
            return Ok(Receiver::default());
        };
        let receiver = tables.receiver(Place { bridge, mac: endpoint.mac }).map_err(|e| failed(&e))?;
        Ok(receiver.unwrap_or_default())
    }

    /// Hardware addresses in the tables that no container has.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub(super) fn strays(&self) -> Result<Vec<String>, Problem> {
        let Some(tables) = self.tables() else { return Ok(Vec::new()) };
        // What is there first, and then what should be: whatever is made has a record before.
        let places = tables.places().map_err(|e| failed(&e))?;
        let attached = self.attached.all::<Attached>()?;
        let all = || attached.iter().flat_map(|(_, attached)| on_bridges(attached));
        let is_stray = |place: &&Place| all().all(|(_, endpoint, _)| endpoint.mac != place.mac);
        Ok(places.iter().filter(is_stray).map(|place| place.mac.to_string()).collect())
    }

    /// Makes the tables, and the ports, as they should be.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub(super) fn mend_shortcut(
        &self,
        host: &mut Links,
        setting_up: &MutexGuard<'_, ()>,
    ) -> Result<(), Problem> {
        let Some(tables) = self.tables() else { return Ok(()) };
        let attached = self.attached.all::<Attached>()?;
        let links = host.all().map_err(|f| of_failure("look at containers' ports", f))?;
        let links: HashMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
        let endpoints = attached.iter().flat_map(|(_, attached)| on_bridges(attached));
        let there: Vec<(&Link, &Endpoint, &Definition)> = endpoints
            .filter_map(|(port, endpoint, of)| Some((*links.get(port.as_str())?, endpoint, of)))
            .collect();
        let places: BTreeSet<Place> = there
            .iter()
            .filter_map(|(port, endpoint, _)| Some(Place { bridge: port.bridge?, mac: endpoint.mac }))
            .collect();
        for place in tables.places().map_err(|e| failed(&e))?.difference(&places) {
            tables.remove(*place).map_err(|e| failed(&e))?;
        }
        let is_used = self.shortcut.is_wanted() && !forwarding::filters_bridges();
        for (port, endpoint, of) in there {
            match is_used && may_take(of, endpoint) {
                true => self.shorten(host, (of, endpoint), port, setting_up),
                false => self.lengthen(port, endpoint, setting_up)?,
            }
        }
        Ok(())
    }
}
