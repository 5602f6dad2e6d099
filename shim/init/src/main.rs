//! `croft-init`: process 1 of a container that asked for one. It runs the container's program as its child, reaps whatever the container
//! orphans, passes signals on, and ends as that child ends.
//!
//! ```text
//! croft-init PROGRAM ARGUMENT...        process 1: blocks signals, so that none is lost, and starts the line below
//!   croft-init --run PROGRAM ARGUMENT... its child: leads a process group of its own, unblocks them, becomes PROGRAM
//! ```
//!
//! It is bound into every such container, where a privileged one might write it: so it is a program of its own, apart from croft-shim, and
//! nothing on the host runs it.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use croft_sys::wait;
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Known, sigprocmask};
use nix::sys::signalfd::SignalFd;

/// The word before the program in the child.
const RUN: &str = "--run";

/// The statuses of a shell for what is not there, and for what cannot be run.
const MISSING: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// What the kernel sends for a fault of this process itself: blocking them would hide it.
const FAULTS: [Known; 7] = [
    Known::SIGABRT,
    Known::SIGBUS,
    Known::SIGFPE,
    Known::SIGILL,
    Known::SIGSEGV,
    Known::SIGSYS,
    Known::SIGTRAP,
];

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    let done = if words.next_if(|word| word == RUN).is_some() {
        run(words.collect())
    } else {
        supervise(words.collect())
    };
    done.unwrap_or_else(|error| {
        // Nobody may read it, and its status is to be right all the same.
        let _ = writeln!(io::stderr(), "croft-init: {error}");
        ExitCode::from(if error.kind() == io::ErrorKind::NotFound { MISSING } else { CANNOT_RUN })
    })
}

/// Process 1.
fn supervise(program: Vec<OsString>) -> io::Result<ExitCode> {
    let mut signals = SigSet::all();
    FAULTS.into_iter().for_each(|fault| signals.remove(fault));
    signals.thread_block()?;
    let heard = SignalFd::new(&signals)?;
    // Where it is not process 1 (--pid host), orphans come to it all the same.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let child = Command::new("/proc/self/exe").arg0("croft-init").arg(RUN).args(program).spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    // Nobody but this loop reaps: the number is the child's until then.
    let pidfd = wait::pidfd_open(pid)?;
    loop {
        let Some(info) = heard.read_signal()? else { continue };
        let number = info.ssi_signo.cast_signed();
        if number != Known::SIGCHLD as i32 {
            pass_on(pidfd.as_fd(), number);
        } else if let Some(status) = reap(pid)? {
            return Ok(ExitCode::from(status));
        }
    }
}

/// Sends `number`, which may be a real-time signal, to the child; that it has just ended is seen at the next SIGCHLD.
fn pass_on(child: BorrowedFd<'_>, number: i32) {
    // What a terminal sends to a background process that touches it is not for another one.
    if ![Known::SIGTTIN as i32, Known::SIGTTOU as i32].contains(&number) {
        let _ = wait::pidfd_signal(child, number);
    }
}

/// Reaps all that have ended. The status of the child, as a shell has it, if it is among them.
fn reap(child: i32) -> io::Result<Option<u8>> {
    let mut ended = None;
    while let Some((pid, exit)) = wait::reap_any()? {
        if pid == child {
            ended = Some(u8::try_from(exit.status()).unwrap_or(u8::MAX));
        }
    }
    Ok(ended)
}

/// The child: comes back only when the program cannot be run.
fn run(program: Vec<OsString>) -> io::Result<ExitCode> {
    let mut words = program.into_iter();
    let name = words.next().ok_or_else(|| io::Error::other("no program to run"))?;
    // A key that interrupts is for it and not for process 1, which would pass it on a second time.
    rustix::process::setpgid(None, None)?;
    let stdin = rustix::stdio::stdin();
    if rustix::termios::isatty(stdin) {
        // Fails where the terminal is not this session's: it is nobody's to give then. SIGTTOU is still blocked.
        let _ = rustix::termios::tcsetpgrp(stdin, rustix::process::getpid());
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    let error = Command::new(&name).args(words).exec();
    Err(io::Error::new(error.kind(), format!("{}: {error}", name.display())))
}
