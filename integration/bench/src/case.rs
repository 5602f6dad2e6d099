//! The configurations that are measured, as bundles with one busybox root filesystem.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use croft_harness::debian::Peers;
use croft_harness::{host::Host, process, rootfs};
use serde_json::Value;
use tempfile::TempDir;

use crate::contender::{Contender, Kind};
use crate::profile;

const SPEC_LIMIT: Duration = Duration::from_secs(20);

/// Whether the container has a network namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Yes.
    Own,
    /// It has the caller's.
    Callers,
}

/// Whether the control groups are mounted into the container, as runc's default configuration has it. On a hybrid host
/// this is what makes a group in every v1 hierarchy necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupMount {
    /// Yes.
    Mounted,
    /// No.
    Absent,
}

/// Which system call filter the container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// None.
    Open,
    /// Docker's default profile.
    Docker,
}

/// One configuration.
#[derive(Debug, Clone)]
pub struct Case {
    /// In the tables.
    pub name: String,
    /// Its bundle, whose program is `true`.
    pub bundle: PathBuf,
    /// The bundle whose program sleeps.
    pub sleeping: PathBuf,
    /// See [`Network`].
    pub network: Network,
    /// See [`GroupMount`].
    pub groups: GroupMount,
    /// See [`Filter`].
    pub filter: Filter,
    /// The filter's program, for the floor.
    pub program: Option<PathBuf>,
}

/// Everything that the measurements share.
#[derive(Debug)]
pub struct Lab {
    /// The contenders; croft-oci is the first.
    pub contenders: Vec<Contender>,
    /// The configurations; the first is runc's default.
    pub cases: Vec<Case>,
    /// The host.
    pub host: Host,
    /// For the runtimes' states and the bundles.
    pub folder: TempDir,
    /// The root filesystem of all bundles.
    pub rootfs: PathBuf,
}

impl Lab {
    /// Makes the bundles and finds the contenders that work on this host.
    pub fn new(croft: PathBuf, beside: Option<PathBuf>, peers: &Peers, floor: PathBuf) -> Result<Self> {
        let host = Host::of(croft)?;
        let folder =
            tempfile::Builder::new().prefix("croft-bench-").tempdir_in(memory()?).context("folder")?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let rootfs = folder.path().join("rootfs");
        rootfs::busybox(&rootfs)?;
        let spec = default_spec(&peers.runc, folder.path(), &rootfs)?;
        let mut cases = Vec::new();
        for groups in [GroupMount::Mounted, GroupMount::Absent] {
            // On a unified host the groups' mount is one bind: the second half would measure the same again.
            if groups == GroupMount::Absent && host.is_unified() {
                break;
            }
            for (network, filter) in [
                (Network::Own, Filter::Open),
                (Network::Callers, Filter::Open),
                (Network::Own, Filter::Docker),
            ] {
                cases.push(make(folder.path(), &spec, network, groups, filter)?);
            }
        }
        let mut lab = Lab { contenders: Vec::new(), cases, host, folder, rootfs };
        let contender =
            |name: &str, program: &Path, kind| Contender::new(name, program, kind, lab.folder.path());
        let mut contenders = vec![contender("croft-oci", &lab.host.runtime, Kind::Runtime)?];
        if let Some(beside) = beside {
            contenders.push(contender("croft-oci (other)", &beside, Kind::Runtime)?);
        }
        contenders.push(contender("floor", &floor, Kind::Floor)?);
        // crun refuses a host with v1 hierarchies that it does not know how to use.
        if lab.host.is_unified() {
            contenders.push(contender("crun", &peers.crun, Kind::Runtime)?);
        }
        contenders.push(contender("runc", &peers.runc, Kind::Runtime)?);
        if let Some(bwrap) = bubblewrap()? {
            contenders.push(contender("bubblewrap", &bwrap, Kind::Bubblewrap)?);
        }
        lab.contenders = contenders;
        Ok(lab)
    }
}

/// A folder on tmpfs, as /run is wherever containers run in earnest: the runtimes' states go there.
fn memory() -> Result<&'static Path> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let is_tmpfs = |folder: &&str| {
        mounts.lines().any(|line| {
            line.split(' ').nth(4) == Some(*folder)
                && line.split_once(" - ").is_some_and(|(_, fs)| fs.starts_with("tmpfs "))
        })
    };
    let found = ["/run", "/dev/shm"].into_iter().find(is_tmpfs);
    found.map(Path::new).context("neither /run nor /dev/shm is a tmpfs")
}

fn bubblewrap() -> Result<Option<PathBuf>> {
    crate::ensure(&["bubblewrap"])?;
    let path = PathBuf::from("/usr/bin/bwrap");
    Ok(path.exists().then_some(path))
}

/// What `runc spec` writes, with our root filesystem and without a terminal.
fn default_spec(runc: &Path, folder: &Path, rootfs: &Path) -> Result<Value> {
    let dir = folder.join("spec");
    fs::create_dir(&dir)?;
    process::run(Command::new(runc).arg("spec").arg("--bundle").arg(&dir), SPEC_LIMIT)?.success()?;
    let mut spec: Value =
        serde_json::from_slice(&fs::read(dir.join("config.json"))?).context("runc's default spec")?;
    spec["process"]["terminal"] = false.into();
    spec["root"]["path"] = rootfs.to_string_lossy().into_owned().into();
    Ok(spec)
}

fn make(folder: &Path, spec: &Value, network: Network, groups: GroupMount, filter: Filter) -> Result<Case> {
    let mut name = match groups {
        GroupMount::Mounted => "runc's default spec".to_owned(),
        GroupMount::Absent => "no v1 group".to_owned(),
    };
    let mut spec = spec.clone();
    let drop_from = |list: &mut Value, dropped: &str| {
        if let Some(list) = list.as_array_mut() {
            list.retain(|entry| entry["type"] != dropped);
        }
    };
    if groups == GroupMount::Absent {
        drop_from(&mut spec["mounts"], "cgroup");
    }
    if network == Network::Callers {
        name.push_str(", host's network");
        drop_from(&mut spec["linux"]["namespaces"], "network");
    }
    let mut program = None;
    if filter == Filter::Docker {
        name.push_str(", Docker's seccomp profile");
        let profile = profile::docker()?;
        program = Some(profile::docker_program()?);
        spec["linux"]["seccomp"] = profile;
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = profile::DOCKER_CAPABILITIES.as_slice().into();
        }
    }
    let dir = folder.join(name.replace([' ', ',', '\''], "-"));
    let sleeping = save(&dir.join("sleep"), &spec, &["/bin/sleep", "1000"])?;
    // Directly below the top for everyone, as the floor's group is: a parent that is made for the first container and
    // removed with the last one is work of another kind.
    spec["linux"]["cgroupsPath"] = "/croft-bench".into();
    let bundle = save(&dir.join("true"), &spec, &["/bin/true"])?;
    Ok(Case { name, bundle, sleeping, network, groups, filter, program })
}

fn save(dir: &Path, spec: &Value, args: &[&str]) -> Result<PathBuf> {
    let mut spec = spec.clone();
    spec["process"]["args"] = args.into();
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&spec)?).context("write config.json")?;
    Ok(dir.to_owned())
}
