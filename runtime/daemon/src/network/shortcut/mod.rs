//! The way between two containers of a bridge that goes past the bridge.
//!
//! A packet from container to container would go through the bridge's rules and the bridge, and wait a second time at the receiver's
//! cable: a tenth of what TCP takes. A program of eBPF at each port looks at it instead, checks that the sender is who it says it is, and
//! puts it in at the other end of the receiver's cable. Everything else goes on to the bridge: broadcasts, what neighbours ask each other,
//! what is for the host or elsewhere, what is limited. It is never needed: on a kernel without it all packets go by the bridge.
//!
//! A filter that comes and goes with a container cost a start a millisecond or two, those of others too. So a container goes by the
//! bridge first, and who calls [`Networks::attach`] calls [`Networks::shorten`] later, when nobody waits: a short-lived one never has it.
//!
//! The program and its tables belong to the kernel, which keeps them as long as one port has the program, whether croftd runs or not.
//! A croftd that starts finds them by the ports that it has a record of.
//!
//! Where the host's rules are to see what stays on a bridge (`br_netfilter`), it is not used: they would not see it. A port that somebody
//! unplugs or sets down is closed when that is seen, within half a minute. What else a host can do at a bridge does not hold for these
//! packets: nft's tables of the families bridge and netdev, ebtables, tc at the ports, isolated ports. `croftd --no-shortcut` is for that.

mod element;
mod program;
mod tables;

use std::collections::BTreeSet;
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

/// The ports of a container in networks with a bridge.
fn on_bridges(attached: &Attached) -> impl Iterator<Item = (&String, &Endpoint, &Definition)> {
    let all = attached.ports.iter().zip(&attached.lease.endpoints).zip(&attached.networks);
    all.map(|((port, endpoint), of)| (port, endpoint, of)).filter(|(.., of)| of.mode == Mode::Bridge)
}

/// Takes the program of a croftd before this one from a port, since nobody changes its tables any more. Whether the port has that of
/// `tables`.
fn take_away_old(host: &mut Links, tables: Option<&Tables>, port: &Link) -> Result<bool, Failure> {
    let Some(id) = host.classifier(port.index, NAME)? else { return Ok(false) };
    let is_own = tables.is_some_and(|tables| tables.id() == id);
    if is_own {
        return Ok(true);
    }
    match host.declassify(&port.name, port.index) {
        // It has gone with its container.
        Err(failure) if failure.errno() == Some(Errno::NODEV) => Ok(false),
        gone => gone.map(|()| false),
    }
}

/// Runs the program at a port, if it does not.
fn run_at(host: &mut Links, tables: &Tables, port: &Link) -> Result<(), Failure> {
    match take_away_old(host, Some(tables), port)? {
        true => Ok(()),
        false => host.classify(port.index, tables.program(), NAME),
    }
}

impl Networks {
    fn tables(&self) -> Option<Arc<Tables>> {
        self.shortcut.tables(|| self.programs())
    }

    /// The programs at containers' ports.
    fn programs(&self) -> Result<BTreeSet<u32>, Problem> {
        let failed = |f| of_failure("look for the shortcut between containers", f);
        let attached = self.attached.all::<Attached>()?;
        let ports: BTreeSet<&String> = attached.iter().flat_map(|(_, attached)| &attached.ports).collect();
        let mut host = Links::open().map_err(failed)?;
        let mut programs = BTreeSet::new();
        for link in host.all().map_err(failed)?.iter().filter(|link| ports.contains(&link.name)) {
            programs.extend(host.classifier(link.index, NAME).map_err(failed)?);
        }
        Ok(programs)
    }

    /// Lets packets from and to a container that runs take the shortcut, if they may, and go by the bridge otherwise. They do that also
    /// where the kernel does not take the program.
    ///
    /// # Errors
    /// When packets that may not take it would go on doing so.
    pub fn shorten(&self, container: &str) -> Result<(), Problem> {
        let failed = |f| of_failure("look at a container's ports", f);
        let mut host = Links::open().map_err(failed)?;
        let setting_up = self.setting_up();
        // Read under the lock: a limit may have come since somebody thought of this.
        let Some(attached) = self.attached.read::<Attached>(container)? else { return Ok(()) };
        for (port, endpoint, of) in on_bridges(&attached) {
            match host.find(port).map_err(failed)? {
                Some(link) => self.shorten_at(&mut host, (of, endpoint), &link, &setting_up)?,
                None => self.lengthen(of, endpoint, &setting_up)?,
            }
        }
        Ok(())
    }

