//! How long it takes: `cargo test -p croftd --test network -- --ignored --nocapture figures`.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use croft_api::network::Protocol;
use croftd_network::Networks;

use crate::scene::{Scene, port, wish};

pub const ALL: &[crate::Test] = &[("figures_of_200_containers_with_32_ports", two_hundred)];

/// A network namespace that nobody is in.
fn namespace() -> File {
    let make = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn one(networks: &Networks, number: u16, ports: u16) -> [Duration; 2] {
    let name = format!("c{number}");
    let publish: Vec<_> =
        (0..ports).map(|p| port(10_000 + number * ports + p, 80 + p, Protocol::Tcp)).collect();
    let start = Instant::now();
    networks.reserve(&name, &wish(&name, &[], &publish)).unwrap();
    let reserved = start.elapsed();
    let namespace = namespace();
    let start = Instant::now();
    networks.attach(&name, namespace.as_fd()).unwrap();
    [reserved, start.elapsed()]
}

fn two_hundred() {
    for ports in [0, 32] {
        let scene = Scene::new();
        // The first one makes the bridge and the tables.
        let [_, first] = one(&scene.networks, 0, ports);
        let times: Vec<[Duration; 2]> = (1..=200).map(|number| one(&scene.networks, number, ports)).collect();
        let of = |which: usize, range: std::ops::Range<usize>| {
            median(&times[range].iter().map(|t| t[which]).collect::<Vec<_>>())
        };
        let start = Instant::now();
        assert_eq!(scene.networks.check().unwrap().iter().filter(|left| left.what != "cable").count(), 0);
        let check = start.elapsed();
        let mut detaches = Vec::new();
        for number in 0..=200 {
            let start = Instant::now();
            scene.networks.detach(&format!("c{number}")).unwrap();
            detaches.push(start.elapsed());
        }
        println!(
            "{ports} ports: reserve {:.2} ms; attach: the first {:.2} ms, 1-20 {:.2}, 181-200 {:.2}; detach {:.2} (first 20), {:.2} (last 20); check {:.1}",
            of(0, 0..200),
            first.as_secs_f64() * 1e3,
            of(1, 0..20),
            of(1, 180..200),
            median(&detaches[..20]),
            median(&detaches[181..]),
            check.as_secs_f64() * 1e3
        );
        // A second scene would be on the same host.
        crate::scene::sh("ip link del uplink");
        scene.networks.tear_down().unwrap();
    }
}
