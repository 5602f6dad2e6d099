//! Mount targets, folders and links that the runtime makes in a root folder which the attacker has prepared or is changing.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Result, ensure};
use croft_harness::{Bundle, Host};
use serde_json::json;

use super::{Swapping, add_mount, bind, host_folder, race, succeeded, untouched, without_mount};

/// CVE-2021-30465 (runc): a volume's folder that is mounted on was exchanged for a symbolic link between runc's check of the
/// path and the mount, so that the mount landed outside of the root folder.
pub fn cve_2021_30465(host: &Host) -> Result<()> {
    let target = host_folder()?;
    let volume = tempfile::tempdir()?;
    fs::create_dir(volume.path().join("dir"))?;
    symlink(target.path(), volume.path().join("link"))?;
    // The marker is the source of a tmpfs: wherever the container can see it, mountinfo names it.
    let mut bundle = Bundle::shell(host, "grep croft-marker /proc/self/mountinfo || echo outside")?;
    fs::create_dir(bundle.rootfs().join("vol"))?;
    bind(&mut bundle, volume.path(), "/vol")?;
    add_mount(&mut bundle, json!({ "destination": "/vol/dir", "type": "tmpfs", "source": "croft-marker" }))?;
    let swapping = Swapping::start(volume.path().join("dir"), volume.path().join("link"));
    let outcome = race(&bundle, |out| match out.trim() {
        "outside" => Err(succeeded("the mount is not inside the container's root")),
        _ => untouched(target.path()),
    });
    drop(swapping);
    outcome
}

/// CVE-2024-45310 (runc): in a volume that two containers share, a folder was exchanged for a symbolic link while runc made the
/// folders and files to mount on, so that empty ones came to be anywhere on the host.
pub fn cve_2024_45310(host: &Host) -> Result<()> {
    let target = host_folder()?;
    let volume = tempfile::tempdir()?;
    fs::create_dir(volume.path().join("dir"))?;
    symlink(target.path(), volume.path().join("link"))?;
    let mut bundle = Bundle::new(host, &["true"])?;
    fs::create_dir(bundle.rootfs().join("vol"))?;
    bind(&mut bundle, volume.path(), "/vol")?;
    add_mount(&mut bundle, json!({ "destination": "/vol/dir/a/b", "type": "tmpfs", "source": "tmpfs" }))?;
    bind(&mut bundle, Path::new("/etc/hostname"), "/vol/dir/c/file")?;
    let swapping = Swapping::start(volume.path().join("dir"), volume.path().join("link"));
    let outcome = race(&bundle, |_| untouched(target.path()));
    drop(swapping);
    outcome
}

/// CVE-2026-41579 (runc): /dev of the image was a symbolic link out of the root folder, and runc, before it had changed its
/// root, deleted ptmx there and made its links for standard streams.
pub fn cve_2026_41579(host: &Host) -> Result<()> {
    for absolute in [true, false] {
        let target = tempfile::Builder::new().prefix("croft-host-").tempdir()?;
        fs::write(target.path().join("ptmx"), "the host's own\n")?;
        let mut bundle = Bundle::new(host, &["true"])?;
        for mount in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
            without_mount(&mut bundle, mount)?;
        }
        fs::remove_dir(bundle.rootfs().join("dev"))?;
        let to = if absolute { "".to_owned() } else { "../".repeat(12) };
        let link = format!("{to}{}", target.path().display());
        symlink(if absolute { link } else { link.replace("//", "/") }, bundle.rootfs().join("dev"))?;
        let _ = bundle.run()?;
        let names: Vec<_> =
            fs::read_dir(target.path())?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        if names != ["ptmx"] {
            return Err(succeeded(format_args!("the host's folder holds {names:?}")));
        }
        let ptmx = fs::symlink_metadata(target.path().join("ptmx"))?;
        ensure!(ptmx.is_file(), succeeded("the host's ptmx is another file now"));
    }
    Ok(())
}
