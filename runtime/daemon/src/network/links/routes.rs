//! Routes: those that the host has, those to containers that have no bridge, and those in containers.

use std::net::{IpAddr, Ipv6Addr};

use croft_api::network::Mode;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::netlink::{Failure, Request};
use super::super::record::{Definition, Endpoint};
use super::{Links, address, failure, request};

/// The host's end of every cable that is routed: what a container finds there wherever it is.
const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Links {
    /// Where the host's routes lead, and the device of the default one.
    ///
    /// # Errors
    /// When they cannot be asked for.
    pub fn routes(&mut self) -> Result<(Vec<IpNet>, Option<u32>), Failure> {
        let (mut nets, mut way_out) = (Vec::new(), None);
        let answers =
            self.0.dump("list the host's routes", &RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
        for answer in answers {
            let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
            if route.header.kind != RouteType::Unicast {
                continue;
            }
            let length = route.header.destination_prefix_length;
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                        nets.extend(Ipv4Net::new(*ip, length).map(IpNet::V4))
                    }
                    RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                        nets.extend(Ipv6Net::new(*ip, length).map(IpNet::V6))
                    }
                    RouteAttribute::Oif(index) if length == 0 => way_out = way_out.or(Some(*index)),
                    _ => {}
                }
            }
        }
        Ok((nets, way_out))
    }

    /// Leads what is for a container to its cable, in a network without a bridge. What is so already stays.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn route_to(&mut self, of: &Definition, endpoint: &Endpoint, port: &str) -> Result<(), Failure> {
        if of.mode == Mode::Bridge {
            return Ok(());
        }
        let gone = || failure(&format!("find {port}"), std::io::ErrorKind::NotFound.into());
        let index = self.find(port)?.ok_or_else(gone)?.index;
        let one = |ip: IpAddr, own| route(index, IpNet::from(ip), Way::Here(Some(own)));
        let mut requests = vec![one(endpoint.ipv4.into(), of.gateway4().into())];
        if let Some((ip, own)) = endpoint.ipv6.zip(of.gateway6()) {
            requests.push(address(index, NEXT_HOP6.into(), 64));
            requests.push(one(ip.into(), own.into()));
        }
        self.0.send(requests).map(drop)
    }
}

/// Where a route leads.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// To who is at the other end; what the host sends itself comes from this address.
    Here(Option<IpAddr>),
    /// To who passes it on.
    By(IpAddr),
}

/// In a container: how it finds its neighbours, and the host, when no bridge connects them.
pub fn inside(index: u32, of: &Definition, endpoint: &Endpoint) -> Vec<Request<RouteNetlinkMessage>> {
    if of.mode == Mode::Bridge {
        return Vec::new();
    }
    let gateway = IpAddr::V4(of.gateway4());
    let mut routes = vec![
        route(index, IpNet::from(gateway), Way::Here(None)),
        route(index, of.ipv4.into(), Way::By(gateway)),
    ];
    let ipv6 = of.ipv6.filter(|_| endpoint.ipv6.is_some());
    routes.extend(ipv6.map(|net| route(index, net.into(), Way::By(NEXT_HOP6.into()))));
    routes
}

/// In a container: the way to everywhere else.
pub fn ways_out(index: u32, of: &Definition, endpoint: &Endpoint) -> Vec<Request<RouteNetlinkMessage>> {
    let gateway6 = match of.mode {
        Mode::Bridge => of.gateway6(),
        Mode::Routed => Some(NEXT_HOP6),
    };
    let ipv4 = route(index, IpNet::V4(Ipv4Net::default()), Way::By(of.gateway4().into()));
    let ipv6 = gateway6.filter(|_| endpoint.ipv6.is_some());
    let ipv6 = ipv6.map(|gateway| route(index, IpNet::V6(Ipv6Net::default()), Way::By(gateway.into())));
    std::iter::once(ipv4).chain(ipv6).collect()
}

fn route(index: u32, net: IpNet, way: Way) -> Request<RouteNetlinkMessage> {
    let of_ip = |ip| match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    let mut message = RouteMessage::default();
    message.header.address_family =
        if net.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = net.prefix_len();
    if net.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(of_ip(net.addr())));
    }
    match way {
        Way::Here(own) => {
            message.header.scope = RouteScope::Link;
            message.attributes.extend(own.map(|own| RouteAttribute::PrefSource(of_ip(own))));
        }
        Way::By(gateway) => {
            message.header.scope = RouteScope::Universe;
            message.attributes.push(RouteAttribute::Gateway(of_ip(gateway)));
        }
    }
    message.attributes.push(RouteAttribute::Oif(index));
    request(
        format!("make a route to {net}"),
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}
