//! The program and its tables in the kernel.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use croft_api::problem::Problem;
use croft_sys::bpf::map::HashMap;
use croft_sys::bpf::{self, Identity, Kind};

use super::element::{Place, Receiver, Sender};
use super::program::{self, KEY_SIZE, RECEIVER_SIZE, SENDER_SIZE};

/// The most containers of one croftd, once for each of their networks: what is beyond goes by the bridge.
const MOST: u32 = 16 << 10;

/// The program's name in the kernel's lists.
pub const NAME: &str = "croft_shortcut";

/// Whether there is a shortcut.
#[derive(Debug)]
pub struct Shortcut {
    is_wanted: bool,
    has_complained: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Unknown,
    None,
    There(Arc<Tables>),
}

impl Shortcut {
    /// One that is made when it is first used.
    pub fn new(is_wanted: bool) -> Self {
        Shortcut { is_wanted, has_complained: AtomicBool::new(false), state: Mutex::new(State::Unknown) }
    }

    /// Whether packets are to take it.
    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// The program and its tables: those that `programs`, the ids of the programs that ports have, lead to, or new ones. None where the
    /// kernel does not have what is needed, or nobody wants them.
    pub fn tables(&self, programs: impl FnOnce() -> Result<BTreeSet<u32>, Problem>) -> Option<Arc<Tables>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Unknown) {
            let there = programs().unwrap_or_else(|problem| {
                tracing::warn!(%problem, "the shortcut of the croftd before this one is not found");
                BTreeSet::new()
            });
            *state = match self.is_wanted || !there.is_empty() {
                true => self.find(there),
                false => State::None,
            };
        }
        match &*state {
            State::There(tables) => Some(Arc::clone(tables)),
            State::Unknown | State::None => None,
        }
    }

    fn find(&self, there: BTreeSet<u32>) -> State {
        let new = match Tables::new() {
            Ok(new) => new,
            Err(why) => {
                tracing::info!(why, "what containers send each other all goes by their bridge");
                return State::None;
            }
        };
        match (there.into_iter().find_map(|id| Tables::like(&new, id)), self.is_wanted) {
            (Some(found), _) => State::There(Arc::new(found)),
            (None, true) => State::There(Arc::new(new)),
            (None, false) => State::None,
        }
    }

    /// Says, once, that a port has no shortcut: it is tried again and again.
    pub fn complain(&self, port: &str, why: &str) {
        if self.has_complained.swap(true, Ordering::Relaxed) {
            tracing::debug!(port, why, "packets from and to a container all go by its bridge");
        } else {
            tracing::warn!(
                port,
                why,
                "packets from and to a container all go by its bridge; further ones are not said"
            );
        }
    }
}

/// The program and its tables.
#[derive(Debug)]
pub struct Tables {
    program: OwnedFd,
    identity: Identity,
    ports: HashMap<4, SENDER_SIZE>,
    receivers: HashMap<KEY_SIZE, RECEIVER_SIZE>,
}

impl Tables {
    fn new() -> Result<Self, String> {
        let failed = |e: croft_sys::Error| e.to_string();
        let ports = HashMap::new("croft_ports", MOST).map_err(failed)?;
        let receivers = HashMap::new("croft_receivers", MOST).map_err(failed)?;
        let code = program::program(ports.as_fd(), receivers.as_fd());
        let program = bpf::load(Kind::Classifier, NAME, &code).map_err(|e| e.to_string())?;
        let identity = bpf::identity(program.as_fd(), Kind::Classifier).map_err(failed)?;
        let identity = identity.ok_or("the kernel takes the program for one of another kind")?;
        Ok(Tables { program, identity, ports, receivers })
    }

    /// Those of the program `id`, if it does the same as that of `new`.
    fn like(new: &Tables, id: u32) -> Option<Self> {
        let program = bpf::program(id).ok()?;
        let identity = bpf::identity(program.as_fd(), Kind::Classifier).ok()??;
        let maps = bpf::maps_of(program.as_fd()).ok()?;
        let ([ports, receivers], true) = (maps.as_slice(), identity.tag == new.identity.tag) else {
            return None;
        };
        let (ports, receivers) = (HashMap::open(*ports).ok()??, HashMap::open(*receivers).ok()??);
        Some(Tables { program, identity, ports, receivers })
    }

    /// The program.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// The number that the kernel has for it.
    pub fn id(&self) -> u32 {
        self.identity.id
    }

    /// Lets packets from and to a container past the bridge, at the port with this index. What was counted stays.
    ///
    /// # Errors
    /// E2BIG: the tables are full.
    pub fn open(&self, sender: Sender, port: u32) -> croft_sys::Result<()> {
        let before = self.receiver(sender.place)?.unwrap_or_default();
        if before.port != Some(port) {
            if let Some(other) = before.port {
                self.ports.remove(&other.to_ne_bytes())?;
            }
            let receiver = Receiver { port: Some(port), ..before };
            self.receivers.insert(&sender.place.key(), &receiver.to_bytes())?;
        }
        // The last, as it is what makes its packets take the shortcut.
        let bytes = sender.to_bytes();
        if self.ports.get(&port.to_ne_bytes())? != Some(bytes) {
            self.ports.insert(&port.to_ne_bytes(), &bytes)?;
        }
        Ok(())
    }

    /// Lets packets from and to a container go by the bridge. What was counted stays.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn close(&self, place: Place) -> croft_sys::Result<()> {
        if let Some(receiver @ Receiver { port: Some(port), .. }) = self.receiver(place)? {
            self.ports.remove(&port.to_ne_bytes())?;
            self.receivers.insert(&place.key(), &Receiver { port: None, ..receiver }.to_bytes())?;
        }
        Ok(())
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn remove(&self, place: Place) -> croft_sys::Result<()> {
        if let Some(Receiver { port: Some(port), .. }) = self.receiver(place)? {
            self.ports.remove(&port.to_ne_bytes())?;
        }
        self.receivers.remove(&place.key())
    }

    /// What has gone to a container past the bridge.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn receiver(&self, place: Place) -> croft_sys::Result<Option<Receiver>> {
        Ok(self.receivers.get(&place.key())?.map(|bytes| Receiver::of_bytes(&bytes)))
    }

    /// Who is in the tables.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn places(&self) -> croft_sys::Result<BTreeSet<Place>> {
        Ok(self.receivers.keys()?.iter().map(Place::of_key).collect())
    }
}
