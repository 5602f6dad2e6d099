//! What goes wrong: spoofing, crashes, reloaded firewalls, things left over, two croftd on a host.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};

use croft_api::network::Protocol;
use croft_api::problem::Kind;
use croftd_network::addresses::Wanted;
use croftd_network::{Mac, Networks, NewNetwork, Wish};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with, sockopt};

use crate::guest::{Guest, ask};
use crate::scene::{HOST, Scene, port, settings, sh, until, wish};

pub const ALL: &[crate::Test] = &[
    ("spoofed_packets_are_dropped", spoofed),
    ("containers_go_on_while_croftd_is_away", away),
    ("a_reloaded_firewall_is_put_back", reloaded),
    ("what_is_left_over_is_found_and_taken_away", left_over),
    ("nothing_is_left_of_what_is_removed", nothing_left),
    ("a_network_that_is_full_says_so", full),
    ("two_croftd_share_a_host", two),
    ("many_come_and_go_while_things_are_mended", many),
];

/// Tells `whom` that `target` is at `mac`, though nobody asked (RFC 4861, 4.4).
fn advertise(from: &Guest, whom: Ipv6Addr, target: Ipv6Addr, mac: Mac) {
    let mut packet = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    packet.extend(target.octets());
    packet.extend([2, 1]);
    packet.extend(mac.0);
    from.within(|| {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6)).unwrap();
        sockopt::set_ipv6_unicast_hops(&socket, Some(255)).unwrap();
        sendto(&socket, &packet, SendFlags::empty(), &SocketAddrV6::new(whom, 0, 0, 0)).unwrap();
    });
}

fn spoofed() {
    let scene = Scene::new();
    let ((a, of_a), (victim, of_victim), (b, of_b)) =
        (scene.container("a", &[], &[]), scene.container("victim", &[], &[]), scene.container("b", &[], &[]));
    let [a_end, victim_end, b_end] = [&of_a, &of_victim, &of_b].map(|lease| lease.endpoints[0].clone());
    let (ipv4, ipv6) = (victim_end.ipv4, victim_end.ipv6.unwrap());
    let other = Ipv4Addr::from_bits(ipv4.to_bits() + 100);
    let other6 = Ipv6Addr::from_bits(ipv6.to_bits() + 100);
    assert!(a.pings(ipv4) && a.pings(ipv6), "it works as long as nothing is false");

    // Somebody else's address, or nobody's.
    a.must(&format!("ip addr add {other}/22 dev eth0; ip -6 addr add {other6}/64 dev eth0 nodad"));
    assert!(a.sh(&format!("busybox ping -c 1 -W 1 -I {other} {ipv4}")).is_err());
    assert!(a.sh(&format!("busybox ping -c 1 -W 1 -I {other6} {ipv6}")).is_err());
    a.must(&format!("ip addr del {other}/22 dev eth0; ip -6 addr del {other6}/64 dev eth0"));

    // Somebody else's hardware address: what is for the victim must not come here.
    a.must(&format!("ip link set eth0 address {}", victim_end.mac));
    assert!(!a.pings(b_end.ipv4));
    assert!(b.pings(ipv4));
    a.must(&format!("ip link set eth0 address {}", a_end.mac));
    assert!(a.pings(b_end.ipv4), "with its own it works again");

    // A neighbour is told that the victim is here.
    let knows = |ip: IpAddr, mac: Mac| b.must(&format!("ip neigh show {ip}")).contains(&mac.to_string());
    let lie = || {
        a.must(&format!("ip addr add {ipv4}/32 dev eth0; busybox arping -q -c 2 -U -I eth0 -s {ipv4} {ipv4} || true; ip addr del {ipv4}/32 dev eth0"));
        advertise(&a, b_end.ipv6.unwrap(), ipv6, a_end.mac);
    };
    assert!(b.pings(ipv4) && b.pings(ipv6));
    lie();
    assert!(
        knows(ipv4.into(), victim_end.mac) && knows(ipv6.into(), victim_end.mac),
        "{}",
        b.must("ip neigh")
    );
    assert!(b.pings(ipv4) && b.pings(ipv6) && victim.pings(b_end.ipv4));
    let listed = sh("nft list table bridge croft_t");
    let counted = listed.lines().filter(|line| line.contains("drop") && !line.contains("packets 0 ")).count();
    assert!(counted >= 3, "{listed}");

    // A packet like most of those for the bridge needs none of the further rules.
    let gateway: IpAddr = scene.networks.list()[0].gateways[0].parse().unwrap();
    assert!(a.pings(gateway));
    sh("nft insert rule bridge croft_t port drop");
    assert!(a.pings(gateway));

    // The proof that these lies would have been believed.
    sh("nft delete table bridge croft_t");
    lie();
    until("the lie is believed", || knows(ipv4.into(), a_end.mac) && knows(ipv6.into(), a_end.mac));
    scene.networks.mend().unwrap();
    scene.is_well();
}

