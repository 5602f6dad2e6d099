//! The tests of [`super`], in network namespaces of their own.

use super::*;
use crate::testing::{in_child, skipped};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoKind, LinkInfo};

/// This process in a fresh network namespace, and a second one beside it.
fn two() -> (Proc, Namespace, Namespace) {
    let proc = Proc::open().unwrap();
    ns::unshare(libc::CLONE_NEWNET).unwrap();
    let second = proc.open_namespace("thread-self", "net").unwrap();
    ns::unshare(libc::CLONE_NEWNET).unwrap();
    let first = Namespace::own(&proc).unwrap();
    let second = Namespace::of(&proc, second).unwrap();
    (proc, first, second)
}

/// Makes a pair of devices, the other one under a name of the kernel's choice; false if this kernel cannot.
fn make_pair(netlink: &mut Netlink, name: &str) -> bool {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    request.attributes.push(LinkAttribute::Mtu(1432));
    request.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]));
    let request = RouteNetlinkMessage::NewLink(request);
    match netlink.exchange("make", request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
        Ok(_) => true,
        Err(error) if error.errno() == Errno::OPNOTSUPP => {
            skipped("netlink: move", "the kernel has no veth devices");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn address(ip: &str, prefix: u8, scope: AddressScope, lasting: bool) -> AddressMessage {
    let ip: IpAddr = ip.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix;
    message.header.scope = scope;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    if !lasting {
        let mut life = netlink_packet_route::address::CacheInfo::default();
        life.ifa_valid = 3600;
        life.ifa_preferred = 3600;
        message.attributes.push(AddressAttribute::CacheInfo(life));
    }
    message
}

fn give(netlink: &mut Netlink, index: u32, mut address: AddressMessage) {
    address.header.index = index;
    let request = RouteNetlinkMessage::NewAddress(address);
    netlink.exchange("give", request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).unwrap();
}

fn texts(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(|each| format!("{}/{}", each.ip().unwrap(), each.prefix_length())).collect()
}

#[test]
fn loopback_comes_up() {
    in_child(|| {
        ns::unshare(libc::CLONE_NEWNET).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.link("lo").unwrap();
        assert_eq!((lo.index, lo.state), (LOOPBACK, State::Down));
        netlink.set_state(LOOPBACK, State::Up).unwrap();
        assert_eq!(netlink.link("lo").unwrap().state, State::Up);
        let links = netlink.links().unwrap();
        assert!(links.iter().any(|link| link.name == "lo"));
        assert_eq!(netlink.link("nothing").unwrap_err().errno(), Errno::NODEV);
        assert_eq!(netlink.link("a-name-that-is-too-long").unwrap_err().errno(), Errno::NODEV);
        // Proves that it really works.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    });
}

#[test]
fn a_moved_device_keeps_its_lasting_global_addresses() {
    in_child(|| {
        let (_, mut from, mut to) = two();
        if !make_pair(&mut from.netlink, "croft0") {
            return;
        }
        let before = from.netlink.link("croft0").unwrap();
        from.netlink.set_state(before.index, State::Up).unwrap();
        let global = AddressScope::Universe;
        give(&mut from.netlink, before.index, address("10.9.8.7", 24, global, true));
        give(&mut from.netlink, before.index, address("10.9.8.9", 24, global, true));
        give(&mut from.netlink, before.index, address("10.9.7.1", 24, AddressScope::Link, true));
        give(&mut from.netlink, before.index, address("10.9.6.1", 24, global, false));
        let mut labelled = address("10.9.5.1", 32, global, true);
        labelled.attributes.push(AddressAttribute::Label("croft0:x".to_owned()));
        labelled.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        give(&mut from.netlink, before.index, labelled);
        let mut six = address("fd00:1234::7", 64, global, true);
        six.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        give(&mut from.netlink, before.index, six);

        let moved = transfer(&mut from, &mut to, "croft0", "eth7").unwrap();
        assert_eq!(moved.name, "eth7");
        assert_eq!(from.netlink.link("croft0").unwrap_err().errno(), Errno::NODEV);
        let after = to.netlink.link("eth7").unwrap();
        assert_eq!(after, moved);
        assert_eq!(after.state, State::Up);
        assert_eq!((&after.hardware_address, after.mtu), (&before.hardware_address, 1432));
        let addresses = to.netlink.addresses(after.index).unwrap();
        let wanted = ["10.9.8.7/24", "10.9.5.1/32", "10.9.8.9/24", "fd00:1234::7/64"];
        let mut got = texts(&addresses);
        got.sort();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(got, wanted);
        let labelled = addresses.iter().find(|each| each.ip() == "10.9.5.1".parse().ok()).unwrap();
        assert!(labelled.0.attributes.contains(&AddressAttribute::Label("eth7:x".to_owned())));
        assert!(labelled.flags().contains(AddressFlags::Noprefixroute));
    });
}

#[test]
fn a_template_takes_the_first_free_name_and_index() {
    in_child(|| {
        let (_, mut from, mut to) = two();
        if !make_pair(&mut from.netlink, "croft0") {
            return;
        }
        make_pair(&mut to.netlink, "net0");
        let moved = transfer(&mut from, &mut to, "croft0", "net%d").unwrap();
        assert_eq!(moved.name, "net1");
        assert_ne!(moved.index, to.netlink.link("net0").unwrap().index);
    });
}

#[test]
fn a_taken_name_is_refused_and_nothing_moves() {
    in_child(|| {
        let (_, mut from, mut to) = two();
        if !make_pair(&mut from.netlink, "croft0") {
            return;
        }
        make_pair(&mut to.netlink, "eth0");
        let error = transfer(&mut from, &mut to, "croft0", "eth0").unwrap_err();
        assert_eq!(error.errno(), Errno::EXIST);
        assert!(from.netlink.link("croft0").is_ok());
        assert_eq!(transfer(&mut from, &mut to, "lo", "lo1").unwrap_err().errno(), Errno::INVAL);
    });
}

#[test]
fn a_device_that_cannot_stay_comes_back() {
    in_child(|| {
        let (_, mut from, mut to) = two();
        if !make_pair(&mut from.netlink, "croft0") {
            return;
        }
        let before = from.netlink.link("croft0").unwrap();
        from.netlink.set_state(before.index, State::Up).unwrap();
        give(&mut from.netlink, before.index, address("10.9.8.7", 24, AddressScope::Universe, true));
        // The kernel refuses such a name, after the move.
        assert!(transfer(&mut from, &mut to, "croft0", "a/b").is_err());
        let back = from.netlink.link("croft0").unwrap();
        assert_eq!(back.state, State::Up);
        assert_eq!(texts(&from.netlink.addresses(back.index).unwrap()), ["10.9.8.7/24"]);
        assert_eq!(to.netlink.links().unwrap().iter().filter(|link| link.mtu == 1432).count(), 0);
    });
}

#[test]
fn the_thread_is_back_in_its_namespace() {
    in_child(|| {
        let (proc, first, second) = two();
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let own = || inode(&proc.open_namespace("thread-self", "net").unwrap());
        let inside = in_namespace(&proc, second.fd.as_fd(), own).unwrap();
        assert_eq!((inside, own()), (inode(&second.fd), inode(&first.fd)));
    });
}
