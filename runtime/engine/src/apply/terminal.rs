//! The container's terminal, opened in its own devpts by descriptor and never by a path that the container could have
//! prepared (CVE-2025-52565).

use std::os::fd::AsFd;
use std::path::Path;

use croft_plan::spec::ConsoleSize;
use croft_plan::step::Slot;
use croft_sys::path::Kind;
use croft_sys::{OFlags, mount, path, tty};

use super::Outcome;
use crate::world::World;

pub(super) fn open(
    world: &mut World,
    devpts: Option<Slot>,
    size: Option<ConsoleSize>,
    console: bool,
    owner: u32,
) -> Outcome {
    let folder = match (devpts, &world.root) {
        (Some(slot), _) => path::open_beneath(world.fd(slot)?, Path::new("."))?,
        (None, Some(root)) => path::open_in_root(root.as_fd(), Path::new("/dev/pts"), OFlags::PATH)?,
        (None, None) => path::open_path(croft_sys::fs::CWD, Path::new("/dev/pts"))?,
    };
    let pty = tty::open(folder.as_fd())?;
    if let Some(size) = size {
        let size = tty::Size { rows: size.height, columns: size.width };
        tty::set_size(pty.controller.as_fd(), size)?;
    }
    if owner != 0 {
        super::process::give(pty.terminal.as_fd(), owner)?;
    }
    if console {
        let target = super::mounts::open_target(world, Path::new("/dev/console"), Kind::File)?;
        let tree = mount::open_tree(pty.terminal.as_fd(), Path::new(""), mount::Depth::One)?;
        mount::attach(tree.as_fd(), target.as_fd())?;
    }
    tty::make_controlling(pty.terminal.as_fd())?;
    croft_sys::set_standard_streams(pty.terminal.as_fd())?;
    world.terminal = Some(pty.controller);
    Ok(())
}
