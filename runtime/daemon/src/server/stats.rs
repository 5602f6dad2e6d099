//! What containers use, and their processes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use croft_api::problem::{Kind, Problem};
use croft_api::stats::{Process, Stats};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lines::{NDJSON, line, ndjson};
use super::{Answer, Path, Query, Refusal};
use crate::container::{View, word};
use crate::daemon::{Daemon, blocking};
use crate::stats::{Sampler, runs};

/// Between the two samples of an answer that is asked for once.
const ONCE: Duration = Duration::from_millis(200);

/// The shortest time between two samples, in milliseconds: each reads a dozen files a container.
const SHORTEST: u64 = 100;

/// The longest.
const LONGEST: u64 = 3_600_000;

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new().routes(routes!(stats)).routes(routes!(top))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Names or ids with commas between them; every container that runs without it.
    names: Option<String>,
    /// Whether a line comes at each interval; one JSON array otherwise.
    #[serde(default)]
    stream: bool,
    /// Milliseconds between the lines, 100 to 3600000; 1000 without it.
    interval: Option<u64>,
}

/// What containers use: an array, or an array a line.
#[utoipa::path(get, path = "/stats", params(Wanted),
    responses((status = 200, content((Vec<Stats> = "application/json"), (Vec<Stats> = NDJSON))), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn stats(State(daemon): State<Arc<Daemon>>, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let interval = wanted.interval.unwrap_or(1000);
    if !(SHORTEST..=LONGEST).contains(&interval) {
        let why = format!("an interval of {interval} ms: {SHORTEST} to {LONGEST} is possible");
        return Err(Problem::new(Kind::Invalid, "stats", why).into());
    }
    let ids = chosen(&daemon, wanted.names.as_deref())?;
    let shared = Arc::clone(daemon.shared());
    let sampler = blocking(move || Sampler::new(&shared)).await?;
    // A rate needs two samples: the first is shown to nobody.
    let (mut sampler, _) = sample(sampler, &daemon, &ids).await?;
    tokio::time::sleep(ONCE).await;
    if !wanted.stream {
        return Ok(Json(sample(sampler, &daemon, &ids).await?.1).into_response());
    }
    let (lines, answer) = ndjson();
    tokio::spawn(async move {
        let mut next = tokio::time::interval(Duration::from_millis(interval));
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = next.tick() => {}
                () = lines.closed() => return,
            }
            let Ok((again, stats)) = sample(sampler, &daemon, &ids).await else { return };
            sampler = again;
            if lines.send(line(&stats)).await.is_err() {
                return;
            }
        }
    });
    Ok(answer)
}

/// The ids of those that are named; none for all.
fn chosen(daemon: &Daemon, names: Option<&str>) -> Result<Option<Vec<String>>, Problem> {
    let Some(names) = names.filter(|names| !names.is_empty()) else { return Ok(None) };
    let id = |name: &str| {
        let view = daemon.find(name)?.view();
        if runs(&view) {
            return Ok(view.record.id);
        }
        let why = format!("it is {}", word(view.state));
        Err(Problem::new(Kind::WrongState, format!("stats {name}"), why))
    };
    names.split(',').map(id).collect::<Result<_, _>>().map(Some)
}

async fn sample(
    mut sampler: Sampler,
    daemon: &Daemon,
    ids: &Option<Vec<String>>,
) -> Result<(Sampler, Vec<Stats>), Problem> {
    let mut views: Vec<View> = daemon.views();
    views.retain(|view| ids.as_ref().is_none_or(|ids| ids.contains(&view.record.id)));
    views.sort_by(|a, b| a.record.created.cmp(&b.record.created));
    blocking(move || {
        let stats = sampler.take(&views);
        Ok((sampler, stats))
    })
    .await
}

/// The processes of a container.
#[utoipa::path(get, path = "/containers/{name}/top", params(("name" = String, Path)),
    responses((status = 200, body = Vec<Process>), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn top(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<Vec<Process>> {
    let view = daemon.find(&name)?.view();
    let shared = Arc::clone(daemon.shared());
    Ok(Json(blocking(move || crate::stats::processes(&shared, &view)).await?))
}
