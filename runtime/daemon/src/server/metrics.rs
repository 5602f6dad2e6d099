//! croftd's numbers for Prometheus, and how long each request takes.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use croft_api::problem::{Kind, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Refusal;
use crate::daemon::{Daemon, blocking, error_chain};
use crate::metrics::{CONTENT_TYPE, Own, Scrape, text};
use crate::stats::Sampler;

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// What croftd and its containers use, as OpenMetrics text.
#[utoipa::path(get, path = "/metrics",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
async fn metrics(State(daemon): State<Arc<Daemon>>) -> Result<Response, Refusal> {
    let text = blocking(move || {
        let shared = daemon.shared();
        let stats = Sampler::new(shared)?.take(&daemon.views());
        // After those in it: what is the whole's is never less than what is its parts'.
        let group = shared.counters()?.group(Path::new(shared.group()));
        let group =
            group.map_err(|e| Problem::new(Kind::Internal, "read the containers' group", error_chain(&e)))?;
        let scrape = Scrape {
            containers: daemon.list(),
            stats,
            group,
            images: shared.roots.list()?.iter().map(|image| image.size).collect(),
            own: Own::read(),
        };
        Ok(text(&scrape, &shared.latency))
    });
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text.await?).into_response())
}

/// Counts how long a request takes until its answer begins.
pub async fn time(State(daemon): State<Arc<Daemon>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().as_str().to_owned();
    let begun = Instant::now();
    let answer = next.run(request).await;
    // Without a pattern there is no bound on the series.
    let path = path.as_deref().unwrap_or("other");
    daemon.shared().latency.count(&method, path, answer.status().as_u16(), begun.elapsed());
    answer
}
