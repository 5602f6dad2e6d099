//! Packages and root filesystems from the real archive; the first run fetches them, later ones use the cache.

use std::process::Command;
use std::time::{Duration, Instant};

use croft_harness::{debian, process};

#[test]
fn installed_packages_are_found_within_milliseconds() {
    debian::ensure_packages(&["patchelf"]).unwrap();
    let before = Instant::now();
    debian::ensure_packages(&["patchelf", "dpkg"]).unwrap();
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert!(Command::new("patchelf").arg("--version").output().unwrap().status.success());
}

#[test]
fn an_unknown_package_is_refused_by_name() {
    let error = debian::ensure_packages(&["croft-no-such-package"]).unwrap_err().to_string();
    assert!(error.contains("croft-no-such-package"), "{error}");
}

#[test]
fn peers_run_with_their_own_libraries() {
    let peers = debian::peers().unwrap();
    for (program, name) in [(&peers.runc, "runc version "), (&peers.crun, "crun version ")] {
        let said = process::run(Command::new(program).arg("--version"), Duration::from_secs(20)).unwrap();
        assert!(said.success().unwrap().stdout.starts_with(name));
        let libraries =
            process::run(Command::new("ldd").arg(program), Duration::from_secs(20)).unwrap().stdout;
        let foreign = libraries.lines().find(|line| line.contains("=> /") && !line.contains("/peers/root/"));
        assert_eq!(foreign, None, "{libraries}");
    }
}

#[test]
fn a_root_filesystem_is_the_suite_asked_for() {
    for suite in ["bookworm", "trixie"] {
        let rootfs = debian::rootfs(suite).unwrap();
        let release = std::fs::read_to_string(rootfs.join("etc/os-release")).unwrap();
        assert!(release.contains(&format!("VERSION_CODENAME={suite}\n")), "{release}");
        let mut chroot = Command::new("chroot");
        chroot.arg(&rootfs).args(["dpkg", "--audit"]);
        let audit = process::run(&mut chroot, Duration::from_secs(60)).unwrap().success().unwrap();
        assert_eq!(audit.stdout, "", "packages are not set up");
    }
}
