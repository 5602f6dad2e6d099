//! Elements of croft's sets and maps, as the kernel wants them (each field of a key in full registers of four bytes) and as nft(8) does.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use croft_api::network::{Mode, Protocol};
use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::DataAttribute;
use netlink_packet_netfilter::nftables::SetElementAttribute;

use super::super::mac::Mac;
use super::super::record::{Attached, Definition};
use super::Content;
use super::message::{NFTA_DATA_VALUE, Raw};

/// croft's sets and maps; skeleton.nft says what each is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is described where it is made")]
pub enum Set {
    Bridges,
    Same,
    Internal,
    Same4,
    Same6,
    From4,
    From6,
    Own4,
    Own6,
    Ports4,
    Ports6,
    Ports4At,
    Ports6At,
    Macs,
    Senders4,
    Addresses6,
    Targets6,
}

impl Set {
    /// Every one.
    pub const ALL: [Set; 17] = [
        Set::Bridges,
        Set::Same,
        Set::Internal,
        Set::Same4,
        Set::Same6,
        Set::From4,
        Set::From6,
        Set::Own4,
        Set::Own6,
        Set::Ports4,
        Set::Ports6,
        Set::Ports4At,
        Set::Ports6At,
        Set::Macs,
        Set::Senders4,
        Set::Addresses6,
        Set::Targets6,
    ];

    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Set::Bridges => "bridges",
            Set::Same => "same",
            Set::Internal => "internal",
            Set::Same4 => "same4",
            Set::Same6 => "same6",
            Set::From4 => "from4",
            Set::From6 => "from6",
            Set::Own4 => "own4",
            Set::Own6 => "own6",
            Set::Ports4 => "ports4",
            Set::Ports6 => "ports6",
            Set::Ports4At => "ports4_at",
            Set::Ports6At => "ports6_at",
            Set::Macs => "macs",
            Set::Senders4 => "senders4",
            Set::Addresses6 => "addresses6",
            Set::Targets6 => "targets6",
        }
    }

    /// The family of its table, for nft(8).
    pub fn family(self) -> &'static str {
        match self {
            Set::Macs | Set::Senders4 | Set::Addresses6 | Set::Targets6 => "bridge",
            _ => "inet",
        }
    }

    /// The same for the kernel.
    pub fn protocol(self) -> NetfilterProtoFamily {
        match self.family() {
            "bridge" => NetfilterProtoFamily::Bridge,
            _ => NetfilterProtoFamily::Inet,
        }
    }

    /// The fields of its keys, and of what a map leads to.
    fn shape(self) -> (&'static [Kind], &'static [Kind]) {
        use Kind::{Ipv4, Ipv6, Name, Net4, Net6, Number, Port, Proto};
        match self {
            Set::Bridges | Set::Internal => (&[Name], &[]),
            Set::Same => (&[Name, Name], &[]),
            Set::Same4 => (&[Net4, Net4], &[]),
            Set::Same6 => (&[Net6, Net6], &[]),
            Set::Own4 => (&[Ipv4, Ipv4], &[]),
            Set::Own6 => (&[Ipv6, Ipv6], &[]),
            Set::Ports4 => (&[Proto, Port], &[Ipv4, Port]),
            Set::Ports6 => (&[Proto, Port], &[Ipv6, Port]),
            Set::Ports4At => (&[Ipv4, Proto, Port], &[Ipv4, Port]),
            Set::Ports6At => (&[Ipv6, Proto, Port], &[Ipv6, Port]),
            Set::Macs => (&[Name, Kind::Mac], &[]),
            Set::Senders4 => (&[Name, Kind::Mac, Ipv4], &[]),
            Set::From4 => (&[Name, Ipv4], &[]),
            Set::Addresses6 | Set::From6 => (&[Name, Ipv6], &[]),
            Set::Targets6 => (&[Name, Number], &[]),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Name,
    Proto,
    Port,
    Ipv4,
    Ipv6,
    Net4,
    Net6,
    Number,
    Mac,
}

/// One field of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Name(String),
    Proto(Protocol),
    Port(u16),
    Ip(IpAddr),
    /// All of a range: its first address in the key, its last in the key's end.
    Net(IpNet),
    /// An address of IPv6 that nft(8) takes for a number.
    Number(Ipv6Addr),
    Mac(Mac),
}

/// The size of an interface's name in the kernel.
const NAME: usize = 16;

/// The numbers of protocols (RFC 5237).
const TCP: u8 = 6;
const UDP: u8 = 17;

