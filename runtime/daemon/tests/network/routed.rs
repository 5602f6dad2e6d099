//! Networks without a bridge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use croft_api::network::{Mode, Protocol};
use croftd_network::addresses::Wanted;
use croftd_network::{Networks, NewNetwork};

use crate::guest::{Guest, ask, ask_udp};
use crate::scene::{HOST, Scene, WORLD, port, settings, sh, wish};

pub const ALL: &[crate::Test] = &[
    ("routed_containers_reach_each_other_and_the_host", reach),
    ("routed_networks_are_isolated", isolated),
    ("spoofed_packets_are_dropped_without_a_bridge", spoofed),
    ("routed_networks_are_mended", mended),
];

fn scene(names: &[&str]) -> Scene {
    let scene = Scene::new();
    for name in names {
        let new = NewNetwork { name: (*name).to_owned(), mode: Mode::Routed, ..NewNetwork::default() };
        assert_eq!(scene.networks.create(new).unwrap().mode, Mode::Routed);
    }
    scene
}

fn reach() {
    let scene = scene(&["one"]);
    let ports = [port(8000, 80, Protocol::Tcp), port(8000, 80, Protocol::Udp)];
    let (a, of_a) = scene.container("a", &["one"], &ports);
    let (b, of_b) = scene.container("b", &["one"], &[]);
    let (a4, a6) = (of_a.endpoints[0].ipv4, of_a.endpoints[0].ipv6.unwrap());
    let (b4, b6) = (of_b.endpoints[0].ipv4, of_b.endpoints[0].ipv6.unwrap());
    let shown = a.must("ip -o addr show dev eth0; ip route");
    assert!(shown.contains(&format!("{a4}/32")) && shown.contains(&format!("{a6}/128")), "{shown}");
    assert!(!sh("ip -o link show type bridge_slave").contains("t-v"), "no cable is a bridge's");
    a.serve(80, "a");
    for (from, to) in [(&a, IpAddr::from(b4)), (&a, b6.into()), (&b, a4.into()), (&b, a6.into())] {
        assert!(from.pings(to), "{to}");
    }
    assert_eq!([b.ask(a4, 80).unwrap(), b.ask(a6, 80).unwrap()].map(|(_, name)| name), ["a", "a"]);
    let network = scene.networks.inspect("one").unwrap();
    let gateways: Vec<IpAddr> = network.gateways.iter().map(|ip| ip.parse().unwrap()).collect();
    assert!(gateways.iter().all(|ip| a.pings(*ip)));
    // The host and the world.
    let from_host = |ip: IpAddr| ask(SocketAddr::new(ip, 80)).unwrap();
    assert_eq!(from_host(a4.into()), (gateways[0], "a".to_owned()));
    assert_eq!(from_host(a6.into()), (gateways[1], "a".to_owned()));
    assert!(a.pings(WORLD) && a.pings("2001:db8::2".parse::<IpAddr>().unwrap()));
    for ip in [IpAddr::from(HOST), "2001:db8::1".parse().unwrap()] {
        assert_eq!(scene.world.ask(ip, 8000).unwrap().1, "a");
        assert_eq!([a.ask(ip, 8000).unwrap().1, b.ask(ip, 8000).unwrap().1], ["a", "a"]);
        assert_eq!(ask(SocketAddr::new(ip, 8000)).unwrap().1, "a");
    }
    assert_eq!(ask(SocketAddr::from(([127, 0, 0, 1], 8000))).unwrap().1, "a");
    assert_eq!(scene.world.within(|| ask_udp(SocketAddr::new(HOST.into(), 8000))).unwrap(), "a");
    for gateway in &gateways {
        let found = b.must(&format!("busybox nslookup a {gateway}"));
        assert!(found.contains(&a4.to_string()), "{found}");
    }
    // One that was in another network comes too, and may go.
    let (c, _) = scene.container("c", &[], &[]);
    assert!(!c.pings(a4));
    let wanted = Wanted { network: "one".to_owned(), ..Wanted::default() };
    scene.networks.connect("c", &wanted, Some(c.namespace())).unwrap();
    assert!(c.pings(a4) && c.pings(b6) && c.pings(WORLD));
    scene.networks.disconnect("c", "croft", Some(c.namespace())).unwrap();
    assert!(c.pings(a4) && c.pings(WORLD) && c.pings("2001:db8::2".parse::<IpAddr>().unwrap()));
    scene.is_well();
    assert!(scene.networks.counters("a").unwrap()[0].sent_packets > 5);
    scene.remove("c", c);
}

