//! What fails around croftd: registries that lie or are away, disks that are full. One clear error each, and nothing left.

use std::fs;

use anyhow::{Context, Result, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};

use crate::daemon_images::{REGISTRY_HOST, Registry};

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// Nothing here depends on the kind of host: the emulated one would only take longer.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];
const REGISTRY: &[Facility] =
    &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["docker-registry"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_faults",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "a_registry_that_lies_or_is_away", requires: REGISTRY, run: registry },
        Test { name: "a_full_disk", requires: NEEDS, run: full_disk },
    ],
};

/// The error is one line, with a hint at most.
fn one_error(croft: &Croft, args: &[&str], words: &[&str]) -> Result<()> {
    let (code, text) = croft.fails(args)?;
    let errors = text.lines().filter(|line| line.starts_with("croft:")).count();
    ensure!(code == 125 && errors == 1, "{args:?}: {code}: {text}");
    ensure!(words.iter().any(|words| text.contains(words)), "{args:?}: {text}");
    croft.nothing_is_left()
}

fn registry(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let name = format!("{REGISTRY_HOST}/box:v1");
    croft.ok(&["tag", "box", &name])?;
    one_error(&croft, &["push", &name], &["onnection refused", "error trying to connect", "Connect"])?;
    let registry = Registry::start(&croft, false)?;
    croft.ok(&["push", &name])?;
    croft.ok(&["rmi", &name, "box"])?;
    let other = format!("{REGISTRY_HOST}/box@sha256:{}", "0".repeat(64));
    one_error(&croft, &["pull", &other], &["manifest unknown", "not found"])?;
    one_error(
        &croft,
        &["run", &format!("{REGISTRY_HOST}/box:v2"), "true"],
        &["manifest unknown", "not found"],
    )?;
    // The layer, which is the largest of its blobs, is damaged where it lies, and then cut off.
    let find = format!(
        "find {}/docker/registry/v2/blobs -name data -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2",
        croft.path("registry")
    );
    let blob = croft.stage.run("sh", &["-c", &find])?.success()?.stdout;
    let whole = fs::read(blob.trim()).context("the layer's file")?;
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 4096].fill(0x55);
    fs::write(blob.trim(), &damaged)?;
    one_error(&croft, &["pull", &name], &["was damaged or replaced", "layer"])?;
    fs::write(blob.trim(), &whole)?;
    registry.stop(&croft)?;
    one_error(&croft, &["pull", &name], &["onnection refused", "error trying to connect", "Connect"])?;
    let _registry = Registry::start(&croft, false)?;
    ensure!(croft.ok(&["run", "--rm", &name, "echo", "whole"])? == "whole\n");
    croft.nothing_is_left()
}

fn full_disk(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    // The folder of another croftd: on a disk of 32 MiB.
    croft.kill()?;
    let disk = ["-t", "tmpfs", "-o", "size=32m,mode=711", "tmpfs", &croft.path("lib")];
    croft.stage.run("mount", &disk)?.success()?;
    croft.start()?;
    croft.ok(&["image", "import", &croft.path("rootfs.tar"), "box"])?;
    let big = format!(
        "cd {} && dd if=/dev/urandom of=rootfs/big bs=1M count=40 2>/dev/null && tar -C rootfs -cf big.tar . && rm rootfs/big",
        croft.path("")
    );
    croft.stage.run("sh", &["-c", &big])?.success()?;
    one_error(&croft, &["image", "import", &croft.path("big.tar"), "big"], &["No space left"])?;
    let free = || -> Result<u64> {
        let text = croft.stage.run("df", &["--output=avail", "-k", &croft.path("lib")])?.success()?.stdout;
        text.lines().last().and_then(|line| line.trim().parse().ok()).context("df")
    };
    let before = free()?;
    // What it wrote fits, and its copy as a layer does not.
    let most = format!("dd if=/dev/urandom of=/f bs=1k count={}", before * 2 / 3);
    croft.ok(&["run", "--name", "c", "box", "sh", "-c", &most])?;
    let (code, text) = croft.fails(&["commit", "c", "big"])?;
    ensure!(code == 125 && text.contains("No space left") && text.lines().count() == 1, "{text}");
    ensure!(
        croft.ok(&["image", "ls", "--quiet"])?.lines().count() == 1
            && croft.inspect("c")?["state"] == "stopped"
    );
    croft.ok(&["system", "check"])?;
    let file = croft.path("rootfs.tar");
    croft.ok(&["run", "--detach", "--name", "d", "box", "sleep", "1000"])?;
    let fill = format!(
        "head -c {} /dev/urandom >{}/rest; {} cp {} d:/more",
        before * 1024,
        croft.path(""),
        croft.program.display(),
        croft.path("rest")
    );
    let copied = croft.stage.run("sh", &["-c", &fill])?;
    ensure!(copied.code() == 125 && copied.stderr.contains("No space left"), "{copied}");
    croft.ok(&["rm", "--force", "c", "d"])?;
    croft.ok(&["image", "prune", "--force"])?;
    ensure!(free()? + 1024 > before, "{before} KiB were free, and {} are", free()?);
    croft.ok(&["image", "import", &file, "again"])?;
    croft.nothing_is_left()
}
