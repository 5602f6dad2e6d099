//! One program against one runtime: apart from the host, within a time limit, its output kept.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use croft_harness::process;

use crate::Column;
use crate::programs::{BESIDE, Programs, shares_a_cgroup};
use crate::tap::{self, Outcome};

/// The longest waits 10 s for a container that does not come; in the virtual machine all take several times as long.
const LIMIT: Duration = Duration::from_secs(180);

/// A runtime's state is under /run: a tmpfs there makes it the program's own.
const SCRIPT: &str = "mount -t tmpfs -o mode=755 tmpfs /run && exec \"$@\"";

/// Runs `program` with `RUNTIME` set, and keeps what it printed under `logs`.
pub(crate) fn run(programs: &Programs, program: &str, runtime: &Column, logs: &Path) -> Result<Outcome> {
    let logs = logs.join(runtime.name.replace(['(', ')'], "").replace(' ', "-"));
    fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    let scratch =
        tempfile::Builder::new().prefix("croft-conformance-").tempdir().context("scratch folder")?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))
        .context("mode of the scratch folder")?;
    for file in BESIDE {
        fs::copy(programs.path(file), scratch.path().join(file)).with_context(|| format!("copy {file}"))?;
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["sh", "-c", SCRIPT, "sh"])
        .arg(programs.path(program))
        .current_dir(scratch.path())
        .env("RUNTIME", &runtime.path)
        .env("TMPDIR", scratch.path());
    let files = [logs.join(format!("{program}.tap")), logs.join(format!("{program}.err"))];
    let outcome = match process::run_into(&mut command, &files, LIMIT) {
        Ok(out) => tap::judge(&out),
        Err(error) => Outcome::broken(error.to_string().lines().next().unwrap_or_default()),
    };
    if shares_a_cgroup(program) {
        SHARED.iter().for_each(|name| remove_everywhere(name));
    }
    Ok(outcome)
}

/// The cgroups that programs name themselves: an absolute and a relative path.
const SHARED: [&str; 2] = ["cgrouptest", "testdir"];

fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(root.clone()).chain(below).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// The cgroups whose name is an id that a program draws: a runtime puts a container without a `cgroupsPath` there.
pub(crate) fn cgroups_of_programs() -> BTreeSet<PathBuf> {
    let all = hierarchies().into_iter().flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
    all.filter(|entry| is_uuid(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// Removes the cgroups that programs have left, but for those in `before`. Not all programs delete what they create.
pub(crate) fn remove_cgroups_of_programs(before: &BTreeSet<PathBuf>) {
    cgroups_of_programs().difference(before).for_each(|path| remove(path));
}

fn remove_everywhere(name: &str) {
    hierarchies().iter().for_each(|root| remove(&root.join(name)));
}

/// Empty by now: the pid namespace has ended with all that was in it. One that is not ours to remove stays, as busy.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

fn is_uuid(name: &str) -> bool {
    let lengths: Vec<usize> = name.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && name.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_program_is_told_from_other_names() {
        assert!(is_uuid("0b1a6e0a-35a4-4d2f-8a8e-0f3e5d7c9b11"));
        for other in ["croft-test-1-2", "system.slice", "0b1a6e0a-35a4-4d2f-8a8e-0f3e5d7c9b1z", ""] {
            assert!(!is_uuid(other), "{other}");
        }
    }
}
