//! The way between containers that goes past their bridge.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use croft_api::network::Rates;
use croftd_network::{Mac, Networks, Settings};

use crate::flow::rate;
use crate::guest::Guest;
use crate::scene::{FILTER_BRIDGES, Scene, settings, sh, until};

pub const ALL: &[crate::Test] = &[
    ("packets_between_containers_go_past_the_bridge", past),
    ("nobody_takes_the_shortcut_in_anothers_name", spoofed),
    ("limits_and_rules_for_bridges_close_the_shortcut", closed),
    ("another_croftd_finds_the_shortcut", another),
    ("programs_of_a_croftd_that_is_gone_are_replaced", replaced),
    ("programs_of_a_croftd_that_is_gone_are_taken_away", taken_away),
    ("a_shortcut_gives_way_to_what_is_there", gives_way),
    ("limits_hold_while_things_are_mended", mended_limits),
    ("a_bridge_knows_who_is_there", known),
    ("what_is_left_of_a_shortcut_is_found_and_taken_away", left_over),
];

/// Lets none of the packets through the bridge that may go past it; who is where may still be asked.
fn wall() {
    sh(
        "nft 'table bridge wall { chain c { type filter hook prerouting priority -400; ether type ip drop; meta l4proto { tcp, udp } drop; }; }'",
    );
}

fn no_wall() {
    sh("nft delete table bridge wall");
}

fn past() {
    let scene = Scene::new();
    let ((a, of_a), (b, of_b)) = (scene.container("a", &[], &[]), scene.container("b", &[], &[]));
    let (a4, b4, b6) = (of_a.endpoints[0].ipv4, of_b.endpoints[0].ipv4, of_b.endpoints[0].ipv6.unwrap());
    b.serve(80, "b");
    let gateway: IpAddr = scene.networks.list()[0].gateways[0].parse().unwrap();
    assert!(a.pings(gateway));
    wall();
    assert_eq!(a.ask(b4, 80).unwrap(), (a4.into(), "b".to_owned()));
    assert_eq!(a.ask(b6, 80).unwrap().1, "b");
    assert!(a.pings(b4) && b.pings(a4));
    assert!(!a.pings(gateway), "what is for the host goes by the bridge");
    // Each packet is counted once, whichever way it takes.
    let count = || scene.networks.counters("b").unwrap()[0].clone();
    let before = count();
    a.must(&format!("busybox ping -q -c 50 -i 0.01 -s 1000 {b4}"));
    let after = count();
    for (packets, bytes) in [
        (after.received_packets - before.received_packets, after.received_bytes - before.received_bytes),
        (after.sent_packets - before.sent_packets, after.sent_bytes - before.sent_bytes),
    ] {
        assert!(
            (50..60).contains(&packets) && (50 * 1042..60 * 1042).contains(&bytes),
            "{before:?} {after:?}"
        );
    }
    // What is larger than its packets may be, of bytes that come in pieces, arrives whole.
    assert!(rate(&a, &b, b4, Duration::from_millis(300)) > 100e6);
    // One that is started again has another cable.
    no_wall();
    scene.networks.detach("b").unwrap();
    assert!(!a.pings(b4));
    b.end();
    scene.networks.sweep().unwrap();
    let b = Guest::container();
    scene.networks.attach("b", b.namespace()).unwrap();
    assert!(a.pings(b4));
    wall();
    assert!(!a.pings(b4), "it goes by the bridge at first");
    scene.networks.shorten("b").unwrap();
    assert!(a.pings(b4) && b.pings(a4));
    assert!(
        scene.networks.counters("b").unwrap()[0].received_packets < 50,
        "they are counted from its start"
    );
    scene.is_well();
    // The bridge is made anew.
    no_wall();
    sh("ip link del t-b0");
    scene.networks.mend().unwrap();
    scene.is_well();
    assert!(a.pings(b4));
    wall();
    assert!(a.pings(b4) && b.pings(a4));
}

