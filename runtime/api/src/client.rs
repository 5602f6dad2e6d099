//! A client of croftd: on the Unix socket of this host's, or under mutual TLS of another host's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use crate::keys::{self, Keys, SERVER_NAME};
use crate::problem::{Kind, Problem};
use crate::{VERSION, stream, tls};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// croftd does not answer there.
    #[error("croftd does not answer on {place}")]
    Unreachable {
        /// Where it was asked.
        place: Place,
        /// Why.
        source: io::Error,
    },
    /// It is not the croftd whose key is trusted, or does not trust the key of this host.
    #[error("{place}: {why}")]
    NotTrusted {
        /// Where it was asked.
        place: Place,
        /// Which of the two.
        why: &'static str,
    },
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The connection broke.
    #[error("the connection to croftd broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It said what this client does not understand: another version, perhaps.
    #[error("croftd's answer is not understood: {0}")]
    NotUnderstood(String),
}

/// Asks one croftd.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
    tls: Option<Arc<ClientConfig>>,
}

/// Where a croftd is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this host.
    Socket(PathBuf),
    /// On another one.
    Host {
        /// What it is called here.
        name: String,
        /// Where it listens.
        address: String,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Socket(path) => write!(f, "{}", path.display()),
            Place::Host { name, address } => write!(f, "{name} ({address})"),
        }
    }
}

/// How long another host may take to answer a connection, or the handshake on it.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An answer of lines of JSON that come one by one.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

/// An answer of bytes that come piece by piece.
#[derive(Debug)]
pub struct Pieces {
    body: Incoming,
}

/// A body that is sent as it comes. An error ends it early, and croftd takes it for broken.
struct Sent(mpsc::Receiver<std::io::Result<Bytes>>);

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

type Sending = BoxBody<Bytes, std::io::Error>;

impl Client {
    /// A client of the croftd behind `socket`. Nothing is asked yet.
    pub fn new(socket: &Path) -> Self {
        Client { place: Place::Socket(socket.to_owned()), tls: None }
    }

    /// A client of the trusted host that is called `name`, with this host's key. Nothing is asked yet.
    ///
    /// # Errors
    /// When there is no such host or no key, or nobody has said where that host listens.
    pub fn remote(keys: &Keys, name: &str) -> Result<Self, keys::Error> {
        let there = keys.named(name)?;
        let Some(address) = there.address.clone() else {
            return Err(keys::Error::NoAddress(name.to_owned()));
        };
        let config = tls::client(&there, keys.host()?).map_err(|e| keys::Error::Make(e.to_string()))?;
        let place = Place::Host { name: name.to_owned(), address };
        Ok(Client { place, tls: Some(Arc::new(config)) })
    }

