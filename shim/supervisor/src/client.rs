//! A client of the supervisor: blocking, or under an event loop by way of its descriptor.
//!
//! Under tokio: [`Client::set_non_blocking`], wrap the client in an `AsyncFd`, and call [`Client::send`] and [`Client::receive`] from
//! `try_io`; they fail with `WouldBlock` then. The same holds for [`Stream`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use croft_sys::socket::{self, Waiting};

use crate::frames::{Frame, HEADER, PAYLOAD_LIMIT};
use crate::protocol::{Call, Event, Failure, FailureKind, PACKET_LIMIT, Packet, Reply, Request, VERSION};

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The supervisor said no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The connection failed; whether the call was done is not known.
    #[error("the connection to the supervisor")]
    Connection(#[from] io::Error),
}

/// The outcome of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// A connection.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    next: u64,
    events: VecDeque<Event>,
    buffer: Vec<u8>,
    limit: Option<Duration>,
    /// The number of the last event when the connection was made.
    pub last_event: u64,
    /// The supervisor's pid.
    pub supervisor: i32,
}

impl Client {
    /// Connects to the supervisor listening at `path` and says hello.
    ///
    /// # Errors
    /// When nobody listens there, the caller is neither root nor the supervisor's user, or the versions do not fit.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = socket::connect_packet(path).map_err(io::Error::from)?;
        let mut client = Self {
            socket,
            next: 1,
            events: VecDeque::new(),
            buffer: Vec::new(),
            limit: None,
            last_event: 0,
            supervisor: 0,
        };
        match client.call(Request::Hello { version: VERSION }, &[])?.0 {
            Reply::Welcome { pid, last_event, .. } => {
                (client.supervisor, client.last_event) = (pid, last_event)
            }
            other => return Err(unexpected(&other)),
        }
        Ok(client)
    }

    /// From now on a call fails with `TimedOut` when the supervisor says nothing for `limit`.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = Some(limit);
    }

    /// From now on nothing waits: what would fails with `WouldBlock`. [`Client::call`] is of no use then.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_non_blocking(&self) -> io::Result<()> {
        Ok(socket::set_waiting(self.socket.as_fd(), Waiting::NonBlocking)?)
    }

    /// Sends a request, with descriptors beside it; gives the number that its reply will have.
    ///
    /// # Errors
    /// When the request is too large or the connection is gone.
    pub fn send(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<u64> {
        let number = self.next;
        let packet = serde_json::to_vec(&Call { number, request })?;
        if packet.len() > PACKET_LIMIT {
            let text = format!("a request of {} bytes; a packet has {PACKET_LIMIT} at most", packet.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        socket::send(self.socket.as_fd(), &packet, fds)?;
        self.next += 1;
        Ok(number)
    }

    /// The next packet, with the descriptors beside it.
    ///
    /// # Errors
    /// `UnexpectedEof` when the supervisor has gone.
    pub fn receive(&mut self) -> io::Result<(Packet, Vec<OwnedFd>)> {
        self.buffer.resize(PACKET_LIMIT, 0);
        let (length, fds) = socket::receive(self.socket.as_fd(), &mut self.buffer)?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the supervisor has closed it"));
        }
        Ok((serde_json::from_slice(&self.buffer[..length])?, fds))
    }

    /// Sends a request and waits for its reply. Events that come meanwhile are kept for [`Client::next_event`].
    ///
    /// # Errors
    /// When the supervisor says no, or the connection fails.
    pub fn call(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let number = self.send(request, fds)?;
        self.reply(number)
    }

    /// Waits for the reply to call `number`. Replies to others are dropped: who has several calls under way uses
    /// [`Client::receive`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn reply(&mut self, number: u64) -> Result<(Reply, Vec<OwnedFd>)> {
        loop {
            if !croft_sys::wait_readable_for(self.socket.as_fd(), self.limit).map_err(io::Error::from)? {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            match self.receive()? {
                (Packet::Reply { number: n, reply }, fds) if n == number => match reply {
                    Reply::Failed(failure) => return Err(failure.into()),
                    reply => return Ok((reply, fds)),
                },
                (Packet::Reply { .. }, _) => {}
                (Packet::Event(event), _) => self.events.push_back(event),
            }
        }
    }

    /// The next event, after [`Request::Events`]; `None` when none comes within `limit`.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn next_event(&mut self, limit: Duration) -> Result<Option<Event>> {
        let end = std::time::Instant::now() + limit;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if !croft_sys::wait_readable_for(self.socket.as_fd(), Some(left)).map_err(io::Error::from)? {
                return Ok(None);
            }
            if let (Packet::Event(event), _) = self.receive()? {
                self.events.push_back(event);
            }
        }
    }

    /// A call whose answer is [`Reply::Done`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn done(&mut self, request: Request) -> Result<()> {
        match self.call(request, &[])?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a further process. `process` is the JSON text of `process` as in `config.json`. Gives its pid.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn exec(&mut self, request: Request, process: &[u8]) -> Result<i32> {
        use croft_sys::fs;
        let file = fs::memfd_create("croft process", fs::MemfdFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut file = std::fs::File::from(file);
        io::Write::write_all(&mut file, process)?;
        match self.call(request, &[file.as_fd()])?.0 {
            Reply::Running { pid } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Attaches: the stream, and the number of the next byte of input that the process has not got.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn attach(&mut self, request: Request) -> Result<(Stream, u64)> {
        let (reply, fds) = self.call(request, &[])?;
        match (reply, fds.into_iter().next()) {
            (Reply::Attached { input }, Some(socket)) => Ok((Stream::new(socket), input)),
            (other, _) => Err(unexpected(&other)),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Failed(Failure {
        kind: FailureKind::Supervisor,
        what: "call the supervisor".into(),
        why: format!("it gave an answer to another question: {reply:?}"),
    })
}

/// The streams of a process that was attached to. The socket may be passed on to another program.
#[derive(Debug)]
pub struct Stream {
    socket: OwnedFd,
    packet: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Stream {
    /// The socket that came beside [`Reply::Attached`].
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, packet: Vec::new(), buffer: vec![0; HEADER + PAYLOAD_LIMIT].into() }
    }

    /// As [`Client::set_non_blocking`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_non_blocking(&self) -> io::Result<()> {
        Ok(socket::set_waiting(self.socket.as_fd(), Waiting::NonBlocking)?)
    }

    /// The same connection a second time: one to send, one to receive.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.socket.try_clone()?))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the supervisor has gone.
    pub fn send(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        frame.encode(&mut self.packet);
        Ok(socket::send(self.socket.as_fd(), &self.packet, &[])?)
    }

    /// The next frame; `None` when the supervisor has gone.
    ///
    /// # Errors
    /// When the packet is no frame, or the connection fails.
    pub fn receive(&mut self) -> io::Result<Option<Frame<'_>>> {
        let (length, _) = socket::receive(self.socket.as_fd(), &mut self.buffer)?;
        if length == 0 {
            return Ok(None);
        }
        Frame::decode(&self.buffer[..length])
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> OwnedFd {
        stream.socket
    }
}
