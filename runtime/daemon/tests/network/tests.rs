//! The tests.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use croft_api::network::Protocol;
use croft_api::problem::Kind;
use croftd_network::NewNetwork;
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};

use crate::guest::{Guest, ask, ask_udp};
use crate::scene::{HOST, Scene, WORLD, port, sh, wish};

pub const ALL: &[crate::Test] = &[
    ("neighbours_reach_each_other_by_address_and_name", neighbours),
    ("the_first_containers_may_come_at_once", at_once),
    ("root_in_a_container_owns_its_network", ownership),
    ("a_published_port_answers_everywhere", published),
    ("networks_are_isolated", isolated),
    ("other_names_are_asked_for_at_the_hosts_servers", names_of_others),
    ("a_container_may_be_in_several_networks_with_addresses_of_its_choice", several),
];

fn neighbours() {
    let scene = Scene::new();
    let ((a, _), (b, lease)) = (scene.container("a", &[], &[]), scene.container("b", &[], &[]));
    let endpoint = &lease.endpoints[0];
    let ipv6 = endpoint.ipv6.unwrap();
    b.serve(8080, "b");
    assert!(a.pings(endpoint.ipv4) && a.pings(ipv6));
    assert_eq!(a.ask(endpoint.ipv4, 8080).unwrap().1, "b");
    assert_eq!(a.ask(ipv6, 8080).unwrap().1, "b");
    let gateway = scene.networks.list()[0].gateways[0].clone();
    let files = scene.networks.files("a", "a").unwrap();
    assert!(files.resolv.starts_with(&format!("nameserver {gateway}\n")), "{files:?}");
    let found = a.must(&format!("busybox nslookup b {gateway}"));
    assert!(found.contains(&endpoint.ipv4.to_string()) && found.contains(&ipv6.to_string()), "{found}");
    let found = a.must(&format!("busybox nslookup {} {gateway}", endpoint.ipv4));
    assert!(found.contains("name = b"), "{found}");
    assert!(a.sh(&format!("busybox nslookup nobody {gateway}")).unwrap_err().contains("NXDOMAIN"));
    // The way out: the world knows no way to the containers' addresses, and answers the host.
    scene.world.serve(7, "world");
    assert_eq!(a.ask(WORLD, 7).unwrap(), (IpAddr::from(HOST), "world".to_owned()));
    let counters = scene.networks.counters("a").unwrap();
    let counted = &counters[0];
    assert_eq!((counters.len(), counted.network.as_str(), counted.interface.as_str()), (1, "croft", "eth0"));
    assert!(counted.sent_packets > 5 && counted.received_bytes > 100, "{counted:?}");
    scene.is_well();
}

/// None of them meets a bridge that another is just making.
fn at_once() {
    let scene = Scene::new();
    let names: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
    let guests: Vec<Guest> = names.iter().map(|_| Guest::container()).collect();
    for name in &names {
        scene.networks.reserve(name, &wish(name, &[], &[])).unwrap();
    }
    std::thread::scope(|scope| {
        for (name, guest) in names.iter().zip(&guests) {
            scope.spawn(|| scene.networks.attach(name, guest.namespace()).unwrap());
        }
    });
    scene.is_well();
}

fn ownership() {
    let scene = Scene::new();
    let (a, _) = scene.container("a", &[], &[]);
    a.must("ip addr add 203.0.113.9/32 dev eth0 && ip link set eth0 mtu 1400 && ip route add 203.0.113.0/24 dev eth0");
    a.must("busybox ping -c 1 127.0.0.1 && echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_ignore");
    a.must("busybox timeout 0.2 busybox nc -l -p 80 || [ $? = 143 ]");
    let listed = a.must("unshare --mount sh -c 'mount -t sysfs none /sys && ls /sys/class/net'");
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
}

