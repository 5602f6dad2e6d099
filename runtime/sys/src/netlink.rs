//! Network devices by rtnetlink(7): listing them, setting them up, moving one into another network namespace with its addresses.
//!
//! One blocking socket and one request at a time; a socket stays in the namespace where it was opened.

use crate::proc::Proc;
use crate::{Call, Error, Result, ns};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The loopback device has this index in every network namespace.
pub const LOOPBACK: u32 = 1;

/// Whether a device carries traffic when it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name in this namespace.
    pub name: String,
    /// Whether it was set up.
    pub state: State,
    /// Its hardware address; empty if it has none.
    pub hardware_address: Vec<u8>,
    /// The largest packet it takes, in bytes.
    pub mtu: u32,
}

/// An address of a network device, with all that is needed to give it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(AddressMessage);

impl Address {
    /// The address itself.
    pub fn ip(&self) -> Option<IpAddr> {
        // Where the two differ, the local one is ours and the other is the far end's of a point-to-point link.
        let local = self.0.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        local.or_else(|| {
            self.0.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            })
        })
    }

    /// The length of its network's prefix, in bits.
    pub fn prefix_length(&self) -> u8 {
        self.0.header.prefix_len
    }

    fn flags(&self) -> AddressFlags {
        let wide = self.0.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        wide.unwrap_or(AddressFlags::from_bits_retain(self.0.header.flags.bits().into()))
    }

    /// Whether runtime-spec wants it kept when its device is moved: permanent, and of global scope.
    fn is_kept(&self) -> bool {
        self.0.header.scope == AddressScope::Universe && self.flags().contains(AddressFlags::Permanent)
    }

    /// The request that gives this address, which was on a device called `from`, to device `index`, called `to`.
    fn request(&self, index: u32, from: &str, to: &str) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = self.0.header.family;
        message.header.prefix_len = self.0.header.prefix_len;
        message.header.scope = self.0.header.scope;
        message.header.index = index;
        // The other flags are the kernel's to set.
        let flags = self.flags()
            & (AddressFlags::Nodad
                | AddressFlags::Homeaddress
                | AddressFlags::Managetempaddr
                | AddressFlags::Noprefixroute
                | AddressFlags::Mcautojoin);
        message.header.flags = AddressHeaderFlags::from_bits_retain((flags.bits() & 0xff) as u8);
        message.attributes.push(AddressAttribute::Flags(flags));
        for attribute in &self.0.attributes {
            match attribute {
                AddressAttribute::Address(_)
                | AddressAttribute::Local(_)
                | AddressAttribute::Broadcast(_)
                | AddressAttribute::RoutePriority(_)
                | AddressAttribute::Protocol(_) => message.attributes.push(attribute.clone()),
                // "eth0:1": the part after the device's name stays, if there is still room for it.
                AddressAttribute::Label(label) => {
                    let label = label.strip_prefix(from).map(|rest| format!("{to}{rest}"));
                    if let Some(label) = label.filter(|label| label.len() < libc::IFNAMSIZ) {
                        message.attributes.push(AddressAttribute::Label(label));
                    }
                }
                _ => {}
            }
        }
        message
    }
}