impl Field {
    fn write(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        match self {
            Field::Name(name) => {
                bytes.extend(name.bytes().take(NAME - 1));
                bytes.resize(start + NAME, 0);
            }
            Field::Proto(protocol) => bytes.push(match protocol {
                Protocol::Tcp => TCP,
                Protocol::Udp => UDP,
            }),
            Field::Port(port) => bytes.extend(port.to_be_bytes()),
            Field::Ip(IpAddr::V4(ip)) => bytes.extend(ip.octets()),
            Field::Ip(IpAddr::V6(ip)) | Field::Number(ip) => bytes.extend(ip.octets()),
            Field::Net(net) => return Field::Ip(net.network()).write(bytes),
            Field::Mac(mac) => bytes.extend(mac.0),
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }

    fn read(kind: Kind, bytes: &mut &[u8], end: &mut &[u8]) -> Option<Self> {
        let (length, field) = match kind {
            Kind::Name => {
                let name = bytes.get(..NAME)?;
                let name = name.split(|byte| *byte == 0).next()?;
                (NAME, Field::Name(String::from_utf8_lossy(name).into_owned()))
            }
            Kind::Proto => match *bytes.first()? {
                TCP => (4, Field::Proto(Protocol::Tcp)),
                UDP => (4, Field::Proto(Protocol::Udp)),
                _ => return None,
            },
            Kind::Port => (4, Field::Port(u16::from_be_bytes(*bytes.first_chunk()?))),
            Kind::Ipv4 => (4, Field::Ip(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into())),
            Kind::Ipv6 => (16, Field::Ip(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into())),
            Kind::Net4 | Kind::Net6 => return Field::read_range(kind, bytes, end),
            Kind::Number => (16, Field::Number(Ipv6Addr::from(*bytes.first_chunk::<16>()?))),
            Kind::Mac => (8, Field::Mac(Mac(*bytes.first_chunk()?))),
        };
        // A key of one field may come without the rest of its last register.
        *bytes = bytes.get(length..).unwrap_or_default();
        *end = end.get(length..).unwrap_or_default();
        Some(field)
    }

    fn read_range(kind: Kind, bytes: &mut &[u8], end: &mut &[u8]) -> Option<Self> {
        let kind = if matches!(kind, Kind::Net4) { Kind::Ipv4 } else { Kind::Ipv6 };
        let Field::Ip(first) = Field::read(kind, bytes, &mut &[][..])? else { return None };
        let Field::Ip(last) = Field::read(kind, end, &mut &[][..])? else { return None };
        let length = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
            (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
            _ => return None,
        };
        IpNet::new(first, u8::try_from(length).ok()?).ok().map(Field::Net)
    }

    /// The same as the end of a range.
    fn end(&self) -> Field {
        match self {
            Field::Net(net) => Field::Ip(net.broadcast()),
            other => other.clone(),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Name(name) => write!(f, "{name:?}"),
            Field::Proto(Protocol::Tcp) => f.write_str("tcp"),
            Field::Proto(Protocol::Udp) => f.write_str("udp"),
            Field::Port(port) => write!(f, "{port}"),
            Field::Ip(ip) => write!(f, "{ip}"),
            Field::Net(net) => write!(f, "{net}"),
            Field::Number(ip) => write!(f, "0x{:x}", ip.to_bits()),
            Field::Mac(mac) => write!(f, "{mac}"),
        }
    }
}

fn bytes(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    fields.iter().for_each(|field| field.write(&mut bytes));
    bytes
}

/// An element of one of the sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    key: Vec<Field>,
    data: Vec<Field>,
}

impl Element {
    /// As the kernel wants it.
    pub fn attributes(&self) -> Vec<SetElementAttribute> {
        let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(bytes(&self.key)))];
        if self.key.iter().any(|field| matches!(field, Field::Net(_))) {
            let ends: Vec<Field> = self.key.iter().map(Field::end).collect();
            attributes
                .push(SetElementAttribute::KeyEnd(vec![DefaultNla::new(NFTA_DATA_VALUE, bytes(&ends))]));
        }
        if !self.data.is_empty() {
            attributes.push(SetElementAttribute::Data(DataAttribute::Value(bytes(&self.data))));
        }
        attributes
    }

    /// As the kernel has it; none for what croft never puts there.
    pub fn read(set: Set, raw: &Raw) -> Option<Self> {
        let fields = |kinds: &[Kind], bytes: &[u8], end: &[u8]| {
            let (mut rest, mut end) = (bytes, end);
            kinds.iter().map(|kind| Field::read(*kind, &mut rest, &mut end)).collect::<Option<Vec<_>>>()
        };
        let (of_key, of_data) = set.shape();
        Some(Element { key: fields(of_key, &raw.key, &raw.end)?, data: fields(of_data, &raw.data, &[])? })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |fields: &[Field]| fields.iter().map(Field::to_string).collect::<Vec<_>>().join(" . ");
        f.write_str(&text(&self.key))?;
        if !self.data.is_empty() {
            write!(f, " : {}", text(&self.data))?;
        }
        Ok(())
    }
}

fn put(content: &mut Content, set: Set, key: Vec<Field>, data: Vec<Field>) {
    content.entry(set).or_default().insert(Element { key, data });
}

