//! Bodies that come or go piece by piece, for work that blocks.

use std::io::{self, BufWriter, ErrorKind, Read, Write};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use croft_api::problem::{Kind, Problem};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::daemon::blocking;

/// Pieces that may wait for who takes them.
const AHEAD: usize = 16;

/// Bytes that are sent at once.
const PIECE: usize = 64 << 10;

/// What a client sends, to be read by a thread.
pub struct Upload {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

/// A client's body as something to read.
pub fn upload(mut body: Body) -> Upload {
    let (sender, pieces) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let piece = match frame {
                Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
                Err(e) => Err(io::Error::new(ErrorKind::UnexpectedEof, format!("the client went: {e}"))),
            };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    Upload { pieces, piece: Bytes::new() }
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Where work writes what a client gets.
pub struct Download(mpsc::Sender<Result<Bytes, Problem>>);

impl Write for Download {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::new(ErrorKind::BrokenPipe, "the client has gone");
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer that is what `work` writes. A failure before its first byte is refused; after that, the connection breaks.
///
/// # Errors
/// What `work` says before it writes anything.
pub async fn download(
    work: impl FnOnce(&mut BufWriter<Download>) -> Result<(), Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let failed = sender.clone();
    tokio::spawn(async move {
        let worked = blocking(move || {
            let mut to = BufWriter::with_capacity(PIECE, Download(sender));
            work(&mut to)?;
            to.flush().map_err(|e| Problem::new(Kind::Internal, "send the answer", e.to_string()))
        });
        if let Err(problem) = worked.await {
            tracing::warn!(%problem, "an answer is not complete");
            // Who has gone needs no reason.
            let _ = failed.send(Err(problem)).await;
        }
    });
    let first = pieces.recv().await.transpose()?;
    let body = Body::from_stream(Pieces { first, rest: pieces });
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], body).into_response())
}

struct Pieces {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Result<Bytes, Problem>>,
}

impl futures_core::Stream for Pieces {
    type Item = Result<Bytes, Problem>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        match self.first.take() {
            Some(first) => std::task::Poll::Ready(Some(Ok(first))),
            None => self.rest.poll_recv(context),
        }
    }
}
