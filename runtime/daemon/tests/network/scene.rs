//! A host with croft's networks on it, and another host beside it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use croft_api::network::{Protocol, Publish};
use croftd_network::addresses::Wanted;
use croftd_network::{DEFAULT, Lease, Networks, Settings, Wish};
use tempfile::TempDir;

use crate::guest::{Guest, PATIENCE};

/// The host's address on the cable to the world, and the world's.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Whether the host's rules see what stays on a bridge, where br_netfilter is there.
pub const FILTER_BRIDGES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

pub struct Scene {
    pub folder: TempDir,
    pub networks: Networks,
    pub world: Guest,
}

/// Runs a shell's line on the host that the test plays.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

pub fn settings(folder: &Path) -> Settings {
    Settings {
        root: folder.join("root"),
        state: folder.join("state"),
        host_state: folder.join("host"),
        prefix: "t".to_owned(),
        service: vec![std::env::current_exe().unwrap().into(), crate::SERVICE.into()],
        shortcut: true,
    }
}

impl Scene {
    pub fn new() -> Scene {
        // As on a host where nobody has loaded br_netfilter.
        if Path::new(FILTER_BRIDGES).exists() {
            sh("for file in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $file; done");
        }
        let world = Guest::host();
        sh("ip link set lo up");
        sh(&format!("ip link add uplink type veth peer name eth0 netns {}", world.pid()));
        sh(&format!(
            "ip addr add {HOST}/24 dev uplink && ip -6 addr add 2001:db8::1/64 dev uplink nodad && ip link set uplink up"
        ));
        world.must(&format!("ip link set lo up; ip addr add {WORLD}/24 dev eth0; ip -6 addr add 2001:db8::2/64 dev eth0 nodad; ip link set eth0 up"));
        // Asking for a cable's ends makes the kernel let packets through at once, and not when it comes to that.
        sh("ip link show dev uplink");
        world.must("ip link show dev eth0");
        let folder = tempfile::tempdir().unwrap();
        let networks = Networks::open(settings(folder.path())).unwrap();
        Scene { folder, networks, world }
    }

    /// A container in croft's own network, or others.
    pub fn container(&self, name: &str, networks: &[&str], publish: &[Publish]) -> (Guest, Lease) {
        let guest = Guest::container();
        let lease = self.networks.reserve(name, &wish(name, networks, publish)).unwrap();
        self.networks.attach(name, guest.namespace()).unwrap();
        self.networks.shorten(name).unwrap();
        (guest, lease)
    }

    /// A container is removed.
    pub fn remove(&self, name: &str, guest: Guest) {
        self.networks.release(name).unwrap();
        guest.end();
        // Its cable goes with its namespace, which the kernel takes away when it has time, or not before its connections are closed.
        self.networks.sweep().unwrap();
        until("its cable is gone", || self.networks.check().unwrap().is_empty());
    }

    /// Nothing is wrong.
    pub fn is_well(&self) {
        assert_eq!(self.networks.check().unwrap(), []);
    }
}

/// Waits until something is so.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come to be");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn wish(name: &str, networks: &[&str], publish: &[Publish]) -> Wish {
    let networks = if networks.is_empty() { &[DEFAULT] } else { networks };
    let wanted = |network: &&str| Wanted { network: (*network).to_owned(), ..Wanted::default() };
    Wish {
        networks: networks.iter().map(wanted).collect(),
        names: vec![name.to_owned()],
        publish: publish.to_vec(),
    }
}

pub fn port(host: u16, container: u16, protocol: Protocol) -> Publish {
    Publish { address: None, host, container, protocol }
}