/// A socket that speaks with one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    pub fn open() -> Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE).call("socket NETLINK_ROUTE")?;
        socket.bind(&SocketAddr::new(0, 0)).call("bind netlink")?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// All devices, by index.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump("netlink list links", request)?;
        let mut links: Vec<Link> = answers.into_iter().filter_map(link).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The device called `name`. ENODEV: there is none.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(Error::new("netlink find link", Errno::NODEV));
        }
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answers = self.exchange("netlink find link", RouteNetlinkMessage::GetLink(request), NLM_F_ACK)?;
        answers.into_iter().find_map(link).ok_or(Error::new("netlink find link", Errno::NODEV))
    }

    /// Sets a device up or down.
    pub fn set_state(&mut self, index: u32, state: State) -> Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.header.change_mask = LinkFlags::Up;
        request.header.flags = if state == State::Up { LinkFlags::Up } else { LinkFlags::empty() };
        let request = RouteNetlinkMessage::SetLink(request);
        self.exchange("netlink set link", request, NLM_F_ACK).map(drop)
    }

    /// The permanent addresses of global scope on a device, in the kernel's order.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump("netlink list addresses", request)?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
                Some(Address(message))
            }
            _ => None,
        });
        Ok(addresses.filter(Address::is_kept).collect())
    }

    /// Gives a device called `to` an address that was on one called `from`.
    fn add_address(&mut self, address: &Address, index: u32, from: &str, to: &str) -> Result<()> {
        let request = RouteNetlinkMessage::NewAddress(address.request(index, from, to));
        self.exchange("netlink add address", request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Moves device `index` to a namespace, where it is called `name` and has the index `new_index`, and is down.
    fn move_link(&mut self, index: u32, namespace: BorrowedFd<'_>, name: &str, new_index: u32) -> Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        request.attributes.push(LinkAttribute::NewIfIndex(new_index as i32));
        let request = RouteNetlinkMessage::SetLink(request);
        self.exchange("netlink move link", request, NLM_F_ACK).map(drop)
    }

    /// All answers to a question about everything, asked again if things changed meanwhile.
    fn dump(&mut self, call: &'static str, request: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..8 {
            match self.exchange(call, request.clone(), NLM_F_DUMP) {
                Err(error) if error.errno() == Errno::INTR => {}
                answers => return answers,
            }
        }
        Err(Error::new(call, Errno::AGAIN))
    }

    /// Sends one request and collects the answers up to the last. EINTR: a dump that saw a change half-way.
    fn exchange(
        &mut self,
        call: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        retry(|| self.socket.send_to(&buffer, &SocketAddr::new(0, 0), 0)).call(call)?;

        let mut answers = Vec::new();
        let mut torn = false;
        loop {
            let (bytes, sender) = retry(|| self.socket.recv_from_full()).call(call)?;
            // Any process may send to a netlink socket; only the kernel has port 0.
            if sender.port_number() != 0 {
                continue;
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|_| Error::new(call, Errno::BADMSG))?;
                let length = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(1)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                torn |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                let end = match answer.payload {
                    NetlinkPayload::InnerMessage(answer) => {
                        answers.push(answer);
                        continue;
                    }
                    NetlinkPayload::Error(error) => error.raw_code(),
                    NetlinkPayload::Done(done) => done.code,
                    NetlinkPayload::Overrun(_) => -libc::ENOBUFS,
                    _ => continue,
                };
                return match end {
                    0 if torn => Err(Error::new(call, Errno::INTR)),
                    0 => Ok(answers),
                    code => Err(Error::new(call, Errno::from_raw_os_error(-code))),
                };
            }
        }
    }
}

/// What is of interest in a description of a device.
fn link(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let state = if message.header.flags.contains(LinkFlags::Up) { State::Up } else { State::Down };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        state,
        hardware_address: Vec::new(),
        mtu: 0,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(address) => link.hardware_address = address,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => {}
        }
    }
    Some(link)
}

fn retry<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A network namespace: the fd that stands for it, and a socket inside.
pub struct Namespace {
    fd: OwnedFd,
    /// Speaks with this namespace.
    pub netlink: Netlink,
}

impl Namespace {
    /// The namespace of this thread.
    pub fn own(proc: &Proc) -> Result<Namespace> {
        Ok(Namespace { fd: proc.open_namespace("thread-self", "net")?, netlink: Netlink::open()? })
    }

    /// The namespace behind `fd`, into which this thread goes for a moment, to open the socket.
    pub fn of(proc: &Proc, fd: OwnedFd) -> Result<Namespace> {
        let netlink = in_namespace(proc, fd.as_fd(), Netlink::open)??;
        Ok(Namespace { fd, netlink })
    }
}

