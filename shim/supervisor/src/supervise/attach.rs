//! Clients that are attached to the streams of a process.
//!
//! Nothing is queued for them: each knows the number of the byte that it gets next, and is sent it from the ring when its socket has
//! room.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use croft_sys::epoll::{Epoll, Interest, Ready};
use croft_sys::{Errno, socket, tty};

use crate::frames::{Frame, HEADER, Output, PAYLOAD_LIMIT};
use crate::protocol::{Failure, FailureKind, From, IoKind, PATIENCE, Reply, Size, WhenFull};
use crate::supervise::process::Process;
use crate::supervise::streams::Rate;
use crate::supervise::token::Token;
use crate::supervise::{READ_AT_ONCE, Supervisor};

/// How much input may wait for a process that does not read, beside the pipe itself. Behind more than that no frame is read, so that it is
/// several times what one client has under way (`INPUT_WINDOW` of croft-api): what is said of output must not wait for input, since a
/// process may wait to be rid of output before it reads input.
const MOST_INPUT: usize = 512 * 1024;

/// A client attached to a process.
#[derive(Debug)]
pub struct Attached {
    socket: OwnedFd,
    process: u32,
    next: [Option<u64>; 2],
    input_told: u64,
    closed_told: bool,
    interest: Interest,
}

/// Whether a frame could be sent.
enum Sent {
    Yes,
    NoRoom,
    Gone,
}

impl Attached {
    /// Whether it wants more of a stream.
    pub(super) fn wants(&self, output: Output) -> bool {
        self.next[output.index()].is_some()
    }

    fn send(&self, frame: &Frame<'_>, packet: &mut Vec<u8>) -> Sent {
        frame.encode(packet);
        match socket::send(self.socket.as_fd(), packet, &[]) {
            Ok(()) => Sent::Yes,
            Err(e) if e.errno() == Errno::AGAIN => Sent::NoRoom,
            Err(_) => Sent::Gone,
        }
    }

    /// Sends all that is new and fits.
    fn pump(&mut self, process: &Process, buffer: &mut [u8], packet: &mut Vec<u8>) -> Sent {
        for output in Output::BOTH {
            while let Some((frame, next)) = self.frame(process, output, buffer) {
                match self.send(&frame, packet) {
                    Sent::Yes => self.next[output.index()] = next,
                    other => return other,
                }
            }
        }
        let offset = process.input.written;
        if self.input_told != offset {
            match self.send(&Frame::InputTaken { offset }, packet) {
                Sent::Yes => self.input_told = offset,
                other => return other,
            }
        }
        if process.input.fd.is_none() && !self.closed_told {
            match self.send(&Frame::InputClosed { offset }, packet) {
                Sent::Yes => self.closed_told = true,
                other => return other,
            }
        }
        Sent::Yes
    }

    /// What is to be sent next of a stream, and the number of the byte after it: none after the end.
    fn frame<'b>(
        &self,
        process: &Process,
        output: Output,
        buffer: &'b mut [u8],
    ) -> Option<(Frame<'b>, Option<u64>)> {
        let offset = self.next[output.index()]?;
        let stream = process.outputs[output.index()].as_ref()?;
        let start = stream.ring.start();
        if offset < start {
            return Some((Frame::Gap { output, offset, lost: start - offset }, Some(start)));
        }
        if offset < stream.ring.end() {
            let count = stream.ring.read(offset, &mut buffer[..PAYLOAD_LIMIT]).unwrap_or(0);
            if count == 0 {
                // What cannot be read is lost, and said to be.
                let lost = stream.ring.end() - offset;
                return Some((Frame::Gap { output, offset, lost }, Some(offset + lost)));
            }
            let bytes = Cow::Borrowed(&buffer[..count]);
            return Some((Frame::Data { output, offset, bytes }, Some(offset + count as u64)));
        }
        stream.fd.is_none().then_some((Frame::End { output, offset }, None))
    }

    fn set_interest(&mut self, poll: &Epoll, n: u32, interest: Interest) {
        if self.interest != interest
            && poll.modify(self.socket.as_fd(), Token::Attached(n).number(), interest).is_ok()
        {
            self.interest = interest;
        }
    }
}

fn takes_input(process: &Process) -> bool {
    process.input.pending.len() < MOST_INPUT
}

impl Supervisor {
    /// Attaches a client: the reply, and its end of the socket.
    pub(super) fn attach(
        &mut self,
        n: u32,
        stdout: Option<From>,
        stderr: Option<From>,
    ) -> Result<(Reply, OwnedFd), Failure> {
        let failed = |why: String| Failure { kind: FailureKind::Supervisor, what: "attach".into(), why };
        let a = self.number();
        let Some(process) = self.processes.get_mut(&n) else { return Err(failed("it has gone".into())) };
        if process.record.io.kind == IoKind::Null {
            return Err(Failure {
                kind: FailureKind::State,
                what: format!("attach to {}", process.key),
                why: "it was made without streams; make it with pipes or a terminal".into(),
            });
        }
        let (own, theirs) = socket::packet_pair().map_err(|e| failed(e.to_string()))?;
        socket::set_waiting(own.as_fd(), socket::Waiting::NonBlocking).map_err(|e| failed(e.to_string()))?;
        let mut next = [None, None];
        for (output, from) in Output::BOTH.into_iter().zip([stdout, stderr]) {
            let Some(stream) = &process.outputs[output.index()] else { continue };
            next[output.index()] = from.map(|from| match from {
                From::Oldest => stream.ring.start(),
                // Nobody has seen what was not there yet.
                From::At(offset) => offset.min(stream.ring.end()),
                From::Now => stream.ring.end(),
            });
        }
        let input = process.input.written;
        let waits_for_clients = matches!(process.record.io.when_full, WhenFull::WaitForClient { .. });
        let token = Token::Attached(a).number();
        self.poll.add(own.as_fd(), token, Interest::Readable).map_err(|e| failed(e.to_string()))?;
        process.attached.push(a);
        process.awaited = None;
        let interest = Interest::Readable;
        let attached =
            Attached { socket: own, process: n, next, input_told: input, closed_told: false, interest };
        self.attached.insert(a, attached);
        for (output, from) in Output::BOTH.into_iter().zip([stdout, stderr]) {
            match from {
                // Who asks for what comes after a byte has it, whether or not there was time to say so.
                Some(From::At(offset)) => self.seen(n, output, offset),
                // What it does not want is not kept for it.
                Some(_) if waits_for_clients => {
                    next[output.index()].into_iter().for_each(|next| self.seen(n, output, next));
                }
                _ => {}
            }
        }
        self.pump(a);
        Ok((Reply::Attached { input }, theirs))
    }

