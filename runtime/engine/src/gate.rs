//! Where a created container waits for `start`: two fifos in its state folder.
//!
//! Init holds both from birth and reads the first; `start` writes a byte to it. When init then cannot exec, it says why on
//! the second; when it can, both close by themselves. So the kernel itself knows whether a container waits: while it
//! does, the first fifo has a reader.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use croft_sys::fs::{self, CWD, FileType, Mode};
use croft_sys::{Errno, OFlags};

use crate::error::{Error, Result};

const START: &str = "start.fifo";
const FAILURE: &str = "failure.fifo";

/// What init has to say is shorter, in bytes.
const LONGEST_REASON: u64 = 64 << 10;

/// Init's side.
#[derive(Debug)]
pub struct Gate {
    /// It waits for a byte here.
    pub start: OwnedFd,
    /// It says here why it could not exec.
    pub failure: OwnedFd,
    /// Who opens it.
    pub opener: By,
}

/// Who opens a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Another process, perhaps long after the runtime has ended.
    Another,
    /// The runtime itself: when that dies the gate tells init, which ends.
    Runtime,
}

/// The starter's side.
#[derive(Debug)]
pub struct Opener {
    start: OwnedFd,
    failure: OwnedFd,
}

fn fifo(dir: &Path, name: &str) -> Result<OwnedFd> {
    let path = dir.join(name);
    fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .map_err(|e| Error::file("make fifo", &path, e))?;
    // Opened for both, so that opening does not wait for the other side.
    fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| Error::file("open", &path, e))
}

/// Makes a gate that another process can open by the state folder.
///
/// # Errors
/// When the fifos cannot be made.
pub fn make(dir: &Path) -> Result<Gate> {
    Ok(Gate { start: fifo(dir, START)?, failure: fifo(dir, FAILURE)?, opener: By::Another })
}

/// Makes a gate that this process opens by itself (`run`).
///
/// # Errors
/// When pipes cannot be made.
pub fn make_private() -> Result<(Gate, Opener)> {
    let pipe = || croft_sys::pipe().map_err(|e| Error::file("make", Path::new("pipe"), e));
    let ((start_read, start_write), (failure_read, failure_write)) = (pipe()?, pipe()?);
    let gate = Gate { start: start_read, failure: failure_write, opener: By::Runtime };
    Ok((gate, Opener { start: start_write, failure: failure_read }))
}

/// Whether init waits at the gate of this state folder.
pub fn is_closed(dir: &Path) -> bool {
    // ENXIO: nobody reads any more, init has gone on.
    fs::open(dir.join(START), OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).is_ok()
}

/// Takes away the gate of a container that has started: init closes its fifos while it becomes the program, one after the
/// other, and the starter hears of the second before the first is closed.
///
/// # Errors
/// When the fifo cannot be removed.
pub fn take_away(dir: &Path) -> Result<()> {
    let path = dir.join(START);
    fs::unlinkat(CWD, &path, fs::AtFlags::empty()).map_err(|e| Error::file("remove", &path, e))
}

/// Opens the gate of this state folder from outside.
///
/// # Errors
/// When init is not there any more.
pub fn open(dir: &Path) -> Result<Opener> {
    let open = |name: &str, flags: OFlags| {
        let path = dir.join(name);
        fs::open(&path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).map_err(|e| match e {
            Errno::NXIO | Errno::NOENT => {
                Error::refused("start", "the container's process does not wait for it any more")
            }
            e => Error::file("open", &path, e),
        })
    };
    let failure = open(FAILURE, OFlags::RDONLY)?;
    let start = open(START, OFlags::WRONLY)?;
    Ok(Opener { start, failure })
}

/// The starter's side of a gate that was opened: init is on its way to become its program.
#[derive(Debug)]
pub struct Opened {
    failure: OwnedFd,
}

impl Opener {
    /// Lets init go on, and waits until it has become its program.
    ///
    /// # Errors
    /// In init's words, when it could not.
    pub fn let_go(self) -> std::result::Result<(), String> {
        let opened = self.open()?;
        croft_sys::wait_readable(opened.as_fd()).map_err(|e| e.to_string())?;
        opened.outcome()
    }

    /// Lets init go on.
    ///
    /// # Errors
    /// When it does not wait.
    pub fn open(self) -> std::result::Result<Opened, String> {
        let mut start = std::fs::File::from(self.start);
        start.write_all(&[1]).map_err(|e| format!("the container's process does not wait any more: {e}"))?;
        Ok(Opened { failure: self.failure })
    }
}

impl AsFd for Opener {
    /// What is readable once init was let go and has become its program, or could not.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.failure.as_fd()
    }
}

impl AsFd for Opened {
    /// As an [`Opener`]'s.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.failure.as_fd()
    }
}

impl Opened {
    /// Whether init has become its program; asked once that is known.
    ///
    /// # Errors
    /// In init's words, when it could not.
    pub fn outcome(self) -> std::result::Result<(), String> {
        let mut text = String::new();
        // Init is not trusted to come to an end.
        let _ = std::fs::File::from(self.failure).take(LONGEST_REASON).read_to_string(&mut text);
        if text.is_empty() { Ok(()) } else { Err(text) }
    }
}

impl Gate {
    /// Waits for the start. Only read(2) is used: a system call filter may be in force.
    ///
    /// # Errors
    /// When the fifo cannot be read.
    pub fn wait(&self) -> std::io::Result<()> {
        let mut byte = [0];
        loop {
            match croft_sys::read(self.start.as_fd(), &mut byte) {
                Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Says why the program could not be run.
    pub fn fail(&self, why: &str) {
        let _ = croft_sys::write(self.failure.as_fd(), why.as_bytes());
    }
}
