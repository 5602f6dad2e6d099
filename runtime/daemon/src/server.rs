//! The API: paths, what they carry, and how answers look. What is asked becomes a call of [`Daemon`].

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use bytes::Bytes;
use croft_api::container::{self as wire, State as Doing};
use croft_api::event::Event;
use croft_api::image::{Image, Import, Progress, Pull};
use croft_api::problem::{Kind, Problem};
use croft_api::stream;
use croft_api::system::{Finding, Info};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use utoipa::OpenApi;

use crate::access::{self, Administrators, Caller};
use crate::container::Command;
use crate::daemon::{Daemon, blocking, shown};
use crate::{logs, signals};

/// How long a container has to end when it is asked to, and nobody said otherwise.
const STOP_TIMEOUT: u32 = 10;

/// Everything that can be asked, below the version.
pub fn router(daemon: Arc<Daemon>, administrators: Administrators) -> Router {
    let v1 = Router::new()
        .route("/openapi.json", get(openapi))
        .route("/system/info", get(info))
        .route("/system/check", get(check))
        .route("/events", get(events))
        .route("/containers", get(list).post(create))
        .route("/containers/{name}", get(inspect).delete(remove))
        .route("/containers/{name}/start", post(start))
        .route("/containers/{name}/stop", post(stop))
        .route("/containers/{name}/restart", post(restart))
        .route("/containers/{name}/kill", post(kill))
        .route("/containers/{name}/pause", post(pause))
        .route("/containers/{name}/unpause", post(unpause))
        .route("/containers/{name}/rename", post(rename))
        .route("/containers/{name}/wait", post(wait))
        .route("/containers/{name}/logs", get(show_logs))
        .route("/containers/{name}/attach", post(attach))
        .route("/containers/{name}/exec", post(exec))
        .route("/containers/{name}/exec/{exec}/wait", post(wait_for_exec))
        .route("/images", get(images))
        .route("/images/pull", post(pull))
        .route("/images/import", post(import))
        .route("/images/{*name}", axum::routing::delete(remove_image))
        .fallback(nothing)
        .layer(middleware::from_fn_with_state(administrators, admit))
        .with_state(daemon);
    Router::new().nest(&format!("/{}", croft_api::VERSION), v1).fallback(nothing)
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Peer(credentials.ok().map(|c| {
            // Root's groups decide nothing.
            let groups = if c.uid() == 0 { Vec::new() } else { groups(c.gid(), c.pid()) };
            Caller { uid: c.uid(), groups }
        }))
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer(Option<Caller>);

/// The groups of the process that connected. Its number is only good for that as long as it waits for its answer.
fn groups(own: u32, pid: Option<i32>) -> Vec<u32> {
    let status =
        pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    std::iter::once(own).chain(line.split_whitespace().filter_map(|group| group.parse().ok())).collect()
}

async fn admit(
    State(administrators): State<Administrators>,
    ConnectInfo(Peer(caller)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let unknown = || Problem::new(Kind::Forbidden, "ask croftd", "the kernel does not say who asks");
    access::check(&caller.ok_or_else(unknown)?, administrators)?;
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
    paths(
        info,
        check,
        events,
        list,
        create,
        inspect,
        remove,
        start,
        stop,
        restart,
        kill,
        pause,
        unpause,
        rename,
        wait,
        show_logs,
        exec,
        wait_for_exec,
        attach,
        images,
        pull,
        import,
        remove_image
    ),
    components(schemas(Problem, wire::LogLine, Event, Progress))
)]
struct Document;

/// The OpenAPI document, as JSON.
pub fn document() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

/// What croftd says of itself.
#[utoipa::path(get, path = "/v1/system/info", responses((status = 200, body = Info)))]
async fn info(State(daemon): State<Arc<Daemon>>) -> Json<Info> {
    Json(daemon.info())
}

/// What no record accounts for.
#[utoipa::path(get, path = "/v1/system/check", responses((status = 200, body = Vec<Finding>)))]
async fn check(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Finding>> {
    Ok(Json(blocking(move || daemon.check()).await?))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
struct Since {
    /// The number of the last event that is known; without it only what comes is told.
    since: Option<u64>,
    /// Whether what comes is told too.
    #[serde(default)]
    follow: bool,
}

/// Events, one JSON object a line.
#[utoipa::path(get, path = "/v1/events", params(Since), responses((status = 200, body = Event)))]
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

/// A body that comes line by line.
fn ndjson() -> (mpsc::Sender<Bytes>, Response) {
    let (lines, received) = mpsc::channel::<Bytes>(64);
    let stream = Lines(received);
    let body = axum::body::Body::from_stream(stream);
    (lines, ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
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

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
struct Which {
    /// Whether those are listed too that do not run.
    #[serde(default)]
    all: bool,
}

/// Containers.
#[utoipa::path(get, path = "/v1/containers", params(Which), responses((status = 200, body = Vec<wire::Container>)))]
async fn list(State(daemon): State<Arc<Daemon>>, Query(which): Query<Which>) -> Json<Vec<wire::Container>> {
    let runs = |container: &wire::Container| matches!(container.state, Doing::Running | Doing::Paused);
    Json(daemon.list().into_iter().filter(|container| which.all || runs(container)).collect())
}

/// Makes a container.
#[utoipa::path(post, path = "/v1/containers", request_body = wire::Config,
    responses((status = 201, body = wire::Created), (status = 409, body = Problem)))]
async fn create(
    State(daemon): State<Arc<Daemon>>,
    Body(config): Body<wire::Config>,
) -> Result<(StatusCode, Json<wire::Created>), Refusal> {
    Ok((StatusCode::CREATED, Json(daemon.create(config).await?)))
}

/// One container.
#[utoipa::path(get, path = "/v1/containers/{name}", params(("name" = String, Path)),
    responses((status = 200, body = wire::Container), (status = 404, body = Problem)))]
async fn inspect(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<wire::Container> {
    Ok(Json(shown(daemon.find(&name)?.view())))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
struct Force {
    /// Whether what runs is killed first.
    #[serde(default)]
    force: bool,
}

/// Removes a container.
#[utoipa::path(delete, path = "/v1/containers/{name}", params(("name" = String, Path), Force),
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Force { force }): Query<Force>,
) -> Result<(), Refusal> {
    Ok(daemon.remove(&name, force).await?)
}

/// Starts a container.
#[utoipa::path(post, path = "/v1/containers/{name}/start", params(("name" = String, Path)),
    responses((status = 200), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn start(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(Command::Start).await?)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
struct Timeout {
    /// Seconds until it is killed.
    timeout: Option<u32>,
}

/// Ends a container: asks it to, and kills it when it does not.
#[utoipa::path(post, path = "/v1/containers/{name}/stop", params(("name" = String, Path), Timeout),
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
    let asked = match &record.config.stop_signal {
        Some(asked) => Some(asked.clone()),
        None => daemon.shared().roots.image(&record.image_id).ok().and_then(|image| image.stop_signal),
    };
    let signal = asked.map_or(Ok(signals::TERM), |name| signals::number(&name))?;
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
#[utoipa::path(post, path = "/v1/containers/{name}/restart", params(("name" = String, Path), Timeout),
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
struct Signal {
    /// The signal's name or number; KILL without one.
    signal: Option<String>,
}

/// Sends a signal to a container's first process.
#[utoipa::path(post, path = "/v1/containers/{name}/kill", params(("name" = String, Path), Signal),
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
#[utoipa::path(post, path = "/v1/containers/{name}/pause", params(("name" = String, Path)),
    responses((status = 200), (status = 409, body = Problem)))]
