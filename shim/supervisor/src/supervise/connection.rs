//! Clients: their connections, their calls, what is sent to them. A client that does not read delays nobody else.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use croft_sys::Errno;
use croft_sys::epoll::{Interest, Ready};
use croft_sys::socket;

use crate::protocol::{
    Call, Event, EventKind, Failure, FailureKind, OLDEST, PACKET_LIMIT, Packet, Reply, Request, VERSION,
};
use crate::supervise::process::Key;
use crate::supervise::token::Token;
use crate::supervise::{Supervisor, complain, may_connect, now};

/// What may wait to be sent to one client, in bytes; one that lets more pile up is cut off, and comes back when it can.
const MOST_QUEUED: usize = 4 << 20;

/// After how long a client is let in that there were no descriptors for.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

/// A client.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    welcome: bool,
    subscribed: bool,
    queue: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    queued: usize,
}

impl Connection {
    /// Sends what is queued: whether the connection still stands.
    fn flush(&mut self) -> bool {
        while let Some((packet, fd)) = self.queue.front() {
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            match socket::send(self.socket.as_fd(), packet, &fds) {
                Ok(()) => {
                    self.queued -= packet.len();
                    self.queue.pop_front();
                }
                Err(e) if e.errno() == Errno::AGAIN => return self.queued <= MOST_QUEUED,
                Err(_) => return false,
            }
        }
        // A burst is over: its memory goes.
        self.queue.shrink_to(8);
        true
    }
}

impl Supervisor {
    /// Takes every client that waits at the door.
    pub(super) fn accept(&mut self) {
        loop {
            match socket::accept(self.listener.as_fd()) {
                Ok(Some(socket)) => {
                    if !may_connect(socket.as_fd()) {
                        continue;
                    }
                    let n = self.number();
                    let token = Token::Connection(n).number();
                    if self.poll.add(socket.as_fd(), token, Interest::Readable).is_ok() {
                        let queue = VecDeque::new();
                        let client =
                            Connection { socket, welcome: false, subscribed: false, queue, queued: 0 };
                        self.connections.insert(n, client);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    complain("accept a client", &error.into());
                    // It stays at the door, and would be told of again and again.
                    let _ = self.poll.remove(self.listener.as_fd());
                    return self.timers.push(Reverse((Instant::now() + ACCEPT_AGAIN, Token::Listener)));
                }
            }
        }
    }

    /// Opens the door again.
    pub(super) fn accept_again(&mut self) {
        let added = self.poll.add(self.listener.as_fd(), Token::Listener.number(), Interest::Readable);
        if let Err(error) = added {
            complain("wait for clients", &error.into());
        }
    }

    /// Reads a client's calls, and sends what waits for it.
    pub(super) fn connection_ready(&mut self, n: u32, ready: Ready) {
        if ready.writable {
            self.flush(n);
        }
        // A few calls at a time: the others have their turn.
        for _ in 0..16 {
            let Some(connection) = self.connections.get(&n) else { return };
            match socket::receive(connection.socket.as_fd(), &mut self.buffer[..PACKET_LIMIT]) {
                Ok((0, _)) => return self.close(n),
                Ok((length, fds)) => match serde_json::from_slice::<Call>(&self.buffer[..length]) {
                    Ok(call) => self.call(n, call, fds),
                    Err(error) => {
                        // Without a number there is no reply; a stranger is not argued with.
                        complain("a packet that is no call", &error.into());
                        return self.close(n);
                    }
                },
                Err(e) if e.errno() == Errno::AGAIN => return,
                Err(_) => return self.close(n),
            }
        }
    }

    fn call(&mut self, n: u32, call: Call, fds: Vec<OwnedFd>) {
        let welcome = self.connections.get(&n).is_some_and(|connection| connection.welcome);
        let reply = match call.request {
            Request::Hello { version } => Some(self.hello(n, version)),
            Request::Events { since } if welcome => return self.subscribe(n, call.number, since),
            request if welcome => self.request(n, call.number, request, fds),
            _ => Some(Reply::Failed(Failure {
                kind: FailureKind::Version,
                what: "the first call".into(),
                why: "has to be hello, with the client's version".into(),
            })),
        };
        if let Some(reply) = reply {
            self.reply(n, call.number, reply);
        }
    }

    fn hello(&mut self, n: u32, version: u32) -> Reply {
        if version < OLDEST {
            return Reply::Failed(Failure {
                kind: FailureKind::Version,
                what: format!("version {version} of the protocol"),
                why: format!("this supervisor speaks {OLDEST} to {VERSION}: use a newer client"),
            });
        }
        if let Some(connection) = self.connections.get_mut(&n) {
            connection.welcome = true;
        }
        let (version, pid) = (version.min(VERSION), std::process::id() as i32);
        Reply::Welcome { version, pid, last_event: self.journal.last() }
    }

    fn subscribe(&mut self, n: u32, number: u64, since: u64) {
        let first = self.journal.after(since).next().map_or(self.journal.last() + 1, |event| event.sequence);
        self.reply(n, number, Reply::Subscribed { first });
        let missed: Vec<Event> = self.journal.after(since).cloned().collect();
        for event in missed {
            self.send(n, &Packet::Event(event), None);
        }
        if let Some(connection) = self.connections.get_mut(&n) {
            connection.subscribed = true;
        }
    }

    /// Answers a call. A client that has gone gets nothing.
    pub(super) fn reply(&mut self, n: u32, number: u64, reply: Reply) {
        self.send(n, &Packet::Reply { number, reply }, None);
    }

    /// Answers a call with a descriptor beside the answer.
    pub(super) fn reply_with(&mut self, n: u32, number: u64, reply: Reply, fd: OwnedFd) {
        self.send(n, &Packet::Reply { number, reply }, Some(fd));
    }

    /// Records an event and tells everybody who listens. Gives its number.
    pub(super) fn event(&mut self, key: &Key, kind: EventKind) {
        let sequence = self.journal.last() + 1;
        let event = Event { sequence, at: now(), id: key.id.clone(), exec: key.exec.clone(), kind };
        if let Err(error) = self.journal.add(event.clone()) {
            complain("record an event", &error);
        }
        let listening = self.connections.iter().filter(|(_, connection)| connection.subscribed);
        let listening: Vec<u32> = listening.map(|(n, _)| *n).collect();
        for n in listening {
            self.send(n, &Packet::Event(event.clone()), None);
        }
    }

    fn send(&mut self, n: u32, packet: &Packet, fd: Option<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&n) else { return };
        match serde_json::to_vec(packet) {
            Ok(packet) => {
                connection.queued += packet.len();
                connection.queue.push_back((packet, fd));
                self.flush(n);
            }
            Err(error) => complain("write a packet", &error.into()),
        }
    }

    fn flush(&mut self, n: u32) {
        let Some(connection) = self.connections.get_mut(&n) else { return };
        if !connection.flush() {
            return self.close(n);
        }
        let interest = if connection.queue.is_empty() { Interest::Readable } else { Interest::Both };
        let _ = self.poll.modify(connection.socket.as_fd(), Token::Connection(n).number(), interest);
    }

    fn close(&mut self, n: u32) {
        if let Some(connection) = self.connections.remove(&n) {
            let _ = self.poll.remove(connection.socket.as_fd());
            for process in self.processes.values_mut() {
                process.waiters.retain(|(waiting, _)| *waiting != n);
            }
        }
    }

    /// Sends what can be sent at once: this process is about to end.
    pub(super) fn flush_all(&mut self) {
        for connection in self.connections.values_mut() {
            connection.flush();
        }
    }
}
