//! Containers join and leave networks while they run, and networks that lead nowhere.

use std::net::{IpAddr, SocketAddr};

use croft_api::network::{self as wire, Join, Protocol};
use croft_api::problem::Kind;
use croftd_network::addresses::Wanted;
use croftd_network::{Networks, NewNetwork};

use crate::guest::{Guest, ask};
use crate::scene::{HOST, Scene, WORLD, port, settings, sh, wish};

pub const ALL: &[crate::Test] = &[
    ("a_running_container_joins_and_leaves_networks", joins),
    ("what_leaves_its_way_out_finds_the_next", leaves),
    ("what_cannot_be_joined_leaves_nothing", refused),
    ("a_croftd_that_was_killed_is_finished_for", killed),
    ("an_internal_network_leads_nowhere", internal),
    ("a_network_has_the_gateway_that_was_asked_for", gateway),
];

fn make(scene: &Scene, names: &[&str]) {
    for name in names {
        scene.networks.create(NewNetwork { name: (*name).to_owned(), ..NewNetwork::default() }).unwrap();
    }
}

fn wanted(network: &str) -> Wanted {
    Wanted { network: network.to_owned(), ..Wanted::default() }
}

fn connect(scene: &Scene, guest: &Guest, container: &str, wanted: &Wanted) -> IpAddr {
    scene.networks.connect(container, wanted, Some(guest.namespace())).unwrap();
    scene.networks.lease(container).unwrap().endpoints.last().unwrap().ipv4.into()
}

fn joins() {
    let scene = Scene::new();
    make(&scene, &["one", "two", "three"]);
    let (a, _) = scene.container("a", &["one"], &[port(8000, 80, Protocol::Tcp)]);
    let (b, of_b) = scene.container("b", &["two"], &[]);
    a.serve(80, "a");
    let b_in_two = of_b.endpoints[0].ipv4;
    assert!(!a.pings(b_in_two));
    let join = Join { aliases: vec!["database".to_owned()], ..Join::any("two") };
    let a_in_two = connect(&scene, &a, "a", &Wanted::try_from(&join).unwrap());
    assert!(a.pings(b_in_two));
    assert_eq!(b.ask(a_in_two, 80).unwrap().1, "a");
    // By its name and its alias, in whichever of one's networks one asks.
    let gateways: Vec<String> =
        scene.networks.list().into_iter().map(|network| network.gateways[0].clone()).collect();
    let [one, _, two] = gateways.as_slice() else { panic!("{gateways:?}") };
    for name in ["a", "database"] {
        let found = b.must(&format!("busybox nslookup {name} {two}"));
        assert!(found.contains(&a_in_two.to_string()), "{found}");
    }
    let found = a.must(&format!("busybox nslookup b {one}"));
    assert!(found.contains(&b_in_two.to_string()), "{found}");
    assert!(a.sh(&format!("busybox nslookup nobody {one}")).is_err());
    // Its way out, and what leads in, are as they were.
    assert!(a.must("ip route show default").contains("dev eth0") && a.pings(WORLD));
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().1, "a");
    let connections = scene.networks.connections("a");
    assert_eq!(connections[1].interface, "eth1");
    assert_eq!(connections[1].addresses[0], format!("{a_in_two}/22"));
    scene.is_well();

    let namespace = a.namespace();
    scene.networks.disconnect("a", "two", Some(namespace)).unwrap();
    assert!(!a.pings(b_in_two) && !a.must("ip -o link").contains("eth1"));
    assert!(b.sh(&format!("busybox nslookup database {two}")).unwrap_err().contains("NXDOMAIN"));
    let problem = scene.networks.disconnect("a", "two", Some(namespace)).unwrap_err();
    assert_eq!((problem.kind, problem.detail.as_str()), (Kind::NotFound, "the container is not in it"));
    scene.networks.remove("three").unwrap();
    assert!(scene.networks.remove("two").unwrap_err().detail.contains("containers are in it: b"));
    scene.is_well();
}

