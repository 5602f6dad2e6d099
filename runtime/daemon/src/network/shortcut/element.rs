//! What the tables have of a container's port.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::mac::Mac;
use super::super::record::{Definition, Endpoint};
use super::program::{
    CLOSED, KEY_MAC, KEY_NETWORK, KEY_SIZE, RECEIVER_BYTES, RECEIVER_PACKETS, RECEIVER_PORT, RECEIVER_SIZE,
    SENDER_HAS_IPV6, SENDER_IPV4, SENDER_IPV6, SENDER_MAC, SENDER_NETWORK, SENDER_SIZE,
};

/// A container's place in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The network, by its first address: the bridge may be made anew, and has another index then.
    pub network: Ipv4Addr,
    /// The container's hardware address.
    pub mac: Mac,
}

impl Place {
    pub fn new(of: &Definition, endpoint: &Endpoint) -> Self {
        Place { network: of.ipv4.network(), mac: endpoint.mac }
    }

    pub fn key(&self) -> [u8; KEY_SIZE] {
        let mut key = [0; KEY_SIZE];
        put(&mut key, KEY_NETWORK, &self.network.octets());
        put(&mut key, KEY_MAC, &self.mac.0);
        key
    }

    pub fn of_key(key: &[u8; KEY_SIZE]) -> Self {
        Place { network: Ipv4Addr::from(get::<4>(key, KEY_NETWORK)), mac: Mac(get(key, KEY_MAC)) }
    }
}

/// Who may send from a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Where it is.
    pub place: Place,
    ipv4: Ipv4Addr,
    ipv6: Option<[Ipv6Addr; 2]>,
}

impl Sender {
    /// The container of an endpoint in a network.
    pub fn new(of: &Definition, endpoint: &Endpoint) -> Self {
        let place = Place::new(of, endpoint);
        let ipv6 = endpoint.ipv6.map(|ip| [ip, endpoint.mac.link_local()]);
        Sender { place, ipv4: endpoint.ipv4, ipv6 }
    }

    pub fn to_bytes(self) -> [u8; SENDER_SIZE] {
        let mut bytes = [0; SENDER_SIZE];
        put(&mut bytes, SENDER_NETWORK, &self.place.network.octets());
        put(&mut bytes, SENDER_MAC, &self.place.mac.0);
        put(&mut bytes, SENDER_HAS_IPV6, &u16::from(self.ipv6.is_some()).to_ne_bytes());
        put(&mut bytes, SENDER_IPV4, &self.ipv4.octets());
        for (at, ip) in SENDER_IPV6.into_iter().zip(self.ipv6.into_iter().flatten()) {
            put(&mut bytes, at, &ip.octets());
        }
        bytes
    }
}

/// Where packets for a container go, and what has gone there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receiver {
    /// The host's end of its cable; none when packets go by the bridge.
    pub port: Option<u32>,
    /// Packets that it was sent past the bridge.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Receiver {
    pub fn to_bytes(self) -> [u8; RECEIVER_SIZE] {
        let mut bytes = [0; RECEIVER_SIZE];
        put(&mut bytes, RECEIVER_PORT, &self.port.unwrap_or(CLOSED.cast_unsigned()).to_ne_bytes());
        put(&mut bytes, RECEIVER_PACKETS, &self.packets.to_ne_bytes());
        put(&mut bytes, RECEIVER_BYTES, &self.bytes.to_ne_bytes());
        bytes
    }

    pub fn of_bytes(bytes: &[u8; RECEIVER_SIZE]) -> Self {
        let port = Some(u32::from_ne_bytes(get(bytes, RECEIVER_PORT)))
            .filter(|port| *port != CLOSED.cast_unsigned());
        let number = |at| u64::from_ne_bytes(get(bytes, at));
        Receiver { port, packets: number(RECEIVER_PACKETS), bytes: number(RECEIVER_BYTES) }
    }
}

fn put(bytes: &mut [u8], at: i16, field: &[u8]) {
    let at = usize::from(at.unsigned_abs());
    bytes[at..at + field.len()].copy_from_slice(field);
}

fn get<const N: usize>(bytes: &[u8], at: i16) -> [u8; N] {
    let at = usize::from(at.unsigned_abs());
    bytes[at..at + N].try_into().expect("as many bytes as were asked for")
}