/// The host's end of a container's cable.
fn port_of(guest: &Guest) -> String {
    let shown = guest.must("ip -o link show dev eth0");
    let index = shown.split("eth0@if").nth(1).and_then(|rest| rest.split(':').next()).unwrap();
    sh(&format!("ip -o link | grep '^{index}:' | grep -o 't-v[0-9a-f]*'")).trim().to_owned()
}

/// Datagrams that are sent at once.
const SENT: u32 = 5;

/// Sends datagrams from an address that need not be its own.
fn send_as(from: &Guest, address: IpAddr, to: IpAddr) {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let nodad = if address.is_ipv4() { "" } else { "nodad" };
    let has = from.must("ip addr show dev eth0").contains(&format!(" {address}/"));
    if !has {
        from.must(&format!("ip addr add {address}/{length} dev eth0 {nodad}"));
    }
    // What is on the cable only says on which.
    let index = from.must("ip -o link show dev eth0").split(':').next().unwrap().parse().unwrap();
    let on_cable = |ip: IpAddr, port: u16| match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, port, 0, index).into(),
        ip => SocketAddr::new(ip, port),
    };
    from.within(|| {
        let socket = UdpSocket::bind(on_cable(address, 0)).unwrap();
        for _ in 0..SENT {
            socket.send_to(b"?", on_cable(to, 9)).unwrap();
        }
    });
    if !has {
        from.must(&format!("ip addr del {address}/{length} dev eth0"));
    }
}

/// Datagrams that arrived, though nobody waits for them.
fn arrived(at: &Guest) -> u32 {
    let text = at.must("cat /proc/net/snmp /proc/net/snmp6 | busybox awk '/^Udp: [0-9]/ {n += $3} /^Udp6NoPorts/ {n += $2} END {print n}'");
    text.trim().parse().unwrap()
}

fn spoofed() {
    let scene = Scene::new();
    let ((a, of_a), (b, of_b), (_c, of_c)) =
        (scene.container("a", &[], &[]), scene.container("b", &[], &[]), scene.container("c", &[], &[]));
    let [a_end, b_end, c_end] = [&of_a, &of_b, &of_c].map(|lease| &lease.endpoints[0]);
    let (b4, b6) = (IpAddr::from(b_end.ipv4), IpAddr::from(b_end.ipv6.unwrap()));
    let [own_local, b_local, c_local] = [a_end, b_end, c_end].map(|end| IpAddr::from(end.mac.link_local()));
    // Both know each other's hardware addresses.
    assert!(a.pings(b4) && a.pings(b6));
    wall();
    let own = [a_end.ipv4.into(), IpAddr::from(a_end.ipv6.unwrap()), own_local];
    let false_ones = [
        c_end.ipv4.into(),
        IpAddr::from(c_end.ipv6.unwrap()),
        c_local,
        // With half of its own.
        IpAddr::from(Ipv6Addr::from_bits(
            0x2001_0db8 << 96 | a_end.mac.link_local().to_bits() & u128::from(u64::MAX),
        )),
        IpAddr::from(Ipv6Addr::from_bits(c_end.ipv6.unwrap().to_bits() + 100)),
        [203, 0, 113, 1].into(),
    ];
    let send = |address: IpAddr| match address {
        IpAddr::V4(_) => send_as(&a, address, b4),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => send_as(&a, address, b_local),
        IpAddr::V6(_) => send_as(&a, address, b6),
    };
    let call_itself = |mac: Mac| {
        a.must(&format!("ip link set eth0 address {mac}"));
        for ip in [b4, b6, b_local] {
            a.must(&format!("ip neigh replace {ip} lladdr {} dev eth0", b_end.mac));
        }
    };
    // Nothing overtakes: those that arrive have had others before them, or these will not come.
    let own_arrive_after = |before: u32| {
        for (number, address) in own.into_iter().enumerate() {
            send(address);
            until("its own arrive", || arrived(&b) >= before + (number as u32 + 1) * SENT);
        }
        assert_eq!(arrived(&b), before + own.len() as u32 * SENT, "only its own");
    };
    call_itself(a_end.mac);
    own_arrive_after(arrived(&b));
    let before = arrived(&b);
    false_ones.into_iter().for_each(send);
    own_arrive_after(before);
    // With somebody else's hardware address nothing does.
    let before = arrived(&b);
    call_itself(c_end.mac);
    own.into_iter().for_each(send);
    call_itself(a_end.mac);
    own_arrive_after(before);
    // Nor does it lead to another network: there nobody has this hardware address.
    no_wall();
    scene
        .networks
        .create(croftd_network::NewNetwork { name: "two".to_owned(), ..Default::default() })
        .unwrap();
    let (d, of_d) = scene.container("d", &["two"], &[]);
    let d_end = &of_d.endpoints[0];
    a.must(&format!(
        "ip route add {0} dev eth0; ip neigh replace {0} lladdr {1} dev eth0",
        d_end.ipv4, d_end.mac
    ));
    let before = arrived(&d);
    send_as(&a, a_end.ipv4.into(), d_end.ipv4.into());
    assert_eq!(arrived(&d), before);
    scene.is_well();
}

