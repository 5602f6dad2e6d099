//! The bytes of a process: from its output to ring, log and clients, and from clients to its input.

use std::cmp::Reverse;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use croft_sys::Errno;
use croft_sys::epoll::{Epoll, Interest};

use crate::frames::Output;
use crate::protocol::{IoKind, WhenFull};
use crate::supervise::Supervisor;
use crate::supervise::complain;
use crate::supervise::process::{Input, OutputStream};
use crate::supervise::token::Token;

/// The end-of-file key of a terminal (`VEOF`, as every terminal has it at first).
const END_KEY: u8 = 4;

/// How much output is still read when a process has ended.
const LAST_OUTPUT: usize = 1 << 20;

/// Whether a log's rate holds the reading up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    /// It does, in mode `block`.
    Kept,
    /// The process has ended: there is nobody to make wait.
    Lifted,
}

/// What came of one read.
enum Read {
    /// So many bytes; there may be more.
    Some(usize),
    /// Nothing for now.
    Nothing,
}

impl OutputStream {
    /// Waits for output, or no longer.
    fn watch(&mut self, poll: &Epoll, token: Token, watched: bool) {
        let Some(fd) = &self.fd else { return };
        if self.watched == watched {
            return;
        }
        let done = match watched {
            true => poll.add(fd.as_fd(), token.number(), Interest::Readable),
            // Not "interested in nothing": a hang-up would be told again and again.
            false => poll.remove(fd.as_fd()),
        };
        match done {
            Ok(()) => self.watched = watched,
            Err(error) => complain("watch an output stream", &error.into()),
        }
    }
}

impl Input {
    fn watch(&mut self, poll: &Epoll, token: Token, watched: bool) {
        let Some(fd) = &self.fd else { return };
        if self.watched == watched {
            return;
        }
        let done = match watched {
            true => poll.add(fd.as_fd(), token.number(), Interest::Writable),
            false => poll.remove(fd.as_fd()),
        };
        match done {
            Ok(()) => self.watched = watched,
            Err(error) => complain("watch an input", &error.into()),
        }
    }

    fn close(&mut self, poll: &Epoll, token: Token) -> Option<OwnedFd> {
        self.watch(poll, token, false);
        self.pending = Vec::new();
        self.fd.take()
    }
}