fn away() {
    let scene = Scene::new();
    let (a, lease) = scene.container("a", &[], &[port(8000, 80, Protocol::Tcp)]);
    let (b, _) = scene.container("b", &[], &[]);
    a.serve(80, "a");
    let Scene { folder, networks, world } = scene;
    let gateway = networks.list()[0].gateways[0].clone();
    drop(networks);
    let local = SocketAddr::from(([127, 0, 0, 1], 8000));
    let is_served = || {
        assert!(
            b.must(&format!("busybox nslookup a {gateway}")).contains(&lease.endpoints[0].ipv4.to_string())
        );
        assert_eq!(ask(local).unwrap().1, "a");
        assert_eq!(world.ask(HOST, 8000).unwrap().1, "a");
        assert!(TcpListener::bind(("0.0.0.0", 8000)).is_err(), "the port is still held");
    };
    is_served();
    let networks = Networks::open(settings(folder.path())).unwrap();
    assert!(Networks::open(settings(folder.path())).unwrap_err().detail.contains("another croftd"));
    networks.mend().unwrap();
    assert_eq!((networks.check().unwrap(), networks.lease("a")), (vec![], Some(lease.clone())));
    is_served();

    // The service is killed, too.
    sh(&format!("kill -9 {}", service().unwrap()));
    until("it is gone", || service().is_none());
    assert!(ask(local).is_err());
    assert_eq!(networks.check().unwrap()[0].what, "service");
    networks.mend().unwrap();
    is_served();

    // An address that is known to have been given out is not given again.
    let c = networks.reserve("c", &wish("c", &[], &[])).unwrap();
    assert_ne!(c.endpoints[0].ipv4, lease.endpoints[0].ipv4);
    // Killed in the middle of attaching: it is done anew.
    let again = Guest::container();
    networks.attach("a", again.namespace()).unwrap();
    assert!(again.pings(gateway.parse::<IpAddr>().unwrap()));
}

/// The process that serves, if there is one.
fn service() -> Option<u32> {
    let is_it = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(crate::SERVICE))
    };
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(is_it)
}

fn reloaded() {
    let scene = Scene::new();
    const FOREIGN: &str =
        "table inet foreign { chain c { type filter hook input priority 0; tcp dport 9 counter; }; }";
    sh(&format!("nft '{FOREIGN}'"));
    let before = sh("nft list table inet foreign");
    let (a, _) = scene.container("a", &[], &[port(8000, 80, Protocol::Tcp)]);
    a.serve(80, "a");
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().0, IpAddr::from(crate::scene::WORLD));
    sh(&format!("nft flush ruleset; nft '{FOREIGN}'"));
    let found = scene.networks.check().unwrap();
    assert_eq!(found.iter().map(|left| left.what).collect::<Vec<_>>(), ["firewall"]);
    assert!(!a.pings(crate::scene::WORLD), "nothing hides its address");
    scene.networks.mend().unwrap();
    scene.is_well();
    assert!(a.pings(crate::scene::WORLD));
    assert_eq!(scene.world.ask(HOST, 8000).unwrap(), (crate::scene::WORLD.into(), "a".to_owned()));
    assert_eq!(sh("nft list table inet foreign"), before, "what is not croft's is as it was");
    // A rule alone that is gone counts as much.
    sh("nft flush chain inet croft_t forward");
    assert_eq!(scene.networks.check().unwrap()[0].what, "firewall");
    scene.networks.mend().unwrap();
    scene.is_well();
}