    /// The same for several.
    ///
    /// # Errors
    /// For the first that it cannot be done for; it is for the others.
    pub fn shorten_all(&self, containers: &[String]) -> Result<(), Problem> {
        // One after the other: whoever starts a container in between need not wait for all.
        containers.iter().map(|container| self.shorten(container)).fold(Ok(()), Result::and)
    }

    /// The same at a port that is there.
    ///
    /// # Errors
    /// As [`Networks::shorten`].
    pub(super) fn shorten_at(
        &self,
        host: &mut Links,
        (of, endpoint): (&Definition, &Endpoint),
        port: &Link,
        setting_up: &MutexGuard<'_, ()>,
    ) -> Result<(), Problem> {
        if of.mode != Mode::Bridge {
            return Ok(());
        }
        // Who sets a port down, or unplugs it, means all packets.
        let may = self.shortcut.is_wanted()
            && endpoint.limits == Rates::default()
            && port.is_up
            && port.bridge.is_some()
            && !forwarding::filters_bridges();
        let tables = self.tables();
        let Some(tables) = tables.as_deref().filter(|_| may) else {
            take_away_old(host, tables.as_deref(), port)
                .map_err(|failure| of_failure("close the shortcut between containers", failure))?;
            return self.lengthen(of, endpoint, setting_up);
        };
        let opened = match run_at(host, tables, port) {
            // It has gone with its container.
            Err(failure) if failure.errno() == Some(Errno::NODEV) => return Ok(()),
            Err(failure) => Err(format!("{}: {}", failure.what, failure.error)),
            Ok(()) => tables.open(Sender::new(of, endpoint), port.index).map_err(|e| e.to_string()),
        };
        if let Err(why) = opened {
            self.shortcut.complain(&port.name, &why);
        }
        Ok(())
    }

    /// Lets packets from and to a container go by the bridge.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub(super) fn lengthen(
        &self,
        of: &Definition,
        endpoint: &Endpoint,
        _: &MutexGuard<'_, ()>,
    ) -> Result<(), Problem> {
        let Some(tables) = self.tables() else { return Ok(()) };
        tables.close(Place::new(of, endpoint)).map_err(|e| failed(&e))
    }

    /// Forgets a container's ports that are not in `but`.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub(super) fn forget(
        &self,
        attached: &Attached,
        but: &[String],
        _: &MutexGuard<'_, ()>,
    ) -> Result<(), Problem> {
        let Some(tables) = self.tables() else { return Ok(()) };
        for (_, endpoint, of) in on_bridges(attached).filter(|(port, ..)| !but.contains(port)) {
            tables.remove(Place::new(of, endpoint)).map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// What a container was sent past its bridge.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) fn sent_past(&self, of: &Definition, endpoint: &Endpoint) -> Result<Receiver, Problem> {
        let Some(tables) = self.tables() else { return Ok(Receiver::default()) };
        let receiver = tables.receiver(Place::new(of, endpoint)).map_err(|e| failed(&e))?;
        Ok(receiver.unwrap_or_default())
    }

    /// Hardware addresses in the tables that no container has.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub(super) fn strays(&self) -> Result<Vec<String>, Problem> {
        let Some(tables) = self.tables() else { return Ok(Vec::new()) };
        Ok(self.stray_places(&tables)?.iter().map(|place| place.mac.to_string()).collect())
    }

    fn stray_places(&self, tables: &Tables) -> Result<Vec<Place>, Problem> {
        // What is there first, and then what should be: whatever is made has a record before.
        let places = tables.places().map_err(|e| failed(&e))?;
        let attached = self.attached.all::<Attached>()?;
        let all = attached.iter().flat_map(|(_, attached)| on_bridges(attached));
        let owned: BTreeSet<Place> = all.map(|(_, endpoint, of)| Place::new(of, endpoint)).collect();
        Ok(places.difference(&owned).copied().collect())
    }

    /// Makes the tables, and all ports, as they should be.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub(super) fn mend_shortcut(&self) -> Result<(), Problem> {
        if let Some(tables) = self.tables() {
            let _setting_up = self.setting_up();
            for place in self.stray_places(&tables)? {
                tables.remove(place).map_err(|e| failed(&e))?;
            }
        }
        self.shorten_all(&self.attached()?)
    }
}