    /// Sends each client attached to a process what is new.
    pub(super) fn pump_all(&mut self, n: u32) {
        let count = self.processes.get(&n).map_or(0, |process| process.attached.len());
        // From the end: one that has gone is taken out.
        for place in (0..count).rev() {
            if let Some(a) = self.processes.get(&n).and_then(|process| process.attached.get(place)) {
                self.pump(*a);
            }
        }
    }

    fn pump(&mut self, a: u32) {
        let Some(attached) = self.attached.get_mut(&a) else { return };
        let Some(process) = self.processes.get(&attached.process) else { return };
        let reads = takes_input(process);
        let (packet, buffer) = (&mut Vec::with_capacity(HEADER + PAYLOAD_LIMIT), &mut [0; PAYLOAD_LIMIT]);
        let interest = match (attached.pump(process, buffer, packet), reads) {
            (Sent::Gone, _) => return self.detach(a),
            (Sent::Yes, true) => Interest::Readable,
            (Sent::Yes, false) => Interest::HangUp,
            (Sent::NoRoom, true) => Interest::Both,
            (Sent::NoRoom, false) => Interest::Writable,
        };
        attached.set_interest(&self.poll, a, interest);
    }

    /// Reads what an attached client sent, and sends what there is for it.
    pub(super) fn attached_ready(&mut self, a: u32, ready: Ready) {
        let mut packet = [0; HEADER + PAYLOAD_LIMIT];
        for _ in 0..16 {
            let Some(attached) = self.attached.get(&a) else { return };
            let n = attached.process;
            if !self.processes.get(&n).is_some_and(takes_input) {
                if ready.hung_up {
                    return self.detach(a);
                }
                break;
            }
            match socket::receive(attached.socket.as_fd(), &mut packet) {
                Ok((0, _)) => return self.detach(a),
                Ok((length, _)) => match Frame::decode(&packet[..length]) {
                    Ok(Frame::Input { offset, bytes }) => self.take_input(n, offset, &bytes),
                    Ok(Frame::EndInput { offset }) => self.end_input(n, Some(offset)),
                    Ok(Frame::Seen { output, offset }) => self.seen(n, output, offset),
                    Ok(Frame::Resize(size)) => drop(self.resize(n, size)),
                    Ok(Frame::Leave) => return self.leave(a),
                    // A client that sends what only the supervisor does is broken.
                    Ok(_) | Err(_) => return self.detach(a),
                },
                Err(e) if e.errno() == Errno::AGAIN => break,
                Err(_) => return self.detach(a),
            }
        }
        self.pump(a);
    }

    /// Sets the size of a process's terminal.
    pub(super) fn resize(&mut self, n: u32, size: Size) -> croft_sys::Result<()> {
        let stream = self.processes.get(&n).and_then(|process| process.outputs[0].as_ref());
        match stream.and_then(|stream| stream.fd.as_ref()) {
            Some(fd) => tty::set_size(fd.as_fd(), tty::Size { rows: size.rows, columns: size.columns }),
            None => Err(croft_sys::Error::new("resize a terminal that is closed", Errno::NOTTY)),
        }
    }

    /// Takes out a client that was cut off: it may come back.
    pub(super) fn detach(&mut self, a: u32) {
        let Some(n) = self.take_out(a) else { return };
        let is_last = self.processes.get(&n).is_some_and(|process| process.attached.is_empty());
        if is_last {
            self.await_client(n);
        }
    }

    /// Takes out a client that goes for good. Without it the process goes on.
    fn leave(&mut self, a: u32) {
        let Some(n) = self.take_out(a) else { return };
        for output in Output::BOTH {
            self.read_output(n, output, Rate::Kept, READ_AT_ONCE);
        }
    }

    fn take_out(&mut self, a: u32) -> Option<u32> {
        let attached = self.attached.remove(&a)?;
        let _ = self.poll.remove(attached.socket.as_fd());
        let process = self.processes.get_mut(&attached.process)?;
        process.attached.retain(|other| *other != a);
        if process.forgotten && process.attached.is_empty() {
            // The last for whom it was still there.
            self.end_outputs(attached.process);
            self.processes.remove(&attached.process);
        }
        Some(attached.process)
    }

    /// Waits for a client of a process, if that is how its streams were asked for: its output goes on without one later.
    pub(super) fn await_client(&mut self, n: u32) {
        let Some(process) = self.processes.get_mut(&n) else { return };
        if matches!(process.record.io.when_full, WhenFull::WaitForClient { .. }) {
            let until = Instant::now() + PATIENCE;
            process.awaited = Some(until);
            for output in Output::BOTH {
                self.timers.push(Reverse((until, Token::Output(n, output))));
            }
        }
    }
}
