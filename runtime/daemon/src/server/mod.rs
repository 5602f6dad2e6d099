//! The API: paths, what they carry, and how answers look. What is asked becomes a call of [`Daemon`].

mod bodies;
mod containers;
mod files;
mod images;
mod lines;
mod metrics;
mod networks;
pub mod peers;
mod stats;
mod streams;
mod system;
mod volumes;

use std::sync::Arc;

use axum::extract::connect_info::ConnectInfo;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use croft_api::container::LogLine;
use croft_api::event::Event;
use croft_api::image::Progress;
use croft_api::problem::{Kind, Problem};
use croft_api::stats::Stats;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

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
        .route("/openapi.json", get(openapi))
        .fallback(nothing)
        .layer(middleware::from_fn_with_state(Arc::clone(&daemon), metrics::time))
        .layer(middleware::from_fn_with_state(administrators, admit))
        .with_state(daemon);
    Router::new().nest(&format!("/{}", croft_api::VERSION), v1).fallback(nothing)
}

async fn admit(
    State(administrators): State<watch::Receiver<Administrators>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let unknown = || Problem::new(Kind::Forbidden, "ask croftd", "the kernel does not say who asks");
    let administrators = *administrators.borrow();
    access::check(&peer.caller().ok_or_else(unknown)?, administrators)?;
    Ok(next.run(request).await)
}

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
        (status, [(header::CONTENT_TYPE, "application/problem+json")], text).into_response()
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

/// A body, refused as a problem when it is not what it should be.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let title = format!("{} {}", request.method(), request.uri().path());
        let read: Result<Json<T>, JsonRejection> = Json::from_request(request, state).await;
        let Json(value) = read.map_err(|e| Problem::new(Kind::Invalid, title, e.body_text()))?;
        Ok(Body(value))
    }
}

async fn nothing(request: Request) -> Refusal {
    let title = format!("{} {}", request.method(), request.uri().path());
    Refusal(Problem::new(Kind::NotFound, title, "croftd answers nothing there").hint("GET /v1/openapi.json"))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "croftd",
        description = "Containers from images, supervised.",
        license(name = "Apache-2.0")
    ),
    components(schemas(Problem, LogLine, Event, Progress, Stats))
)]
struct Document;

/// The OpenAPI document, as JSON.
pub fn document() -> String {
    let described = OpenApiRouter::with_openapi(Document::openapi());
    let (_, mut document) = described.nest(&format!("/{}", croft_api::VERSION), parts()).split_for_parts();
    // OpenAPI has no word for a parameter with slashes in it.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// `BLESS=1 cargo test -p croftd openapi` writes it anew.
    #[test]
    fn the_openapi_document_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let document = super::document();
        assert!(document.contains("/v1/containers/{name}/start"), "the paths are in it");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &document).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == document, "openapi.json is stale: BLESS=1 cargo test -p croftd openapi");
    }
}
