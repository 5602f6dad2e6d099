//! The Debian packages that the project's commands need on this machine. What must be newer is unpacked apart by the harness.

use anyhow::Result;
use croft_harness::build::PACKAGES;
use croft_harness::debian::ensure_packages;
use croft_harness::python;

/// To make root filesystems.
const ROOTFS: &[&str] = &["mmdebstrap", "debian-archive-keyring", "busybox-static"];

/// What the demo serves images and sets networks up with.
const DEMO: &[&str] = &["docker-registry", "nftables", "iproute2", "util-linux"];

/// What the integration tests run beside croft-oci and what the demo has.
const TESTS: &[&str] = &[
    "runc",
    "uidmap",
    "procps",
    "strace",
    "podman",
    "crun",
    "conmon",
    "containerd",
    "docker.io",
    "iptables",
    "golang-github-containers-common",
    "skopeo",
    "umoci",
    "curl",
    "python3-prometheus-client",
    "python3-venv",
    "socat",
];

/// Installs what building needs.
pub fn for_build() -> Result<()> {
    ensure_packages(PACKAGES)
}

/// Installs what the demo needs.
pub fn for_demo() -> Result<()> {
    ensure_packages(&[PACKAGES, ROOTFS, DEMO].concat())
}

/// Installs what all tests need.
pub fn for_tests() -> Result<()> {
    ensure_packages(&[PACKAGES, ROOTFS, DEMO, TESTS].concat())?;
    // The test that it is for says so, too, and is left out.
    python::schemathesis().map_or_else(|error| eprintln!("xtask: {error:#}"), drop);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// On a fresh machine cargo builds xtask before xtask can install anything.
    #[test]
    fn xtask_itself_links_no_package() {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--package", "xtask", "--edges", "normal,build", "--prefix", "none"]);
        let out = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let names: Vec<String> = String::from_utf8(out.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect();
        assert!(names.iter().any(|name| name == "croft-bench"), "{names:?}");
        let links = |name: &&String| name.ends_with("-sys") && *name != "linux-raw-sys";
        assert_eq!(names.iter().filter(links).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
