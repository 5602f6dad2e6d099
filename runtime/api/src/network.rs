//! Networks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A port of the host that leads to one of the container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Publish {
    /// The host's address; all of them without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The container's port.
    pub container: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How the containers of a network are connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All to one bridge: neighbours see each other's hardware addresses, and broadcasts reach them.
    #[default]
    Bridge,
    /// Each by a cable of its own, with a route to its addresses: the host passes on all that goes between them.
    Routed,
}

/// A network as it is asked for. Everything but its name has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its addresses, as `10.0.0.0/24`: one range of IPv4 and one of IPv6 at most. What is not asked for is any that is free.
    pub subnets: Vec<String>,
    /// The host's addresses in it; the first of each range without them.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub gateways: Vec<IpAddr>,
    /// Whether it leads nowhere: its containers reach each other and the host's address in it.
    pub internal: bool,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
    /// How its containers are connected.
    pub mode: Mode,
    /// The largest packet in bytes; that of the host's way out without it.
    pub mtu: Option<u32>,
}

/// A network that containers join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Network {
    /// Its name.
    pub name: String,
    /// How its containers are connected.
    pub mode: Mode,
    /// Its bridge on the host. In routed mode it has no ports and only holds the host's addresses.
    pub bridge: String,
    /// Its addresses, as `10.0.0.0/24`.
    pub subnets: Vec<String>,
    /// The host's addresses in it.
    pub gateways: Vec<String>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it leads nowhere.
    pub internal: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The containers in it, running or not.
    pub containers: Vec<Member>,
}

/// A container in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Member {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its addresses there, as `10.0.0.2/24`.
    pub addresses: Vec<String>,
}

/// How a container joins a network. Everything but the network has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Join {
    /// The network's name.
    pub network: String,
    /// This address, or any that is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub ipv4: Option<Ipv4Addr>,
    /// This address of IPv6, or any that is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub ipv6: Option<Ipv6Addr>,
    /// This hardware address, as `02:00:00:00:00:01`, or one that goes with its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Further names by which others find it there.
    pub aliases: Vec<String>,
    /// How much may go through.
    pub limits: Rates,
}

impl Join {
    /// A network without wishes.
    pub fn any(network: &str) -> Self {
        Join { network: network.to_owned(), ..Join::default() }
    }
}

/// Limits of what goes through a container's interface, in bits per second. None: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// What comes into the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<u64>,
    /// What leaves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<u64>,
}

/// What a container has in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Connection {
    /// The network's name.
    pub network: String,
    /// The interface's name in the container.
    pub interface: String,
    /// Its addresses, as `10.0.0.2/24`.
    pub addresses: Vec<String>,
    /// Its hardware address.
    pub mac: String,
    /// Further names by which others find it there.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// How much may go through.
    #[serde(default)]
    pub limits: Rates,
}

/// What went through an interface of a container since it was connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Counters {
    /// The network's name.
    pub network: String,
    /// The interface's name in the container.
    pub interface: String,
    /// Bytes that reached the container.
    pub received_bytes: u64,
    /// Packets that reached the container.
    pub received_packets: u64,
    /// Bytes that it sent.
    pub sent_bytes: u64,
    /// Packets that it sent.
    pub sent_packets: u64,
}
