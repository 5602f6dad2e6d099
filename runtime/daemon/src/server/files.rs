//! Files of containers, in and out.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::body::Body as Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use croft_api::container::State as Doing;
use croft_api::files::{Change, ChangeKind, Commit, FileKind, Stat};
use croft_api::image::Image;
use croft_api::problem::{Kind, Problem};
use croft_images::diff;
use croft_images::files::Last;
use rustix::fs::FileType;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::{download, upload};
use super::{Answer, Body, Path, Query, Refusal};
use crate::container::Command;
use crate::daemon::{Daemon, blocking};
use crate::files::{self, Which};

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(read, write))
        .routes(routes!(stat))
        .routes(routes!(changes))
        .routes(routes!(export))
        .routes(routes!(commit))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Where {
    /// The path in the container.
    path: String,
    /// Whether what a link leads to is meant, and not the link.
    #[serde(default)]
    follow: bool,
}

impl Where {
    /// Without `.` and the rest that means nothing; `..` is for the kernel.
    fn path(&self) -> PathBuf {
        std::path::Path::new("/").join(&self.path).components().collect()
    }

    fn last(&self) -> Last {
        // A slash at the end means a folder, as with every program; with a point behind it, what is in the folder.
        let is_folder = self.path.ends_with('/') || self.path.ends_with("/.");
        match (is_folder, self.follow) {
            (true, _) => Last::Folder,
            (false, true) => Last::Followed,
            (false, false) => Last::Itself,
        }
    }
}

/// A file or folder of a container as a tar archive, with the owners that the container sees.
#[utoipa::path(get, path = "/containers/{name}/archive", params(("name" = String, Path), Where),
    responses((status = 200, content_type = "application/x-tar"), (status = 404, body = Problem)))]
async fn read(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(asked): Query<Where>,
) -> Result<Response, Refusal> {
    let title = format!("copy {} of {name}", asked.path);
    let files = files::of(&daemon, &name, Which::Seen(asked.path()), &title).await?;
    let last = asked.last();
    Ok(download(move |to| files.pack(last, to, &title)).await?)
}

/// Unpacks a tar archive into a folder of a container. Owners are the container's.
#[utoipa::path(put, path = "/containers/{name}/archive", params(("name" = String, Path), Where),
    request_body(content_type = "application/x-tar"),
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn write(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(asked): Query<Where>,
    body: Bytes,
) -> Result<(), Refusal> {
    let title = format!("copy to {} of {name}", asked.path);
    let files = files::of(&daemon, &name, Which::Seen(asked.path()), &title).await?;
    let source = upload(body);
    Ok(blocking(move || files.unpack(source, &title)).await?)
}

/// What is there under a name in a container.
#[utoipa::path(get, path = "/containers/{name}/stat", params(("name" = String, Path), Where),
    responses((status = 200, body = Stat), (status = 404, body = Problem)))]
async fn stat(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Query(asked): Query<Where>,
) -> Answer<Stat> {
    let title = format!("look at {} of {name}", asked.path);
    let files = files::of(&daemon, &name, Which::Seen(asked.path()), &title).await?;
    let found = blocking(move || files.look(asked.last(), &title)).await?;
    let kind = match found.kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Folder,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Other,
    };
    let target = found.target.map(|target| target.to_string_lossy().into_owned());
    Ok(Json(Stat { kind, mode: found.mode, size: found.size, target }))
}

/// What of a container's root is not as in its image.
#[utoipa::path(get, path = "/containers/{name}/changes", params(("name" = String, Path)),
    responses((status = 200, body = Vec<Change>), (status = 404, body = Problem)))]
async fn changes(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<Vec<Change>> {
    let id = daemon.find(&name)?.view().record.id;
    let changes = blocking(move || daemon.shared().roots.diff(&id, &format!("compare {name}"))).await?;
    let shown = |change: diff::Change| Change {
        kind: match change.kind {
            diff::Kind::Added => ChangeKind::A,
            diff::Kind::Changed => ChangeKind::C,
            diff::Kind::Deleted => ChangeKind::D,
        },
        path: change.path.to_string_lossy().into_owned(),
    };
    Ok(Json(changes.into_iter().map(shown).collect()))
}

/// A container's whole root as a tar archive, without what is mounted in it.
#[utoipa::path(get, path = "/containers/{name}/export", params(("name" = String, Path)),
    responses((status = 200, content_type = "application/x-tar"), (status = 404, body = Problem)))]
async fn export(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    let title = format!("export {name}");
    let files = files::of(&daemon, &name, Which::Own, &title).await?;
    Ok(download(move |to| files.pack(Last::Itself, to, &title)).await?)
}

/// Makes an image of a container's image and what it changed.
#[utoipa::path(post, path = "/containers/{name}/commit", params(("name" = String, Path)), request_body = Commit,
    responses((status = 201, body = Image), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn commit(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Body(asked): Body<Commit>,
) -> Result<(StatusCode, Json<Image>), Refusal> {
    let handle = daemon.find(&name)?;
    let title = format!("commit {name}");
    let pauses = asked.pause && handle.view().state == Doing::Running;
    let (shared, record) = (Arc::clone(daemon.shared()), handle.view().record);
    let (id, container) = (record.id, record.name);
    let mark = shared.frozen_for_commit(&id);
    if pauses {
        let marked = tokio::fs::write(&mark, "").await;
        marked.map_err(|e| Problem::new(Kind::Internal, &title, format!("{}: {e}", mark.display())))?;
        if let Err(problem) = handle.ask(Command::Pause).await {
            // Nobody froze it.
            let _ = tokio::fs::remove_file(&mark).await;
            return Err(problem.into());
        }
    }
    // A task of its own: one who asked and went leaves nothing frozen.
    let committed = tokio::spawn(async move {
        let made = blocking(move || {
            let image = shared.roots.commit(&id, &asked, &title)?;
            shared.happened("commit", &container, image.names.first().cloned());
            Ok(image)
        });
        let made = made.await;
        if pauses {
            if let Err(problem) = handle.ask(Command::Resume).await {
                tracing::warn!(%problem, "a container that was frozen for a commit is not let go on");
            }
            // With the container's folder it may be gone already.
            let _ = tokio::fs::remove_file(&mark).await;
        }
        made
    });
    let failed = |e: tokio::task::JoinError| Problem::new(Kind::Internal, "commit", e.to_string());
    Ok((StatusCode::CREATED, Json(committed.await.map_err(failed)??)))
}