async fn pause(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(Command::Pause).await?)
}

/// Lets a frozen container go on.
#[utoipa::path(post, path = "/v1/containers/{name}/unpause", params(("name" = String, Path)),
    responses((status = 200), (status = 409, body = Problem)))]
async fn unpause(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(Command::Resume).await?)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
struct Name {
    /// The new name.
    name: String,
}

/// Gives a container another name.
#[utoipa::path(post, path = "/v1/containers/{name}/rename", params(("name" = String, Path), Name),
    responses((status = 200), (status = 409, body = Problem)))]
async fn rename(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Name { name: new }): Query<Name>,
) -> Result<(), Refusal> {
    crate::names::check(&new).map_err(|why| Problem::new(Kind::Invalid, format!("rename {name}"), why))?;
    Ok(daemon.find(&name)?.ask(|answer| Command::Rename(new, answer)).await?)
}

/// Waits for the end of a container.
#[utoipa::path(post, path = "/v1/containers/{name}/wait", params(("name" = String, Path)),
    responses((status = 200, body = wire::Exit), (status = 404, body = Problem)))]
async fn wait(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<wire::Exit> {
    let view = daemon.find(&name)?.ended().await?;
    let none = || Problem::new(Kind::Internal, format!("wait {name}"), "its end was not recorded");
    Ok(Json(view.record.exit.ok_or_else(none)?))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
struct Follow {
    /// Whether what comes is told too, until the container ends.
    #[serde(default)]
    follow: bool,
}

/// A container's output so far, one JSON object a line.
#[utoipa::path(get, path = "/v1/containers/{name}/logs", params(("name" = String, Path), Follow),
    responses((status = 200, body = wire::LogLine)))]