fn left_over() {
    let scene = Scene::new();
    let (a, _) = scene.container("a", &[], &[]);
    let (b, _) = scene.container("b", &[], &[]);
    sh("ip link add t-vffffff type veth peer name other; ip link add t-b9 type bridge");
    sh("nft add element inet croft_t ports4 '{ tcp . 81 : 10.88.0.9 . 80 }'");
    fs::write(
        scene.folder.path().join("host/subnets/10.95.0.0_22"),
        format!("x {}/root/network\n", scene.folder.path().display()),
    )
    .unwrap();
    let found = scene.networks.check().unwrap();
    let names: Vec<&str> = found.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(names, ["t-vffffff", "t-b9", "10.95.0.0/22", "ports4 tcp . 81 : 10.88.0.9 . 80"]);
    scene.networks.mend().unwrap();
    scene.is_well();
    // Its processes are gone, and croftd has not noticed.
    a.end();
    until("its cable is gone", || scene.networks.check().unwrap().iter().any(|left| left.what == "cable"));
    scene.networks.detach("a").unwrap();
    scene.is_well();
    // Somebody takes the bridge away.
    sh("ip link del t-b0");
    assert_eq!(scene.networks.check().unwrap()[0].what, "bridge");
    scene.networks.mend().unwrap();
    scene.is_well();
    let gateway: IpAddr = scene.networks.list()[0].gateways[0].parse().unwrap();
    assert!(b.pings(gateway));
}

fn nothing_left() {
    let scene = Scene::new();
    let (links, rules) = (sh("ip -o link | sed 's/@.*//'"), sh("nft list ruleset"));
    let Scene { folder, networks, world: _world } = scene;
    let files = || {
        sh(&format!("cd {} && find . -type f ! -name .lock ! -name '*.lock' | sort", folder.path().display()))
    };
    let nothing = files();
    networks.create(NewNetwork { name: "n".to_owned(), ..NewNetwork::default() }).unwrap();
    for _ in 0..3 {
        let guest = Guest::container();
        networks.reserve("a", &wish("a", &["n"], &[port(8000, 80, Protocol::Udp)])).unwrap();
        networks.attach("a", guest.namespace()).unwrap();
        assert_eq!(networks.remove("n").unwrap_err().kind, Kind::Conflict);
        guest.end();
        networks.release("a").unwrap();
        // One that has the name of another's cable fails, and leaves nothing either.
        let refused = networks.attach("a", Guest::container().namespace()).unwrap_err();
        assert!(refused.detail.contains("no addresses"), "{refused}");
    }
    networks.remove("n").unwrap();
    until("the cables are gone", || sh("ip -o link | sed 's/@.*//'") == links);
    assert_eq!(networks.check().unwrap(), []);
    networks.tear_down().unwrap();
    assert_eq!(sh("nft list ruleset"), rules);
    drop(networks);
    until("the service is gone", || service().is_none());
    assert_eq!(files().replace("./state/network/made-a-router\n", ""), nothing);
}

