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
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .call("socket")?;
    let address = SocketAddrUnix::new(path).call("socket address")?;
    rustix::net::connect(&socket, &address).call("connect")?;
    Ok(socket)
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
