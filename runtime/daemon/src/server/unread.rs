//! The rest of a body that nobody reads: a client that is refused in the middle of it still gets its answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How much is taken from a client after its answer, in bytes. What is more breaks its connection.
const MOST: usize = 64 * 1024 * 1024;

/// For how long.
const TIME: Duration = Duration::from_secs(10);

/// A client's body. What is left of it when it is dropped is thrown away, while the client is answered: closed with something
/// unread in it, a socket fails the client that still writes, which may never look for the answer then.
#[derive(Debug)]
pub struct Given {
    body: Option<Incoming>,
    /// Whether the client sends nothing before it is told to go on, which it is when somebody begins to read.
    waits: bool,
}

impl Given {
    /// The body of a request.
    pub fn of(request: Request<Incoming>) -> Request<Given> {
        let waits = request.headers().contains_key(header::EXPECT);
        request.map(|body| Given { body: Some(body), waits })
    }
}

impl Body for Given {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let unread = |body: &mut Incoming| !self.waits && !body.is_end_stream();
        if let Some(body) = self.body.take_if(unread) {
            tokio::spawn(tokio::time::timeout(TIME, discard(body)));
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut taken = 0;
    while let Some(Ok(frame)) = body.frame().await {
        taken += frame.data_ref().map_or(0, Bytes::len);
        if taken > MOST {
            return;
        }
    }
}
