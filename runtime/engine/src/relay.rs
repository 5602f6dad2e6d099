//! Bytes between the caller's standard streams and a process's terminal, both ways, without loss.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use croft_sys::event::Interest;
use croft_sys::fs::{self, FileType};
use croft_sys::proc::Proc;
use croft_sys::{Call, Errno, OFlags, Result, tty};

/// The most that is held in each direction, in bytes.
const ROOM: usize = 64 * 1024;
/// How much is written at once to what blocks: a pipe that can be written to has room for that much (pipe(7), PIPE_BUF).
const SMALL: usize = 4096;
/// How much of the output is read after the end of the process: more than a terminal holds. What it has left behind may
/// write for ever.
const REST: usize = 1024 * 1024;
/// What ends the input of a terminal in canonical mode, unless it was changed (termios(3), VEOF).
const END_OF_FILE: u8 = 4;

/// What is on its way in one direction.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    /// How many of them are written already.
    done: usize,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    fn rest(&self, most: usize) -> &[u8] {
        &self.bytes[self.done..self.bytes.len().min(self.done.saturating_add(most))]
    }

    /// Fills it anew by one read; the number of bytes.
    fn fill(&mut self, from: BorrowedFd<'_>) -> std::result::Result<usize, Errno> {
        self.bytes.resize(ROOM, 0);
        self.done = 0;
        let n = croft_sys::read(from, &mut self.bytes);
        self.bytes.truncate(*n.as_ref().unwrap_or(&0));
        n
    }
}

/// One terminal's relay. It never waits: its caller polls [`Relay::sources`] and then calls [`Relay::turn`].
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// Held so that the terminal lives on while no process of the container has it open: an init that closes its console
    /// opens it again.
    _terminal: Option<OwnedFd>,
    /// Closed at its end.
    input: Option<OwnedFd>,
    /// Closed when nobody reads it any more; what comes then is thrown away, so that the process can go on.
    output: Option<Output>,
    to_master: Held,
    to_output: Held,
    last_typed: u8,
    after_end: Option<usize>,
    drained: bool,
}

#[derive(Debug)]
struct Output {
    fd: OwnedFd,
    at_once: usize,
}