/// Runs `body` with this thread in the network namespace `fd`. EPERM, before anything is done: the thread could not come back.
///
/// # Panics
/// If the thread cannot return to the namespace that it had just proved to be able to enter: nothing it did then would be right.
pub fn in_namespace<T>(proc: &Proc, fd: BorrowedFd<'_>, body: impl FnOnce() -> T) -> Result<T> {
    let own = proc.open_namespace("thread-self", "net")?;
    ns::setns(own.as_fd(), libc::CLONE_NEWNET)?;
    ns::setns(fd, libc::CLONE_NEWNET)?;
    let result = body();
    ns::setns(own.as_fd(), libc::CLONE_NEWNET).expect("a namespace that let us in does so again");
    Ok(result)
}

/// Moves the device `device` from one namespace to another, sets it up there, and gives it again the permanent addresses of global
/// scope that it loses on the way (runtime-spec 1.3, config-linux.md, "Network Devices"). It keeps its hardware address and MTU.
///
/// It is called `name` there, in which "%d" stands for the first free number. On an error it is back where it was, with its
/// addresses and state, as far as the kernel allows. EEXIST: the name is taken.
pub fn transfer(from: &mut Namespace, to: &mut Namespace, device: &str, name: &str) -> Result<Link> {
    let before = from.netlink.link(device)?;
    let addresses = from.netlink.addresses(before.index)?;
    // Asked first, since the kernel moves a device and only then finds that it cannot be named.
    if !name.contains('%') && to.netlink.links()?.iter().any(|link| link.name == name) {
        return Err(Error::new("netlink move link", Errno::EXIST));
    }
    match arrive(from, to, &before, (name, State::Up), &addresses) {
        Ok(link) => Ok(link),
        Err(error) => {
            bring_back(from, to, &before, &addresses);
            Err(error)
        }
    }
}

/// Moves a device and makes of it what it shall be: name, state and addresses.
fn arrive(
    from: &mut Namespace,
    to: &mut Namespace,
    before: &Link,
    (name, state): (&str, State),
    addresses: &[Address],
) -> Result<Link> {
    let index = send(from, to, before.index, name)?;
    let links = to.netlink.links()?;
    let arrived = links.iter().find(|link| link.index == index);
    let arrived = arrived.ok_or(Error::new("netlink move link", Errno::NODEV))?;
    for address in addresses {
        to.netlink.add_address(address, index, &before.name, &arrived.name)?;
    }
    to.netlink.set_state(index, state)?;
    Ok(Link { state, ..arrived.clone() })
}

/// Moves a device, and says which index it has got: one that is free, so that it is known whatever the name becomes.
fn send(from: &mut Namespace, to: &Namespace, index: u32, name: &str) -> Result<u32> {
    let mut new_index = index.max(2);
    for _ in 0..1000 {
        match from.netlink.move_link(index, to.fd.as_fd(), name, new_index) {
            Err(error) if error.errno() == Errno::BUSY => new_index += 1,
            result => return result.map(|()| new_index),
        }
    }
    Err(Error::new("netlink move link", Errno::BUSY))
}

/// After a failed transfer: if the device has left, it comes back. What fails here cannot be mended by anyone.
fn bring_back(from: &mut Namespace, to: &mut Namespace, before: &Link, addresses: &[Address]) {
    let is_it = |link: &Link| link.hardware_address == before.hardware_address && link.mtu == before.mtu;
    let Ok(links) = from.netlink.links() else { return };
    if links.iter().any(|link| link.index == before.index && is_it(link)) {
        return;
    }
    let Ok(links) = to.netlink.links() else { return };
    if let Some(lost) = links.into_iter().find(|link| link.index >= before.index.max(2) && is_it(link)) {
        let _ = arrive(to, from, &lost, (&before.name, before.state), addresses);
    }
}

#[cfg(test)]
#[path = "netlink_tests.rs"]
mod tests;
