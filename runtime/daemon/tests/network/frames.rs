//! Frames as a container's kernel does not make them of its own accord, sent by packet(7): a kernel that knows no VLANs sends their tags
//! so, too.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use croftd_network::{Endpoint, Mac};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use crate::guest::{Guest, PATIENCE};
use crate::scene::Scene;

pub const ALL: &[crate::Test] = &[("frames_with_tags_or_names_of_others_are_dropped", dropped)];

/// Tags of the VLAN 7, of a customer's kind and a provider's.
const TAG_802_1Q: &[u8] = &[0x81, 0x00, 0, 7];
const TAG_802_1AD: &[u8] = &[0x88, 0xa8, 0, 7];

/// What the frame carries that is as it should be. It is sent last: what came is looked at when it has come.
const PLAIN: &str = "as it should be";

fn dropped() {
    let scene = Scene::new();
    let ((a, of_a), (b, of_b), (_neighbour, of_neighbour)) =
        (scene.container("a", &[], &[]), scene.container("b", &[], &[]), scene.container("c", &[], &[]));
    let [own, to, other] = [&of_a, &of_b, &of_neighbour].map(|lease| &lease.endpoints[0]);
    let sent = [
        ("802.1Q", TAG_802_1Q, own.mac, own.ipv4),
        ("802.1ad", TAG_802_1AD, own.mac, own.ipv4),
        ("both tags", &[TAG_802_1AD, TAG_802_1Q].concat(), own.mac, own.ipv4),
        ("a neighbour's hardware address", &[], other.mac, own.ipv4),
        ("a neighbour's address", &[], own.mac, other.ipv4),
        (PLAIN, &[], own.mac, own.ipv4),
    ];
    let (from_a, at_b) = (eth0(&a), eth0(&b));
    for (words, tags, mac, ipv4) in sent {
        let frame = frame((mac, ipv4), to, tags, words);
        assert_eq!(send(from_a.as_raw_fd(), &frame, MsgFlags::empty()), Ok(frame.len()));
    }
    let mut buffer = [0; 2048];
    let mut came = Vec::new();
    while came.last() != Some(&PLAIN) {
        let length = recv(at_b.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("a frame comes");
        let words = sent.iter().map(|(words, ..)| *words);
        came.extend(words.filter(|words| buffer[..length].ends_with(words.as_bytes())));
    }
    assert_eq!(came, [PLAIN]);
    scene.is_well();
}

/// A packet socket on a container's cable: what is sent or comes is a frame, whole.
fn eth0(guest: &Guest) -> OwnedFd {
    guest.within(|| {
        let interface = getifaddrs().unwrap().find(|found| {
            let address = found.address.as_ref();
            found.interface_name == "eth0" && address.is_some_and(|address| address.as_link_addr().is_some())
        });
        let address = interface.unwrap().address.unwrap();
        let all = SockProtocol::EthAll;
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all).unwrap();
        bind(fd.as_raw_fd(), address.as_link_addr().unwrap()).unwrap();
        let patience = TimeVal::new(i64::try_from(PATIENCE.as_secs()).unwrap(), 0);
        setsockopt(&fd, ReceiveTimeout, &patience).unwrap();
        fd
    })
}

/// A datagram that ends with `words`, from whoever it says sends it, with tags before its type.
fn frame((mac, ipv4): (Mac, Ipv4Addr), to: &Endpoint, tags: &[u8], words: &str) -> Vec<u8> {
    let length = |of: usize| u16::try_from(of).unwrap().to_be_bytes();
    let udp = [&[0, 9, 0, 9][..], &length(8 + words.len()), &[0, 0], words.as_bytes()].concat();
    let start = [&[0x45, 0][..], &length(20 + udp.len()), &[0, 0, 0, 0, 64, 17]].concat();
    let addresses = [ipv4.octets(), to.ipv4.octets()].concat();
    // The sum of RFC 1071: of ones' complements, which is what is left by 0xffff.
    let both = [start.clone(), addresses.clone()].concat();
    let sum: u32 = both.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let checksum = (!u16::try_from(sum % 0xffff).unwrap()).to_be_bytes();
    [&to.mac.0[..], &mac.0, tags, &[8, 0], &start, &checksum, &addresses, &udp].concat()
}