impl Relay {
    /// Between `master` and the standard streams.
    ///
    /// # Errors
    /// When the kernel refuses what a terminal allows.
    pub fn new(master: OwnedFd) -> Result<Self> {
        fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)
            .map_err(|e| croft_sys::Error::new("fcntl F_SETFL", e))?;
        let terminal = tty::peer(master.as_fd()).ok();
        Ok(Relay {
            master,
            _terminal: terminal,
            input: std::io::stdin().as_fd().try_clone_to_owned().ok(),
            output: Some(output()?),
            to_master: Held::default(),
            to_output: Held::default(),
            last_typed: b'\n',
            after_end: None,
            drained: false,
        })
    }

    /// The process's terminal.
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// What the next turn needs.
    pub fn sources(&self) -> Vec<(BorrowedFd<'_>, Interest)> {
        let mut sources = Vec::new();
        match (&self.output, self.to_output.is_empty()) {
            (Some(output), false) => sources.push((output.fd.as_fd(), Interest::Writable)),
            _ if self.drained => {}
            _ => sources.push((self.master.as_fd(), Interest::Readable)),
        }
        if self.after_end.is_some() || self.drained {
            return sources;
        }
        match (&self.input, self.to_master.is_empty()) {
            (_, false) => sources.push((self.master.as_fd(), Interest::Writable)),
            (Some(input), true) => sources.push((input.as_fd(), Interest::Readable)),
            (None, true) => {}
        }
        sources
    }

    /// Moves what can be moved without waiting.
    pub fn turn(&mut self) {
        self.show();
        self.fetch();
        self.show();
        if self.after_end.is_none() {
            self.listen();
            self.type_in();
        }
    }

    /// The process has ended: what its terminal still holds is the last.
    pub fn process_ended(&mut self) {
        self.after_end = Some(0);
    }

    /// Whether everything has been shown after the end.
    pub fn is_drained(&self) -> bool {
        self.drained && self.to_output.is_empty()
    }

    /// From the process.
    fn fetch(&mut self) {
        while self.to_output.is_empty() && !self.drained {
            match self.to_output.fill(self.master.as_fd()) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => self.drained = self.after_end.is_some(),
                // EIO: no process has the terminal open.
                Ok(0) | Err(_) => self.drained = true,
                Ok(n) => {
                    if let Some(read) = &mut self.after_end {
                        *read += n;
                        self.drained = *read >= REST;
                    }
                    self.show();
                    continue;
                }
            }
            return;
        }
    }

    /// To the caller.
    fn show(&mut self) {
        while !self.to_output.is_empty() {
            let Some(output) = &self.output else {
                self.to_output = Held::default();
                return;
            };
            // A write to what blocks is made only right after poll has said that there is room.
            if output.at_once == SMALL && !can_write(output.fd.as_fd()) {
                return;
            }
            match croft_sys::write(output.fd.as_fd(), self.to_output.rest(output.at_once)) {
                Ok(n) => self.to_output.done += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// From the caller.
    fn listen(&mut self) {
        let Some(input) = &self.input else { return };
        if !self.to_master.is_empty() || !can_read(input.as_fd()) {
            return;
        }
        match self.to_master.fill(input.as_fd()) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) => self.end_input(),
            Err(_) => self.input = None,
            Ok(_) => self.last_typed = self.to_master.bytes.last().copied().unwrap_or(b'\n'),
        }
    }

    /// A pipe or a file that ends is the end of the process's input too. The first of two characters ends a line that is
    /// not complete.
    fn end_input(&mut self) {
        let device =
            self.input.take().and_then(|fd| fs::fstat(&fd).ok()).map(|s| FileType::from_raw_mode(s.st_mode));
        if device == Some(FileType::CharacterDevice) {
            return;
        }
        let count = if self.last_typed == b'\n' { 1 } else { 2 };
        self.to_master = Held { bytes: vec![END_OF_FILE; count], done: 0 };
    }

    /// To the process.
    fn type_in(&mut self) {
        while !self.to_master.is_empty() {
            match croft_sys::write(self.master.as_fd(), self.to_master.rest(usize::MAX)) {
                Ok(n) => self.to_master.done += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.to_master = Held::default(),
            }
        }
    }
}

fn ready(fd: BorrowedFd<'_>, interest: Interest) -> croft_sys::event::Readiness {
    let now = Some(std::time::Duration::ZERO);
    croft_sys::event::wait(&[(fd, interest)], now).ok().and_then(|r| r.first().copied()).unwrap_or_default()
}

fn can_read(fd: BorrowedFd<'_>) -> bool {
    let ready = ready(fd, Interest::Readable);
    ready.readable || ready.hung_up || ready.failed
}

fn can_write(fd: BorrowedFd<'_>) -> bool {
    let ready = ready(fd, Interest::Writable);
    ready.writable || ready.hung_up || ready.failed
}

/// Standard output, so that a reader who does not read cannot stop the relay. The description that the caller shares with
/// others must not become non-blocking, so a terminal or a fifo is opened again; where that is not possible, little is
/// written at a time.
fn output() -> Result<Output> {
    let own = std::io::stdout().as_fd().try_clone_to_owned().call("dup")?;
    let kind = fs::fstat(&own).map(|s| FileType::from_raw_mode(s.st_mode)).unwrap_or(FileType::Unknown);
    if kind == FileType::RegularFile {
        return Ok(Output { fd: own, at_once: usize::MAX });
    }
    if kind == FileType::Fifo || tty::is_terminal(own.as_fd()) {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        if let Ok(fd) = Proc::open().and_then(|proc| proc.reopen(own.as_fd(), flags)) {
            return Ok(Output { fd, at_once: usize::MAX });
        }
    }
    Ok(Output { fd: own, at_once: SMALL })
}
