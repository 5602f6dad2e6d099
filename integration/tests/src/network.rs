//! `linux.netDevices`, sysctls, host and domain name: the container's own network and uts namespaces.
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use croft_harness::process;
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use serde_json::json;

pub const SUBJECT: Subject = Subject {
    name: "network",
    on_runc: &[
        (
            "a_device_moves_in",
            OnRunc::CroftOnly("runtime-spec 1.3, which Debian bookworm's runc does not know"),
        ),
        ("names", OnRunc::CroftOnly("Debian bookworm's runc does not know domainname")),
    ],
    tests: &[
        Test { name: "names", requires: &[Facility::Root], run: names },
        Test { name: "sysctls_are_the_containers", requires: &[Facility::Root], run: sysctls },
        Test { name: "loopback_is_up", requires: &[Facility::Root], run: loopback },
        Test { name: "a_device_moves_in", requires: &[Facility::Root, Facility::Program("ip")], run: device },
    ],
};

fn names(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?.edit(|c| c["domainname"] = json!("example.org")).probed()?;
    ensure!(seen["hostname"] == "croft-test" && seen["domainname"] == "example.org", "{seen:#}");
    Ok(())
}

fn sysctls(host: &Host) -> Result<()> {
    let own = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
    let other = if own.trim() == "1" { "0" } else { "1" };
    let seen = Bundle::probe(host, &["--sysctl", "net.ipv4.ip_forward", "--sysctl", "kernel.msgmax"])?
        .edit(|c| c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": other, "kernel/msgmax": "12345"}))
        .probed()?;
    ensure!(seen["sysctls"]["net.ipv4.ip_forward"] == other, "{:#}", seen["sysctls"]);
    ensure!(seen["sysctls"]["kernel.msgmax"] == "12345", "{:#}", seen["sysctls"]);
    ensure!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")? == own, "the host's was changed");
    Ok(())
}

fn loopback(host: &Host) -> Result<()> {
    let out = Bundle::shell(host, "cat /sys/class/net/lo/flags")?.stdout()?;
    let flags = u32::from_str_radix(out.trim().trim_start_matches("0x"), 16)?;
    ensure!(flags & 1 == 1, "lo is not up: {out}");
    Ok(())
}

fn ip(args: &[&str]) -> Result<()> {
    process::run(Command::new("ip").args(args), Duration::from_secs(10))?.success()?;
    Ok(())
}

fn device(host: &Host) -> Result<()> {
    // The suite has a network namespace of its own.
    ip(&["link", "add", "croft-t0", "type", "veth", "peer", "name", "croft-t1"])?;
    ip(&["addr", "add", "10.99.99.1/24", "dev", "croft-t0"])?;
    let bundle = Bundle::shell(
        host,
        "cat /proc/net/fib_trie | grep -c 10.99.99.1; cat /sys/class/net/eth7/flags; ls /sys/class/net",
    )?
    .edit(|c| c["linux"]["netDevices"] = json!({"croft-t0": {"name": "eth7"}}));
    let result = bundle.run();
    let _ = ip(&["link", "del", "croft-t0"]);
    let out = result?;
    ensure!(out.code() == 0, "{out}");
    let lines: Vec<&str> = out.stdout.lines().collect();
    ensure!(lines.first().is_some_and(|n| *n != "0") && lines.contains(&"eth7"), "{out}");
    Ok(())
}
