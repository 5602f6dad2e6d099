//! Answers that come line by line, one JSON object each.

use std::convert::Infallible;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;

/// The content type of such an answer.
pub const NDJSON: &str = "application/x-ndjson";

/// A body that comes line by line.
pub fn ndjson() -> (mpsc::Sender<Bytes>, Response) {
    let (lines, received) = mpsc::channel::<Bytes>(64);
    let stream = Lines(received);
    let body = axum::body::Body::from_stream(stream);
    (lines, ([(header::CONTENT_TYPE, NDJSON)], body).into_response())
}

struct Lines(mpsc::Receiver<Bytes>);

impl futures_core::Stream for Lines {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|line| line.map(Ok))
    }
}

/// One line.
pub fn line(value: &impl serde::Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
