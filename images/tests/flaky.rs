//! A proxy before a registry that breaks off, damages or refuses what passes: as registries and networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

/// What is done to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of it.
    Cut(usize),
    /// This byte of it is another.
    Damage(usize),
    /// A server error comes instead.
    Unavailable,
}

/// A proxy on a port of its own. Its threads end with their connections, the last one with the process.
pub struct Proxy {
    port: u16,
    /// Requests for blobs so far.
    pub blobs: Arc<AtomicUsize>,
    /// Of these, those that asked for a range.
    pub ranges: Arc<AtomicUsize>,
}

impl Proxy {
    /// Passes everything on to `upstream`; `fault` says what happens to the nth request for a blob.
    pub fn start(upstream: String, fault: fn(usize) -> Option<Fault>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (blobs, ranges) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (blobs.clone(), ranges.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, counters) = (upstream.clone(), counters.clone());
                std::thread::spawn(move || serve(client, &upstream, &counters, fault));
            }
        });
        Ok(Self { port, blobs, ranges })
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// One request a connection: the request is passed on with `Connection: close`.
fn serve(
    mut client: TcpStream,
    upstream: &str,
    (blobs, ranges): &(Arc<AtomicUsize>, Arc<AtomicUsize>),
    fault: fn(usize) -> Option<Fault>,
) -> Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head)?;
    let mut lines = head.trim_end().lines();
    let request = lines.next().context("a request")?.to_owned();
    let kept = |line: &&str| !line.to_ascii_lowercase().starts_with("connection:");
    let headers: Vec<&str> = lines.filter(kept).collect();
    let mut fate = None;
    if request.starts_with("GET") && request.contains("/blobs/") {
        if headers.iter().any(|line| line.to_ascii_lowercase().starts_with("range:")) {
            ranges.fetch_add(1, Ordering::SeqCst);
        }
        fate = fault(blobs.fetch_add(1, Ordering::SeqCst));
    }
    if fate == Some(Fault::Unavailable) {
        client.write_all(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )?;
        return Ok(());
    }
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(
        format!("{request}\r\n{}\r\nConnection: close\r\n\r\n", headers.join("\r\n")).as_bytes(),
    )?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n").context("an answer")? + 4;
    match fate {
        Some(Fault::Cut(after)) => answer.truncate(body + after.min(answer.len() - body)),
        Some(Fault::Damage(at)) if body + at < answer.len() => answer[body + at] ^= 0x55,
        _ => {}
    }
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)?;
    Ok(())
}
