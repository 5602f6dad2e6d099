//! What a new process gives to whom it belongs: its terminal, its pidfd, its filter's listener, its pid; and what it is given.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use croft_plan::build::Plan;
use croft_plan::spec::Terminal;
use croft_sys::socket;

use crate::error::{Context, Error, Result};
use crate::spawn::Received;

/// Whether the caller stays with the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// It waits for its end and relays its terminal.
    Foreground,
    /// It ends at once (`create`, `--detach`).
    Detached,
}

/// Refuses, in runc's words, a terminal that nobody would hold and a socket that nothing would be sent to.
///
/// # Errors
/// As said.
pub fn check_console(attach: Attach, terminal: Terminal, socket: Option<&Path>) -> Result<()> {
    match (attach, terminal != Terminal::None, socket) {
        (Attach::Detached, true, None) => Err(Error::refused(
            "process.terminal",
            "cannot allocate tty if runc will detach without setting console socket",
        )),
        (Attach::Foreground, _, Some(_)) | (_, false, Some(_)) => Err(Error::refused(
            "--console-socket",
            "cannot use console socket if runc will not detach or allocate tty",
        )),
        (Attach::Foreground, true, None) => crate::foreground::HostTerminal::find().map(drop),
        _ => Ok(()),
    }
}

/// Refuses to preserve a descriptor that is not open. To be called before the first one is opened here: a number that the
/// caller left free could become one of the runtime's own, and that would reach the container (CVE-2024-21626).
///
/// # Errors
/// As said.
pub fn check_preserved(count: u32) -> Result<()> {
    for number in 3..3 + u64::from(count) {
        let path = PathBuf::from(format!("/proc/self/fd/{number}"));
        std::fs::symlink_metadata(&path).map_err(|e| Error::File {
            op: "unable to stat preserved-fd:",
            source: crate::error::Reason::from(e),
            path,
        })?;
    }
    Ok(())
}

/// The descriptors that a service manager has passed to this very process (sd_listen_fds(3)): how many there are from 3 on.
pub fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") == Some(std::process::id()) { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}

/// Sockets that wait for descriptors, connected before anything is made: a path that leads nowhere is found in time.
#[derive(Debug)]
pub struct HandOver {
    console: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
}

impl HandOver {
    /// Connects to both sockets.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(console: Option<&Path>, pidfd: Option<&Path>) -> Result<Self> {
        let connect = |path: Option<&Path>| {
            path.map(|path| socket::connect_stream(path).on(|| format!("dial unix {}", path.display())))
                .transpose()
        };
        Ok(HandOver { console: connect(console)?, pidfd: connect(pidfd)? })
    }

    /// Sends what the process gave, each descriptor with the name that runc's consumers expect.
    ///
    /// # Errors
    /// When the other side has gone.
    pub fn send(self, plan: &Plan, pidfd: BorrowedFd<'_>, received: &Received, state: &[u8]) -> Result<()> {
        let send = |to: &Option<OwnedFd>, name: &[u8], fd: BorrowedFd<'_>| match to {
            Some(to) => socket::send(to.as_fd(), name, &[fd])
                .on(|| format!("send {} to its socket", String::from_utf8_lossy(name))),
            None => Ok(()),
        };
        if let Some(terminal) = &received.terminal {
            send(&self.console, b"/dev/ptmx", terminal.as_fd())?;
        }
        send(&self.pidfd, b"pidfd", pidfd)?;
        if let (Some((path, metadata)), Some(listener)) = (&plan.listener, &received.listener) {
            crate::listener::send(path, metadata, listener.as_fd(), state)?;
        }
        Ok(())
    }
}

/// Writes a pid file by rename, so that a reader never sees half of it.
///
/// # Errors
/// When it cannot be written.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    std::fs::write(&new, pid.to_string()).map_err(|e| Error::file("write", path, e))?;
    std::fs::rename(&new, path).map_err(|e| {
        let _ = std::fs::remove_file(&new);
        Error::file("write", path, e)
    })
}
