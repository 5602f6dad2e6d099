//! Namespaces and id maps.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use croft_plan::spec::{IdMapping, NamespaceKind, TimeOffset};
use croft_plan::step::{IdMapper, Slot};
use croft_sys::clone::{Parent, Side, clone3};
use croft_sys::{Errno, credentials, ns, wait};

use super::{Cause, Outcome};
use crate::world::World;

pub(super) fn open_namespace(world: &mut World, slot: Slot, kind: NamespaceKind, path: &Path) -> Outcome {
    // A namespace file is opened by a path of the caller's, so it is checked to be one, and of the right kind.
    let file = std::fs::File::open(path)?;
    let found = ns::kind(file.as_fd()).map_err(|_| Cause::because("is not a namespace"))?;
    if found != kind.flag() {
        return Err(Cause::because(format!("is not a {} namespace", kind.name())));
    }
    world.keep(slot, file.into());
    Ok(())
}

/// A time namespace is made for the children of the caller, its clocks are set while nobody is in it, and then the caller
/// joins it too (time_namespaces(7)). In a new user namespace this comes before the change of ids, after which the process's
/// own files in procfs belong to somebody else.
pub(super) fn new_time_namespace(world: &World, offsets: &[(String, TimeOffset)]) -> Outcome {
    let kind = NamespaceKind::Time;
    ns::unshare(kind.flag())?;
    let line = |(clock, o): &(String, TimeOffset)| format!("{clock} {} {}\n", o.seconds, o.nanoseconds);
    let text: String = offsets.iter().map(line).collect();
    if !text.is_empty() {
        world.proc.write("self/timens_offsets", text.as_bytes())?;
    }
    let made = world.proc.open_namespace("self", "time_for_children")?;
    Ok(ns::setns(made.as_fd(), kind.flag())?)
}

fn map_text(list: &[IdMapping]) -> String {
    list.iter().map(|m| format!("{} {} {}\n", m.container, m.host, m.size)).collect()
}

pub(super) fn write_maps(world: &World, uids: &[IdMapping], gids: &[IdMapping], by: &IdMapper) -> Outcome {
    let pid = world.child.ok_or_else(|| Cause::because("there is no process yet"))?;
    write_maps_of(world, pid, uids, gids, by)
}

fn write_maps_of(world: &World, pid: i32, uids: &[IdMapping], gids: &[IdMapping], by: &IdMapper) -> Outcome {
    match by {
        IdMapper::Programs { newuidmap, newgidmap } => {
            run_mapper(newuidmap, pid, uids)?;
            run_mapper(newgidmap, pid, gids)
        }
        IdMapper::Runtime | IdMapper::OwnId => {
            if *by == IdMapper::OwnId {
                world.proc.write(&format!("{pid}/setgroups"), b"deny")?;
            }
            world.proc.write(&format!("{pid}/uid_map"), map_text(uids).as_bytes())?;
            Ok(world.proc.write(&format!("{pid}/gid_map"), map_text(gids).as_bytes())?)
        }
    }
}

fn run_mapper(program: &Path, pid: i32, maps: &[IdMapping]) -> Outcome {
    let numbers = maps.iter().flat_map(|m| [m.container, m.host, m.size]).map(|n| n.to_string());
    let out = Command::new(program).arg(pid.to_string()).args(numbers).stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(Cause::because(format!("{}: {}", program.display(), said.trim())))
}

/// A user namespace lives as long as a process or a descriptor holds it: a child is made in a new one, mapped, and let go.
pub(super) fn new_idmap(world: &mut World, slot: Slot, uids: &[IdMapping], gids: &[IdMapping]) -> Outcome {
    let (ours, theirs) = croft_sys::socket::packet_pair()?;
    match clone3(NamespaceKind::User.flag(), None, Parent::Caller)? {
        Side::Child => {
            drop(ours);
            let _ = croft_sys::socket::receive(theirs.as_fd(), &mut [0]);
            std::process::exit(0)
        }
        Side::Parent(child) => {
            drop(theirs);
            let made = write_maps_of(world, child.pid, uids, gids, &IdMapper::Runtime)
                .and_then(|()| Ok(world.proc.open_namespace(&child.pid.to_string(), "user")?));
            drop(ours);
            wait::wait(child.pidfd.as_fd())?;
            world.keep(slot, made?);
            Ok(())
        }
    }
}

/// In a new user namespace the process has every capability and, until its ids are root's, no id.
pub(super) fn become_root() -> Outcome {
    // A map without 0, or one that denies setgroups, is allowed: then the process stays who it is.
    let tolerate = |r: croft_sys::Result<()>| match r {
        Err(e) if [Errno::INVAL, Errno::PERM].contains(&e.errno()) => Ok(()),
        other => other,
    };
    tolerate(credentials::set_groups(&[]))?;
    tolerate(credentials::set_gid(0))?;
    Ok(tolerate(credentials::set_uid(0))?)
}
