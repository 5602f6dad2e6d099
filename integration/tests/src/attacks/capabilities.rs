//! Capabilities that a process can hand on to the programs it runs: with an inheritable set that nobody asked for, the
//! container's ordinary users gain what a program's file has as inheritable.
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::{Bundle, Host, bundle, process};
use rustix::fs::{XattrFlags, setxattr};
use serde_json::{Value, json};

use super::succeeded;

/// A user of the container without rights.
const ORDINARY: &str = "1000:1000";

/// Bit of `CAP_KILL` (linux/capability.h), which `spec` gives to containers.
const CAP_KILL: u32 = 1 << 5;

/// Puts a program into the image whose file makes inheritable CAP_KILL permitted and effective
/// (`struct vfs_cap_data` of linux/capability.h, revision 2).
fn with_inheriting_probe(bundle: &Bundle) -> Result<PathBuf> {
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    bundle.add_probe()?;
    let program = bundle.rootfs().join("probe");
    let [permitted, inheritable, upper] = [0, CAP_KILL, 0];
    let words = [REVISION_2_EFFECTIVE, permitted, inheritable, upper, upper];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    setxattr(&program, "security.capability", &value, XattrFlags::empty())?;
    Ok(program)
}

/// What the ordinary user's program has in force is nothing.
fn gained_nothing(seen: &Value) -> Result<()> {
    let status = &seen["status"];
    ensure!(status["NoNewPrivs"] == 0, "no program's file could give anything: {status:#}");
    ensure!(status["Uid"] == json!([1000, 1000, 1000, 1000]), "{status:#}");
    for set in ["CapInh", "CapEff", "CapPrm"] {
        ensure!(
            status[set] == json!([]),
            succeeded(format_args!("an ordinary user has {set} {}", status[set]))
        );
    }
    Ok(())
}

/// CVE-2022-29162 (runc): `spec` and `exec --cap` gave processes inheritable capabilities, which programs whose files have the
/// same ones inheritable turned into rights for users that had none.
pub fn cve_2022_29162(host: &Host) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut spec = Command::new(&host.runtime);
    spec.args(["spec", "--bundle"]).arg(folder.path());
    process::run(&mut spec, Duration::from_secs(10))?.success()?;
    let config: Value = serde_json::from_slice(&fs::read(folder.path().join("config.json"))?)?;
    let mut bundle = Bundle::probe(host, &[])?;
    with_inheriting_probe(&bundle)?;
    let capabilities = config["process"]["capabilities"].clone();
    ensure!(
        capabilities["bounding"].as_array().context("bounding")?.contains(&"CAP_KILL".into()),
        "{config:#}"
    );
    bundle.config["process"]["capabilities"] = capabilities;
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.config["process"]["noNewPrivileges"] = false.into();
    gained_nothing(&bundle.probed()?)
}

/// CVE-2022-27650 (crun): the same by `exec --cap`, which put the capability into the inheritable set too, so that it outlived
/// the change to an ordinary user.
pub fn cve_2022_27650(host: &Host) -> Result<()> {
    let mut target = Bundle::new(host, &["sleep", "1000"])?;
    with_inheriting_probe(&target)?;
    target.config["process"]["noNewPrivileges"] = false.into();
    target.started()?;
    gained_nothing(&target.exec_probed(&["--cap", "CAP_KILL", "--user", ORDINARY], &[])?)
}

/// CVE-2025-27612 (youki): the same once more where the container has no capabilities of its own: all five sets of the further
/// process were what it was given, inheritable and ambient included.
pub fn cve_2025_27612(host: &Host) -> Result<()> {
    let mut target = Bundle::new(host, &["sleep", "1000"])?;
    with_inheriting_probe(&target)?;
    target.config["process"]["noNewPrivileges"] = false.into();
    target.config["process"].as_object_mut().context("process is an object")?.remove("capabilities");
    target.started()?;
    let out = target.exec_with(&["--cap", "CAP_KILL", "--user", ORDINARY], &["/probe"])?;
    gained_nothing(&bundle::seen(&out.success()?)?)
}
