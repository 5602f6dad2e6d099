//! Containers: from their making to their removal.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use croft_api::container::{self as wire, State as Doing};
use croft_api::problem::{Kind, Problem};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, Body, Path, Query, Refusal};
use crate::container::{Command, Removal};
use crate::daemon::{Daemon, blocking};
use crate::signals;

/// How long a container has to end when it is asked to, and nobody said otherwise.
const STOP_TIMEOUT: u32 = 10;

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(inspect, remove))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(kill))
        .routes(routes!(pause))
        .routes(routes!(unpause))
        .routes(routes!(rename))
        .routes(routes!(update))
        .routes(routes!(wait))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Whether those are listed too that do not run.
    #[serde(default)]
    all: bool,
}

/// Containers.
#[utoipa::path(get, path = "/containers", params(Which), responses((status = 200, body = Vec<wire::Container>)))]
async fn list(State(daemon): State<Arc<Daemon>>, Query(which): Query<Which>) -> Json<Vec<wire::Container>> {
    let runs = |container: &wire::Container| matches!(container.state, Doing::Running | Doing::Paused);
    Json(daemon.list().into_iter().filter(|container| which.all || runs(container)).collect())
}

/// Makes a container.
#[utoipa::path(post, path = "/containers", request_body = wire::Config,
    responses((status = 201, body = wire::Created), (status = 409, body = Problem)))]
async fn create(
    State(daemon): State<Arc<Daemon>>,
    Body(config): Body<wire::Config>,
) -> Result<(StatusCode, Json<wire::Created>), Refusal> {
    Ok((StatusCode::CREATED, Json(daemon.create(config).await?)))
}

/// One container.
#[utoipa::path(get, path = "/containers/{name}", params(("name" = String, Path)),
    responses((status = 200, body = wire::Container), (status = 404, body = Problem)))]
async fn inspect(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<wire::Container> {
    let view = daemon.find(&name)?.view();
    Ok(Json(daemon.shared().shown(view)))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Force {
    /// Whether what runs is killed first.
    #[serde(default)]
    force: bool,
    /// Whether its volumes without names are removed too.
    #[serde(default)]
    volumes: bool,
}

/// Removes a container.
#[utoipa::path(delete, path = "/containers/{name}", params(("name" = String, Path), Force),
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Force { force, volumes }): Query<Force>,
) -> Result<(), Refusal> {
    Ok(daemon.remove(&name, Removal { force, volumes }).await?)
}

/// Starts a container.
#[utoipa::path(post, path = "/containers/{name}/start", params(("name" = String, Path)),
    responses((status = 200), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn start(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(Command::Start).await?)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Timeout {
    /// Seconds until it is killed.
    timeout: Option<u32>,
}

/// Ends a container: asks it to, and kills it when it does not.
#[utoipa::path(post, path = "/containers/{name}/stop", params(("name" = String, Path), Timeout),
    responses((status = 200), (status = 404, body = Problem)))]
async fn stop(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Timeout { timeout }): Query<Timeout>,
) -> Result<(), Refusal> {
    Ok(stop_it(&daemon, &name, timeout).await?)
}

async fn stop_it(daemon: &Daemon, name: &str, timeout: Option<u32>) -> Result<(), Problem> {
    let handle = daemon.find(name)?;
    let record = handle.view().record;
    let signal = daemon.shared().stop_signal(&record);
    handle.ask(|answer| Command::Stop(signal, answer)).await?;
    if !matches!(handle.view().state, Doing::Running | Doing::Paused) {
        return Ok(());
    }
    let seconds = timeout.or(record.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
    let limit = std::time::Duration::from_secs(seconds.into());
    if tokio::time::timeout(limit, handle.ended()).await.is_err() {
        match handle.ask(|answer| Command::Kill(signals::KILL, answer)).await {
            // It has ended in between.
            Err(problem) if problem.kind == Kind::WrongState => {}
            other => other?,
        }
        // A removed container has ended too.
        let _ = handle.ended().await;
    }
    Ok(())
}

/// Ends a container and starts it.
#[utoipa::path(post, path = "/containers/{name}/restart", params(("name" = String, Path), Timeout),
    responses((status = 200), (status = 404, body = Problem)))]
async fn restart(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Timeout { timeout }): Query<Timeout>,
) -> Result<(), Refusal> {
    stop_it(&daemon, &name, timeout).await?;
    Ok(daemon.find(&name)?.ask(Command::Start).await?)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Signal {
    /// The signal's name or number; KILL without one.
    signal: Option<String>,
}

/// Sends a signal to a container's first process.
#[utoipa::path(post, path = "/containers/{name}/kill", params(("name" = String, Path), Signal),
    responses((status = 200), (status = 409, body = Problem)))]
async fn kill(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Signal { signal }): Query<Signal>,
) -> Result<(), Refusal> {
    let number = signals::number(signal.as_deref().unwrap_or("KILL"))?;
    Ok(daemon.find(&name)?.ask(|answer| Command::Kill(number, answer)).await?)
}

/// Freezes a container.
#[utoipa::path(post, path = "/containers/{name}/pause", params(("name" = String, Path)),
    responses((status = 200), (status = 409, body = Problem)))]
async fn pause(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(Command::Pause).await?)
}

/// Lets a frozen container go on.
#[utoipa::path(post, path = "/containers/{name}/unpause", params(("name" = String, Path)),
    responses((status = 200), (status = 409, body = Problem)))]
async fn unpause(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(Command::Resume).await?)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Name {
    /// The new name.
    name: String,
}

/// Gives a container another name.
#[utoipa::path(post, path = "/containers/{name}/rename", params(("name" = String, Path), Name),
    responses((status = 200), (status = 409, body = Problem)))]
async fn rename(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Name { name: new }): Query<Name>,
) -> Result<(), Refusal> {
    croft_api::names::check(&new)
        .map_err(|why| Problem::new(Kind::Invalid, format!("rename {name}"), why))?;
    Ok(daemon.find(&name)?.ask(|answer| Command::Rename(new, answer)).await?)
}

/// Changes a container's limits and policy. What cannot be leaves all as it was.
#[utoipa::path(post, path = "/containers/{name}/update", params(("name" = String, Path)), request_body = wire::Update,
    responses((status = 200), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn update(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Body(asked): Body<wire::Update>,
) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(|answer| Command::Update(asked, answer)).await?)
}

/// Waits for the end of a container. Of one that has been removed it is known for a while, by its whole id.
#[utoipa::path(post, path = "/containers/{name}/wait", params(("name" = String, Path)),
    responses((status = 200, body = wire::Exit), (status = 404, body = Problem)))]
async fn wait(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<wire::Exit> {
    let handle = match daemon.find(&name) {
        Ok(handle) => handle,
        Err(problem) => {
            let shared = Arc::clone(daemon.shared());
            let known = blocking(move || shared.records.end_of(&name)).await?;
            return known.map(Json).ok_or_else(|| problem.into());
        }
    };
    let view = handle.ended().await?;
    let none = || Problem::new(Kind::Internal, format!("wait {name}"), "its end was not recorded");
    Ok(Json(view.record.exit.ok_or_else(none)?))
}
