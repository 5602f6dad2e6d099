//! Device nodes, the links that programs expect in /dev, and the terminal.

use std::path::{Path, PathBuf};

use super::Builder;
use crate::spec::{Device, DeviceKind, MountKind, Propagation, Terminal};
use crate::step::{Depth, Step};

/// The nodes that every container has: runtime-spec config-linux.md, Default Devices.
const NODES: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links that every container has.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

pub(super) fn add(b: &mut Builder<'_>) {
    // A /dev that was bound from the host is used as it is, as in runc.
    let bound = b
        .spec
        .mounts
        .iter()
        .any(|m| matches!(m.kind, MountKind::Bind { .. }) && m.destination == Path::new("/dev"));
    if !bound {
        for device in nodes(&b.spec.linux.devices) {
            node(b, device);
        }
        for (to, path) in LINKS {
            b.plan.mounts.push(Step::MakeLink { to: (*to).to_owned(), path: PathBuf::from(path) });
        }
    }
    if let Terminal::New(size) = b.spec.process.terminal {
        let owner = b.spec.process.user.uid;
        b.plan.mounts.push(Step::NewTerminal { devpts: b.devpts, size, console: !bound, owner });
    }
}

/// The default nodes and then those of the spec, of which one at a default's path takes its place.
fn nodes(own: &[Device]) -> Vec<Device> {
    let default = |(path, major, minor): &(&str, u32, u32)| Device {
        path: PathBuf::from(path),
        kind: DeviceKind::Char,
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    let mut nodes: Vec<Device> =
        NODES.iter().map(default).filter(|d| !own.iter().any(|o| o.path == d.path)).collect();
    // /dev/ptmx is the container's own devpts's, always.
    nodes.extend(own.iter().filter(|d| d.path != Path::new("/dev/ptmx")).cloned());
    nodes
}

fn node(b: &mut Builder<'_>, device: Device) {
    // mknod(2) is not allowed in a user namespace: the host's own node is bound there.
    if !b.spec.linux.has_user_namespace() || device.kind == DeviceKind::Fifo {
        b.plan.mounts.push(Step::MakeNode { device });
        return;
    }
    let slot = b.slot();
    let mut change = super::propagate(Propagation::Private);
    change.attributes.set = 0x02 | 0x08; // nosuid, noexec
    let path = device.path.clone();
    b.trees.push(Step::OpenTree { slot, path, depth: Depth::One, change, idmap: None });
    b.plan.mounts.push(Step::Attach { slot, target: device.path });
}
