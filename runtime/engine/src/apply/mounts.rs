//! Mounts. Targets are opened below the container's root and mounted on by descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use croft_plan::spec::{Attributes, Propagation, clean};
use croft_plan::step::{Base, Depth, MountChange, Slot, Target};
use croft_sys::mount::{self as sys, Parameter};
use croft_sys::path::{self, Kind};
use croft_sys::{Errno, OFlags};

use super::{Cause, Outcome};
use crate::NO_IDMAP;
use crate::world::{Cover, World};

/// `MOUNT_ATTR_RDONLY` of mount_setattr(2).
const RDONLY: u64 = 0x1;

/// What is done to a tree while it is detached.
pub(super) struct Changed<'a> {
    pub change: &'a MountChange,
    pub idmap: Option<(Slot, Depth)>,
}

/// A new file system.
pub(super) struct New<'a> {
    pub fstype: &'a str,
    pub source: &'a str,
    pub parameters: &'a [(String, Option<String>)],
    pub change: &'a MountChange,
    pub copy_up: bool,
}

/// Where a container may mount over files of procfs: what lxcfs and CRIU put there, as in runc.
const PROC_TARGETS: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

pub(super) fn propagation_flag(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Private => 1 << 18,
        Propagation::Shared => 1 << 20,
        Propagation::Slave => 1 << 19,
        Propagation::Unbindable => 1 << 17,
    }
}

fn depth(depth: Depth) -> sys::Depth {
    match depth {
        Depth::One => sys::Depth::One,
        Depth::Recursive => sys::Depth::Recursive,
    }
}

fn apply_change(mount: BorrowedFd<'_>, change: &MountChange) -> Outcome {
    let plain = |a: Attributes| sys::Attributes { set: a.set, clear: a.clear, propagation: 0 };
    let mut own = plain(change.attributes);
    let mut propagations = change.propagation.iter();
    // The attributes and the first propagation go in one call where they are about the same mounts.
    let mut recursive = plain(change.recursive);
    if let Some((first, how)) = propagations.next() {
        let at = if *how == Depth::Recursive { &mut recursive } else { &mut own };
        at.propagation = propagation_flag(*first);
    }
    sys::set_attributes(mount, sys::Depth::Recursive, recursive)?;
    sys::set_attributes(mount, sys::Depth::One, own)?;
    for (propagation, how) in propagations {
        let attributes =
            sys::Attributes { propagation: propagation_flag(*propagation), ..Default::default() };
        sys::set_attributes(mount, depth(*how), attributes)?;
    }
    Ok(())
}

pub(super) fn open_tree(
    world: &mut World,
    slot: Slot,
    path: &Path,
    how: Depth,
    changed: Changed<'_>,
) -> Outcome {
    let cwd = path::open_path(croft_sys::fs::CWD, Path::new("/"))?;
    let tree = sys::open_tree(cwd.as_fd(), path, depth(how))?;
    if let Some((userns, recursive)) = changed.idmap {
        sys::set_idmap(tree.as_fd(), depth(recursive), world.fd(userns)?).map_err(|e| match e.errno() {
            Errno::INVAL => Cause {
                reason: format!("{e}: the file system of {} {NO_IDMAP}", path.display()),
                errno: Some(e.errno().raw_os_error()),
            },
            _ => e.into(),
        })?;
    }
    apply_change(tree.as_fd(), changed.change)?;
    world.keep(slot, tree);
    Ok(())
}

pub(super) fn attach_root(world: &mut World, slot: Slot) -> Outcome {
    let tree = world.take(slot)?;
    let top = path::open_path(croft_sys::fs::CWD, Path::new("/"))?;
    sys::attach(tree.as_fd(), top.as_fd())?;
    world.root = Some(tree);
    Ok(())
}

pub(super) fn attach_root_at(world: &mut World, slot: Slot, dir: &Path) -> Outcome {
    let tree = world.take(slot)?;
    std::fs::DirBuilder::new().mode(0o700).create(dir)?;
    let place = path::open_path(croft_sys::fs::CWD, dir)?;
    sys::attach(tree.as_fd(), place.as_fd())?;
    world.root = Some(tree);
    Ok(())
}

pub(super) fn mount(world: &mut World, slot: Slot, new: New<'_>, target: &Path, kind: Target) -> Outcome {
    let target_fd = match kind {
        Target::Any => open_target(world, target, Kind::Directory)?,
        Target::PlainDirectory => open_plain_directory(world, target)?,
    };
    let mut parameters: Vec<Parameter<'_>> =
        new.parameters.iter().map(|(k, v)| Parameter { key: k, value: v.as_deref() }).collect();
    // A tmpfs looks like what it hides, as with runc, unless its options say otherwise.
    let mode = (new.fstype == "tmpfs" && !parameters.iter().any(|p| p.key == "mode"))
        .then(|| croft_sys::fs::fstat(&target_fd).map(|s| format!("{:o}", s.st_mode & 0o7777)));
    let mode = mode.transpose().map_err(std::io::Error::from)?;
    if let Some(mode) = &mode {
        parameters.push(Parameter { key: "mode", value: Some(mode) });
    }
    let made = sys::new_filesystem(new.fstype, new.source, &parameters, 0)?;
    if new.copy_up {
        // Read before it is hidden, by the descriptor that is mounted on and not by its path once more (CVE-2021-30465);
        // written through the new mount before anyone sees it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let hidden = path::open_in_root(target_fd.as_fd(), Path::new("."), flags)?;
        let inside = path::open_in_root(made.as_fd(), Path::new("."), flags)?;
        super::nodes::copy_tree(hidden.as_fd(), inside.as_fd())?;
    }
    apply_change(made.as_fd(), new.change)?;
    sys::attach(made.as_fd(), target_fd.as_fd())?;
    world.keep(slot, made);
    Ok(())
}

