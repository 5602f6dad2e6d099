//! A /proc that is not the kernel's, or that lies elsewhere: labels and parameters would be written to the attacker's files.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use croft_harness::{Bundle, Host};
use serde_json::json;
use tempfile::TempDir;

use super::{Swapping, bind, host_folder, race, succeeded, untouched};

/// A volume that looks like a procfs to whoever does not check.
fn fake_procfs() -> Result<TempDir> {
    let volume = tempfile::tempdir()?;
    for folder in ["self/attr/apparmor", "self/fd", "thread-self/attr", "sys/net/ipv4", "sys/fs/mqueue", "1"]
    {
        fs::create_dir_all(volume.path().join(folder))?;
    }
    for file in ["self/attr/exec", "self/attr/apparmor/exec", "thread-self/attr/exec"] {
        fs::write(volume.path().join(file), "")?;
    }
    fs::write(volume.path().join("sys/net/ipv4/ip_forward"), "")?;
    fs::write(volume.path().join("sys/fs/mqueue/msg_max"), "")?;
    fs::write(volume.path().join("fake"), "this is the attacker's\n")?;
    Ok(volume)
}

/// CVE-2019-16884 (runc): an image declared a volume on /proc, so that the AppArmor label was written into a file of the volume
/// and the container ran unconfined.
pub fn cve_2019_16884(host: &Host) -> Result<()> {
    let volume = fake_procfs()?;
    let mut bundle = Bundle::shell(host, "cat /proc/fake")?;
    bind(&mut bundle, volume.path(), "/proc")?;
    let out = bundle.run()?;
    if out.stdout.contains("attacker's") {
        return Err(succeeded("/proc is a volume of the attacker's"));
    }
    for place in ["/proc/self/attr", "/proc/1/attr", "/proc/sys"] {
        let mut bundle = Bundle::new(host, &["true"])?;
        bind(&mut bundle, volume.path(), place)?;
        ensure!(bundle.run()?.code() != 0, succeeded(format_args!("a volume lies on {place}")));
    }
    Ok(())
}

/// CVE-2019-19921 (runc): the image's /proc was a symbolic link into a volume that another container shared, which could put
/// any procfs of its making in the way of the label.
pub fn cve_2019_19921(host: &Host) -> Result<()> {
    let volume = tempfile::tempdir()?;
    fs::create_dir(volume.path().join("proc"))?;
    let mut bundle = Bundle::shell(host, "[ -e /vol/proc/self/status ] && echo procfs is in the volume")?;
    fs::create_dir(bundle.rootfs().join("vol"))?;
    let mounts = bundle.config["mounts"].as_array_mut().context("mounts is a list")?;
    mounts.insert(
        0,
        json!({ "destination": "/vol", "type": "bind", "source": volume.path(), "options": ["bind"] }),
    );
    fs::remove_dir(bundle.rootfs().join("proc"))?;
    symlink("vol/proc", bundle.rootfs().join("proc"))?;
    let out = bundle.run()?;
    if out.stdout.contains("procfs is in the volume") {
        return Err(succeeded(out.stdout.trim()));
    }
    let why = ["must be a folder and not a link", "must be mounted on ordinary directory"];
    ensure!(why.iter().any(|why| out.stderr.contains(why)), "{out}");
    Ok(())
}

/// CVE-2023-27561 (runc): the same once more, by a race: /proc was exchanged for a symbolic link after runc had looked at it, so
/// that what masks it and makes it read-only was put elsewhere.
pub fn cve_2023_27561(host: &Host) -> Result<()> {
    let script = "for at in /proc /other /decoy; do
        [ -e $at/self/status ] && (: >> $at/sys/kernel/core_pattern) 2>/dev/null && echo writable $at
    done; true";
    let bundle = Bundle::shell(host, script)?;
    fs::create_dir(bundle.rootfs().join("decoy"))?;
    symlink("/decoy", bundle.rootfs().join("other"))?;
    let swapping = Swapping::start(bundle.rootfs().join("proc"), bundle.rootfs().join("other"));
    let outcome = race(&bundle, |out| match out.trim() {
        "" => Ok(()),
        text => Err(succeeded(format_args!("parameters of the host's kernel: {text}"))),
    });
    drop(swapping);
    outcome
}