fn closed() {
    let scene = Scene::new();
    let ((a, of_a), (b, of_b)) = (scene.container("a", &[], &[]), scene.container("b", &[], &[]));
    let (a4, b4) = (of_a.endpoints[0].ipv4, of_b.endpoints[0].ipv4);
    let limit = |name, ingress, egress| {
        scene.networks.limit(name, "croft", Rates { ingress, egress }).unwrap();
    };
    assert!(a.pings(b4));
    wall();
    assert!(a.pings(b4));
    let count = || scene.networks.counters("b").unwrap()[0].received_packets;
    let before = count();
    for name in ["a", "b"] {
        for (ingress, egress) in [(Some(50_000_000), None), (None, Some(50_000_000))] {
            limit(name, ingress, egress);
            assert!(!a.pings(b4), "{name} {ingress:?} {egress:?}");
            scene.networks.mend().unwrap();
            assert!(!a.pings(b4), "{name} {ingress:?} {egress:?}");
            limit(name, None, None);
            assert!(a.pings(b4), "{name} {ingress:?} {egress:?}");
        }
    }
    assert!(count() >= before + 4, "what was counted stays");
    // A host's rules see what stays on its bridges, if they are told to, where br_netfilter is there.
    for which in ["iptables", "ip6tables"] {
        let setting = FILTER_BRIDGES.replace("iptables", which);
        if fs::write(&setting, "1").is_ok() {
            scene.networks.mend().unwrap();
            assert!(!a.pings(b4), "{which}");
            fs::write(&setting, "0").unwrap();
            scene.networks.mend().unwrap();
            assert!(a.pings(b4), "{which}");
        }
    }
    // A port that somebody sets down lets nothing in.
    let port = port_of(&b);
    sh(&format!("ip link set {port} down"));
    scene.networks.mend().unwrap();
    let before = arrived(&b);
    send_as(&a, a4.into(), b4.into());
    sh(&format!("ip link set {port} up"));
    scene.networks.mend().unwrap();
    send_as(&a, a4.into(), b4.into());
    until("what is sent to an open port arrives", || arrived(&b) >= before + SENT);
    assert_eq!(arrived(&b), before + SENT);
    scene.is_well();
}

