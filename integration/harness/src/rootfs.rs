//! A container's root filesystem made from busybox: small enough that every bundle has one of its own.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

const FOLDERS: [&str; 9] = ["bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp"];

/// Fills the folder `root` with busybox under all of its names, users and groups.
pub fn busybox(root: &Path) -> Result<()> {
    let source = host_busybox()?;
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))
            .with_context(|| format!("folder {folder} in {}", root.display()))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(&source, root.join("bin/busybox")).with_context(|| format!("copy {}", source.display()))?;
    for applet in applets(&source)? {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(&applet)).with_context(|| format!("applet {applet}"))?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\nuser:x:1000:\nextra:x:1001:user\n")?;
    Ok(())
}

/// The host's static busybox, of Debian's package `busybox-static`.
pub fn host_busybox() -> Result<PathBuf> {
    for path in ["/usr/bin/busybox", "/bin/busybox"] {
        if Path::new(path).exists() {
            return Ok(path.into());
        }
    }
    bail!("busybox is not installed (package busybox-static)")
}

fn applets(busybox: &Path) -> Result<Vec<String>> {
    let list = process::run(Command::new(busybox).arg("--list"), Duration::from_secs(10))?.success()?.stdout;
    Ok(list.lines().map(str::to_owned).collect())
}
