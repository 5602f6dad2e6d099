//! Connections: how many there are at a time, and what each may take of croftd before it has asked for anything.
//!
//! Whoever may connect administers the host, and may still have a program that goes wrong. What it leaves open ends after a
//! while, what it says without end is cut off, and the others are served meanwhile.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::peers::Peer;
use super::unread::Given;

/// How long a client may take for what comes before a request's body: from the connection's beginning, or the answer before.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How much may come before a request's body, in bytes. So much of a body is read ahead, too.
const HEAD_SIZE: usize = 64 * 1024;

/// Connections at a time, where croftd may have many descriptors.
const MOST: usize = 4096;

/// A connection of which is known who is at its other end.
pub trait Known: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Who.
    fn peer(&self) -> Peer;
}

/// Serves who connects, until `end`, and then until the last answer is given.
pub async fn serve<L>(mut listener: L, router: Router, end: impl Future<Output = ()>)
where
    L: Listener,
    L::Io: Known,
{
    let most = most();
    let (ending, ended) = watch::channel(false);
    let mut end = pin!(end);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next() => {}
            // Who comes when there are too many waits in the kernel's queue until one has gone.
            (stream, _) = listener.accept(), if connections.len() < most => {
                connections.spawn(speak(stream, router.clone(), ended.clone()));
            }
        }
    }
    drop(listener);
    ending.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Half of the descriptors that croftd may have: the others are for what it is asked to do.
fn most() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit / 2).ok()).map_or(MOST, |half| half.min(MOST))
}

/// Serves one connection until either side has enough.
async fn speak<S: Known>(stream: S, router: Router, mut ended: watch::Receiver<bool>) {
    let peer = stream.peer();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(Given::of(request))
    });
    let mut settings = http1::Builder::new();
    settings.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_SIZE);
    let mut connection = pin!(settings.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = async { ended.wait_for(|ended| *ended).await.map_or((), drop) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Clients go when they please, and some never spoke HTTP.
    served.unwrap_or_else(|error| tracing::debug!(%error, "a connection has ended"));
}