async fn show_logs(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Follow { follow }): Query<Follow>,
) -> Result<Response, Refusal> {
    let handle = daemon.find(&name)?;
    let path = daemon.shared().folder(&handle.view().record.id).join("log.json");
    let (lines, answer) = ndjson();
    tokio::spawn(logs::send(path, follow.then(|| handle.watch()), lines));
    Ok(answer)
}

/// Runs a further process in a container. It waits when nobody attaches to it, unless it is detached.
#[utoipa::path(post, path = "/v1/containers/{name}/exec", params(("name" = String, Path)), request_body = wire::Exec,
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
    let exec = crate::exec::start(daemon.shared(), &view.record.id, &title, &asked).await?;
    Ok(Json(wire::Execed { exec }))
}

/// Waits for the end of a further process, and forgets it then.
#[utoipa::path(post, path = "/v1/containers/{name}/exec/{exec}/wait",
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
struct Where {
    /// A further process; the container's own without it.
    exec: Option<String>,
    /// From where its output is wanted: `oldest`, `now`, or a byte's number. Not at all without it.
    stdout: Option<String>,
    /// The same for its standard error.
    stderr: Option<String>,
}

/// Attaches to the streams of a process: the connection is upgraded to `croft-frames-1`.
#[utoipa::path(post, path = "/v1/containers/{name}/attach", params(("name" = String, Path), Where),
    responses((status = 101), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn attach(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(Where { exec, stdout, stderr }): Query<Where>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let view = daemon.find(&name)?.view();
    let title = format!("attach to {}", view.record.name);
    let wants = request.headers().get(header::UPGRADE).is_some_and(|value| value == stream::PROTOCOL);
    if !wants {
        let why = format!("the connection has to be upgraded to {}", stream::PROTOCOL);
        return Err(Problem::new(Kind::Invalid, title, why).into());
    }
    let from = [crate::exec::from(&title, stdout)?, crate::exec::from(&title, stderr)?];
    let streams = crate::exec::attach(daemon.shared(), &title, &view.record.id, exec, from).await?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let relayed = match upgraded.await {
            Ok(client) => crate::exec::relay(streams, hyper_util::rt::TokioIo::new(client)).await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        // Clients go when they please.
        relayed.unwrap_or_else(|error| tracing::debug!(%error, "an attached client has gone"));
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, stream::PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Images.
#[utoipa::path(get, path = "/v1/images", responses((status = 200, body = Vec<Image>)))]
async fn images(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Image>> {
    Ok(Json(blocking(move || daemon.shared().roots.list()).await?))
}

/// Gets an image from a registry. The answer's lines tell how far it is; the last one is `done` or `failed`.
#[utoipa::path(post, path = "/v1/images/pull", request_body = Pull, responses((status = 200, body = Progress)))]
async fn pull(
    State(daemon): State<Arc<Daemon>>,
    Body(Pull { image }): Body<Pull>,
) -> Result<Response, Refusal> {
    let (lines, answer) = ndjson();
    tokio::spawn(async move {
        let told = lines.clone();
        let tell = move |progress: Progress| {
            // Whoever is slow misses steps, never the end.
            let _ = told.try_send(line(&progress));
        };
        let last = match daemon.shared().roots.pull(&image, tell).await {
            Ok(image) => Progress::Done { image },
            Err(problem) => Progress::Failed { problem },
        };
        let _ = lines.send(line(&last)).await;
    });
    Ok(answer)
}

/// Takes an image from a file or folder of croftd's host.
#[utoipa::path(post, path = "/v1/images/import", request_body = Import,
    responses((status = 200, body = Image), (status = 400, body = Problem)))]
async fn import(State(daemon): State<Arc<Daemon>>, Body(asked): Body<Import>) -> Answer<Image> {
    Ok(Json(blocking(move || daemon.shared().roots.import(&asked.path, &asked.name)).await?))
}

/// Removes a name of an image, and the image with its last one.
#[utoipa::path(delete, path = "/v1/images/{name}", params(("name" = String, Path)),
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove_image(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    let used = daemon.list().into_iter().map(|container| (container.image_id, container.name)).collect();
    Ok(blocking(move || daemon.shared().roots.remove_image(&name, &used)).await?)
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