fn another() {
    let scene = Scene::new();
    let ((a, of_a), (b, of_b)) = (scene.container("a", &[], &[]), scene.container("b", &[], &[]));
    let (a4, b4) = (of_a.endpoints[0].ipv4, of_b.endpoints[0].ipv4);
    assert!(a.pings(b4));
    wall();
    let Scene { folder, networks, .. } = scene;
    drop(networks);
    assert!(a.pings(b4) && b.pings(a4));
    // It knows of the tables, so that one that comes meets those that were there.
    let networks = Networks::open(settings(folder.path())).unwrap();
    no_wall();
    let c = Guest::container();
    let lease = networks.reserve("c", &crate::scene::wish("c", &[], &[])).unwrap();
    networks.attach("c", c.namespace()).unwrap();
    networks.shorten("c").unwrap();
    let c4 = lease.endpoints[0].ipv4;
    assert!(a.pings(c4) && c.pings(a4));
    wall();
    assert!(a.pings(c4) && c.pings(a4) && c.pings(b4));
    let programs = sh(
        "for port in $(ip -o link | grep -o 't-v[0-9a-f]*'); do tc filter show dev $port parent ffff:; done | grep -o ' id [0-9]*' | sort | uniq -c",
    );
    assert_eq!(programs.split_whitespace().next(), Some("3"), "all have the same program: {programs}");
    assert_eq!(networks.check().unwrap(), []);
    // One that is to use none closes it.
    drop(networks);
    let networks = Networks::open(Settings { shortcut: false, ..settings(folder.path()) }).unwrap();
    assert!(a.pings(c4));
    networks.mend().unwrap();
    assert!(!a.pings(c4) && !c.pings(b4));
    no_wall();
    assert!(a.pings(c4) && c.pings(b4));
    // Somebody takes the programs away: the next croftd puts them back.
    sh("for port in $(ip -o link | grep -o 't-v[0-9a-f]*'); do tc qdisc del dev $port ingress; done");
    drop(networks);
    let networks = Networks::open(settings(folder.path())).unwrap();
    networks.mend().unwrap();
    wall();
    assert!(a.pings(c4) && c.pings(b4));
    assert_eq!(networks.check().unwrap(), []);
}

/// As after an upgrade: the ports have a program with tables that the new croftd does not know.
fn upgraded(shortcut: bool) {
    let scene = Scene::new();
    let ((a, _), (b, of_b)) = (scene.container("a", &[], &[]), scene.container("b", &[], &[]));
    let b4 = of_b.endpoints[0].ipv4;
    assert!(a.pings(b4));
    let Scene { folder, networks, .. } = scene;
    drop(networks);
    let (records, aside) = (folder.path().join("state/network/attached"), folder.path().join("aside"));
    let move_all = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::rename(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    };
    move_all(&records, &aside);
    let networks = Networks::open(Settings { shortcut, ..settings(folder.path()) }).unwrap();
    assert_eq!(networks.counters("b").unwrap(), []);
    networks.detach("nobody").unwrap();
    // Now it has tables of its own, or none.
    networks.check().unwrap();
    move_all(&aside, &records);
    networks.mend().unwrap();
    wall();
    assert_eq!(a.pings(b4), shortcut, "past the bridge");
    no_wall();
    networks.limit("b", "croft", Rates { ingress: Some(10_000_000), egress: None }).unwrap();
    let measured = rate(&a, &b, b4, Duration::from_millis(500));
    assert!(measured < 20e6, "{measured:.0}");
    networks.limit("b", "croft", Rates::default()).unwrap();
    networks.detach("b").unwrap();
    b.end();
    networks.sweep().unwrap();
    let b = Guest::container();
    networks.attach("b", b.namespace()).unwrap();
    networks.shorten("b").unwrap();
    assert!(a.pings(b4), "started again");
    wall();
    assert_eq!(a.pings(b4), shortcut, "past the bridge again");
    no_wall();
    assert_eq!(networks.check().unwrap(), []);
}

fn replaced() {
    upgraded(true);
}

fn taken_away() {
    upgraded(false);
}

