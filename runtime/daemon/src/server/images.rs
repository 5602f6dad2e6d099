//! Images.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use croft_api::image::{Image, Import, Progress, Pull};
use croft_api::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lines::{line, ndjson};
use super::{Answer, Body, Refusal};
use crate::daemon::{Daemon, blocking};

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(images))
        .routes(routes!(pull))
        .routes(routes!(import))
        .routes(routes!(remove_image))
}

/// Images.
#[utoipa::path(get, path = "/images", responses((status = 200, body = Vec<Image>)))]
async fn images(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Image>> {
    Ok(Json(blocking(move || daemon.shared().roots.list()).await?))
}

/// Gets an image from a registry. The answer's lines tell how far it is; the last one is `done` or `failed`.
#[utoipa::path(post, path = "/images/pull", request_body = Pull, responses((status = 200, body = Progress)))]
async fn pull(
    State(daemon): State<Arc<Daemon>>,
    Body(Pull { image, platform }): Body<Pull>,
) -> Result<Response, Refusal> {
    let (lines, answer) = ndjson();
    tokio::spawn(async move {
        let told = lines.clone();
        let tell = move |progress: Progress| {
            // Whoever is slow misses steps, never the end.
            let _ = told.try_send(line(&progress));
        };
        let last = match daemon.shared().roots.pull(&image, platform.as_deref(), tell).await {
            Ok(image) => Progress::Done { image },
            Err(problem) => Progress::Failed { problem },
        };
        let _ = lines.send(line(&last)).await;
    });
    Ok(answer)
}

/// Takes an image from a file or folder of croftd's host.
#[utoipa::path(post, path = "/images/import", request_body = Import,
    responses((status = 200, body = Image), (status = 400, body = Problem)))]
async fn import(State(daemon): State<Arc<Daemon>>, Body(asked): Body<Import>) -> Answer<Image> {
    Ok(Json(blocking(move || daemon.shared().roots.import(&asked.path, &asked.name)).await?))
}

/// Removes a name of an image, and the image with its last one.
#[utoipa::path(delete, path = "/images/{*name}", params(("name" = String, Path)),
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove_image(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    let used = daemon.list().into_iter().map(|container| (container.image_id, container.name)).collect();
    Ok(blocking(move || daemon.shared().roots.remove_image(&name, &used)).await?)
}
