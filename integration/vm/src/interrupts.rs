//! The signals that end a machine together with the one who waits for it.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT, SIGTERM and SIGHUP as something to poll, for as long as this lives. Only the calling thread's share in them
/// is taken: in a process with more threads the others have to block them as well.
#[derive(Debug)]
pub(crate) struct Interrupts {
    fd: SignalFd,
    mask_before: SigSet,
}

impl Interrupts {
    pub fn block() -> Result<Interrupts> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("make a signalfd")?;
        let mask_before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("block signals")?;
        Ok(Interrupts { fd, mask_before })
    }

    /// The number of the signal that made this readable.
    pub fn take(&self) -> Result<u8> {
        let info = self.fd.read_signal().context("read a signalfd")?.context("read a signalfd: no signal")?;
        u8::try_from(info.ssi_signo).context("read a signalfd: no signal has this number")
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // A mask that was in force is a valid one.
        let _ = self.mask_before.thread_set_mask();
    }
}