fn published() {
    let scene = Scene::new();
    let ports = [port(8000, 80, Protocol::Tcp), port(8000, 80, Protocol::Udp)];
    let (a, lease) = scene.container("a", &[], &ports);
    let (b, _) = scene.container("b", &[], &[]);
    a.serve(80, "a");
    let (name, v6) = ("a".to_owned(), "2001:db8::1".parse::<Ipv6Addr>().unwrap());
    // From outside, the container sees who it is.
    assert_eq!(scene.world.ask(HOST, 8000).unwrap(), (IpAddr::from(WORLD), name.clone()));
    assert_eq!(scene.world.ask(v6, 8000).unwrap(), ("2001:db8::2".parse().unwrap(), name.clone()));
    assert_eq!(scene.world.within(|| ask_udp(SocketAddr::new(HOST.into(), 8000))).unwrap(), "a");
    // From the host itself, also where packets cannot be led elsewhere.
    for ip in [IpAddr::from(HOST), v6.into(), [127, 0, 0, 1].into(), Ipv6Addr::LOCALHOST.into()] {
        assert_eq!(ask(SocketAddr::new(ip, 8000)).unwrap().1, "a", "{ip}");
        assert_eq!(ask_udp(SocketAddr::new(ip, 8000)).unwrap(), "a", "{ip}");
    }
    // From a neighbour, and from itself.
    assert_eq!(b.ask(HOST, 8000).unwrap().1, "a");
    assert_eq!(a.ask(HOST, 8000).unwrap().1, "a");
    // The same where the host's rules see what stays on a bridge from now on, or no longer do.
    for seen in [1, 0] {
        sh(&format!("echo {seen} | tee /proc/sys/net/bridge/bridge-nf-call-ip*tables 2> /dev/null || true"));
        scene.networks.mend().unwrap();
        assert_eq!(
            [b.ask(HOST, 8000).unwrap().1, a.ask(HOST, 8000).unwrap().1, b.ask(v6, 8000).unwrap().1],
            ["a"; 3]
        );
    }
    // It is held: nobody else has it, croft neither.
    assert!(TcpListener::bind(("0.0.0.0", 8000)).is_err());
    let wish_ = wish("c", &[], &ports[..1]);
    scene.networks.reserve("c", &wish_).unwrap();
    let c = Guest::container();
    let problem = scene.networks.attach("c", c.namespace()).unwrap_err();
    assert_eq!(
        (problem.kind, problem.detail.as_str()),
        (Kind::Conflict, "port 8000 of the host leads to a already")
    );
    scene.is_well();
    assert_eq!(scene.networks.attached().unwrap(), ["a", "b"]);
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().1, "a", "the one that has it keeps it");
    scene.networks.detach("a").unwrap();
    assert!(scene.world.ask(HOST, 8000).is_err());
    let taken = TcpListener::bind(("0.0.0.0", 8000)).unwrap();
    let problem = scene.networks.attach("c", c.namespace()).unwrap_err();
    assert_eq!(
        (problem.kind, problem.detail.as_str()),
        (Kind::Conflict, "port 8000/tcp of the host is taken")
    );
    drop(taken);
    scene.networks.attach("c", c.namespace()).unwrap();
    c.serve(80, "c");
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().1, "c");
    assert_eq!(scene.networks.lease("a"), Some(lease), "the addresses stay");
}

