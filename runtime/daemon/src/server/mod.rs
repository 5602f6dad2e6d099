//! The API: paths, what they carry, and how answers look. What is asked becomes a call of [`Daemon`].

mod bodies;
mod connections;
mod containers;
mod document;
mod extract;
mod files;
mod images;
mod lines;
mod metrics;
mod networks;
pub mod peers;
mod stats;
mod streams;
mod system;
mod unread;
mod volumes;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use croft_api::problem::{Kind, Problem};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

pub use connections::serve;
use extract::{Body, Path, Query};

use crate::access::{self, Administrators};
use crate::daemon::Daemon;
use peers::Peer;

/// Everything that can be asked, below the version, and what says so.
fn parts() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .merge(system::router())
        .merge(containers::router())
        .merge(streams::router())
        .merge(files::router())
        .merge(images::router())
        .merge(networks::router())
        .merge(volumes::router())
        .merge(stats::router())
        .merge(metrics::router())
}

/// The API.
pub fn router(daemon: Arc<Daemon>, administrators: watch::Receiver<Administrators>) -> Router {
    let v1 = Router::from(parts())
        .route("/openapi.json", get(document::serve))
        .fallback(nothing)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&daemon), metrics::time))
        .layer(middleware::from_fn_with_state(administrators, admit))
        .with_state(daemon);
    Router::new().nest(&format!("/{}", croft_api::VERSION), v1).fallback(nothing)
}

async fn admit(
    State(administrators): State<watch::Receiver<Administrators>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let unknown = || Problem::new(Kind::Forbidden, "ask croftd", "the kernel does not say who asks");
    let administrators = *administrators.borrow();
    access::check(&peer.caller().ok_or_else(unknown)?, administrators)?;
    Ok(next.run(request).await)
}

/// The content type of a problem (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// A problem as an answer.
#[derive(Debug)]
pub struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let text = serde_json::to_vec(&self.0).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, PROBLEM)], text).into_response()
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

async fn nothing(method: Method, uri: Uri) -> Refusal {
    let problem = Problem::new(Kind::NotFound, extract::title(&method, &uri), "croftd answers nothing there");
    Refusal(problem.hint("GET /v1/openapi.json"))
}

/// There is something, and it cannot be asked so. What it can be asked is in the answer's `Allow`.
async fn other_method(method: Method, uri: Uri) -> Refusal {
    let why = format!("{} cannot be asked to {method}", uri.path());
    extract::refusal(extract::title(&method, &uri), StatusCode::METHOD_NOT_ALLOWED, why)
}
