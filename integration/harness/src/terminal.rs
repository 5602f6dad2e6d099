//! A program on a pseudo-terminal of the test's own: typed to, read from, resized, as a person at a terminal would.
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::process;

/// A terminal with a program on it.
#[derive(Debug)]
pub struct Terminal {
    controller: OwnedFd,
    /// Held so that reading at the end gives nothing instead of an error, and that the mode can be looked at.
    terminal: OwnedFd,
    child: Child,
    shown: Vec<u8>,
}

/// Whether a terminal shows what is typed, gives whole lines, and makes signals of keys: what raw mode changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode(rustix::termios::LocalModes);

impl Terminal {
    /// Starts `command` with the terminal as its standard streams and as the controlling one of its session.
    pub fn start(command: &Command, rows: u16, columns: u16) -> Result<Self> {
        let controller =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("a pty")?;
        unlockpt(&controller)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = ioctl_tiocgptpeer(&controller, flags)?;
        rustix::fs::fcntl_setfl(&controller, OFlags::RDWR | OFlags::NONBLOCK)?;
        let end = || terminal.try_clone();
        let mut command_on_it = Command::new("setsid");
        command_on_it
            .args(["--ctty", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(end()?)
            .stdout(end()?)
            .stderr(end()?);
        resize(&controller, rows, columns)?;
        let child = command_on_it.spawn().context("start setsid")?;
        Ok(Self { controller, terminal, child, shown: Vec::new() })
    }

    /// The program's pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes it another size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        resize(&self.controller, rows, columns)
    }

    /// What raw mode changes, as it is now.
    pub fn mode(&self) -> Result<Mode> {
        Ok(Mode(tcgetattr(&self.terminal)?.local_modes))
    }

    /// Types `bytes` and reads on meanwhile.
    pub fn type_in(&mut self, bytes: &[u8], limit: Duration) -> Result<()> {
        let mut done = 0;
        self.until(limit, |terminal| {
            match rustix::io::write(&terminal.controller, &bytes[done..]) {
                Ok(n) => done += n,
                Err(Errno::AGAIN) => {}
                Err(e) => return Err(e).context("type"),
            }
            Ok((done == bytes.len(), PollFlags::IN | PollFlags::OUT))
        })
    }

    /// Reads until `text` has been shown, and forgets everything up to it.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let find = |shown: &[u8]| shown.windows(text.len()).position(|w| w == text.as_bytes());
        self.until(limit, |terminal| Ok((find(&terminal.shown).is_some(), PollFlags::IN)))
            .with_context(|| format!("wait for {text:?}"))?;
        let end = find(&self.shown).map_or(0, |at| at + text.len());
        Ok(String::from_utf8_lossy(&self.shown.drain(..end).collect::<Vec<_>>()).into_owned())
    }

    /// Reads until `count` bytes have been shown, and forgets them.
    pub fn take(&mut self, count: usize, limit: Duration) -> Result<Vec<u8>> {
        self.until(limit, |terminal| Ok((terminal.shown.len() >= count, PollFlags::IN)))?;
        Ok(self.shown.drain(..count).collect())
    }

    /// Waits for the program's end: its exit status, and everything that was shown since the last look.
    pub fn end(&mut self, limit: Duration) -> Result<(i32, String)> {
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::PidfdFlags::empty(),
        )?;
        self.until(limit, |_| {
            let now = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now))? > 0;
            Ok((ended, PollFlags::empty()))
        })?;
        let status = process::wait(&mut self.child, limit)?.context("it has just ended")?;
        self.read()?;
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.shown)).into_owned();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        Ok((status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0)), text))
    }

    /// Reads all there is.
    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 65536];
        loop {
            match rustix::io::read(&self.controller, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(n) => self.shown.extend_from_slice(&buffer[..n]),
                Err(e) => return Err(e).context("read a terminal"),
            }
        }
    }

    /// Reads, asks `done`, and waits for what it wants next; an error with what was shown past `limit`.
    fn until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> Result<(bool, PollFlags)>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            self.read()?;
            let (is_done, wants) = done(self)?;
            if is_done {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "past {limit:?}; shown: {:?}", String::from_utf8_lossy(&self.shown));
            if wants.is_empty() {
                continue;
            }
            let left = Timespec::try_from(left)?;
            match poll(&mut [PollFd::new(&self.controller, wants)], Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => bail!("poll of a terminal: {e}"),
            }
        }
    }
}

impl Drop for Terminal {
    /// Best effort: it has usually ended.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(controller: &OwnedFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(controller, size).context("size of a terminal")
}

/// A socket at `path` that gets one descriptor, as a caller of the runtime listens for a terminal's master.
#[derive(Debug)]
pub struct FdSocket(std::os::unix::net::UnixListener);

impl FdSocket {
    /// Listens at `path`.
    pub fn listen(path: &Path) -> Result<Self> {
        Ok(Self(std::os::unix::net::UnixListener::bind(path).context("listen for a descriptor")?))
    }

    /// The descriptor that the runtime has sent, and its name. Does not wait: the runtime has ended.
    pub fn received(&self) -> Result<(OwnedFd, String)> {
        self.0.set_nonblocking(true)?;
        let (stream, _) = self.0.accept().context("nobody has connected")?;
        let mut name = [0; 64];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let message = rustix::net::recvmsg(
            &stream,
            &mut [std::io::IoSliceMut::new(&mut name)],
            &mut control,
            rustix::net::RecvFlags::CMSG_CLOEXEC,
        )?;
        let fds = control.drain().filter_map(|item| match item {
            rustix::net::RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.flatten().next().context("no descriptor beside the message")?;
        Ok((fd, String::from_utf8_lossy(&name[..message.bytes]).into_owned()))
    }
}
