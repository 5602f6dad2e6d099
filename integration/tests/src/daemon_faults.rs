//! What fails around croftd: registries that lie or are away, disks that are full. One clear error each, and nothing left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::{Value, json};

use crate::daemon_api::{ask, request};
use crate::daemon_images::{REGISTRY_HOST, Registry};

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// Nothing here depends on the kind of host: the emulated one would only take longer.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];
const REGISTRY: &[Facility] =
    &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["docker-registry"])];

const ROOM: &[Facility] =
    &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["docker-registry", "mmdebstrap"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_faults",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "a_registry_that_lies_or_is_away", requires: REGISTRY, run: registry },
        Test { name: "a_full_disk", requires: NEEDS, run: full_disk },
        Test { name: "no_room_for_what_comes", requires: ROOM, run: no_room },
        Test { name: "a_supervisor_that_cannot_be_started", requires: NEEDS, run: no_supervisor },
        Test { name: "no_room_at_all", requires: NEEDS, run: no_room_at_all },
    ],
};

/// The error is one line, with a hint at most, and nothing is left.
fn one_error(croft: &Croft, args: &[&str], words: &[&str]) -> Result<()> {
    one_error_beside(croft, args, words)?;
    croft.nothing_is_left()
}

/// As [`one_error`], beside containers that are there.
fn one_error_beside(croft: &Croft, args: &[&str], words: &[&str]) -> Result<()> {
    let (code, text) = croft.fails(args)?;
    let errors = text.lines().filter(|line| line.starts_with("croft:")).count();
    ensure!(code == 125 && errors == 1, "{args:?}: {code}: {text}");
    ensure!(words.iter().any(|words| text.contains(words)), "{args:?}: {text}");
    croft.ok(&["system", "check"]).map(drop)
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
    small_disk(&mut croft, 32)?;
    croft.ok(&["image", "import", &croft.path("rootfs.tar"), "box"])?;
    let big = format!(
        "cd {} && dd if=/dev/urandom of=rootfs/big bs=1M count=40 2>/dev/null && tar -C rootfs -cf big.tar . && rm rootfs/big",
        croft.path("")
    );
    croft.stage.run("sh", &["-c", &big])?.success()?;
    one_error(&croft, &["image", "import", &croft.path("big.tar"), "big"], &["No space left"])?;
    let free = || free(&croft);
    let before = free()?;
    // What it wrote fits, and its copy as a layer does not.
    let most = format!("dd if=/dev/urandom of=/f bs=1k count={}", before * 2 / 3);
    croft.ok(&["run", "--name", "c", "box", "sh", "-c", &most])?;
    let (code, text) = croft.fails(&["commit", "c", "big"])?;
    ensure!(code == 125 && text.contains("No space left") && text.lines().count() == 2, "{text}");
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

/// The folder of another croftd, on a disk of so many MiB.
fn small_disk(croft: &mut Croft, mib: u32) -> Result<()> {
    croft.kill()?;
    let options = format!("size={mib}m,mode=711");
    croft.stage.run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &croft.path("lib")])?.success()?;
    croft.start()
}

/// What is free on it, in KiB.
fn free(croft: &Croft) -> Result<u64> {
    let text = croft.stage.run("df", &["--output=avail", "-k", &croft.path("lib")])?.success()?.stdout;
    text.lines().last().and_then(|line| line.trim().parse().ok()).context("df")
}

/// Somebody else takes all of it but so many KiB, or gives it back.
fn leave(croft: &Croft, kib: Option<u64>) -> Result<()> {
    let file = croft.path("lib/of-somebody-else");
    croft.stage.run("rm", &["-f", &file])?.success()?;
    let Some(kib) = kib else { return Ok(()) };
    let length = free(croft)?.checked_sub(kib).context("so much is not free")? * 1024;
    croft.stage.run("fallocate", &["--length", &length.to_string(), &file])?.success().map(drop)
}