fn isolated() {
    let scene = scene(&["one", "two"]);
    let inner =
        NewNetwork { name: "inner".to_owned(), mode: Mode::Routed, internal: true, ..NewNetwork::default() };
    scene.networks.create(inner).unwrap();
    let (a, of_a) = scene.container("a", &["one"], &[]);
    let (b, of_b) = scene.container("b", &["two"], &[]);
    let (c, of_c) = scene.container("c", &[], &[]);
    let (d, of_d) = scene.container("d", &["inner"], &[]);
    let (e, _) = scene.container("e", &["inner"], &[]);
    let all = [(&a, &of_a), (&b, &of_b), (&c, &of_c), (&d, &of_d)];
    for (number, (from, _)) in all.iter().enumerate() {
        for (other, (_, lease)) in all.iter().enumerate() {
            for ip in [IpAddr::from(lease.endpoints[0].ipv4), lease.endpoints[0].ipv6.unwrap().into()] {
                assert!(from.pings(ip) == (number == other), "{number} {ip}");
            }
        }
    }
    assert!(e.pings(of_d.endpoints[0].ipv4) && !e.pings(WORLD) && a.pings(WORLD));
    let gateway = scene.networks.inspect("inner").unwrap().gateways[0].clone();
    e.must(&format!("ip route add default via {gateway}"));
    assert!(!e.pings(WORLD) && !e.pings(of_a.endpoints[0].ipv4));
    for lease in [&of_a, &of_d] {
        scene.world.must(&format!("ip route add {} via {HOST}", lease.endpoints[0].ipv4));
        assert!(!scene.world.pings(lease.endpoints[0].ipv4));
    }
    scene.is_well();
}

fn spoofed() {
    let scene = scene(&["one"]);
    let (a, of_a) = scene.container("a", &["one"], &[]);
    let (_victim, of_victim) = scene.container("victim", &["one"], &[]);
    let (b, of_b) = scene.container("b", &["one"], &[]);
    let (b4, b6) = (of_b.endpoints[0].ipv4, of_b.endpoints[0].ipv6.unwrap());
    let false4 =
        [of_victim.endpoints[0].ipv4, Ipv4Addr::from_bits(b4.to_bits() + 100), Ipv4Addr::new(203, 0, 113, 1)];
    let false6 = [of_victim.endpoints[0].ipv6.unwrap(), Ipv6Addr::from_bits(b6.to_bits() + 100)];
    assert!(a.pings(b4) && a.pings(b6));
    // What arrives at b, whoever it says it is from.
    let arrived = || {
        b.must("cat /proc/net/snmp /proc/net/snmp6 | busybox awk '/^Icmp: [0-9]/ {n += $2} /^Icmp6InEchos/ {n += $2} END {print n}'")
    };
    let lie = || {
        for ip in false4 {
            a.must(&format!("ip addr add {ip}/32 dev eth0; busybox ping -c 1 -W 1 -I {ip} {b4} || true; ip addr del {ip}/32 dev eth0"));
        }
        for ip in false6 {
            a.must(&format!("ip -6 addr add {ip}/128 dev eth0 nodad; busybox ping -c 1 -W 1 -I {ip} {b6} || true; ip -6 addr del {ip}/128 dev eth0"));
        }
    };
    let before = arrived();
    lie();
    assert_eq!(arrived(), before);
    assert!(a.pings(b4) && a.pings(b6), "with its own it works again");
    assert_eq!(of_a.endpoints.len(), 1);
    // The proof that these lies would have arrived: the host passes on what is for a container from elsewhere in the network.
    sh("nft flush chain inet croft_t cable");
    sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
    let before = arrived();
    lie();
    assert_ne!(arrived(), before);
    scene.networks.mend().unwrap();
    scene.is_well();
}

fn mended() {
    let scene = scene(&["one"]);
    let (a, of_a) = scene.container("a", &["one"], &[port(8000, 80, Protocol::Tcp)]);
    let (b, _) = scene.container("b", &["one"], &[]);
    a.serve(80, "a");
    let a4 = of_a.endpoints[0].ipv4;
    // With the host's addresses go the routes to the containers.
    sh("nft flush ruleset; ip link del t-b0");
    assert!(!b.pings(a4));
    let what: Vec<&str> = scene.networks.check().unwrap().iter().map(|left| left.what).collect();
    assert_eq!(what, ["bridge", "firewall"]);
    scene.networks.mend().unwrap();
    scene.is_well();
    assert!(b.pings(a4) && b.pings(of_a.endpoints[0].ipv6.unwrap()));
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().1, "a");
    // Another croftd takes over.
    let Scene { folder, networks, world } = scene;
    drop(networks);
    let networks = Networks::open(settings(folder.path())).unwrap();
    networks.mend().unwrap();
    assert_eq!(networks.check().unwrap(), []);
    assert_eq!(world.ask(HOST, 8000).unwrap().1, "a");
    let c = Guest::container();
    networks.reserve("c", &wish("c", &["one"], &[])).unwrap();
    networks.attach("c", c.namespace()).unwrap();
    assert!(c.pings(a4));
}
