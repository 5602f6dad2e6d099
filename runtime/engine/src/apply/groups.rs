//! Control groups: folders, limits, the device filter, and their removal.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use croft_plan::cgroup::{OnMissing, Write};
use croft_plan::devices::Insn;
use croft_plan::step::Slot;
use croft_sys::{Errno, cgroup, wait};

use super::{Cause, Outcome};
use crate::world::World;

/// How long killed processes may take to be gone. A process in an uninterruptible sleep can outlast any limit.
const KILL_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn make(hierarchy: &Path, dir: &Path, fill: &[String]) -> Outcome {
    let below = dir.strip_prefix(hierarchy).map_err(|_| Cause::because("is outside its hierarchy"))?;
    let mut at = hierarchy.to_owned();
    for name in below.components() {
        let parent = at.clone();
        at.push(name);
        loop {
            match std::fs::create_dir(&at) {
                Ok(()) => fill_from_parent(&parent, &at, fill).inspect_err(|_| {
                    let _ = std::fs::remove_dir(&at);
                })?,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    if at == dir {
                        refuse_in_use(&at)?;
                    }
                }
                // Another container's delete has just removed the folder above, which was empty for a moment.
                Err(e) if e.kind() == ErrorKind::NotFound && parent != hierarchy => {
                    make(hierarchy, &parent, fill)?;
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            break;
        }
    }
    Ok(())
}

/// A group that exists may be one that the caller has prepared, but not one with processes: they would share the limits
/// and die with the container.
///
/// # Errors
/// When it has processes, or cannot be looked into.
pub fn refuse_in_use(dir: &Path) -> Outcome {
    let group = cgroup::open(dir)?;
    match cgroup::pids(group.as_fd()) {
        Ok(pids) if pids.is_empty() => Ok(()),
        Ok(pids) => {
            Err(Cause::because(format!("container's cgroup is not empty: {} process(es) found", pids.len())))
        }
        // A threaded group (EOPNOTSUPP) cannot be listed; the clone into it will say so.
        Err(e) if e.errno() == Errno::OPNOTSUPP => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn fill_from_parent(parent: &Path, dir: &Path, files: &[String]) -> Outcome {
    for file in files {
        let value = std::fs::read_to_string(parent.join(file))?;
        std::fs::write(dir.join(file), value.trim())?;
    }
    Ok(())
}

pub(super) fn enable(hierarchy: &Path, dir: &Path, controllers: &[String], required: &[String]) -> Outcome {
    let below = dir.strip_prefix(hierarchy).map_err(|_| Cause::because("is outside its hierarchy"))?;
    let mut at = hierarchy.to_owned();
    for name in below.components() {
        let group = cgroup::open(&at)?;
        let enabled = cgroup::read(group.as_fd(), "cgroup.subtree_control")?;
        let enabled: Vec<&str> = enabled.split_whitespace().collect();
        let missing: Vec<&String> = controllers.iter().filter(|c| !enabled.contains(&c.as_str())).collect();
        let all: Vec<String> = missing.iter().map(|c| format!("+{c}")).collect();
        if !all.is_empty() && cgroup::write(group.as_fd(), "cgroup.subtree_control", &all.join(" ")).is_err()
        {
            // One of them cannot be had here: each for itself.
            for controller in missing {
                let one = cgroup::write(group.as_fd(), "cgroup.subtree_control", &format!("+{controller}"));
                if let (Err(e), true) = (one, required.contains(controller)) {
                    let why = format!("enable controller {controller} in {}: {e}", at.display());
                    return Err(Cause { reason: why, errno: Some(e.errno().raw_os_error()) });
                }
            }
        }
        at.push(name);
    }
    Ok(())
}

pub(super) fn write(dir: &Path, write: &Write) -> Outcome {
    let group = cgroup::open(dir)?;
    let mut write = write;
    loop {
        match (cgroup::write(group.as_fd(), &write.file, &write.value), &write.on_missing) {
            (Ok(()), _) => return Ok(()),
            (Err(e), OnMissing::Instead(other)) if e.errno() == Errno::NOENT => write = other,
            (Err(e), OnMissing::Skip) if e.errno() == Errno::NOENT => return Ok(()),
            (Err(e), OnMissing::Refuse { .. }) if e.errno() == Errno::NOENT => {
                return Err(Cause {
                    reason: write.missing().to_string(),
                    errno: Some(Errno::NOENT.raw_os_error()),
                });
            }
            (Err(e), _) => return Err(e.into()),
        }
    }
}

/// Processes that are born meanwhile are seen by the next look: it ends when a look finds nobody new.
pub(super) fn move_processes(from: &Path, to: &Path) -> Outcome {
    let group = cgroup::open(to)?;
    let mut moved = std::collections::BTreeSet::new();
    loop {
        let new: Vec<i32> =
            cgroup::pids_below(from)?.into_iter().filter(|pid| !moved.contains(pid)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for pid in new {
            match cgroup::write(group.as_fd(), "cgroup.procs", &pid.to_string()) {
                Err(e) if e.errno() != Errno::SRCH => {
                    return Err(Cause {
                        reason: format!("move process {pid}: {e}"),
                        errno: Some(e.errno().raw_os_error()),
                    });
                }
                _ => moved.insert(pid),
            };
        }
    }
}

pub(super) fn filter_devices(dir: &Path, program: &[Insn]) -> Outcome {
    let group = cgroup::open(dir)?;
    crate::device_filter::replace(group.as_fd(), program).map_err(Cause::because)
}

pub(super) fn open(world: &mut World, slot: Slot, dir: &Path) -> Outcome {
    let group = cgroup::open(dir)?;
    world.keep(slot, cgroup::open_file(group.as_fd(), "tasks")?);
    Ok(())
}

pub(super) fn make_resctrl(dir: &Path, schemata: &[String]) -> Outcome {
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e.into()),
        _ => {}
    }
    for line in schemata {
        std::fs::write(dir.join("schemata"), format!("{line}\n"))?;
    }
    Ok(())
}

pub(super) fn join_resctrl(world: &World, dir: &Path) -> Outcome {
    let pid = world.child.ok_or_else(|| Cause::because("there is no process yet"))?;
    Ok(std::fs::write(dir.join("tasks"), pid.to_string())?)
}

/// Kills what is in the group and waits until it is gone.
pub fn empty_group(dir: &Path) -> croft_sys::Result<()> {
    let gone = |e: &croft_sys::Error| [Errno::NOENT, Errno::NODEV].contains(&e.errno());
    let empty = || {
        let group = cgroup::open(dir)?;
        cgroup::kill(group.as_fd())?;
        if cgroup::is_populated(group.as_fd())? {
            cgroup::wait_for(group.as_fd(), cgroup::Event::Empty, KILL_LIMIT)?;
        }
        Ok(())
    };
    match empty() {
        // A v1 group has no cgroup.kill: its processes are in the cgroup2 group too, which goes first. That of a scope is
        // removed by systemd as soon as it is empty.
        Err(e) if gone(&e) => Ok(()),
        other => other,
    }
}

/// Kills what is in the group, waits until it is gone, removes the folder, and those above it that are croft's own and empty.
pub fn remove_group(hierarchy: &Path, dir: &Path) -> croft_sys::Result<()> {
    empty_group(dir)?;
    remove_when_free(dir)?;
    let ours = hierarchy.join("croft");
    if let Some(parent) = dir.parent().filter(|p| **p == ours) {
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

/// A v1 group stays busy for a moment after the death of its last process, and has no event that tells when it is free. A
/// runtime that has stayed is the parent of what the container left behind, and the group is busy until that is reaped.
fn remove_when_free(dir: &Path) -> croft_sys::Result<()> {
    let mut pause = Duration::from_micros(50);
    loop {
        match cgroup::remove_tree(dir) {
            Err(e) if e.errno() == Errno::BUSY && pause < KILL_LIMIT => {
                while wait::reap_any()?.is_some() {}
                std::thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
}