fn leaves() {
    let scene = Scene::new();
    make(&scene, &["one", "two"]);
    let (a, of_a) = scene.container("a", &["one", "two"], &[port(8000, 80, Protocol::Tcp)]);
    a.serve(80, "a");
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().1, "a");
    scene.networks.disconnect("a", "one", Some(a.namespace())).unwrap();
    let route = a.must("ip route show default; ip -6 route show default");
    assert!(route.matches("dev eth1").count() == 2 && !route.contains("eth0"), "{route}");
    assert!(a.pings(WORLD));
    // The published port leads to the address that it has left.
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().1, "a");
    assert_eq!(ask(SocketAddr::from(([127, 0, 0, 1], 8000))).unwrap().1, "a");
    let ports = sh("nft list map inet croft_t ports4");
    assert!(ports.contains(&of_a.endpoints[1].ipv4.to_string()), "{ports}");
    scene.is_well();
    // The name that is free again is used, and the last one is no different.
    connect(&scene, &a, "a", &wanted("one"));
    assert_eq!(scene.networks.connections("a")[1].interface, "eth0");
    scene.is_well();
    for network in ["two", "one"] {
        scene.networks.disconnect("a", network, Some(a.namespace())).unwrap();
    }
    assert!(!a.pings(WORLD) && scene.world.ask(HOST, 8000).is_err());
    scene.is_well();
    connect(&scene, &a, "a", &wanted("two"));
    assert!(a.pings(WORLD));
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().1, "a");
    scene.is_well();
}

fn refused() {
    let scene = Scene::new();
    make(&scene, &["one", "two"]);
    let (a, before) = scene.container("a", &["one"], &[]);
    let (_b, of_b) = scene.container("b", &["two"], &[]);
    let refused = |wanted: &Wanted| scene.networks.connect("a", wanted, Some(a.namespace())).unwrap_err();
    assert!(refused(&wanted("none-such")).detail.contains("no network none-such"));
    assert!(refused(&wanted("one")).detail.contains("in it already"));
    let taken = Wanted { ipv4: Some(of_b.endpoints[0].ipv4), ..wanted("two") };
    assert!(refused(&taken).detail.contains("is taken"));
    let outside = Wanted { ipv4: "10.255.0.1".parse().ok(), ..wanted("two") };
    assert!(refused(&outside).detail.contains("no address of"));
    assert!(scene.networks.connect("nobody", &wanted("two"), None).is_err());
    // The kernel does not want to: the interface's name is taken in the container.
    a.must("ip link add eth1 type bridge");
    let links = sh("ip -o link | wc -l");
    let problem = refused(&wanted("two"));
    assert!(problem.detail.contains("eth1"), "{problem}");
    assert_eq!(scene.networks.lease("a"), Some(before));
    assert_eq!((sh("ip -o link | wc -l"), scene.networks.counters("a").unwrap().len()), (links, 1));
    scene.is_well();
    a.must("ip link del eth1");
    connect(&scene, &a, "a", &wanted("two"));
    scene.is_well();
}

fn killed() {
    let scene = Scene::new();
    make(&scene, &["one", "two"]);
    let (a, _) = scene.container("a", &["one"], &[port(8000, 80, Protocol::Tcp)]);
    let (b, of_b) = scene.container("b", &["two"], &[]);
    a.serve(80, "a");
    // It had recorded that the one joins and the other leaves, and nothing else.
    scene.networks.connect("a", &wanted("two"), None).unwrap();
    scene.networks.disconnect("b", "two", None).unwrap();
    let Scene { folder, networks, world } = scene;
    drop(networks);
    let scene = Scene { networks: Networks::open(settings(folder.path())).unwrap(), folder, world };
    scene.networks.complete("a", a.namespace()).unwrap();
    scene.networks.complete("b", b.namespace()).unwrap();
    scene.is_well();
    assert_eq!(scene.networks.counters("a").unwrap().len(), 2);
    assert!(scene.networks.counters("b").unwrap().is_empty() && !b.must("ip -o link").contains("eth0"));
    assert_eq!(scene.world.ask(HOST, 8000).unwrap().1, "a");
    let c = Guest::container();
    scene.networks.reserve("c", &wish("c", &["two"], &[])).unwrap();
    scene.networks.attach("c", c.namespace()).unwrap();
    let a_in_two = scene.networks.lease("a").unwrap().endpoints[1].ipv4;
    assert_eq!(c.ask(a_in_two, 80).unwrap().1, "a");
    assert_ne!(of_b.endpoints[0].ipv4, a_in_two);
}

