//! Limits of what goes through a container's cable.

use std::time::Duration;

use croft_api::network::Rates;
use croft_api::problem::Kind;
use croftd_network::Lease;
use croftd_network::addresses::Wanted;

use crate::flow::rate;
use crate::guest::Guest;
use crate::scene::{Scene, sh, wish};

pub const ALL: &[crate::Test] =
    &[("rates_are_limited_in_each_direction", limited), ("limits_are_changed_and_put_back", changed)];

const TIME: Duration = Duration::from_millis(1500);

fn rates(ingress: Option<u64>, egress: Option<u64>) -> Rates {
    Rates { ingress, egress }
}

fn container(scene: &Scene, name: &str, limits: Rates) -> (Guest, Lease) {
    let mut wish = wish(name, &[], &[]);
    wish.networks = vec![Wanted { limits, ..wish.networks.remove(0) }];
    let guest = Guest::container();
    let lease = scene.networks.reserve(name, &wish).unwrap();
    scene.networks.attach(name, guest.namespace()).unwrap();
    (guest, lease)
}

/// Within a tenth of `wanted` bits per second: never more, and as much unless TCP has just lost something, which it makes up for in the next
/// moment.
fn is_near(measure: impl Fn() -> f64, wanted: u64) -> bool {
    let parts = (0..3).map(|_| measure() / wanted as f64).inspect(|part| println!("{part:.2} of {wanted}"));
    parts.take_while(|part| *part <= 1.1).any(|part| part >= 0.9)
}

fn limited() {
    let scene = Scene::new();
    let (free, of_free) = scene.container("free", &[], &[]);
    for (ingress, egress) in [(100_000_000, 20_000_000), (8_000_000, 400_000_000)] {
        let (a, of_a) = container(&scene, "a", rates(Some(ingress), Some(egress)));
        let into = || rate(&free, &a, of_a.endpoints[0].ipv4, TIME);
        let out = || rate(&a, &free, of_free.endpoints[0].ipv6.unwrap(), TIME);
        assert!(is_near(into, ingress), "ingress {ingress}");
        assert!(is_near(out, egress), "egress {egress}");
        scene.is_well();
        scene.remove("a", a);
    }
    assert!(!sh("ip -o link").contains("t-i"), "no device is left");
}

fn changed() {
    let scene = Scene::new();
    let (a, of_a) = scene.container("a", &[], &[]);
    let (b, of_b) = scene.container("b", &[], &[]);
    let into = || rate(&b, &a, of_a.endpoints[0].ipv4, TIME);
    let out = || rate(&a, &b, of_b.endpoints[0].ipv4, TIME);
    let limit = |ingress, egress| scene.networks.limit("a", "croft", rates(ingress, egress)).unwrap();
    limit(Some(50_000_000), None);
    assert!(is_near(into, 50_000_000) && out() > 200_000_000.0);
    limit(Some(10_000_000), Some(30_000_000));
    assert!(is_near(into, 10_000_000) && is_near(out, 30_000_000));
    assert_eq!(scene.networks.connections("a")[0].limits, rates(Some(10_000_000), Some(30_000_000)));
    // Somebody takes them away.
    let port = sh("ip -o link")
        .split_whitespace()
        .find_map(|w| Some(w.strip_prefix("t-i")?.trim_end_matches(':').to_owned()));
    let port = port.unwrap();
    sh(&format!("tc qdisc del dev t-v{port} root; ip link del t-i{port}; ip link add t-ifffff type ifb"));
    let found = scene.networks.check().unwrap();
    assert_eq!(found.iter().map(|left| left.what).collect::<Vec<_>>(), ["limit", "limit"], "{found:?}");
    scene.networks.mend().unwrap();
    scene.is_well();
    assert!(is_near(into, 10_000_000) && is_near(out, 30_000_000));
    limit(None, None);
    assert!(into() > 200_000_000.0 && out() > 200_000_000.0);
    assert!(!sh("ip -o link").contains("t-i"));
    let refused = |network, rates| scene.networks.limit("a", network, rates).unwrap_err();
    assert_eq!(refused("other", rates(None, None)).kind, Kind::NotFound);
    assert_eq!(refused("croft", rates(Some(1), None)).kind, Kind::Invalid);
    scene.is_well();
}
