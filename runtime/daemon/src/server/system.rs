//! croftd itself, its host, and what happens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use croft_api::event::Event;
use croft_api::problem::Problem;
use croft_api::system::{Finding, Fixed, Info, Prune, PrunedSystem, Usage};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lines::{NDJSON, line, ndjson};
use super::{Answer, Body, Query, Refusal};
use crate::daemon::{Daemon, blocking};

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(info))
        .routes(routes!(check, fix))
        .routes(routes!(events))
        .routes(routes!(usage))
        .routes(routes!(prune))
}

/// What croftd says of itself.
#[utoipa::path(get, path = "/system/info", responses((status = 200, body = Info)))]
async fn info(State(daemon): State<Arc<Daemon>>) -> Answer<Info> {
    Ok(Json(blocking(move || Ok(daemon.info())).await?))
}

/// What no record accounts for.
#[utoipa::path(get, path = "/system/check", responses((status = 200, body = Vec<Finding>)))]
async fn check(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Finding>> {
    Ok(Json(blocking(move || daemon.check()).await?))
}

/// Takes away what no record accounts for; nothing that runs, and no volume.
#[utoipa::path(post, path = "/system/check", responses((status = 200, body = Fixed)))]
async fn fix(State(daemon): State<Arc<Daemon>>) -> Answer<Fixed> {
    Ok(Json(daemon.fix().await?))
}

/// Where the disk went.
#[utoipa::path(get, path = "/system/usage", responses((status = 200, body = Usage)))]
async fn usage(State(daemon): State<Arc<Daemon>>) -> Answer<Usage> {
    Ok(Json(blocking(move || daemon.usage()).await?))
}

/// Removes what nobody needs; nothing that runs.
#[utoipa::path(post, path = "/system/prune", request_body = Prune,
    responses((status = 200, body = PrunedSystem), (status = 409, body = Problem)))]
async fn prune(State(daemon): State<Arc<Daemon>>, Body(asked): Body<Prune>) -> Answer<PrunedSystem> {
    Ok(Json(daemon.prune(asked).await?))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Since {
    /// The number of the last event that is known; without it only what comes is told.
    since: Option<u64>,
    /// Whether what comes is told too.
    #[serde(default)]
    follow: bool,
}

/// Events, one JSON object a line.
#[utoipa::path(get, path = "/events", params(Since), responses((status = 200, body = Event, content_type = NDJSON)))]
async fn events(State(daemon): State<Arc<Daemon>>, Query(asked): Query<Since>) -> Result<Response, Refusal> {
    let mut newest = daemon.events();
    let mut known = match asked.since {
        Some(since) => since,
        None => *newest.borrow_and_update(),
    };
    let (lines, answer) = ndjson();
    tokio::spawn(async move {
        loop {
            let now = *newest.borrow_and_update();
            while known < now {
                let Ok(some) = daemon.shared().records.events(known, 256) else { return };
                let Some(last) = some.last() else { break };
                known = last.id;
                for event in &some {
                    if lines.send(line(event)).await.is_err() {
                        return;
                    }
                }
            }
            if !asked.follow {
                return;
            }
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = lines.closed() => return,
            }
        }
    });
    Ok(answer)
}
