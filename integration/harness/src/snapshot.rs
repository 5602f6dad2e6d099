//! What a host looks like to a container's neighbours, as lines of text: taken before and after, and compared.
//!
//! It shows the whole mount table and all links of the suite's own namespaces ([`Host::settle_apart`]), the processes
//! that descend from the suite with the namespaces they hold, the cgroups that carry the run's marker in every
//! hierarchy, and the files of the state roots it is given.
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::host::Host;

/// The lines of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at `host` and at everything below each of `folders`.
    pub fn take(host: &Host, folders: &[&Path]) -> Result<Self> {
        let mut lines = BTreeSet::new();
        mounts(&mut lines)?;
        links(&mut lines)?;
        processes(&mut lines)?;
        for root in host.hierarchies() {
            cgroups(root, &host.marker, &mut lines);
        }
        for folder in folders {
            files(folder, &mut lines)?;
        }
        lines.insert(format!("hostname {}", rustix::system::uname().nodename().to_string_lossy()));
        lines.insert(format!("domainname {}", rustix::system::uname().domainname().to_string_lossy()));
        Ok(Self { lines })
    }

    /// What has come (`+`) and gone (`-`) between this snapshot and `later`; empty when nothing has.
    pub fn diff(&self, later: &Self) -> String {
        let gone = self.lines.difference(&later.lines).map(|l| format!("- {l}\n"));
        let come = later.lines.difference(&self.lines).map(|l| format!("+ {l}\n"));
        gone.chain(come).collect()
    }

    /// An error that carries the difference, unless `later` is the same.
    pub fn same_as(&self, later: &Self) -> Result<()> {
        if self != later {
            bail!("the host has changed:\n{}", self.diff(later));
        }
        Ok(())
    }
}

/// Mount ids and device numbers left out: they may be given out anew.
fn mounts(lines: &mut BTreeSet<String>) -> Result<()> {
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        lines.insert(format!("mount {}", fields.get(3..).context("short line in mountinfo")?.join(" ")));
    }
    Ok(())
}

fn links(lines: &mut BTreeSet<String>) -> Result<()> {
    for line in fs::read_to_string("/proc/self/net/dev")?.lines().skip(2) {
        let name = line.split(':').next().unwrap_or_default();
        lines.insert(format!("link {}", name.trim()));
    }
    Ok(())
}

/// Zombies do not count: orphans become the suite's own children, and it has not waited for them yet.
fn processes(lines: &mut BTreeSet<String>) -> Result<()> {
    let me = std::process::id();
    for pid in descendants(me)? {
        let folder = format!("/proc/{pid}");
        let Ok(name) = fs::read_to_string(format!("{folder}/comm")) else { continue };
        lines.insert(format!("process {pid} {}", name.trim()));
        for entry in fs::read_dir(format!("{folder}/ns")).into_iter().flatten().flatten() {
            if let Ok(namespace) = fs::read_link(entry.path()) {
                lines.insert(format!("namespace {} held by {pid}", namespace.display()));
            }
        }
    }
    for entry in fs::read_dir("/proc/self/fd")? {
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        if target.to_string_lossy().contains(":[") && !target.to_string_lossy().starts_with("pipe") {
            lines.insert(format!("open {}", target.display()));
        }
    }
    Ok(())
}

/// The living processes below `ancestor`, by the parent that each names in `/proc/PID/stat`.
pub fn descendants(ancestor: u32) -> Result<BTreeSet<u32>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name, in brackets, may itself hold brackets and blanks: what counts comes after the last one.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next(), fields.next().and_then(|p| p.parse::<u32>().ok()));
        if let (Some(state), Some(parent)) = (state, parent) {
            all.push((pid, parent, state == "Z" || state == "X"));
        }
    }
    let mut known = BTreeSet::from([ancestor]);
    while let Some((pid, ..)) =
        all.iter().find(|(pid, parent, _)| known.contains(parent) && !known.contains(pid))
    {
        known.insert(*pid);
    }
    known.remove(&ancestor);
    let dead: BTreeSet<u32> = all.iter().filter(|(.., dead)| *dead).map(|(pid, ..)| *pid).collect();
    Ok(known.difference(&dead).copied().collect())
}

fn cgroups(folder: &Path, marker: &str, lines: &mut BTreeSet<String>) {
    // A group may go while the walk is in it; it is then no longer there to report.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let path = entry.path();
        if path.to_string_lossy().contains(marker) {
            lines.insert(format!("cgroup {}", path.display()));
        }
        cgroups(&path, marker, lines);
    }
}

fn files(folder: &Path, lines: &mut BTreeSet<String>) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("read {}", folder.display())),
    };
    for entry in entries {
        let entry = entry?;
        lines.insert(format!("file {}", entry.path().display()));
        if entry.file_type()?.is_dir() {
            files(&entry.path(), lines)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process_group};

    use super::*;
    use crate::process::ends_within;

    #[test]
    fn shows_what_has_come_and_gone() {
        let before = Snapshot { lines: ["link lo", "mount / /"].map(String::from).into() };
        let after = Snapshot { lines: ["link lo", "link veth0"].map(String::from).into() };
        assert_eq!(before.diff(&after), "- mount / /\n+ link veth0\n");
        assert!(before.same_as(&after).is_err());
        assert!(before.same_as(&before.clone()).is_ok());
    }

    #[test]
    fn descendants_include_grandchildren_and_not_zombies() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 1000 & echo started; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(descendants(child.id()).unwrap().len(), 1);
        assert!(descendants(std::process::id()).unwrap().contains(&child.id()));

        let pid = Pid::from_child(&child);
        kill_process_group(pid, Signal::KILL).unwrap();
        assert!(ends_within(pid, Duration::from_secs(5)).unwrap());
        assert!(!descendants(std::process::id()).unwrap().contains(&child.id()));
        child.wait().unwrap();
    }
}