/// CVE-2023-28642 (runc): with /proc a symbolic link and a volume mounted through a link into it, the files that labels are
/// written to were the volume's.
pub fn cve_2023_28642(host: &Host) -> Result<()> {
    let volume = fake_procfs()?;
    for (link, to) in [("attr", "/proc/self/attr"), ("far", "proc/../proc/1/attr"), ("net", "/proc/sys/net")]
    {
        let mut bundle =
            Bundle::shell(host, "grep -c ' /proc/.*/attr \\| /proc/sys/net ' /proc/self/mountinfo")?;
        symlink(to, bundle.rootfs().join(link))?;
        bind(&mut bundle, volume.path(), &format!("/{link}"))?;
        let out = bundle.run()?;
        ensure!(
            out.code() != 0 && out.stdout.trim().is_empty(),
            succeeded(format_args!("a volume lies on {to}: {out}"))
        );
    }
    Ok(())
}

/// CVE-2025-54867 (youki): /proc and /sys of the image were symbolic links out of the root folder, and the mounts there gave the
/// container the host's own files.
pub fn cve_2025_54867(host: &Host) -> Result<()> {
    for folder in ["proc", "sys"] {
        let outside = host_folder()?;
        let way = format!("{}{}", "../".repeat(12), outside.path().display()).replace("//", "/");
        for link in [outside.path(), Path::new(&way)] {
            let mut bundle = Bundle::shell(host, "echo it runs; cat /proc/secret /sys/secret")?;
            // What hides files of procfs would notice that it is nowhere in the container.
            bundle.config["linux"]["maskedPaths"] = json!([]);
            bundle.config["linux"]["readonlyPaths"] = json!([]);
            fs::remove_dir(bundle.rootfs().join(folder))?;
            symlink(link, bundle.rootfs().join(folder))?;
            let out = bundle.run()?;
            untouched(outside.path())?;
            if out.stdout.contains("it runs") {
                return Err(succeeded(format_args!("/{folder} was mounted through a link: {out}")));
            }
        }
    }
    Ok(())
}

/// CVE-2025-52881 (runc): by mounts in a shared volume the attacker had runc's writes to /proc/self/attr and /proc/sys go to
/// other files: harmless ones for the label, /proc/sysrq-trigger for a parameter.
pub fn cve_2025_52881(host: &Host) -> Result<()> {
    let volume = fake_procfs()?;
    let mut bundle = Bundle::new(host, &["cat", "/proc/sys/net/ipv4/ip_forward"])?;
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    symlink("/proc/sys/net", bundle.rootfs().join("redirect"))?;
    bind(&mut bundle, &volume.path().join("sys/net"), "/redirect")?;
    let _ = bundle.run()?;
    written_elsewhere(&volume, "sys/net/ipv4/ip_forward")
}

/// CVE-2025-62596 (youki): it checked that a label's file was on a procfs, but not which file it was; /proc exchanged by a mount
/// sent the write to any other.
pub fn cve_2025_62596(host: &Host) -> Result<()> {
    let volume = fake_procfs()?;
    let mut bundle = Bundle::new(host, &["true"])?;
    bundle.config["linux"]["sysctl"] = json!({ "fs.mqueue.msg_max": "7" });
    bind(&mut bundle, volume.path(), "/proc")?;
    let _ = bundle.run()?;
    written_elsewhere(&volume, "sys/fs/mqueue/msg_max")
}

fn written_elsewhere(volume: &TempDir, file: &str) -> Result<()> {
    match fs::read_to_string(volume.path().join(file))?.as_str() {
        "" => Ok(()),
        text => Err(succeeded(format_args!("the parameter {text:?} was written to the attacker's {file}"))),
    }
}
