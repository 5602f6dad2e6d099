//! What the steps of one plan share while they are applied: open descriptors by slot, and where the root is.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use croft_plan::step::Slot;
use croft_sys::proc::Proc;
use croft_sys::{Errno, Error, Result, mount};

/// A mount that hides things: attached once itself, and by clones of it from then on. A detached mount cannot be cloned
/// before Linux 6.15.
#[derive(Debug)]
pub struct Cover {
    mount: OwnedFd,
    attached: bool,
}

impl Cover {
    /// A cover of a detached mount.
    pub fn new(mount: OwnedFd) -> Self {
        Self { mount, attached: false }
    }

    /// Hides `target`.
    pub fn hide(&mut self, target: BorrowedFd<'_>) -> Result<()> {
        if std::mem::replace(&mut self.attached, true) {
            let clone = mount::open_tree(self.mount.as_fd(), Path::new(""), mount::Depth::One)?;
            return mount::attach(clone.as_fd(), target);
        }
        mount::attach(self.mount.as_fd(), target)
    }
}

/// The state of one application of a plan. The container's process inherits a copy by being cloned.
#[derive(Debug)]
pub struct World {
    /// A procfs that was checked to be one.
    pub proc: Proc,
    /// Descriptors that steps share.
    fds: BTreeMap<Slot, OwnedFd>,
    /// The container's root, once it is attached; before that, the caller's.
    pub root: Option<OwnedFd>,
    /// The container's process, for the steps that the host performs on it.
    pub child: Option<i32>,
    /// The master of a terminal that a step has opened.
    pub terminal: Option<OwnedFd>,
    /// A clone of the host's /dev/null as a mount, to hide files with.
    pub null: Option<Cover>,
    /// An empty read-only file system, to hide folders with.
    pub empty: Option<Cover>,
    /// The program to run, once a step has found it.
    pub program: Option<std::path::PathBuf>,
    /// The compiled system call filter.
    pub filter: Option<crate::seccomp::Compiled>,
    /// What keeps a new scope from being empty until the container's process is in it.
    pub holder: Option<crate::systemd::Holder>,
    /// The number of the loaded filter's listener.
    pub listener: Option<i32>,
    /// PATH of the process to run.
    pub search_path: String,
}

impl World {
    /// A world without anything open in it.
    pub fn new() -> Result<Self> {
        Ok(World {
            proc: Proc::open()?,
            fds: BTreeMap::new(),
            root: None,
            child: None,
            terminal: None,
            null: None,
            empty: None,
            program: None,
            filter: None,
            holder: None,
            listener: None,
            search_path: String::new(),
        })
    }

    /// Everything that is open in it.
    pub fn held(&self) -> Vec<BorrowedFd<'_>> {
        let mut held: Vec<BorrowedFd<'_>> = self.fds.values().map(AsFd::as_fd).collect();
        held.extend(self.proc.root());
        held.extend(self.root.as_ref().map(AsFd::as_fd));
        held
    }

    /// Keeps `fd` for later steps.
    pub fn keep(&mut self, slot: Slot, fd: OwnedFd) {
        self.fds.insert(slot, fd);
    }

    /// The descriptor of `slot`.
    pub fn fd(&self, slot: Slot) -> Result<BorrowedFd<'_>> {
        self.fds
            .get(&slot)
            .map(AsFd::as_fd)
            .ok_or(Error::new("use of a slot that no step has filled", Errno::BADF))
    }

    /// Hands the descriptor of `slot` over.
    pub fn take(&mut self, slot: Slot) -> Result<OwnedFd> {
        self.fds.remove(&slot).ok_or(Error::new("use of a slot that no step has filled", Errno::BADF))
    }

    /// Closes everything that only the making of the container needed.
    pub fn close_all(&mut self) {
        self.fds.clear();
        self.root = None;
        self.null = None;
        self.empty = None;
    }

    /// The attached root.
    pub fn root(&self) -> Result<BorrowedFd<'_>> {
        self.root
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or(Error::new("use of the root before it is attached", Errno::BADF))
    }
}