impl Supervisor {
    /// Begins to read the streams of a process.
    pub(super) fn watch_outputs(&mut self, n: u32) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        for output in Output::BOTH {
            if let Some(stream) = &mut process.outputs[output.index()] {
                stream.watch(&self.poll, Token::Output(n, output), true);
            }
        }
    }

    /// Reads up to about `budget` bytes of a stream, if it is the time to.
    pub(super) fn read_output(&mut self, n: u32, output: Output, rate: Rate, mut budget: usize) {
        while budget > 0 {
            let Read::Some(count) = self.read_once(n, output, rate) else { return };
            budget = budget.saturating_sub(count);
            self.pump_all(n);
        }
    }

    fn read_once(&mut self, n: u32, output: Output, rate: Rate) -> Read {
        let token = Token::Output(n, output);
        let Some(process) = self.processes.get_mut(&n) else { return Read::Nothing };
        let Some(stream) = &mut process.outputs[output.index()] else { return Read::Nothing };
        let mut most = super::READ_AT_ONCE;
        if !process.attached.is_empty() {
            // Clients read from the ring: more at once would pass them by.
            most = most.min(stream.ring.size() as usize);
        }
        let waits = match process.record.io.when_full {
            WhenFull::Forget => false,
            WhenFull::Wait => true,
            WhenFull::WaitForClient { .. } => {
                let wants = |a: &u32| self.attached.get(a).is_some_and(|client| client.wants(output));
                process.attached.iter().any(wants)
                    || process.awaited.is_some_and(|until| Instant::now() < until)
            }
        };
        if waits {
            let kept = stream.ring.end() - stream.seen;
            most = most.min(stream.ring.size().saturating_sub(kept) as usize);
            if most == 0 {
                stream.watch(&self.poll, token, false);
                return Read::Nothing;
            }
        }
        if let (Some(log), Rate::Kept) = (&mut process.log, rate) {
            match log.allowance(Instant::now()) {
                Ok(allowed) => most = most.min(allowed),
                Err(wait) => {
                    stream.watch(&self.poll, token, false);
                    self.timers.push(Reverse((Instant::now() + wait, token)));
                    return Read::Nothing;
                }
            }
        }
        let Some(fd) = &stream.fd else { return Read::Nothing };
        let bytes = match croft_sys::read(fd.as_fd(), &mut self.buffer[..most]) {
            Ok(count) if count > 0 => &self.buffer[..count],
            Err(Errno::AGAIN | Errno::INTR) => {
                stream.watch(&self.poll, token, true);
                return Read::Nothing;
            }
            // EIO is the end of a terminal.
            _ => {
                self.end_output(n, output);
                return Read::Nothing;
            }
        };
        if let Err(error) = stream.ring.append(bytes) {
            complain(&format!("keep the output of {}", process.key), &error);
        }
        stream.watch(&self.poll, token, true);
        if let Some(log) = &mut process.log {
            match log.write(output, bytes, &mut self.scratch) {
                Ok(full) => full.into_iter().for_each(|path| self.compressions.add(path)),
                Err(error) => complain(&format!("log the output of {}", process.key), &error),
            }
            stream.ring.set_logged(stream.ring.end() - log.waiting(output) as u64);
            let _ = stream.ring.save();
        }
        Read::Some(bytes.len())
    }

    /// A stream has ended.
    fn end_output(&mut self, n: u32, output: Output) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        if let Some(stream) = &mut process.outputs[output.index()] {
            stream.watch(&self.poll, Token::Output(n, output), false);
            stream.fd = None;
        }
        if !process.forgotten
            && let Err(error) = self.holder.forget(&process.key.held(output.name()))
        {
            complain("tell the holder", &error);
        }
        if let Some(log) = &mut process.log {
            match log.end(output, &mut self.scratch) {
                Ok(full) => full.into_iter().for_each(|path| self.compressions.add(path)),
                Err(error) => complain(&format!("log the output of {}", process.key), &error),
            }
        }
        self.pump_all(n);
    }

    /// Reads what processes that have ended left in their pipes; what others write after it is not waited for.
    pub(super) fn read_last(&mut self, n: u32) {
        for output in Output::BOTH {
            self.read_output(n, output, Rate::Lifted, LAST_OUTPUT);
        }
    }

    /// Ends both streams, whoever still writes there.
    pub(super) fn end_outputs(&mut self, n: u32) {
        self.read_last(n);
        for output in Output::BOTH {
            let open = |s: &OutputStream| s.fd.is_some();
            let stream = self.processes.get(&n).and_then(|p| p.outputs[output.index()].as_ref());
            if stream.is_some_and(open) {
                self.end_output(n, output);
            }
        }
    }

    /// A client needs no byte below `offset` again.
    pub(super) fn seen(&mut self, n: u32, output: Output, offset: u64) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        let Some(stream) = &mut process.outputs[output.index()] else { return };
        stream.seen = stream.seen.max(offset.min(stream.ring.end()));
        if !stream.watched && stream.fd.is_some() {
            self.read_output(n, output, Rate::Kept, super::READ_AT_ONCE);
        }
    }

    /// Input from a client: what is new of it is taken.
    pub(super) fn take_input(&mut self, n: u32, offset: u64, bytes: &[u8]) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        let input = &mut process.input;
        let Some(repeated) = input.accepted().checked_sub(offset) else { return };
        let new = bytes.get(usize::try_from(repeated).unwrap_or(usize::MAX)..).unwrap_or_default();
        if new.is_empty() || input.end.is_some_and(|end| input.accepted() >= end) {
            return;
        }
        input.pending.extend_from_slice(new);
        self.write_input(n);
    }

    /// The input ends after byte `offset`, or what was accepted so far.
    pub(super) fn end_input(&mut self, n: u32, offset: Option<u64>) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        let end = offset.unwrap_or(process.input.accepted());
        process.input.end.get_or_insert(end);
        self.write_input(n);
    }

    /// Writes what a process can take.
    pub(super) fn write_input(&mut self, n: u32) {
        let token = Token::Input(n);
        let Some(process) = self.processes.get_mut(&n) else { return };
        let input = &mut process.input;
        let mut gone = false;
        let mut written = 0;
        while let Some(fd) = &input.fd
            && written < input.pending.len()
        {
            match croft_sys::write(fd.as_fd(), &input.pending[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    gone = true;
                    break;
                }
            }
        }
        input.pending.drain(..written);
        if input.pending.is_empty() {
            input.pending = Vec::new();
        }
        input.written += written as u64;
        let ended = input.pending.is_empty() && input.end.is_some_and(|end| input.written >= end);
        if written > 0
            && let Some(stream) = &mut process.outputs[0]
            && let Err(error) = stream.ring.set_input(input.written)
        {
            complain(&format!("record the input of {}", process.key), &error);
        }
        if gone || input.fd.is_none() {
            self.close_input(n);
        } else if ended {
            if process.record.io.kind == IoKind::Terminal {
                if let Some(fd) = &input.fd {
                    let _ = croft_sys::write(fd.as_fd(), &[END_KEY]);
                }
                // The next reader of the terminal may be given more.
                input.end = None;
                input.watch(&self.poll, token, false);
            } else {
                self.close_input(n);
            }
        } else {
            let wanted = !input.pending.is_empty();
            input.watch(&self.poll, token, wanted);
        }
        self.pump_all(n);
    }

    /// Closes the input: the process reads its end.
    pub(super) fn close_input(&mut self, n: u32) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        if process.input.close(&self.poll, Token::Input(n)).is_some()
            && let Err(error) = self.holder.forget(&process.key.held("stdin"))
        {
            complain("tell the holder", &error);
        }
    }
}
