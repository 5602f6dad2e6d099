//! Published ports. A socket holds each, so that no other program of the host gets it; the firewall leads most packets past it to the
//! container. What arrives nevertheless comes from the loopback device, whose packets cannot be led elsewhere, and is passed on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use croft_api::network::{Protocol, Publish};
use croft_api::problem::{Kind, Problem};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::Task;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A sender of datagrams that is silent for so long is forgotten.
const SILENCE: Duration = Duration::from_secs(60);

/// Senders of datagrams at a time, for one port.
const SENDERS: usize = 512;

/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// Holds a port and passes on what arrives at it.
pub fn publish(port: &Publish, to: Ipv4Addr) -> Result<Task, Problem> {
    let address = port.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    let mut socket = hold(port, address);
    if port.address.is_none()
        && socket.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Unsupported || no_ipv6(e))
    {
        socket = hold(port, Ipv4Addr::UNSPECIFIED.into());
    }
    let to = SocketAddr::from((to, port.container));
    let served = socket.and_then(|socket| match port.protocol {
        Protocol::Tcp => {
            TcpListener::from_std(socket.into()).map(|listener| spawn_local(connections(listener, to)))
        }
        Protocol::Udp => {
            UdpSocket::from_std(socket.into()).map(|socket| spawn_local(datagrams(Rc::new(socket), to)))
        }
    });
    served.map(Task).map_err(|e| refused(port, &e))
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        rustix::io::Errno::from_io_error(error),
        Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
    )
}

fn refused(port: &Publish, error: &io::Error) -> Problem {
    let name = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let title = format!("publish port {}/{name}", port.host);
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let flag = &name[..1];
            Problem::new(Kind::Conflict, title, format!("port {}/{name} of the host is taken", port.host))
                .hint(format!("ss -lnp{flag} 'sport = {}' shows by whom", port.host))
        }
        io::ErrorKind::AddrNotAvailable => {
            let address = port.address.map(|ip| ip.to_string()).unwrap_or_default();
            Problem::new(Kind::Invalid, title, format!("the host has no address {address}"))
        }
        _ => Problem::new(Kind::Internal, title, error.to_string()),
    }
}

fn hold(port: &Publish, address: IpAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match port.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        // One socket holds the port of all addresses, IPv4 too; but [::] that was asked for means IPv6.
        sockopt::set_ipv6_v6only(&socket, port.address.is_some())?;
    }
    if port.protocol == Protocol::Tcp {
        // Connections that are over may linger; a socket that listens is refused all the same.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::from((address, port.host)))?;
    if port.protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

async fn connections(listener: TcpListener, to: SocketAddr) {
    loop {
        let Ok((mut near, _)) = listener.accept().await else {
            // No descriptors are left. Others end; asking again at once would only burn the processor.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        spawn_local(async move {
            if let Ok(mut far) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

/// Who has sent something lately, and the socket that it goes on from.
type Senders = Rc<RefCell<HashMap<SocketAddr, Rc<UdpSocket>>>>;

async fn datagrams(near: Rc<UdpSocket>, to: SocketAddr) {
    let senders = Senders::default();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((length, sender)) = near.recv_from(&mut buffer).await else { continue };
        let known = senders.borrow().get(&sender).cloned();
        let far = match known {
            Some(far) => far,
            None if senders.borrow().len() >= SENDERS => continue,
            None => {
                let Ok(far) = connected(to).await else { continue };
                senders.borrow_mut().insert(sender, Rc::clone(&far));
                spawn_local(answers(Rc::clone(&near), Rc::clone(&far), sender, Rc::clone(&senders)));
                far
            }
        };
        let _ = far.send(&buffer[..length]).await;
    }
}

/// Passes back to a sender what comes for it, until it is silent. Its task ends by itself when the port is given up: not at once, but
/// nothing reaches it any more.
async fn answers(near: Rc<UdpSocket>, far: Rc<UdpSocket>, sender: SocketAddr, senders: Senders) {
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(Ok(length)) = timeout(SILENCE, far.recv(&mut buffer)).await {
        let _ = near.send_to(&buffer[..length], sender).await;
    }
    senders.borrow_mut().remove(&sender);
}

async fn connected(to: SocketAddr) -> io::Result<Rc<UdpSocket>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(to).await?;
    Ok(Rc::new(socket))
}