/// What is refused for want of room, as a program sees it.
fn refused_for_room(croft: &Croft, first: &str, body: &str) -> Result<()> {
    let (status, said) = ask(croft, request(first, body).as_bytes())?;
    let problem: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let hint = problem["hint"].as_str().unwrap_or_default();
    let is_clear = problem["type"] == "no-space" && hint.contains("croft system df");
    ensure!(status == 507 && problem["status"] == 507 && is_clear, "{first}: {status}: {said}");
    ensure!(said.contains("No space left"), "{first}: {said}");
    Ok(())
}

/// Images and volumes that are larger than what is free: what there was is free again at once, and all works when there is room.
fn no_room(host: &Host) -> Result<()> {
    /// KiB of the one large file, which does not become smaller when it is packed.
    const LARGE: u64 = 12 << 10;
    let mut croft = Croft::new(host)?;
    small_disk(&mut croft, 64)?;
    let _registry = Registry::start(&croft, false)?;
    let name = format!("{REGISTRY_HOST}/large");
    let make = format!(
        "cd {} && mkdir -p rootfs/srv && head -c {LARGE}K /dev/urandom >rootfs/srv/large && tar -C rootfs -cf large.tar .",
        croft.path("")
    );
    croft.stage.run("sh", &["-c", &make])?.success()?;
    let tar = croft.path("large.tar");
    croft.ok(&["image", "import", &tar, &name])?;
    croft.ok(&["push", "--quiet", &name])?;
    // A volume that is new, one that was there, and one without a name.
    croft.ok(&["volume", "create", "kept"])?;
    leave(&croft, Some(LARGE / 2))?;
    let before = free(&croft)?;
    let given_back = |what: &str| -> Result<()> {
        croft.nothing_is_left()?;
        let now = free(&croft)?;
        ensure!(now + 256 > before, "{what}: {before} KiB were free, and {now} are");
        let volumes = croft.ok(&["volume", "ls", "--quiet"])?;
        ensure!(volumes == "kept\n", "{what}: {volumes}");
        Ok(())
    };
    for volume in ["new:/srv", "kept:/srv", "/srv"] {
        one_error(&croft, &["run", "--rm", "--volume", volume, &name, "true"], &["No space left"])?;
        given_back(volume)?;
    }
    let config = json!({ "image": name, "mounts": [{ "type": "volume", "name": "new", "target": "/srv" }] });
    refused_for_room(&croft, "POST /v1/containers", &config.to_string())?;
    given_back("the same of a program")?;
    leave(&croft, None)?;
    let large = ["sh", "-c", "wc -c </srv/large"];
    let filled = croft.ok(&[&["run", "--rm", "--volume", "kept:/srv", &name], &large[..]].concat())?;
    ensure!(filled.trim() == (LARGE << 10).to_string(), "{filled}");
    // The image itself: its file is packed, and beside that unpacked.
    croft.ok(&["rmi", &name])?;
    let whole = free(&croft)?;
    // What stands for mmdebstrap has the same files.
    let script = croft.stage.path("mmdebstrap");
    fs::write(&script, format!("#!/bin/sh\nexec cat {tar}\n"))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    croft.stage.run("mount", &["--bind", &croft.path("mmdebstrap"), "/usr/bin/mmdebstrap"])?.success()?;
    for kib in [LARGE / 2, LARGE * 3 / 2] {
        leave(&croft, Some(kib))?;
        one_error(&croft, &["pull", &name], &["No space left"])?;
        one_error(&croft, &["run", &name, "true"], &["No space left"])?;
        let body = json!({ "path": tar, "name": "large" });
        refused_for_room(&croft, "POST /v1/images/import", &body.to_string())?;
        one_error(&croft, &["image", "build-rootfs", "trixie", "large"], &["No space left"])?;
        let load = format!("{} load --input {tar}", croft.program.display());
        ensure!(croft.stage.run("sh", &["-c", &load])?.code() == 125, "no archive of images");
        let now = free(&croft)?;
        ensure!(now + 256 > kib, "{kib} KiB were free, and {now} are");
        ensure!(croft.ok(&["image", "ls", "--quiet"])?.is_empty(), "nothing half is an image");
    }
    leave(&croft, None)?;
    ensure!(free(&croft)? + 256 > whole, "{whole} KiB were free, and {} are", free(&croft)?);
    let ran = croft.ok(&[&["run", "--rm", &name], &large[..]].concat())?;
    ensure!(ran.trim() == (LARGE << 10).to_string(), "{ran}");
    croft.nothing_is_left()
}

