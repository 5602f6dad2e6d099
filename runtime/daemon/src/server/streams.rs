//! What processes say and hear: logs, further processes, attaching.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use croft_api::container::{self as wire, State as Doing};
use croft_api::problem::{Kind, Problem};
use croft_api::stream;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lines::{NDJSON, ndjson};
use super::{Answer, Body, Path, Query, Refusal};
use crate::container::Command;
use crate::daemon::Daemon;
use crate::logs;

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(show_logs))
        .routes(routes!(exec))
        .routes(routes!(wait_for_exec))
        .routes(routes!(attach))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Follow {
    /// Whether what comes is told too, until the container ends.
    #[serde(default)]
    follow: bool,
    /// How many of the lines that are there; all without it.
    tail: Option<u64>,
    /// Lines of this time and later: RFC 3339.
    since: Option<String>,
    /// Lines of this time and earlier: RFC 3339.
    until: Option<String>,
}

impl Follow {
    fn window(&self, title: &str) -> Result<logs::Window, Problem> {
        let time = |text: &Option<String>| {
            let parsed = text.as_ref().map(|text| text.parse::<jiff::Timestamp>()).transpose();
            parsed.map_err(|e| Problem::new(Kind::Invalid, title, e.to_string()))
        };
        Ok(logs::Window { tail: self.tail, since: time(&self.since)?, until: time(&self.until)? })
    }
}

/// A container's output so far, one JSON object a line.
#[utoipa::path(get, path = "/containers/{name}/logs", params(("name" = String, Path), Follow),
    responses((status = 200, body = wire::LogLine, content_type = NDJSON), (status = 400, body = Problem)))]
async fn show_logs(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(asked): Query<Follow>,
) -> Result<Response, Refusal> {
    let handle = daemon.find(&name)?;
    let window = asked.window(&format!("logs of {name}"))?;
    let path = daemon.shared().folder(&handle.view().record.id).join("log.json");
    let (lines, answer) = ndjson();
    tokio::spawn(logs::send(path, window, asked.follow.then(|| handle.watch()), lines));
    Ok(answer)
}

/// Runs a further process in a container. It waits when nobody attaches to it, unless it is detached.
#[utoipa::path(post, path = "/containers/{name}/exec", params(("name" = String, Path)), request_body = wire::Exec,
    responses((status = 200, body = wire::Execed), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn exec(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Body(asked): Body<wire::Exec>,
) -> Answer<wire::Execed> {
    let view = daemon.find(&name)?.view();
    let title = format!("exec in {}", view.record.name);
    if view.state != Doing::Running {
        let why = format!("it is {}", crate::container::word(view.state));
        return Err(Problem::new(Kind::WrongState, title, why).into());
    }
    let exec = crate::exec::start(daemon.shared(), &view.record, &title, &asked).await?;
    Ok(Json(wire::Execed { exec }))
}

/// Waits for the end of a further process. How it ended is known for a minute.
#[utoipa::path(post, path = "/containers/{name}/exec/{exec}/wait",
    params(("name" = String, Path), ("exec" = String, Path)),
    responses((status = 200, body = wire::Exit), (status = 404, body = Problem)))]
async fn wait_for_exec(
    State(daemon): State<Arc<Daemon>>,
    Path((name, exec)): Path<(String, String)>,
) -> Answer<wire::Exit> {
    let id = daemon.find(&name)?.view().record.id;
    Ok(Json(crate::exec::wait(daemon.shared(), &id, exec).await?))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Where {
    /// A further process; the container's own without it.
    exec: Option<String>,
    /// From where its output is wanted: `oldest`, `now`, or a byte's number. Not at all without it.
    stdout: Option<String>,
    /// The same for its standard error.
    stderr: Option<String>,
    /// Whether the container is started, once this is attached to it.
    #[serde(default)]
    start: bool,
}

/// Attaches to the streams of a process, and starts it if that is asked: nothing that it says is missed then. The connection is upgraded to `croft-frames-1`.
#[utoipa::path(post, path = "/containers/{name}/attach", params(("name" = String, Path), Where),
    responses((status = 101), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn attach(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Where { exec, stdout, stderr, start }): Query<Where>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let handle = daemon.find(&name)?;
    let view = handle.view();
    let title = format!("attach to {}", view.record.name);
    let wants = request.headers().get(header::UPGRADE).is_some_and(|value| value == stream::PROTOCOL);
    if !wants {
        let why = format!("the connection has to be upgraded to {}", stream::PROTOCOL);
        return Err(Problem::new(Kind::Invalid, title, why).into());
    }
    let from = [crate::exec::from(&title, stdout)?, crate::exec::from(&title, stderr)?];
    let (streams, input) = match start {
        true => handle.ask(|answer| Command::StartAttached(from, answer)).await?,
        false => crate::exec::attach(daemon.shared(), &title, &view.record.id, exec, from).await?,
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let relayed = match upgraded.await {
            Ok(client) => crate::exec::relay(streams, input, hyper_util::rt::TokioIo::new(client)).await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        // Clients go when they please.
        relayed.unwrap_or_else(|error| tracing::debug!(%error, "an attached client has gone"));
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, stream::PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
