//! The Debian packages that the project's commands need on this machine. What must be newer is unpacked apart by the harness.

use anyhow::Result;
use croft_harness::debian::ensure_packages;

/// To build croft: the C library that compiles system call filters, and how its crate finds it.
const BUILD: &[&str] = &["gcc", "pkg-config", "libc6-dev", "libseccomp-dev"];

/// To make root filesystems.
const ROOTFS: &[&str] = &["mmdebstrap", "debian-archive-keyring", "busybox-static"];

/// What the integration tests run beside croft-oci.
const TESTS: &[&str] = &[
    "runc",
    "uidmap",
    "procps",
    "iproute2",
    "strace",
    "util-linux",
    "podman",
    "crun",
    "conmon",
    "containerd",
    "docker.io",
    "iptables",
    "golang-github-containers-common",
];

/// Installs what building needs.
pub fn for_build() -> Result<()> {
    ensure_packages(BUILD)
}

/// Installs what the demo needs.
pub fn for_demo() -> Result<()> {
    ensure_packages(&[BUILD, ROOTFS].concat())
}

/// Installs what all tests need.
pub fn for_tests() -> Result<()> {
    ensure_packages(&[BUILD, ROOTFS, TESTS].concat())
}
