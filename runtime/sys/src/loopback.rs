//! The loopback device of the caller's network namespace; see netdevice(7).

use std::os::fd::AsRawFd;

use crate::error::{Call, Error, Result};

/// Brings `lo` up. It is there in every network namespace, and down in a new one.
pub fn up() -> Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .call("socket")?;
    // SAFETY: ifreq is plain bytes and integers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request lives over the call, its name is NUL-terminated and its flags are set.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(Error::last("ioctl SIOCSIFFLAGS")),
    }
}
