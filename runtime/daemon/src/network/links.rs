//! Bridges, cables, addresses and routes, by rtnetlink(7).

mod classifier;
pub mod limits;
mod routes;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use croft_api::network::Mode;
use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Stats64,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::forwarding;
use super::mac::Mac;
use super::netlink::{Failure, Netlink, Request};
use super::record::{Definition, Endpoint};

/// The loopback device has this index in every network namespace.
const LOOPBACK: u32 = 1;

/// A network device, as far as is of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The largest packet.
    pub mtu: u32,
    /// The bridge that it is a port of.
    pub bridge: Option<u32>,
    /// Whether it is set up.
    pub is_up: bool,
    /// What went through it.
    pub traffic: Traffic,
}

/// What went through a cable, from the container's side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that reached it.
    pub received_bytes: u64,
    /// Packets that reached it.
    pub received_packets: u64,
    /// Bytes that it sent.
    pub sent_bytes: u64,
    /// Packets that it sent.
    pub sent_packets: u64,
}

/// The devices of one network namespace.
#[derive(Debug)]
pub struct Links(Netlink);

fn request(what: String, message: RouteNetlinkMessage, flags: u16) -> Request<RouteNetlinkMessage> {
    Request { what, message, flags: NLM_F_ACK | flags }
}

fn failure(what: &str, error: std::io::Error) -> Failure {
    Failure { what: what.to_owned(), error }
}

impl Links {
    /// Those of this thread's namespace.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn open() -> Result<Self, Failure> {
        Netlink::open(NETLINK_ROUTE).map(Links).map_err(|e| failure("open a netlink socket", e))
    }

    /// Those of the namespace behind `namespace`. A thread goes there to open the socket, and ends: none of the daemon's own ever
    /// is in another namespace.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn within(namespace: BorrowedFd<'_>) -> Result<Self, Failure> {
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| {
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace, kind)
                    .map_err(|e| failure("enter the container's network namespace", e.into()))?;
                Links::open()
            });
            opened.join().unwrap_or_else(|_| {
                Err(failure("enter the container's network namespace", std::io::ErrorKind::Other.into()))
            })
        })
    }

    fn one(
        &mut self,
        what: String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        self.0.send(vec![request(what, message, flags)])
    }

    /// The device called `name`, if there is one.
    ///
    /// # Errors
    /// When it cannot be asked for.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, Failure> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.one(format!("find {name}"), RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(link)),
            Err(failure) if failure.errno() == Some(rustix::io::Errno::NODEV) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// All devices.
    ///
    /// # Errors
    /// When they cannot be asked for.
    pub fn all(&mut self) -> Result<Vec<Link>, Failure> {
        let answers = self
            .0
            .dump("list the network's devices", &RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers.into_iter().filter_map(link).collect())
    }

    /// Makes a network's bridge, with the host's addresses, and gives its index. One that is there already is made right.
    ///
    /// # Errors
    /// When it cannot be made; what was made of it is left for the next try.
    pub fn bridge(&mut self, of: &Definition) -> Result<u32, Failure> {
        let name = &of.bridge;
        if self.find(name)?.is_none() {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(name.clone()));
            message.attributes.push(LinkAttribute::Mtu(of.mtu));
            // Its own, and not that of whichever port has the lowest, so that it stays when ports come and go.
            message.attributes.push(LinkAttribute::Address(Mac::of(of.gateway4()).0.to_vec()));
            let data = InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]);
            message
                .attributes
                .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)]));
            self.one(
                format!("make bridge {name}"),
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )?;
        }
        let gone = || failure(&format!("make bridge {name}"), std::io::ErrorKind::NotFound.into());
        let index = self.find(name)?.ok_or_else(gone)?.index;
        let mut requests = vec![address(index, of.gateway4().into(), of.length4())];
        if let Some((net, ip)) = of.ipv6.zip(of.gateway6()) {
            requests.push(address(index, ip.into(), of.length6(net)));
            requests.push(link_local(index, Mac::of(of.gateway4())));
        }
        requests.push(up(index, name));
        self.0.send(requests)?;
        Ok(index)
    }

    /// Makes a cable from a bridge, or from the host itself, into a namespace, where its end is down.
    ///
    /// # Errors
    /// When it cannot be made; what was made of it is left.
    pub fn cable(
        &mut self,
        of: &Definition,
        bridge: u32,
        outside: &str,
        end: &End<'_>,
    ) -> Result<(), Failure> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(end.name.to_owned()));
        peer.attributes.push(LinkAttribute::Address(end.mac.0.to_vec()));
        peer.attributes.push(LinkAttribute::Mtu(of.mtu));
        peer.attributes.push(LinkAttribute::NetNsFd(end.namespace.as_raw_fd()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(outside.to_owned()));
        message.attributes.push(LinkAttribute::Mtu(of.mtu));
        message.attributes.push(match of.mode {
            Mode::Bridge => LinkAttribute::Controller(bridge),
            Mode::Routed => LinkAttribute::Address(Mac::of(of.gateway4()).0.to_vec()),
        });
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        message
            .attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        let what = format!("make cable {outside} from {} to the container's {}", of.bridge, end.name);
        let make = request(what, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);

        let mut message = LinkMessage::default();
        (message.header.flags, message.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
        message.attributes.push(LinkAttribute::IfName(outside.to_owned()));
        // The host does not speak on a container's cable: no address of its own there. (The kernel takes this for devices only that are.)
        let silent = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        if of.ipv6.is_some() {
            message.attributes.push(LinkAttribute::AfSpecUnspec(vec![silent]));
        }
        if of.mode == Mode::Bridge && forwarding::filters_bridges() {
            message.attributes.push(hairpin(true));
        }
        let set_up = request(format!("set {outside} up"), RouteNetlinkMessage::NewLink(message), 0);
        self.0.send(vec![make, set_up]).map(drop)
    }

    /// In a container's namespace: sets the loopback device up.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn loopback(&mut self) -> Result<(), Failure> {
        self.0.send(vec![up(LOOPBACK, "lo")]).map(drop)
    }

    /// In a container's namespace: gives the end of a cable its addresses, sets it up, and makes it the way out if it is.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn equip(&mut self, of: &Definition, endpoint: &Endpoint, role: Role) -> Result<(), Failure> {
        let name = &endpoint.interface;
        let index = self.inside(name)?;
        let mut requests = vec![address(index, endpoint.ipv4.into(), of.length4())];
        if let Some((net, ip)) = of.ipv6.zip(endpoint.ipv6) {
            requests.push(address(index, ip.into(), of.length6(net)));
            requests.push(link_local(index, endpoint.mac));
        }
        requests.push(up(index, name));
        requests.extend(routes::inside(index, of, endpoint));
        if role == Role::WayOut {
            requests.extend(routes::ways_out(index, of, endpoint));
        }
        self.0.send(requests).map(drop)
    }

    /// In a container's namespace: makes a network the way out, in place of the one before.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn lead_out(&mut self, of: &Definition, endpoint: &Endpoint) -> Result<(), Failure> {
        let index = self.inside(&endpoint.interface)?;
        self.0.send(routes::ways_out(index, of, endpoint)).map(drop)
    }

    fn inside(&mut self, name: &str) -> Result<u32, Failure> {
        let gone = || failure(&format!("find the container's {name}"), std::io::ErrorKind::NotFound.into());
        Ok(self.find(name)?.ok_or_else(gone)?.index)
    }

    /// Makes a cable a port of a bridge, and sets it up.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn plug(&mut self, cable: &Link, bridge: u32) -> Result<(), Failure> {
        let mut message = LinkMessage::default();
        message.header.index = cable.index;
        (message.header.flags, message.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.one(format!("plug {} in", cable.name), RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }

    /// Whether the bridge leads back to a port what came from it. It must where rules see what stays on a bridge: there, what a container
    /// sends to a port of its own by way of the host is led back on the bridge itself.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn lead_back(&mut self, port: &Link, leads_back: bool) -> Result<(), Failure> {
        let mut message = LinkMessage::default();
        message.header.index = port.index;
        message.attributes.push(hairpin(leads_back));
        match self.one(format!("set up {} as a port", port.name), RouteNetlinkMessage::NewLink(message), 0) {
            // It has gone with its container.
            Err(failure) if failure.errno() == Some(rustix::io::Errno::NODEV) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Tells a port's bridge who is there, for good: of its own it forgets who is silent, or whose packets go past it, and shows all
    /// neighbours what comes for them.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn know(&mut self, port: &Link, mac: Mac) -> Result<(), Failure> {
        if port.bridge.is_none() {
            return Ok(());
        }
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port.index;
        message.header.flags = NeighbourFlags::Controller;
        message.header.state = NeighbourState::Noarp;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let what = format!("tell the bridge who is at {}", port.name);
        self.one(what, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE).map(drop)
    }

    /// Removes a device. One that is not there is fine.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&mut self, name: &str) -> Result<(), Failure> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.one(format!("remove {name}"), RouteNetlinkMessage::DelLink(message), 0) {
            Err(failure) if failure.errno() != Some(rustix::io::Errno::NODEV) => Err(failure),
            _ => Ok(()),
        }
    }
}

