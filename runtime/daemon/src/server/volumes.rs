//! Volumes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use croft_api::problem::Problem;
use croft_api::volume::{Create, Pruned, Volume};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, Body, Path, Query, Refusal};
use crate::daemon::{Daemon, Shared, blocking};
use crate::volumes::Which;

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(inspect, remove)).routes(routes!(prune))
}

/// Runs what is asked of the volumes where it holds up nothing else.
async fn ask<T: Send + 'static>(
    daemon: &Daemon,
    work: impl FnOnce(&Shared) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let shared = Arc::clone(daemon.shared());
    blocking(move || work(&shared)).await
}

/// Volumes.
#[utoipa::path(get, path = "/volumes", responses((status = 200, body = Vec<Volume>)))]
async fn list(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Volume>> {
    Ok(Json(ask(&daemon, |shared| shared.volumes.list(&shared.records)).await?))
}

/// Makes a volume; one that is there stays as it is.
#[utoipa::path(post, path = "/volumes", request_body = Create,
    responses((status = 201, body = Volume), (status = 400, body = Problem)))]
async fn create(
    State(daemon): State<Arc<Daemon>>,
    Body(Create { name, labels }): Body<Create>,
) -> Result<(StatusCode, Json<Volume>), Refusal> {
    let made = ask(&daemon, move |shared| {
        let is_there = |name: &String| shared.volumes.find(&shared.records, name).is_ok();
        let is_new = !name.as_ref().is_some_and(is_there);
        let made = shared.volumes.create(&shared.records, name.as_deref(), labels)?;
        if is_new {
            shared.happened_to("volume", "create", &made.name, None);
        }
        Ok(made)
    });
    Ok((StatusCode::CREATED, Json(made.await?)))
}

/// One volume.
#[utoipa::path(get, path = "/volumes/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Volume), (status = 404, body = Problem)))]
async fn inspect(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<Volume> {
    Ok(Json(ask(&daemon, move |shared| shared.volumes.find(&shared.records, &name)).await?))
}

/// Removes a volume that no container has.
#[utoipa::path(delete, path = "/volumes/{name}", params(("name" = String, Path)),
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    let removed = ask(&daemon, move |shared| {
        shared.volumes.remove(&shared.records, &name)?;
        shared.happened_to("volume", "delete", &name, None);
        Ok(())
    });
    Ok(removed.await?)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct All {
    /// Whether those with names go too.
    #[serde(default)]
    all: bool,
}

/// Removes the volumes that no container has.
#[utoipa::path(post, path = "/volumes/prune", params(All), responses((status = 200, body = Pruned)))]
async fn prune(State(daemon): State<Arc<Daemon>>, Query(All { all }): Query<All>) -> Answer<Pruned> {
    let which = if all { Which::All } else { Which::Anonymous };
    let pruned = ask(&daemon, move |shared| {
        let pruned = shared.volumes.prune(&shared.records, which)?;
        pruned.volumes.iter().for_each(|name| shared.happened_to("volume", "delete", name, None));
        Ok(pruned)
    });
    Ok(Json(pruned.await?))
}