fn isolated() {
    let scene = Scene::new();
    for name in ["one", "two"] {
        scene.networks.create(NewNetwork { name: name.to_owned(), ..NewNetwork::default() }).unwrap();
    }
    let ((a, _), (b, of_b)) = (
        scene.container("a", &["one"], &[]),
        scene.container("b", &["two"], &[port(8000, 80, Protocol::Tcp)]),
    );
    let (both, of_both) = scene.container("both", &["one", "two"], &[]);
    let endpoint = &of_b.endpoints[0];
    b.serve(80, "b");
    both.serve(80, "both");
    for ip in [IpAddr::from(endpoint.ipv4), endpoint.ipv6.unwrap().into()] {
        assert!(!a.pings(ip) && a.ask(ip, 80).is_err(), "{ip}");
        assert_eq!(both.ask(ip, 80).unwrap().1, "b");
    }
    assert_eq!(a.ask(of_both.endpoints[0].ipv4, 80).unwrap().1, "both");
    assert_eq!(a.ask(HOST, 8000).unwrap().1, "b", "what is published is for all");
    // The world, even one that knows the way, gets at nothing but that.
    scene.world.must(&format!("ip route add {} via {HOST}", endpoint.ipv4));
    assert!(scene.world.ask(endpoint.ipv4, 80).is_err() && !scene.world.pings(endpoint.ipv4));
    // Names are told to neighbours only.
    let gateways: Vec<String> =
        scene.networks.list().into_iter().map(|network| network.gateways[0].clone()).collect();
    assert!(both.sh(&format!("busybox nslookup b {}", gateways[1])).is_ok());
    assert!(a.sh(&format!("busybox nslookup b {}", gateways[0])).is_err());
    assert!(a.sh(&format!("busybox timeout 2 busybox nslookup b {}", gateways[1])).is_err());
    scene.is_well();
}

fn names_of_others() {
    let scene = Scene::new();
    let resolv = scene.folder.path().join("resolv.conf");
    fs::write(&resolv, format!("nameserver {WORLD}\nsearch example.com\n")).unwrap();
    // Of this test's mount namespace only.
    sh(&format!("mount --bind {} /etc/resolv.conf", resolv.display()));
    let server = scene.world.within(|| UdpSocket::bind((WORLD, 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, sender)) = server.recv_from(&mut buffer) {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let name = question.queries[0].name().clone();
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            answer.add_queries(question.queries.iter().cloned());
            if question.queries[0].query_type() == RecordType::A {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A([203, 0, 113, 5].into()))));
            }
            server.send_to(&answer.to_vec().unwrap(), sender).unwrap();
        }
    });
    let (a, _) = scene.container("a", &[], &[]);
    let files = scene.networks.files("a", "a").unwrap();
    assert!(files.resolv.ends_with("search example.com\n"), "{files:?}");
    let gateway = &scene.networks.list()[0].gateways[0];
    let found = a.must(&format!("busybox nslookup www.example.com {gateway}"));
    assert!(found.contains("203.0.113.5"), "{found}");
    // A name without a domain is not the world's business.
    assert!(a.sh(&format!("busybox nslookup secret {gateway}")).unwrap_err().contains("NXDOMAIN"));
}

fn several() {
    let scene = Scene::new();
    let ranges = [("one", "10.1.0.0/24", "fd00:1::/64"), ("two", "10.2.0.0/24", "fd00:2::/64")];
    for (name, ipv4, ipv6) in ranges {
        let name = name.to_owned();
        let network = scene.networks.create(NewNetwork {
            name,
            ipv4: ipv4.parse().ok(),
            ipv6: ipv6.parse().ok(),
            mtu: Some(1400),
            ..NewNetwork::default()
        });
        assert_eq!(network.unwrap().subnets, [ipv4, ipv6]);
    }
    let mut wish = wish("a", &["one", "two"], &[]);
    wish.networks[1].ipv4 = "10.2.0.77".parse().ok();
    wish.networks[1].ipv6 = "fd00:2::beef".parse().ok();
    wish.networks[1].mac = "02:00:00:00:00:07".parse().ok();
    scene.networks.reserve("a", &wish).unwrap();
    let a = Guest::container();
    scene.networks.attach("a", a.namespace()).unwrap();
    let shown =
        a.must("ip -o addr show dev eth1; ip -o link show dev eth1; ip route; ip -6 route show default");
    for part in [
        "10.2.0.77/24",
        "fd00:2::beef/64",
        "02:00:00:00:00:07",
        "mtu 1400",
        "default via 10.1.0.1 dev eth0",
        "default via fd00:1::1 dev eth0",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (b, _) = scene.container("b", &["two"], &[]);
    assert!(
        b.pings("10.2.0.77".parse::<IpAddr>().unwrap()) && b.pings("fd00:2::beef".parse::<IpAddr>().unwrap())
    );
    scene.is_well();
}