/// What the tables must have for a network whose bridge is there.
pub fn of_network(of: &Definition) -> Content {
    let mut content = Content::new();
    let bridge = || Field::Name(of.bridge.clone());
    put(&mut content, Set::Bridges, vec![bridge()], vec![]);
    put(&mut content, Set::Same, vec![bridge(), bridge()], vec![]);
    if of.internal {
        put(&mut content, Set::Internal, vec![bridge()], vec![]);
    }
    if of.mode == Mode::Routed {
        let both = |net: IpNet| vec![Field::Net(net), Field::Net(net)];
        put(&mut content, Set::Same4, both(of.ipv4.into()), vec![]);
        of.ipv6.into_iter().for_each(|net| put(&mut content, Set::Same6, both(net.into()), vec![]));
    }
    content
}

/// What the tables must have for a container that is attached.
pub fn of_attached(attached: &Attached) -> Content {
    let mut content = Content::new();
    let endpoints = attached.lease.endpoints.iter().zip(&attached.ports).zip(&attached.networks);
    for ((endpoint, port), of) in endpoints {
        let name = || Field::Name(port.clone());
        let (mac, ipv4) = (|| Field::Mac(endpoint.mac), || Field::Ip(endpoint.ipv4.into()));
        let (set4, key4, set6) = match of.mode {
            Mode::Bridge => (Set::Senders4, vec![name(), mac(), ipv4()], Set::Addresses6),
            Mode::Routed => (Set::From4, vec![name(), ipv4()], Set::From6),
        };
        put(&mut content, set4, key4, vec![]);
        let own = |ip: IpAddr| vec![Field::Ip(ip), Field::Ip(ip)];
        put(&mut content, Set::Own4, own(endpoint.ipv4.into()), vec![]);
        if let Some(ip) = endpoint.ipv6 {
            put(&mut content, Set::Own6, own(ip.into()), vec![]);
        }
        for ip in endpoint.ipv6.into_iter().flat_map(|ip| [ip, endpoint.mac.link_local()]) {
            put(&mut content, set6, vec![name(), Field::Ip(ip.into())], vec![]);
            if of.mode == Mode::Bridge {
                put(&mut content, Set::Targets6, vec![name(), Field::Number(ip)], vec![]);
            }
        }
        match of.mode {
            Mode::Bridge => put(&mut content, Set::Macs, vec![name(), mac()], vec![]),
            Mode::Routed => {
                put(&mut content, Set::Bridges, vec![name()], vec![]);
                if of.internal {
                    put(&mut content, Set::Internal, vec![name()], vec![]);
                }
            }
        }
    }
    let Some(endpoint) = attached.lease.endpoints.first() else { return content };
    for publish in &attached.lease.publish {
        let port = || vec![Field::Proto(publish.protocol), Field::Port(publish.host)];
        let to = |ip: IpAddr| vec![Field::Ip(ip), Field::Port(publish.container)];
        let (ipv4, ipv6) = (to(endpoint.ipv4.into()), endpoint.ipv6.map(|ip| to(ip.into())));
        match publish.address.filter(|address| !address.is_unspecified()) {
            Some(ip @ IpAddr::V4(_)) => {
                put(&mut content, Set::Ports4At, [vec![Field::Ip(ip)], port()].concat(), ipv4)
            }
            Some(ip @ IpAddr::V6(_)) => {
                let Some(ipv6) = ipv6 else { continue };
                put(&mut content, Set::Ports6At, [vec![Field::Ip(ip)], port()].concat(), ipv6);
            }
            None => {
                let only = publish.address;
                if only.is_none_or(|ip| ip.is_ipv4()) {
                    put(&mut content, Set::Ports4, port(), ipv4);
                }
                if let Some(ipv6) = ipv6.filter(|_| only.is_none_or(|ip| ip.is_ipv6())) {
                    put(&mut content, Set::Ports6, port(), ipv6);
                }
            }
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_read_as_it_was_written() {
        let key = vec![Field::Ip("10.0.0.1".parse().unwrap()), Field::Proto(Protocol::Udp), Field::Port(53)];
        let data = vec![Field::Ip("10.0.0.2".parse().unwrap()), Field::Port(5353)];
        let element = Element { key, data };
        let raw = |element: &Element| {
            let ends: Vec<Field> = element.key.iter().map(Field::end).collect();
            Raw { key: bytes(&element.key), end: bytes(&ends), data: bytes(&element.data) }
        };
        assert_eq!(Element::read(Set::Ports4At, &raw(&element)), Some(element.clone()));
        assert_eq!(element.to_string(), "10.0.0.1 . udp . 53 : 10.0.0.2 . 5353");
        let mac = Element {
            key: vec![Field::Name("t-v1".into()), Field::Mac("0a:00:00:00:00:01".parse().unwrap())],
            data: vec![],
        };
        assert_eq!(Element::read(Set::Macs, &raw(&mac)), Some(mac.clone()));
        let net = |text: &str| Field::Net(text.parse().unwrap());
        let nets = Element { key: vec![net("fd00:1::/64"), net("fd00:2::/56")], data: vec![] };
        assert_eq!(Element::read(Set::Same6, &raw(&nets)), Some(nets.clone()));
        assert_eq!(nets.to_string(), "fd00:1::/64 . fd00:2::/56");
    }
}
