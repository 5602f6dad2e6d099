//! Bodies that come or go piece by piece, for work that blocks.

use std::io::{self, BufWriter, ErrorKind, Write};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use croft_api::pieces::{self, Reader};
use croft_api::problem::{Kind, Problem};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::daemon::blocking;

/// A client's body as something to read.
pub fn upload(mut body: Body) -> Reader {
    let (sender, received) = mpsc::channel(pieces::AHEAD);
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
    Reader::new(received)
}

/// Where work writes what a client gets.
pub type Download = pieces::Writer<Problem>;

/// An answer that is what `work` writes. A failure before its first byte is refused; after that, the connection breaks.
///
/// # Errors
/// What `work` says before it writes anything.
pub async fn download(
    work: impl FnOnce(&mut BufWriter<Download>) -> Result<(), Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let (sender, mut received) = mpsc::channel(pieces::AHEAD);
    let failed = sender.clone();
    tokio::spawn(async move {
        let worked = blocking(move || {
            let mut to = BufWriter::with_capacity(pieces::SIZE, Download::new(sender, "the client has gone"));
            work(&mut to)?;
            to.flush().map_err(|e| Problem::new(Kind::Internal, "send the answer", e.to_string()))
        });
        if let Err(problem) = worked.await {
            tracing::warn!(%problem, "an answer is not complete");
            // Who has gone needs no reason.
            let _ = failed.send(Err(problem)).await;
        }
    });
    let first = received.recv().await.transpose()?;
    let body = Body::from_stream(Pieces { first, rest: received });
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
