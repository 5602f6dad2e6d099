//! Networks.

use std::net::IpAddr;

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

/// A network that containers join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its bridge on the host.
    pub bridge: String,
    /// Its addresses, as `10.0.0.0/24`.
    pub subnets: Vec<String>,
    /// The host's addresses in it.
    pub gateways: Vec<String>,
    /// The containers in it.
    pub containers: Vec<String>,
}
