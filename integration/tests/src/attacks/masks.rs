//! What hides files of the kernel's, and the console: sources that the attacker has put in place of devices.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use croft_harness::terminal::Terminal;
use croft_harness::{Bundle, Host};
use serde_json::json;
use tempfile::TempDir;

use super::{Swapping, add_mount, bind, race, succeeded, without_mount};

/// Says whether a masked file shows anything: the null device reads as empty.
const READ_MASKED: &str = "cat /proc/timer_list; cat /proc/keys";

/// What the attacker would like to have under a masked path, writable.
const COVETED: &str = "/proc/sys/kernel/core_pattern";

/// Where the attacker's /dev comes from.
enum Dev {
    /// A volume that is bound there: the runtime makes nothing in it.
    Volume,
    /// The image: the runtime makes its nodes there.
    Image,
}

/// A bundle whose whole /dev is the attacker's, and the folder that it is on the host.
fn with_own_dev(host: &Host, dev: Dev, script: &str) -> Result<(Bundle, PathBuf, TempDir)> {
    let volume = tempfile::tempdir()?;
    let mut bundle = Bundle::shell(host, script)?;
    for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        without_mount(&mut bundle, mount)?;
    }
    let folder = match dev {
        Dev::Image => bundle.rootfs().join("dev"),
        Dev::Volume => {
            bind(&mut bundle, volume.path(), "/dev")?;
            volume.path().to_owned()
        }
    };
    fs::create_dir(folder.join("pts"))?;
    Ok((bundle, folder, volume))
}

fn shows_nothing(out: &str) -> Result<()> {
    match out.trim() {
        "" => Ok(()),
        text => Err(succeeded(format_args!("a masked path reads {text:?}"))),
    }
}

/// CVE-2025-31133 (runc): the container's /dev/null, with which masked paths are hidden, was a symbolic link, and what it led
/// to was bound there instead, writable: core_pattern, or nothing at all.
pub fn cve_2025_31133(host: &Host) -> Result<()> {
    ensure!(!fs::read_to_string(COVETED)?.trim().is_empty(), "core_pattern is empty on this host");
    let (bundle, dev, _volume) = with_own_dev(host, Dev::Volume, READ_MASKED)?;
    symlink(COVETED, dev.join("null"))?;
    shows_nothing(&bundle.run()?.stdout)
}

/// CVE-2025-62161 (youki): the same with a race: /dev/null was exchanged for a symbolic link after it had been made, and before
/// it was bound on the masked paths.
pub fn cve_2025_62161(host: &Host) -> Result<()> {
    let (bundle, dev, _volume) = with_own_dev(host, Dev::Image, READ_MASKED)?;
    let (null, link) = (dev.join("null"), dev.join("link"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &null,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )?;
    symlink(COVETED, &link)?;
    let swapping = Swapping::start(null, link);
    let outcome = race(&bundle, shows_nothing);
    drop(swapping);
    outcome
}

/// CVE-2025-52565 (runc): /dev/pts/N was a symbolic link when runc bound it on /dev/console, before anything was masked or made
/// read-only, and so the console was a file of the kernel's that could be written.
pub fn cve_2025_52565(host: &Host) -> Result<()> {
    // A folder that is no devpts, full of links.
    let open = "if [ -f /dev/console ]; then echo console is a file; fi; [ -t 0 ] && echo terminal";
    let (mut bundle, dev, _volume) = with_own_dev(host, Dev::Image, open)?;
    for number in 0..64 {
        symlink(COVETED, dev.join("pts").join(number.to_string()))?;
    }
    symlink("/dev/null", dev.join("pts/ptmx"))?;
    if on_terminal(&mut bundle)?.contains("console is a file") {
        return Err(succeeded("/dev/console is a file of the kernel's"));
    }
    // A console that is a link into procfs: the terminal would lie over the kernel's file.
    let over = "if [ -c /proc/sys/kernel/core_pattern ]; then echo covered; fi; [ -t 0 ] && echo terminal";
    let (mut bundle, dev, _volume) = with_own_dev(host, Dev::Image, over)?;
    add_mount(
        &mut bundle,
        json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        }),
    )?;
    symlink(COVETED, dev.join("console"))?;
    if on_terminal(&mut bundle)?.contains("covered") {
        return Err(succeeded("the terminal covers a file of the kernel's"));
    }
    // Both were attacks: without the links the same bundle runs, and has a terminal.
    fs::remove_file(dev.join("console"))?;
    let text = on_terminal(&mut bundle)?;
    ensure!(text.contains("terminal") && !text.contains("covered"), "{text}");
    Ok(())
}

/// Runs the bundle on a terminal of the test's own, and gives everything that was shown.
fn on_terminal(bundle: &mut Bundle) -> Result<String> {
    bundle.config["process"]["terminal"] = json!(true);
    bundle.save()?;
    let mut run = bundle.command("run");
    run.arg("--bundle").arg(bundle.folder()).arg(bundle.id());
    Ok(Terminal::start(&run, 24, 80)?.end(Duration::from_secs(20))?.1)
}
