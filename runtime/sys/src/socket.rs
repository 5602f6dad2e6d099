//! Packet sockets between related processes, with descriptors sent beside the bytes (unix(7), SCM_RIGHTS).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::{Call, Error, Result};

const MOST_FDS: usize = 8;

/// A connected pair of `SOCK_SEQPACKET` sockets, closed on exec.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .call("socketpair")
}

/// Connects a stream socket to the one listening at `path`.
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    connect(path, SocketType::STREAM)
}

fn connect(path: &Path, kind: SocketType) -> Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).call("socket")?;
    let address = SocketAddrUnix::new(path).call("socket address")?;
    rustix::net::connect(&socket, &address).call("connect")?;
    Ok(socket)
}

/// A packet socket that listens at `path`, closed on exec and non-blocking. What is there already has to be removed before.
pub fn listen_packet(path: &Path) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    listen(path, SocketType::SEQPACKET, flags)
}

/// A stream socket that listens at `path`, closed on exec and non-blocking, for [`connect_stream`].
pub fn listen_stream(path: &Path) -> Result<OwnedFd> {
    listen(path, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

fn listen(path: &Path, kind: SocketType, flags: SocketFlags) -> Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).call("socket")?;
    let address = SocketAddrUnix::new(path).call("socket address")?;
    rustix::net::bind(&socket, &address).call("bind")?;
    rustix::net::listen(&socket, 128).call("listen")?;
    Ok(socket)
}

/// The next connection to a listening socket, closed on exec and non-blocking; `None`: nobody waits.
pub fn accept(listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    use rustix::io::Errno;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match rustix::io::retry_on_intr(|| rustix::net::accept_with(listener, flags)) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN | Errno::CONNABORTED) => Ok(None),
        Err(errno) => Err(Error::new("accept", errno)),
    }
}

/// The user who connected to this end of a Unix socket (`SO_PEERCRED`), as it was when they did.
pub fn peer_user(socket: BorrowedFd<'_>) -> Result<u32> {
    rustix::net::sockopt::socket_peercred(socket).map(|who| who.uid.as_raw()).call("getsockopt SO_PEERCRED")
}

/// Connects a packet socket to the one listening at `path`.
pub fn connect_packet(path: &Path) -> Result<OwnedFd> {
    connect(path, SocketType::SEQPACKET)
}

/// Whether calls on this descriptor, and on every copy of it, wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// They do.
    Blocking,
    /// They fail with `EAGAIN` instead.
    NonBlocking,
}

/// Sets whether calls on `fd` wait.
pub fn set_waiting(fd: BorrowedFd<'_>, waiting: Waiting) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd).call("fcntl F_GETFL")?;
    let flag = rustix::fs::OFlags::NONBLOCK;
    let new = if waiting == Waiting::NonBlocking { flags | flag } else { flags - flag };
    rustix::fs::fcntl_setfl(fd, new).call("fcntl F_SETFL")
}

/// Sends `bytes` as one packet with `fds` beside it.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::new("sendmsg with too many descriptors", rustix::io::Errno::TOOBIG));
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })
    .call("sendmsg")?;
    if sent == bytes.len() { Ok(()) } else { Err(Error::new("short sendmsg", rustix::io::Errno::MSGSIZE)) }
}

/// Receives one packet into `buffer` with the descriptors beside it; 0 bytes mean that the peer has closed.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .call("recvmsg")?;
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    Ok((message.bytes, fds))
}

/// Whether `fd` is a socket's descriptor.
pub fn is_socket(fd: impl AsFd) -> Result<bool> {
    let stat = rustix::fs::fstat(fd).call("fstat")?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn who_connects_is_known_and_packets_keep_their_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = listen_packet(&path).unwrap();
        assert!(accept(listener.as_fd()).unwrap().is_none());
        let client = connect_packet(&path).unwrap();
        let server = accept(listener.as_fd()).unwrap().unwrap();
        assert_eq!(peer_user(server.as_fd()).unwrap(), rustix::process::geteuid().as_raw());
        let mut buffer = [0; 16];
        assert_eq!(receive(server.as_fd(), &mut buffer).unwrap_err().errno(), Errno::AGAIN);
        send(client.as_fd(), b"one", &[]).unwrap();
        send(client.as_fd(), b"two", &[client.as_fd()]).unwrap();
        assert_eq!(receive(server.as_fd(), &mut buffer).unwrap().0, 3);
        assert_eq!(receive(server.as_fd(), &mut buffer).unwrap().1.len(), 1);
        set_waiting(client.as_fd(), Waiting::NonBlocking).unwrap();
        assert_eq!(receive(client.as_fd(), &mut buffer).unwrap_err().errno(), Errno::AGAIN);
    }
}
