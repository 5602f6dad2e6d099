//! The host that the suite runs on, looked at once: cgroup hierarchies, capabilities, the runtime under test.
use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::relay::network_of;

/// Which program `CROFT_OCI` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Ours.
    CroftOci,
    /// The reference implementation.
    Runc,
    /// The one in C.
    Crun,
}

/// Facts about this host, and the runtime under test.
#[derive(Debug, Clone)]
pub struct Host {
    /// The runtime under test: `$CROFT_OCI`, else the newest croft-oci in the target folder.
    pub runtime: PathBuf,
    /// Which runtime that is, by its file name.
    pub kind: RuntimeKind,
    /// Where cgroup2 is mounted, if it is.
    pub cgroup2: Option<PathBuf>,
    /// Mount points of the v1 hierarchies, by controller (`name=systemd` included).
    pub cgroup1: BTreeMap<String, PathBuf>,
    /// The effective capabilities of the suite, as a bit mask.
    pub capabilities: u64,
    /// A word in the name of everything this run makes: container ids, cgroups, links.
    pub marker: String,
    /// The network namespace that the suite was started in, where it has left that: the way to the archives of packages.
    pub outside: Option<Arc<File>>,
}

impl Host {
    /// Looks at the host. Fails when there is no runtime to test.
    pub fn look() -> Result<Self> {
        Self::of(runtime_under_test()?)
    }

    /// As [`Host::look`], with this program as the runtime under test.
    pub fn of(runtime: PathBuf) -> Result<Self> {
        let kind = kind_of(&runtime)?;
        let (cgroup2, cgroup1) = cgroup_mounts(&fs::read_to_string("/proc/self/mountinfo")?);
        let capabilities = effective_capabilities(&fs::read_to_string("/proc/self/status")?)?;
        let marker = format!("croft-test-{}", std::process::id());
        Ok(Self { runtime, kind, cgroup2, cgroup1, capabilities, marker, outside: None })
    }

    /// Gives the calling process, and all threads it makes later, a private mount namespace, a network namespace
    /// of its own, and the orphans of everything it starts.
    ///
    /// A test can then compare mounts, links and processes before and after without seeing its neighbours, and
    /// what it leaves behind goes when it ends. Call it before any other thread exists.
    ///
    /// Gives the network namespace that it has left.
    pub fn settle_apart() -> Result<File> {
        let outside = network_of("thread-self")?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("own mount and network namespace")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("private mounts")?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("become a subreaper")?;
        Ok(outside)
    }

    /// Whether this host has all controllers on cgroup2 and none on v1.
    pub fn is_unified(&self) -> bool {
        self.cgroup2.is_some() && self.cgroup1.is_empty()
    }

    /// Whether cgroup2 is mounted beside v1 hierarchies.
    pub fn is_hybrid(&self) -> bool {
        self.cgroup2.is_some() && !self.cgroup1.is_empty()
    }

    /// The mount points of all cgroup hierarchies.
    pub fn hierarchies(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = self.cgroup1.values().chain(&self.cgroup2).map(PathBuf::as_path).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The mount point of the hierarchy that has `controller`, whichever version it is.
    pub fn hierarchy_of(&self, controller: &str) -> Option<&Path> {
        self.cgroup1.get(controller).map(PathBuf::as_path).or_else(|| {
            let root = self.cgroup2.as_deref()?;
            let list = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
            list.split_whitespace().any(|c| c == controller).then_some(root)
        })
    }
}

/// The folder that holds this project's build output, found from the running program.
pub fn target_folder() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("CARGO_TARGET_DIR") {
        return Ok(dir.into());
    }
    let exe = env::current_exe()?;
    let found = exe.ancestors().find(|p| p.join("CACHEDIR.TAG").exists());
    Ok(found.with_context(|| format!("no target folder above {}", exe.display()))?.to_owned())
}

/// The newest build of `program` in the target folder, of any profile.
pub fn newest_build(program: &str) -> Result<Option<PathBuf>> {
    let target = target_folder()?;
    // The last one is what is installed: see `build`.
    let folders = ["debug", "release", "static/x86_64-unknown-linux-gnu/release"];
    let found = folders.iter().map(|folder| target.join(folder).join(program)).filter_map(|path| {
        let time = fs::metadata(&path).ok()?.modified().ok()?;
        Some((time, path))
    });
    Ok(found.max().map(|(_, path)| path))
}

fn runtime_under_test() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CROFT_OCI") {
        return fs::canonicalize(&path).with_context(|| format!("CROFT_OCI: {}", path.display()));
    }
    newest_build("croft-oci")?.context("no croft-oci is built, and CROFT_OCI names no other runtime")
}

/// Which runtime a program is, by its file name.
pub fn kind_of(runtime: &Path) -> Result<RuntimeKind> {
    let name = runtime.file_name().unwrap_or_default().to_string_lossy();
    for (word, kind) in
        [("croft", RuntimeKind::CroftOci), ("runc", RuntimeKind::Runc), ("crun", RuntimeKind::Crun)]
    {
        if name.contains(word) {
            return Ok(kind);
        }
    }
    bail!("{}: neither croft-oci, runc nor crun by its name", runtime.display())
}

/// The mount point of cgroup2 and those of the v1 controllers, from the text of mountinfo (proc_pid_mountinfo(5)).
fn cgroup_mounts(mountinfo: &str) -> (Option<PathBuf>, BTreeMap<String, PathBuf>) {
    let (mut v2, mut v1) = (None, BTreeMap::new());
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4) else { continue };
        let mut fields = filesystem.split(' ');
        match fields.next() {
            Some("cgroup2") => v2 = v2.or(Some(PathBuf::from(point))),
            Some("cgroup") => {
                let options = fields.nth(1).unwrap_or_default().split(',');
                for controller in options.filter(|o| !["rw", "ro", "xattr", "clone_children"].contains(o)) {
                    v1.entry(controller.to_owned()).or_insert_with(|| PathBuf::from(point));
                }
            }
            _ => {}
        }
    }
    (v2, v1)
}

fn effective_capabilities(status: &str) -> Result<u64> {
    let line =
        status.lines().find_map(|l| l.strip_prefix("CapEff:")).context("no CapEff in /proc/self/status")?;
    u64::from_str_radix(line.trim(), 16).context("CapEff")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchies_of_a_hybrid_host() {
        let (v2, v1) = cgroup_mounts(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        assert_eq!(v2, Some("/sys/fs/cgroup/unified".into()));
        let names: Vec<_> = v1.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "cpuacct", "name=systemd"]);
        assert_eq!(v1["cpuacct"], Path::new("/sys/fs/cgroup/cpu"));
    }

    #[test]
    fn knows_a_runtime_by_its_name() {
        assert_eq!(kind_of(Path::new("/usr/sbin/runc")).unwrap(), RuntimeKind::Runc);
        assert_eq!(kind_of(Path::new("target/release/croft-oci")).unwrap(), RuntimeKind::CroftOci);
        assert!(kind_of(Path::new("/bin/true")).is_err());
    }
}