fn internal() {
    let scene = Scene::new();
    let new = NewNetwork { name: "inner".to_owned(), internal: true, ..NewNetwork::default() };
    assert!(scene.networks.create(new).unwrap().internal);
    make(&scene, &["outer"]);
    let (a, _) = scene.container("a", &["inner"], &[]);
    let (b, of_b) = scene.container("b", &["inner", "outer"], &[]);
    let (c, of_c) = scene.container("c", &["outer"], &[port(8000, 80, Protocol::Tcp)]);
    b.serve(80, "b");
    c.serve(80, "c");
    assert_eq!(a.ask(of_b.endpoints[0].ipv4, 80).unwrap().1, "b");
    assert_eq!(b.ask(of_c.endpoints[0].ipv4, 80).unwrap().1, "c", "b is in both");
    assert!(b.must("ip route show default").contains("dev eth1") && b.pings(WORLD));
    assert_eq!(a.must("ip route show default"), "");
    let gateway: IpAddr = scene.networks.inspect("inner").unwrap().gateways[0].parse().unwrap();
    assert!(a.pings(gateway));
    // Not even when it finds a way for itself.
    a.must(&format!("ip route add default via {gateway}"));
    assert!(!a.pings(WORLD) && !a.pings(of_c.endpoints[0].ipv4));
    // Nor from outside, as an answer, or by a question for a name.
    scene.world.must(&format!("ip route add {} via {HOST}", of_b.endpoints[0].ipv4));
    assert!(scene.world.ask(of_b.endpoints[0].ipv4, 80).is_err());
    let refused = a.sh(&format!("busybox nslookup www.example.com {gateway}")).unwrap_err();
    assert!(refused.contains("REFUSED"), "{refused}");
    assert!(a.must(&format!("busybox nslookup b {gateway}")).contains(&of_b.endpoints[0].ipv4.to_string()));
    scene.is_well();
    // The proof that it is the rules that keep it in.
    sh("nft flush set inet croft_t internal");
    assert!(a.pings(WORLD));
    scene.networks.mend().unwrap();
    assert!(!a.pings(WORLD));
    scene.is_well();
}

fn gateway() {
    let scene = Scene::new();
    let asked = |subnets: &[&str], gateways: &[&str]| wire::NewNetwork {
        name: "n".to_owned(),
        subnets: subnets.iter().map(|net| (*net).to_owned()).collect(),
        gateways: gateways.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..wire::NewNetwork::default()
    };
    let create = |asked: wire::NewNetwork| {
        NewNetwork::try_from(asked).and_then(|new| scene.networks.create(new)).map_err(|p| p.detail)
    };
    for (subnets, gateways, words) in [
        (&["10.1.0.0/33"][..], &[][..], "no range of addresses"),
        (&["10.1.0.0/24", "10.2.0.0/24"], &[], "one range of IPv4 and one of IPv6"),
        (&["10.1.0.0/30"], &[], "no sensible size"),
        (&["fd00:1::/120"], &[], "no sensible size"),
        (&["10.1.0.0/24"], &["10.2.0.1"], "cannot have 10.2.0.1"),
        (&["10.1.0.0/24"], &["10.1.0.255"], "cannot have 10.1.0.255"),
        (&["10.1.0.0/24"], &["fd00::1"], "belongs to no range"),
        (&["192.0.2.0/25"], &[], "the host's route"),
    ] {
        let refused = create(asked(subnets, gateways)).unwrap_err();
        assert!(refused.contains(words), "{subnets:?} {gateways:?}: {refused}");
    }
    assert_eq!(fs_entries(&scene), 0, "no range is taken");
    for name in ["none", "bridge", "a/b", "-x"] {
        assert!(create(wire::NewNetwork { name: name.to_owned(), ..asked(&[], &[]) }).is_err());
    }
    let made = create(asked(&["10.1.0.0/24", "fd00:1::/64"], &["10.1.0.254", "fd00:1::fe"])).unwrap();
    assert_eq!(made.gateways, ["10.1.0.254", "fd00:1::fe"]);
    let again = wire::NewNetwork { name: "m".to_owned(), ..asked(&["10.3.0.0/24", "fd00:1::/80"], &[]) };
    assert!(create(again).unwrap_err().contains("fd00:1::/64 of n"));
    let (a, lease) = scene.container("a", &["n"], &[]);
    assert_eq!(lease.endpoints[0].ipv4.octets()[3], 1);
    assert!(made.gateways.iter().all(|ip| a.pings(ip.parse::<IpAddr>().unwrap())));
    assert!(a.must("ip route show default").contains("via 10.1.0.254"));
    assert!(a.pings(WORLD));
    scene.is_well();
    make(&scene, &["unused"]);
    assert_eq!(scene.networks.prune().unwrap(), ["unused"]);
}

/// How many ranges are taken.
fn fs_entries(scene: &Scene) -> usize {
    let folder = std::fs::read_dir(scene.folder.path().join("host/subnets")).unwrap();
    folder.flatten().filter(|entry| entry.file_name().to_string_lossy().contains('_')).count()
}