fn full() {
    let scene = Scene::new();
    let new = NewNetwork { name: "n".to_owned(), ipv4: "10.1.0.0/29".parse().ok(), ..NewNetwork::default() };
    scene.networks.create(new.clone()).unwrap();
    assert_eq!(scene.networks.create(new).unwrap_err().kind, Kind::Conflict);
    let beside =
        NewNetwork { name: "m".to_owned(), ipv4: "192.0.2.128/25".parse().ok(), ..NewNetwork::default() };
    assert!(scene.networks.create(beside).unwrap_err().detail.contains("the host's route"));
    let ask = |name: &str, ipv4: Option<&str>| {
        let wanted =
            Wanted { network: "n".to_owned(), ipv4: ipv4.map(|ip| ip.parse().unwrap()), ..Wanted::default() };
        scene.networks.reserve(name, &Wish { networks: vec![wanted], ..Wish::default() })
    };
    assert_eq!(ask("s", Some("10.1.0.4")).unwrap().endpoints[0].ipv4.octets()[3], 4);
    assert!(ask("t", Some("10.1.0.4")).unwrap_err().detail.contains("10.1.0.4 is taken"));
    for name in ["a", "b", "c", "d"] {
        ask(name, None).unwrap();
    }
    let problem = ask("e", None).unwrap_err();
    assert!(
        problem.detail.contains("no address of 10.1.0.0/29 is left") && problem.hint.is_some(),
        "{problem}"
    );
    assert_eq!(scene.networks.leased().len(), 5);
    scene.networks.release("b").unwrap();
    ask("e", None).unwrap();
}

fn two() {
    let scene = Scene::new();
    let other = tempfile::tempdir().unwrap();
    let mut its = settings(other.path());
    (its.host_state, its.prefix) = (scene.folder.path().join("host"), "u".to_owned());
    let its = Networks::open(its).unwrap();
    let (a, of_a) = scene.container("a", &[], &[port(8000, 80, Protocol::Tcp)]);
    let b = Guest::container();
    let of_b = its.reserve("a", &wish("a", &[], &[])).unwrap();
    its.attach("a", b.namespace()).unwrap();
    a.serve(80, "a");
    b.serve(80, "b");
    assert!(a.ask(of_b.endpoints[0].ipv4, 80).is_err() && b.ask(of_a.endpoints[0].ipv4, 80).is_err());
    assert_eq!(b.ask(HOST, 8000).unwrap().1, "a");
    assert!(a.pings(crate::scene::WORLD) && b.pings(crate::scene::WORLD));
    for networks in [&scene.networks, &its] {
        assert_eq!(networks.check().unwrap(), []);
        networks.mend().unwrap();
    }
    assert!(a.pings(crate::scene::WORLD) && b.pings(crate::scene::WORLD));
}

fn many() {
    let scene = Scene::new();
    let (first, _) = scene.container("first", &[], &[]);
    let gateway: IpAddr = scene.networks.list()[0].gateways[0].parse().unwrap();
    let (networks, is_over) = (&scene.networks, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let mending = scope.spawn(move || {
            let mut times = 0;
            while !is_over.load(Ordering::Relaxed) {
                networks.mend().unwrap();
                times += 1;
                if times % 2 == 0 {
                    sh("nft delete table inet croft_t");
                }
            }
            times
        });
        let come_and_go = |number: u16| {
            for _ in 0..8 {
                let (name, guest) = (format!("c{number}"), Guest::container());
                let ports = [port(9000 + number, 80, Protocol::Tcp)];
                networks.reserve(&name, &wish(&name, &[], &ports)).unwrap();
                networks.attach(&name, guest.namespace()).unwrap();
                assert!(guest.pings(gateway), "{name}: {}", guest.must("ip addr; ip neigh; ip route"));
                networks.release(&name).unwrap();
                guest.end();
            }
        };
        let all: Vec<_> = (0..8).map(|number| scope.spawn(move || come_and_go(number))).collect();
        let ended: Vec<_> = all.into_iter().map(|one| one.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(mending.join().unwrap() > 1 && ended.iter().all(Result::is_ok));
    });
    scene.networks.mend().unwrap();
    scene.is_well();
    assert_eq!(scene.networks.attached().unwrap(), ["first"]);
    assert!(first.pings(gateway));
}