    /// Asks for what is at `path`, below the version.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Sends `body` to `path`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Error> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Removes what is at `path`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        self.ask(Method::DELETE, path, None::<&()>).await
    }

    /// Asks for lines of JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn lines<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Lines, Error> {
        let answer = self.send(method, path, body).await?;
        Ok(Lines { body: answer.into_body(), buffer: Vec::new() })
    }

    /// Attaches to the streams of a process: see [`crate::stream`].
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn attach(
        &self,
        path: &str,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>, Error> {
        let answer = self.send_with(Method::POST, path, None::<&()>, Some(stream::PROTOCOL)).await?;
        let upgraded = hyper::upgrade::on(answer).await.map_err(|e| Error::Broken(e.into()))?;
        Ok(TokioIo::new(upgraded))
    }

    /// Asks for bytes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn download(&self, path: &str) -> Result<Pieces, Error> {
        Ok(Pieces { body: self.send(Method::GET, path, None::<&()>).await?.into_body() })
    }

    /// Sends bytes as they come.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn upload<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> Result<T, Error> {
        let body = Sent(pieces).boxed();
        value(self.exchange(method, path, "application/x-tar", body, None).await?).await
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Error> {
        value(self.send(method, path, body).await?).await
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Response<Incoming>, Error> {
        self.send_with(method, path, body, None).await
    }

    async fn send_with<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        upgrade: Option<&str>,
    ) -> Result<Response<Incoming>, Error> {
        let text =
            body.map(serde_json::to_vec).transpose().map_err(|e| Error::NotUnderstood(e.to_string()))?;
        let body = Full::new(Bytes::from(text.unwrap_or_default())).map_err(|never| match never {}).boxed();
        self.exchange(method, path, "application/json", body, upgrade).await
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Error> {
        let unreachable = |source| Error::Unreachable { place: self.place.clone(), source };
        let (address, tls) = match (&self.place, &self.tls) {
            (Place::Host { address, .. }, Some(tls)) => (address, tls),
            (Place::Host { .. }, None) => return Err(unreachable(io::ErrorKind::Unsupported.into())),
            (Place::Socket(path), _) => {
                return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?));
            }
        };
        let secured = async {
            let stream = TcpStream::connect(address).await?;
            // What is typed is sent at once.
            stream.set_nodelay(true)?;
            let name = SERVER_NAME.try_into().map_err(io::Error::other)?;
            TlsConnector::from(Arc::clone(tls)).connect(name, stream).await
        };
        match tokio::time::timeout(CONNECT_LIMIT, secured).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(e)) if tls::is_another(&e) => {
                Err(self.not_trusted("it has another key than the one that is trusted"))
            }
            Ok(Err(e)) => Err(unreachable(e)),
            Err(_) => Err(unreachable(io::ErrorKind::TimedOut.into())),
        }
    }

    fn not_trusted(&self, why: &'static str) -> Error {
        Error::NotTrusted { place: self.place.clone(), why }
    }

    /// Why an exchange broke. A server says only after the handshake that it does not trust a client.
    fn broken(&self, error: hyper::Error) -> Error {
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause {
            Some(cause) if tls::is_distrust(cause) => {
                self.not_trusted("it does not trust the key of this host")
            }
            _ => Error::Broken(error.into()),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Sending,
        upgrade: Option<&str>,
    ) -> Result<Response<Incoming>, Error> {
        let stream = self.connect().await?;
        let broken = |e| self.broken(e);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder();
        if let Some(protocol) = upgrade {
            request =
                request.header(http::header::CONNECTION, "upgrade").header(http::header::UPGRADE, protocol);
        }
        let request = request
            .method(method)
            .uri(format!("/{VERSION}{path}"))
            .header(http::header::HOST, "croft")
            .header(http::header::CONTENT_TYPE, kind)
            .body(body)
            .map_err(|e| Error::NotUnderstood(e.to_string()))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status().is_success() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        Err(refusal(answer).await)
    }
}

async fn value<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, Error> {
    let bytes = answer.into_body().collect().await.map_err(|e| Error::Broken(e.into()))?.to_bytes();
    let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    serde_json::from_slice(text).map_err(|e| Error::NotUnderstood(e.to_string()))
}

async fn refusal(answer: Response<Incoming>) -> Error {
    let status = answer.status();
    let bytes = match answer.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return Error::Broken(e.into()),
    };
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => Error::Refused(problem),
        Err(_) => Error::Refused(unnamed(status, &bytes)),
    }
}

/// A refusal that is no problem of ours: the HTTP server's own.
fn unnamed(status: StatusCode, body: &[u8]) -> Problem {
    let detail = String::from_utf8_lossy(body).into_owned();
    Problem { status: status.as_u16(), ..Problem::new(Kind::Internal, status.to_string(), detail) }
}

impl Pieces {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the connection breaks, or croftd could not go on.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(Error::Broken(e.into())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    _ => {}
                },
            }
        }
    }
}

impl Lines {
    /// The next line; none at the end.
    ///
    /// # Errors
    /// When the connection breaks, or a line is not understood.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|e| Error::NotUnderstood(e.to_string()));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::NotUnderstood("it ends in the middle of a line".into())),
                Some(Err(e)) => return Err(Error::Broken(e.into())),
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
            }
        }
    }
}
