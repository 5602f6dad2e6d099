//! The end of a run: what tests have left on the host is found, named and removed.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::host::Host;
use crate::process::ends_within;
use crate::snapshot::descendants;

/// A process that was told to die goes within this.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Kills what still descends from this process, and removes the cgroups and the temporary folders that carry the run's
/// marker. Gives a line for each.
pub fn sweep(host: &Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for pid in descendants(std::process::id())? {
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a pid is above 0")?;
        // One that has gone since is no longer left behind, and its number is not given out anew before it is reaped.
        if kill_process(process, Signal::KILL).is_ok() {
            ensure!(ends_within(process, KILL_LIMIT)?, "process {pid} ({name}) does not die");
            found.push(format!("process {pid} {}", name.trim()));
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    let temporary = std::env::temp_dir();
    for root in host.hierarchies().into_iter().chain([temporary.as_path()]) {
        for path in marked(root, &host.marker) {
            found.push(path.display().to_string());
            remove(&path, root == temporary).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(found)
}

/// Entries of `root` whose name carries the marker, as a whole word: `croft-test-12` is not `croft-test-123`.
fn marked(root: &Path, marker: &str) -> Vec<PathBuf> {
    let own = |name: &str| {
        let rest = name.split_once(marker).map(|(_, rest)| rest);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter(|entry| own(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

fn remove(path: &Path, is_folder_of_files: bool) -> Result<()> {
    if is_folder_of_files {
        return crate::cache::remove_tree(path);
    }
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path(), is_folder_of_files)?;
        }
    }
    Ok(fs::remove_dir(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_runs_entries_are_not_ours() {
        let root = tempfile::tempdir().unwrap();
        for name in ["croft-test-12-0", "croft-test-12", "croft-test-123-0", "other"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let mut names: Vec<_> = marked(root.path(), "croft-test-12")
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["croft-test-12", "croft-test-12-0"]);
    }
}
