//! `network`, and how containers join networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand, ValueEnum};
use croft_api::network::{Join, Mode, Rates};

use super::Lazy;
use crate::network::{join, rate};

/// `network`.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network
    Create(Lazy<NetworkCreateArgs>),
    /// List networks
    Ls {
        /// Names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print all that is known of networks, as JSON
    Inspect(Lazy<NetworkNamesArgs>),
    /// Remove networks that no container is in
    Rm(Lazy<NetworkNamesArgs>),
    /// Remove all networks that no container is in
    Prune {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
    /// Let a container join a network, whether it runs or not
    Connect(Lazy<ConnectArgs>),
    /// Limit what goes between a container and a network; what is not given is not limited
    Limit {
        #[command(flatten)]
        limits: Limits,
        /// The network's name
        network: String,
        /// The container's name or id
        container: String,
    },
    /// Let a container leave a network
    Disconnect {
        /// The network's name
        network: String,
        /// The container's name or id
        container: String,
    },
}

#[derive(Debug, Args)]
pub struct NetworkCreateArgs {
    /// Its addresses, as 10.1.0.0/24 or fd00:1::/64; one range of each kind, a free one without it
    #[arg(long, value_name = "SUBNET")]
    pub subnet: Vec<String>,
    /// The host's address in it; the first of the range without it
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<IpAddr>,
    /// Let it lead nowhere: its containers reach each other and the host only
    #[arg(long)]
    pub internal: bool,
    /// Put a label on it
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// How its containers are connected
    #[arg(long, value_name = "MODE", default_value = "bridge")]
    pub mode: NetworkMode,
    /// The largest packet in bytes; that of the host's way out without it
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Its name
    pub name: String,
}

/// How the containers of a network are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkMode {
    /// All to one bridge
    Bridge,
    /// Each by a route of its own; the host passes on what goes between them
    Routed,
}

impl From<NetworkMode> for Mode {
    fn from(mode: NetworkMode) -> Self {
        match mode {
            NetworkMode::Bridge => Mode::Bridge,
            NetworkMode::Routed => Mode::Routed,
        }
    }
}

#[derive(Debug, Args)]
pub struct NetworkNamesArgs {
    /// The networks' names
    #[arg(required = true, value_name = "NETWORK")]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ConnectArgs {
    #[command(flatten)]
    pub wishes: Wishes,
    /// A further name by which others find it there
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// The network's name
    pub network: String,
    /// The container's name or id
    pub container: String,
}

/// What a container may wish for in a network.
#[derive(Debug, Clone, Default, Args)]
pub struct Wishes {
    /// Its address in its (first) network; any that is free without it
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<Ipv4Addr>,
    /// Its address of IPv6 in its (first) network; any that is free without it
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<Ipv6Addr>,
    /// Its hardware address in its (first) network
    #[arg(long, value_name = "ADDRESS")]
    pub mac_address: Option<String>,
    #[command(flatten)]
    pub limits: Limits,
}

/// Limits of what goes through a container's interfaces, each of them.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Limits {
    /// The most that may come into it, in bits per second: 100mbit
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub limit_ingress: Option<u64>,
    /// The most that may leave it, in bits per second: 100mbit
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub limit_egress: Option<u64>,
}

impl From<Limits> for Rates {
    fn from(limits: Limits) -> Self {
        Rates { ingress: limits.limit_ingress, egress: limits.limit_egress }
    }
}

impl Wishes {
    /// Adds these wishes to how a container joins a network.
    pub fn wish(&self, join: &mut Join) {
        join.ipv4 = self.ip.or(join.ipv4);
        join.ipv6 = self.ip6.or(join.ipv6);
        join.mac = self.mac_address.clone().or(join.mac.take());
    }
}

/// How a new container is on networks.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    #[arg(
        help = "A network that it is on: NAME, or name=NAME[,ip=ADDRESS][,ip6=ADDRESS][,mac-address=ADDRESS][,alias=NAME]; the first is its way out. none for a loopback interface only, host for the host's own, container:NAME for another container's",
        long, visible_alias = "net", value_name = "NETWORK", default_value = croft_api::container::DEFAULT_NETWORK, value_parser = join
    )]
    pub network: Vec<Join>,
    #[command(flatten)]
    pub wishes: Wishes,
    /// A further name by which others find it in its networks
    #[arg(long, value_name = "NAME")]
    pub network_alias: Vec<String>,
}