pub(super) fn attach(world: &mut World, slot: Slot, target: &Path) -> Outcome {
    let tree = world.take(slot)?;
    let target = open_target(world, target, path::kind(tree.as_fd())?)?;
    Ok(sys::attach(tree.as_fd(), target.as_fd())?)
}

/// Opens the target of a mount, making it if need be.
///
/// A mount over procfs could make the runtime or the container's own tools believe a file of the container's making
/// (CVE-2019-16884, CVE-2019-19921): only /proc itself and what lxcfs provides may be mounted on.
pub(super) fn open_target(world: &World, target: &Path, kind: Kind) -> Result<OwnedFd, Cause> {
    let root = world.root()?;
    let fd = path::open_or_create(root, target, kind)?;
    if path::kind(fd.as_fd())? != kind {
        let want = if kind == Kind::Directory { "a folder" } else { "a file" };
        return Err(Cause::because(format!("what is mounted is {want} and {} is not", target.display())));
    }
    let real = path::of_fd(&world.proc, fd.as_fd())?;
    let inside = path::of_fd(&world.proc, root)?;
    let real = clean(real.strip_prefix(&inside).unwrap_or(&real));
    if real == Path::new("/") {
        return Err(Cause::because("is the root itself"));
    }
    let magic = croft_sys::fs::fstatfs(&fd).map_err(std::io::Error::from)?.f_type;
    if magic == croft_sys::fs::PROC_SUPER_MAGIC && !PROC_TARGETS.iter().any(|p| Path::new(p) == real) {
        let why = format!("{} cannot be mounted because it is inside /proc", real.display());
        return Err(Cause::because(why));
    }
    Ok(fd)
}

fn open_plain_directory(world: &World, target: &Path) -> Result<OwnedFd, Cause> {
    let root = world.root()?;
    match path::open_without_links(root, target) {
        Err(e) if e.errno() == Errno::NOENT => {}
        Err(e) if [Errno::LOOP, Errno::NOTDIR].contains(&e.errno()) => {
            return Err(Cause::because(format!("{} must be a folder and not a link", target.display())));
        }
        other => return Ok(other?),
    }
    path::mkdir_all(root, target)?;
    Ok(path::open_without_links(root, target)?)
}

pub(super) fn change_mount(world: &World, target: &Path, change: &MountChange) -> Outcome {
    let fd = match &world.root {
        Some(root) => path::open_in_root(root.as_fd(), target, OFlags::PATH)?,
        None => path::open_path(croft_sys::fs::CWD, target)?,
    };
    apply_change(fd.as_fd(), change)
}

pub(super) fn pivot(world: &mut World) -> Outcome {
    keep_null(world)?;
    Ok(sys::pivot_root(world.root()?)?)
}

pub(super) fn chroot(world: &mut World) -> Outcome {
    keep_null(world)?;
    Ok(sys::chroot(world.root()?)?)
}

fn keep_null(world: &mut World) -> Outcome {
    // Cloned while the host's /dev is still there: what hides files is the real null device, which the container cannot
    // have put there (CVE-2025-31133).
    let null = path::open_path(croft_sys::fs::CWD, Path::new("/dev/null"))?;
    super::nodes::check_null(null.as_fd())?;
    world.null = Some(Cover::new(sys::open_tree(null.as_fd(), Path::new(""), sys::Depth::One)?));
    Ok(())
}

fn open_base(world: &World, base: Base, path: &Path) -> Result<Option<OwnedFd>, Cause> {
    let opened = match base {
        Base::Root => path::open_in_root(world.root()?, path, OFlags::PATH),
        Base::Mount(slot) => path::open_beneath(world.fd(slot)?, path),
    };
    match opened {
        Err(e) if [Errno::NOENT, Errno::NOTDIR].contains(&e.errno()) => Ok(None),
        other => Ok(Some(other?)),
    }
}

pub(super) fn mask(world: &mut World, base: Base, target: &Path) -> Outcome {
    let Some(fd) = open_base(world, base, target)? else { return Ok(()) };
    if path::kind(fd.as_fd())? == Kind::File {
        let null = world.null.as_mut().ok_or_else(|| Cause::because("/dev/null was not opened"))?;
        return Ok(null.hide(fd.as_fd())?);
    }
    if world.empty.is_none() {
        let parameters = [("size", Some("0")), ("nr_inodes", Some("1")), ("ro", None)];
        let parameters = parameters.map(|(key, value)| Parameter { key, value });
        world.empty = Some(Cover::new(sys::new_filesystem("tmpfs", "tmpfs", &parameters, RDONLY)?));
    }
    let empty = world.empty.as_mut().ok_or_else(|| Cause::because("there is no empty folder"))?;
    Ok(empty.hide(fd.as_fd())?)
}

pub(super) fn protect(world: &World, base: Base, target: &Path) -> Outcome {
    let Some(fd) = open_base(world, base, target)? else { return Ok(()) };
    let tree = sys::open_tree(fd.as_fd(), Path::new(""), sys::Depth::Recursive)?;
    let attributes = sys::Attributes { set: RDONLY, ..Default::default() };
    sys::set_attributes(tree.as_fd(), sys::Depth::Recursive, attributes)?;
    Ok(sys::attach(tree.as_fd(), fd.as_fd())?)
}
