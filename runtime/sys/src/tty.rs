//! Terminals: a new pair from a given devpts, sizes, raw mode, the controlling terminal.
//!
//! A terminal's other end is always reached through the fd of this one, never by a path /dev/pts/N, which a container may have
//! replaced (CVE-2025-52565).

use crate::{Call, Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// The device number of ptmx (linux/major.h: TTYAUX_MAJOR, 2).
const PTMX: (u32, u32) = (5, 2);

/// The majors of the other ends (UNIX98_PTY_SLAVE_MAJOR and the seven after it).
const PTS_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// The end that a supervisor holds: what it writes is typed.
    pub controller: OwnedFd,
    /// The end that the container's process has as its terminal.
    pub terminal: OwnedFd,
}

/// How many characters a terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Makes a pseudo-terminal of the devpts whose root `devpts` is. ENODEV: it is none.
pub fn open(devpts: BorrowedFd<'_>) -> Result<Pty> {
    let magic = rustix::fs::fstatfs(devpts).call("fstatfs devpts")?.f_type;
    if magic as i64 != DEVPTS_MAGIC {
        return Err(Error::new("devpts is something else", Errno::NODEV));
    }
    // Only the kernel makes nodes in a devpts: on that very mount, ptmx is what it says.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let controller =
        rustix::io::retry_on_intr(|| rustix::fs::openat2(devpts, "ptmx", flags, Mode::empty(), resolve))
            .call("open ptmx")?;
    if device(&controller)? != Some(PTMX) {
        return Err(Error::new("ptmx is something else", Errno::NODEV));
    }
    rustix::pty::unlockpt(&controller).call("ioctl TIOCSPTLCK")?;
    let terminal = peer(controller.as_fd())?;
    if !device(&terminal)?.is_some_and(|(major, _)| PTS_MAJORS.contains(&major)) {
        return Err(Error::new("the terminal is something else", Errno::NODEV));
    }
    Ok(Pty { controller, terminal })
}

/// Opens the other end of the terminal that `controller` controls (`TIOCGPTPEER`).
pub fn peer(controller: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    rustix::pty::ioctl_tiocgptpeer(controller, flags).call("ioctl TIOCGPTPEER")
}

/// The device number of a character device.
fn device(fd: &OwnedFd) -> Result<Option<(u32, u32)>> {
    let stat = rustix::fs::fstat(fd).call("fstat")?;
    let is_character = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device();
    Ok(is_character.then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))))
}

/// The number N of the terminal of this controller: its name is /dev/pts/N inside the container.
pub fn number(controller: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int at the pointer, which is one.
    let returned = unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    Error::check("ioctl TIOCGPTN", returned.into())?;
    Ok(number)
}

/// Whether `fd` is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::isatty(fd)
}

/// The size of a terminal; either end tells.
pub fn size(fd: BorrowedFd<'_>) -> Result<Size> {
    let size = rustix::termios::tcgetwinsize(fd).call("ioctl TIOCGWINSZ")?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Sets the size of a terminal, from either end; its foreground processes get SIGWINCH.
pub fn set_size(fd: BorrowedFd<'_>, size: Size) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(fd, size).call("ioctl TIOCSWINSZ")
}

/// Starts a session with this process as its leader and `terminal` as its controlling terminal.
///
/// EPERM: the process leads a group already, or the terminal has another session (it is not taken away from that).
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    rustix::process::setsid().call("setsid")?;
    rustix::process::ioctl_tiocsctty(terminal).call("ioctl TIOCSCTTY")
}

/// A terminal in raw mode, which gets its old mode back when this is dropped.
#[derive(Debug)]
pub struct Raw<'fd> {
    fd: BorrowedFd<'fd>,
    before: Termios,
}