/// The end of a cable in a container.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The container's namespace.
    pub namespace: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
}

/// What a network is to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What leads everywhere else.
    WayOut,
    /// It leads to itself only.
    Further,
}

fn hairpin(is_on: bool) -> LinkAttribute {
    let port = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(is_on)]);
    LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(port)])
}

fn up(index: u32, name: &str) -> Request<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    (message.header.flags, message.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    request(format!("set {name} up"), RouteNetlinkMessage::SetLink(message), 0)
}

/// Without a check that nobody else has it (DAD): that is known, and would take a second.
fn address(index: u32, ip: IpAddr, length: u8) -> Request<RouteNetlinkMessage> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = length;
    message.attributes.push(AddressAttribute::Address(ip));
    message.attributes.push(AddressAttribute::Local(ip));
    match ip {
        IpAddr::V4(ipv4) => {
            message.header.family = AddressFamily::Inet;
            let net = Ipv4Net::new_assert(ipv4, length);
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    // No NLM_F_EXCL: an address that is there already is as good.
    request(
        format!("give address {ip}"),
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// The address that the kernel would give of its own when the device comes up, and then could not use for a second or two, in which no
/// neighbour would be asked for either.
fn link_local(index: u32, mac: Mac) -> Request<RouteNetlinkMessage> {
    address(index, mac.link_local().into(), 64)
}

fn link(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let index = message.header.index;
    let is_up = message.header.flags.contains(LinkFlags::Up);
    let mut link =
        Link { index, name: String::new(), mtu: 0, bridge: None, is_up, traffic: Traffic::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(bridge) => link.bridge = Some(bridge),
            // What the host's end sends is what the container's end receives.
            LinkAttribute::Stats64(Stats64 { rx_bytes, rx_packets, tx_bytes, tx_packets, .. }) => {
                link.traffic = Traffic {
                    received_bytes: tx_bytes,
                    received_packets: tx_packets,
                    sent_bytes: rx_bytes,
                    sent_packets: rx_packets,
                };
            }
            _ => {}
        }
    }
    Some(link)
}

/// The addresses of a definition's host, for whoever listens there.
pub fn gateways(of: &Definition) -> (Ipv4Addr, Option<Ipv6Addr>) {
    (of.gateway4(), of.gateway6())
}