/// The supervisor dies, and the log of another one cannot be opened.
const GONE: &str = "rm /run/croft/shim.log; mkdir /run/croft/shim.log; \
                    for pid in $(pidof croft-shim); do grep -q holder /proc/$pid/cmdline || kill -9 $pid; done";

/// The supervisor is gone and another one cannot be started: who asks hears why, and as soon as one can be it is there, whoever asks.
fn no_supervisor(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "c", "box", "sleep", "1000"])?;
    let before = croft.inspect("c")?;
    let shell = |script: &str| croft.stage.run("sh", &["-ec", script])?.success();
    let hears_why = || -> Result<()> {
        let (code, text) = croft.fails(&["exec", "c", "true"])?;
        ensure!(code == 125 && text.contains("Is a directory"), "{code}: {text}");
        Ok(())
    };
    shell(GONE)?;
    hears_why()?;
    hears_why()?;
    shell("rmdir /run/croft/shim.log")?;
    let end = Instant::now() + COMMAND_LIMIT;
    while croft.stage.run("test", &["-f", "/run/croft/shim.log"])?.code() != 0 {
        ensure!(Instant::now() < end, "no supervisor was started");
    }
    croft.ok(&["exec", "c", "true"])?;
    // Whoever asks first after the way is free is served.
    shell(GONE)?;
    hears_why()?;
    shell("rmdir /run/croft/shim.log")?;
    croft.ok(&["exec", "c", "true"])?;
    let after = croft.inspect("c")?;
    ensure!(after["pid"] == before["pid"] && after["state"] == "running", "{before}\n{after}");
    croft.ok(&["rm", "--force", "c"])?;
    croft.nothing_is_left()
}

/// Not a byte is free: what there is can be looked at, stopped and removed, which makes room.
fn no_room_at_all(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    small_disk(&mut croft, 32)?;
    croft.ok(&["image", "import", &croft.path("rootfs.tar"), "box"])?;
    for name in ["a", "b", "c"] {
        croft.ok(&["run", "--detach", "--name", name, "--volume", "/v", "box", "sleep", "1000"])?;
    }
    leave(&croft, Some(0))?;
    // What a container writes fails in the container, and it goes on.
    let (_, words) = croft.fails(&["exec", "a", "sh", "-c", "dd if=/dev/zero of=/f bs=100k count=1"])?;
    ensure!(words.contains("No space left"), "{words}");
    one_error_beside(&croft, &["run", "box", "true"], &["No space left", "disk is full"])?;
    ensure!(croft.ok(&["ps", "--quiet"])?.lines().count() == 3);
    croft.ok(&["stop", "--time", "0", "a"])?;
    ensure!(croft.inspect("a")?["state"] == "stopped");
    croft.ok(&["rm", "--volumes", "a"])?;
    // croftd itself may go and come.
    croft.kill()?;
    croft.start()?;
    croft.ok(&["rm", "--force", "--volumes", "b", "c"])?;
    croft.nothing_is_left()?;
    ensure!(croft.ok(&["volume", "ls", "--quiet"])?.is_empty());
    leave(&croft, None)?;
    ensure!(croft.ok(&["run", "--rm", "box", "echo", "room"])? == "room\n");
    croft.nothing_is_left()
}