/// Puts a terminal into raw mode: every byte goes through as it is, Ctrl-C included.
pub fn make_raw(fd: BorrowedFd<'_>) -> Result<Raw<'_>> {
    let before = rustix::termios::tcgetattr(fd).call("tcgetattr")?;
    let mut raw = before.clone();
    raw.make_raw();
    set_mode(fd, &raw)?;
    Ok(Raw { fd, before })
}

impl Raw<'_> {
    /// Gives the terminal its old mode back.
    pub fn restore(self) -> Result<()> {
        set_mode(self.fd, &self.before)
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // Nothing can be done about an error here; `restore` is for those who want to know.
        let _ = set_mode(self.fd, &self.before);
    }
}

fn set_mode(fd: BorrowedFd<'_>, mode: &Termios) -> Result<()> {
    // Draining instead would wait for a reader that may be gone.
    rustix::io::retry_on_intr(|| rustix::termios::tcsetattr(fd, OptionalActions::Now, mode)).call("tcsetattr")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;
    use std::os::fd::AsFd;

    fn devpts() -> OwnedFd {
        std::fs::File::open("/dev/pts").unwrap().into()
    }

    fn pty() -> Pty {
        open(devpts().as_fd()).unwrap()
    }

    #[test]
    fn what_one_end_writes_the_other_reads() {
        let pty = pty();
        assert!(is_terminal(pty.terminal.as_fd()));
        rustix::io::write(&pty.controller, b"typed\n").unwrap();
        let mut line = [0u8; 16];
        let read = rustix::io::read(&pty.terminal, &mut line).unwrap();
        assert_eq!(&line[..read], b"typed\n");
        assert!(
            std::path::Path::new(&format!("/dev/pts/{}", number(pty.controller.as_fd()).unwrap())).exists()
        );
    }

    #[test]
    fn another_folder_is_no_devpts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ptmx"), "").unwrap();
        let fd: OwnedFd = std::fs::File::open(folder.path()).unwrap().into();
        assert_eq!(open(fd.as_fd()).unwrap_err().errno(), Errno::NODEV);
    }

    /// The attack of CVE-2025-52565's kin: something mounted over ptmx.
    #[test]
    fn a_mount_over_ptmx_is_not_crossed() {
        in_child(|| {
            use nix::mount::{MsFlags, mount};
            // SAFETY: unshare takes a number; this child is single-threaded.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
            mount(Some("/dev/null"), "/dev/pts/ptmx", none, MsFlags::MS_BIND, none).unwrap();
            assert_eq!(open(devpts().as_fd()).unwrap_err().errno(), Errno::XDEV);
        });
    }

    #[test]
    fn sizes_are_set_on_one_end_and_read_on_the_other() {
        let pty = pty();
        let wanted = Size { rows: 33, columns: 101 };
        set_size(pty.controller.as_fd(), wanted).unwrap();
        assert_eq!(size(pty.terminal.as_fd()).unwrap(), wanted);
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(!is_terminal(reader.as_fd()));
        assert_eq!(size(reader.as_fd()).unwrap_err().errno(), Errno::NOTTY);
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let pty = pty();
        let echoes = || {
            let mode = rustix::termios::tcgetattr(&pty.terminal).unwrap();
            mode.local_modes.contains(rustix::termios::LocalModes::ECHO)
        };
        assert!(echoes());
        let raw = make_raw(pty.terminal.as_fd()).unwrap();
        assert!(!echoes());
        drop(raw);
        assert!(echoes());
        make_raw(pty.terminal.as_fd()).unwrap().restore().unwrap();
        assert!(echoes());
    }

    #[test]
    fn a_terminal_becomes_the_controlling_one() {
        let pty = pty();
        in_child(|| {
            make_controlling(pty.terminal.as_fd()).unwrap();
            let session = rustix::termios::tcgetsid(&pty.terminal).unwrap();
            assert_eq!(session, rustix::process::getpid());
            assert_eq!(make_controlling(pty.terminal.as_fd()).unwrap_err().errno(), Errno::PERM);
        });
    }
}
