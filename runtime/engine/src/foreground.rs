//! Staying with a process: signals are passed on to it, its terminal is relayed, and its end is the caller's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use croft_plan::spec::ConsoleSize;
use croft_sys::clone::Child;
use croft_sys::event::{self, Interest};
use croft_sys::proc::Proc;
use croft_sys::signal::{self, Set};
use croft_sys::wait::{self, Exit};
use croft_sys::{OFlags, fs, prctl, tty};

use crate::create::Created;
use crate::error::{Context, Error, Result};
use crate::relay::Relay;
use crate::state::StateRoot;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;

/// Signals that go their usual way: stopping in the background (SIGTTIN, SIGTTOU) is between the shell and the runtime,
/// and SIGPIPE (13) is of the runtime's own making.
const OWN: [i32; 3] = [13, 21, 22];

/// Who takes the orphans of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// The runtime does, as it stays.
    Runtime,
    /// Whoever takes the runtime's own (`--no-subreaper`, and exec).
    Others,
}

/// The signals of a runtime that stays, held back from the beginning until they can be passed on.
#[derive(Debug)]
pub struct Foreground {
    signals: Set,
}

impl Foreground {
    /// Begins to hold signals back. Children are born with that and have to end it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin(orphans: Orphans) -> Result<Self> {
        if orphans == Orphans::Runtime {
            prctl::set_child_subreaper().on(|| "become a subreaper".into())?;
        }
        let all: Vec<i32> = (1..=signal::LAST).filter(|s| !OWN.contains(s)).collect();
        let set = Set::of(&all);
        signal::set_blocked(set).on(|| "block signals".into())?;
        Ok(Foreground { signals: set })
    }

    /// Waits for the end of `child`. What its terminal shows has all been written then.
    ///
    /// # Errors
    /// When it cannot be waited for, or there is no terminal to relay its own to.
    pub fn attend(&self, child: &Child, terminal: Option<OwnedFd>) -> Result<Exit> {
        let signals = signal::signalfd(self.signals).on(|| "make a signalfd".into())?;
        let own = if terminal.is_some() { Some(HostTerminal::find()?) } else { None };
        let _raw = own.as_ref().map(|own| tty::make_raw(own.fd.as_fd())).transpose();
        let _raw = _raw.on(|| "put the terminal into raw mode".into())?;
        let mut relay = terminal.map(Relay::new).transpose().on(|| "relay the terminal".into())?;
        if let (Some(relay), Some(own)) = (&relay, &own) {
            own.pass_size_on(relay.master());
        }
        let mut ended = None;
        loop {
            if let (Some(exit), true) = (ended, relay.as_ref().is_none_or(Relay::is_drained)) {
                return Ok(exit);
            }
            let mut sources = vec![(signals.as_fd(), Interest::Readable)];
            sources.extend(ended.is_none().then_some((child.pidfd.as_fd(), Interest::Readable)));
            sources.extend(relay.iter().flat_map(Relay::sources));
            event::wait(&sources, None).on(|| "wait for the process".into())?;
            while let Some(got) = signal::read_signal(signals.as_fd()).on(|| "read a signal".into())? {
                match got.signal {
                    SIGCHLD | SIGURG => {}
                    SIGWINCH => {
                        if let (Some(relay), Some(own)) = (&relay, &own) {
                            own.pass_size_on(relay.master());
                        }
                    }
                    // Nobody is left to get it, and who shall read the rest of the output does not.
                    SIGHUP | SIGINT | SIGQUIT | SIGTERM if ended.is_some() => relay = None,
                    // The process may have ended meanwhile.
                    number => drop(wait::pidfd_signal(child.pidfd.as_fd(), number)),
                }
            }
            while let Some((pid, exit)) = wait::reap_any().on(|| "reap".into())? {
                if pid == child.pid {
                    ended = Some(exit);
                    relay.iter_mut().for_each(Relay::process_ended);
                }
            }
            relay.iter_mut().for_each(Relay::turn);
        }
    }
}

/// The terminal that the caller sits at.
#[derive(Debug)]
pub struct HostTerminal {
    fd: OwnedFd,
}

impl HostTerminal {
    /// The first of standard error, output and input that is a terminal; else the controlling one.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Self> {
        let streams = [
            std::io::stderr().as_fd().try_clone_to_owned(),
            std::io::stdout().as_fd().try_clone_to_owned(),
            std::io::stdin().as_fd().try_clone_to_owned(),
        ];
        if let Some(fd) = streams.into_iter().flatten().find(|fd| tty::is_terminal(fd.as_fd())) {
            return Ok(HostTerminal { fd });
        }
        let path = Path::new("/dev/tty");
        let opened = fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, fs::Mode::empty());
        opened.map(|fd| HostTerminal { fd }).map_err(|e| Error::file("open", path, e))
    }

    /// Its size, unless it has none.
    pub fn size(&self) -> Option<ConsoleSize> {
        let size = tty::size(self.fd.as_fd()).ok()?;
        (size != tty::Size::default()).then_some(ConsoleSize { height: size.rows, width: size.columns })
    }

    /// Gives the container's terminal the size of this one. One that has gone has no size any more: then nothing changes.
    fn pass_size_on(&self, master: BorrowedFd<'_>) {
        if let Some(size) = self.size() {
            let _ = tty::set_size(master, tty::Size { rows: size.height, columns: size.width });
        }
    }
}

/// Opens the gate of a container that the caller created for itself. Returns the failures of poststart hooks.
///
/// # Errors
/// When the program cannot be run; the container is removed then.
pub fn start(created: &mut Created) -> Result<Vec<Error>> {
    let opener =
        created.opener.take().ok_or_else(|| Error::refused("start", "the gate was opened already"))?;
    if let (Some(terminal), Ok(own)) = (&created.terminal, HostTerminal::find()) {
        own.pass_size_on(terminal.as_fd());
    }
    if let Err(why) = opener.let_go() {
        wait::kill_and_reap(created.child.pidfd.as_fd());
        crate::delete::delete_unlocked(&created.record, created.dir.path());
        return Err(Error::refused("unable to start container process", why));
    }
    let warnings = crate::start::after_start(&created.record, &created.spec);
    created.dir.unlock();
    Ok(warnings)
}

/// Deletes a container after its end. Returns the failures of poststop hooks. One that another has deleted is fine.
///
/// # Errors
/// When something of it cannot be removed.
pub fn delete(root: &StateRoot, created: &Created) -> Result<Vec<Error>> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    match root.open(&created.record.id, &proc) {
        Err(Error::NotFound(_)) => Ok(Vec::new()),
        Err(e) => Err(e),
        Ok(container) => crate::delete::remove(container, Some(&created.spec)),
    }
}