fn gives_way() {
    let scene = Scene::new();
    let ((a, _), (b, of_b)) = (scene.container("a", &[], &[]), scene.container("b", &[], &[]));
    let b4 = of_b.endpoints[0].ipv4;
    let port = port_of(&a);
    // A limit of the host's own, and no other filter goes before it.
    sh(&format!(
        "tc qdisc del dev {port} ingress; ip link add sink type ifb; ip link set sink up; tc qdisc add dev sink root tbf rate 10mbit burst 16kb limit 200kb"
    ));
    sh(&format!(
        "tc qdisc add dev {port} ingress; tc filter add dev {port} parent ffff: protocol all prio 10 u32 match u32 0 0 action mirred egress redirect dev sink"
    ));
    for _ in 0..2 {
        scene.networks.mend().unwrap();
        let filters = sh(&format!("tc filter show dev {port} parent ffff:"));
        assert!(filters.contains("sink") && !filters.contains("bpf"), "{filters}");
    }
    let measured = rate(&a, &b, b4, Duration::from_millis(500));
    assert!(measured < 20e6, "{measured:.0}");
    // What a croftd has left of a limit that it was killed over is no limit.
    sh(&format!(
        "tc qdisc del dev {port} ingress; ip link del sink; ip link add {} type ifb",
        port.replace("-v", "-i")
    ));
    scene.networks.limit("a", "croft", Rates { ingress: None, egress: Some(10_000_000) }).unwrap();
    let measured = rate(&a, &b, b4, Duration::from_millis(500));
    assert!(measured < 20e6, "{measured:.0}");
    scene.networks.limit("a", "croft", Rates::default()).unwrap();
    let device = port.replace("-v", "-i");
    sh(&format!("ip link add {device} type ifb"));
    scene.networks.limit("a", "croft", Rates { ingress: None, egress: Some(10_000_000) }).unwrap();
    let measured = rate(&a, &b, b4, Duration::from_millis(500));
    assert!(measured < 20e6, "{measured:.0}");
    scene.is_well();
}

fn mended_limits() {
    let scene = Scene::new();
    let ((a, _), (_b, of_b)) = (scene.container("a", &[], &[]), scene.container("b", &[], &[]));
    let b4 = of_b.endpoints[0].ipv4;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                scene.networks.mend().unwrap();
            }
        });
        for round in 0..20 {
            for egress in [Some(10_000_000), None] {
                scene.networks.limit("a", "croft", Rates { ingress: None, egress }).unwrap();
                if !a.pings(b4) {
                    is_over.store(true, Ordering::Relaxed);
                    panic!("round {round}, {egress:?}");
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    scene.is_well();
}

/// What comes for a container that speaks to its neighbours only is not shown to all of them, once the bridge would have forgotten it.
fn known() {
    let scene = Scene::new();
    let (a, of_a) = scene.container("a", &[], &[]);
    let entry = || sh(&format!("bridge fdb show dev {} | grep {}", port_of(&a), of_a.endpoints[0].mac));
    assert!(entry().contains("static"), "{}", entry());
    sh("ip link del t-b0");
    scene.networks.mend().unwrap();
    assert!(entry().contains("static"), "{}", entry());
}

fn left_over() {
    let scene = Scene::new();
    let ((a, _), (b, of_b)) = (scene.container("a", &[], &[]), scene.container("b", &[], &[]));
    assert!(a.pings(of_b.endpoints[0].ipv4));
    // As if croftd had never heard of b.
    let record = scene.folder.path().join("state/network/attached/b.json");
    fs::remove_file(&record).unwrap();
    let found = scene.networks.check().unwrap();
    let stray = found.iter().find(|left| left.what == "shortcut");
    assert_eq!(stray.map(|left| left.name.clone()), Some(of_b.endpoints[0].mac.to_string()), "{found:?}");
    b.end();
    scene.networks.mend().unwrap();
    let found = scene.networks.check().unwrap();
    assert!(found.iter().all(|left| left.what != "shortcut"), "{found:?}");
}
