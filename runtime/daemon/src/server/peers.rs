//! Who is at the other end of a connection: a process of this host on the Unix socket, or another host under mutual TLS.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use croft_api::keys::{Keys, Trusted};
use croft_api::tls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use super::connections::Known;
use crate::access::Caller;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer(Who);

#[derive(Debug, Clone)]
enum Who {
    Process(Option<Caller>),
    Host(Arc<Guest>),
}

impl Peer {
    /// Who asks, looked at anew for each request of a connection.
    pub fn caller(&self) -> Option<Caller> {
        match &self.0 {
            Who::Process(caller) => caller.clone(),
            Who::Host(guest) => {
                Some(Caller::Host { name: guest.host.name.clone(), trusted: guest.is_trusted() })
            }
        }
    }
}

impl Known for UnixStream {
    fn peer(&self) -> Peer {
        Peer(Who::Process(self.peer_cred().ok().map(|c| {
            // Root's groups decide nothing.
            let groups = if c.uid() == 0 { Vec::new() } else { groups(c.gid(), c.pid()) };
            Caller::Process { uid: c.uid(), groups }
        })))
    }
}

impl Known for Connection {
    fn peer(&self) -> Peer {
        Peer(Who::Host(Arc::clone(&self.guest)))
    }
}

/// The groups of the process that connected. Its number is only good for that as long as it waits for its answer.
fn groups(own: u32, pid: Option<i32>) -> Vec<u32> {
    let status =
        pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    std::iter::once(own).chain(line.split_whitespace().filter_map(|group| group.parse().ok())).collect()
}

/// A host that is, or was, trusted.
#[derive(Debug)]
struct Guest {
    host: Trusted,
    keys: Keys,
}

impl Guest {
    fn is_trusted(&self) -> bool {
        self.keys.still_trusts(&self.host)
    }
}

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Handshakes at once: who connects and says nothing holds up no more than this, and no longer than [`HANDSHAKE_LIMIT`].
const HANDSHAKES: usize = 512;

/// How often an open connection is looked at: how long it outlives the trust in its host.
const LOOK: Duration = Duration::from_secs(1);

/// Other hosts, as they connect.
pub struct Hosts {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
}

impl Hosts {
    /// Serves hosts that `keys` trusts on `listener`.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn new(listener: TcpListener, config: ServerConfig, keys: Keys) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (send, ready) = mpsc::channel(1);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), keys, send));
        Ok(Hosts { ready, address })
    }
}

/// Accepts connections, each of which shakes hands by itself: a slow one waits for nobody but itself.
async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    keys: Keys,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, from) = tokio::select! {
            // As axum does it: what fails is tried again.
            accepted = Listener::accept(&mut listener) => accepted,
            () = ready.closed() => return,
        };
        let (acceptor, keys, ready) = (acceptor.clone(), keys.clone(), ready.clone());
        tokio::spawn(async move {
            let shaken = timeout(HANDSHAKE_LIMIT, shake_hands(&acceptor, stream, keys)).await;
            drop(place);
            match shaken {
                Ok(Ok(connection)) => {
                    tracing::debug!(host = connection.guest.host.name, %from, "a host connects");
                    // croftd ends when nobody takes it.
                    let _ = ready.send((connection, from)).await;
                }
                Ok(Err(error)) => tracing::info!(%from, "refused: {error}"),
                Err(_) => tracing::info!(%from, "refused: the handshake takes too long"),
            }
        });
    }
}

async fn shake_hands(acceptor: &TlsAcceptor, stream: TcpStream, keys: Keys) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    let host = shown.and_then(|certificate| tls::who(&keys, certificate));
    let host = host.ok_or_else(|| io::Error::other("its key was revoked just now"))?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll_fn(|context| look.poll_tick(context)).await;
    Ok(Connection { stream, guest: Arc::new(Guest { host, keys }), look })
}

impl Listener for Hosts {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // Whoever accepts has gone, with the runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that lasts as long as its host is trusted.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    guest: Arc<Guest>,
    look: Interval,
}

impl Connection {
    /// An error from when the host is trusted no more. Whoever polls is woken to look again.
    fn poll_trust(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.look.poll_tick(context).is_ready() {
            if !self.guest.is_trusted() {
                tracing::info!(host = self.guest.host.name, "its key is revoked: its connection is cut");
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_trust(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_trust(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
