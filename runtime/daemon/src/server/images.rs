//! Images.

use std::sync::Arc;

use axum::Json;
use axum::body::Body as Bytes;
use axum::extract::State;
use axum::response::Response;
use croft_api::image::{
    BuildRootfs, Details, Image, Import, Login, Logout, Progress, PrunedImages, Pull, Push, Step, Tag,
};
use croft_api::problem::Problem;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::{download, upload};
use super::lines::{NDJSON, line, ndjson};
use super::{Answer, Body, Path, Query, Refusal};
use crate::daemon::{Daemon, blocking};

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(images))
        .routes(routes!(inspect))
        .routes(routes!(history))
        .routes(routes!(pull))
        .routes(routes!(push))
        .routes(routes!(tag))
        .routes(routes!(import))
        .routes(routes!(export))
        .routes(routes!(load))
        .routes(routes!(build))
        .routes(routes!(prune))
        .routes(routes!(remove))
        .routes(routes!(log_in))
        .routes(routes!(log_out))
}

/// Tells that something happened to images.
fn happened<'a>(daemon: &Daemon, action: &str, names: impl IntoIterator<Item = &'a String>) {
    names.into_iter().for_each(|name| daemon.shared().happened_to("image", action, name, None));
}

/// Images.
#[utoipa::path(get, path = "/images", responses((status = 200, body = Vec<Image>)))]
async fn images(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<Image>> {
    Ok(Json(blocking(move || daemon.shared().roots.list()).await?))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// The image's name or id.
    image: String,
}

/// One image.
#[utoipa::path(get, path = "/images/inspect", params(Which),
    responses((status = 200, body = Details), (status = 404, body = Problem)))]
async fn inspect(State(daemon): State<Arc<Daemon>>, Query(Which { image }): Query<Which>) -> Answer<Details> {
    Ok(Json(blocking(move || daemon.shared().roots.details(&image, &daemon.image_users()?)).await?))
}

/// How an image came about, the newest step first.
#[utoipa::path(get, path = "/images/history", params(Which),
    responses((status = 200, body = Vec<Step>), (status = 404, body = Problem)))]
async fn history(
    State(daemon): State<Arc<Daemon>>,
    Query(Which { image }): Query<Which>,
) -> Answer<Vec<Step>> {
    Ok(Json(blocking(move || daemon.shared().roots.history(&image)).await?))
}

/// An answer whose lines tell how far `work` is. Whoever is slow misses steps, never the end.
fn told<F>(work: impl FnOnce(Box<dyn Fn(Progress) + Send + Sync>) -> F + Send + 'static) -> Response
where
    F: Future<Output = Result<Image, Problem>> + Send,
{
    let (lines, answer) = ndjson();
    tokio::spawn(async move {
        let told = lines.clone();
        let tell = move |progress: Progress| {
            let _ = told.try_send(line(&progress));
        };
        let last = match work(Box::new(tell)).await {
            Ok(image) => Progress::Done { image },
            Err(problem) => Progress::Failed { problem },
        };
        let _ = lines.send(line(&last)).await;
    });
    answer
}

/// Gets an image from a registry. The answer's lines tell how far it is; the last one is `done` or `failed`.
#[utoipa::path(post, path = "/images/pull", request_body = Pull, responses((status = 200, body = Progress, content_type = NDJSON)))]
async fn pull(
    State(daemon): State<Arc<Daemon>>,
    Body(Pull { image, platform }): Body<Pull>,
) -> Result<Response, Refusal> {
    Ok(told(move |tell| async move {
        let pulled = daemon.shared().roots.pull(&image, platform.as_deref(), tell).await?;
        happened(&daemon, "pull", [&image]);
        Ok(pulled)
    }))
}

/// Sends an image to the registry that its name says. The answer is as that of a pull.
#[utoipa::path(post, path = "/images/push", request_body = Push, responses((status = 200, body = Progress, content_type = NDJSON)))]
async fn push(
    State(daemon): State<Arc<Daemon>>,
    Body(Push { image }): Body<Push>,
) -> Result<Response, Refusal> {
    Ok(told(move |tell| async move {
        let pushed = daemon.shared().roots.push(&image, tell).await?;
        happened(&daemon, "push", [&image]);
        Ok(pushed)
    }))
}

/// Gives an image another name too.
#[utoipa::path(post, path = "/images/tag", request_body = Tag,
    responses((status = 200), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn tag(State(daemon): State<Arc<Daemon>>, Body(Tag { image, name }): Body<Tag>) -> Result<(), Refusal> {
    let tagged = move || {
        daemon.shared().roots.tag(&image, &name)?;
        daemon.shared().happened_to("image", "tag", &name, Some(image));
        Ok(())
    };
    Ok(blocking(tagged).await?)
}

/// Takes an image from a file or folder of croftd's host.
#[utoipa::path(post, path = "/images/import", request_body = Import,
    responses((status = 200, body = Image), (status = 400, body = Problem)))]
async fn import(State(daemon): State<Arc<Daemon>>, Body(asked): Body<Import>) -> Answer<Image> {
    let imported = move || {
        let image = daemon.shared().roots.import(&asked.path, &asked.name)?;
        happened(&daemon, "import", [&asked.name]);
        Ok(image)
    };
    Ok(Json(blocking(imported).await?))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Several {
    /// The images' names or ids, with commas between them.
    images: String,
}

/// Images as an archive: an OCI layout that `docker load` reads too.
#[utoipa::path(get, path = "/images/export", params(Several),
    responses((status = 200, content_type = "application/x-tar"), (status = 404, body = Problem)))]
async fn export(
    State(daemon): State<Arc<Daemon>>,
    Query(Several { images }): Query<Several>,
) -> Result<Response, Refusal> {
    let names: Vec<String> = images.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(download(move |to| daemon.shared().roots.save(&names, to)).await?)
}

/// Takes images with their names from an archive.
#[utoipa::path(post, path = "/images/load", request_body(content_type = "application/x-tar"),
    responses((status = 200, body = Vec<Image>), (status = 400, body = Problem)))]
async fn load(State(daemon): State<Arc<Daemon>>, body: Bytes) -> Answer<Vec<Image>> {
    let source = upload(body);
    let loaded = move || {
        let images = daemon.shared().roots.load(source)?;
        happened(&daemon, "load", images.iter().flat_map(|image| &image.names));
        Ok(images)
    };
    Ok(Json(blocking(loaded).await?))
}

/// Makes an image of Debian's packages. The answer comes when it is there: after minutes.
#[utoipa::path(post, path = "/images/build-rootfs", request_body = BuildRootfs,
    responses((status = 200, body = Image), (status = 400, body = Problem), (status = 500, body = Problem)))]
async fn build(State(daemon): State<Arc<Daemon>>, Body(asked): Body<BuildRootfs>) -> Answer<Image> {
    let built = move || {
        let image = daemon.shared().roots.build_rootfs(&asked)?;
        happened(&daemon, "build", &image.names);
        Ok(image)
    };
    Ok(Json(blocking(built).await?))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct All {
    /// Whether images with names go too that no container is made from.
    #[serde(default)]
    all: bool,
}

/// Removes what no image and no container needs.
#[utoipa::path(post, path = "/images/prune", params(All),
    responses((status = 200, body = PrunedImages), (status = 409, body = Problem)))]
async fn prune(State(daemon): State<Arc<Daemon>>, Query(All { all }): Query<All>) -> Answer<PrunedImages> {
    let pruned = move || {
        let pruned = daemon.shared().roots.prune(all, &daemon.image_users()?)?;
        happened(&daemon, "delete", &pruned.names);
        Ok(pruned)
    };
    Ok(Json(blocking(pruned).await?))
}

/// Removes a name of an image, and the image with its last one.
#[utoipa::path(delete, path = "/images/{*name}", params(("name" = String, Path)),
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    let removed = move || {
        daemon.shared().roots.remove_image(&name, &daemon.image_users()?)?;
        happened(&daemon, "delete", [&name]);
        Ok(())
    };
    Ok(blocking(removed).await?)
}

/// Asks a registry whether it knows the user, and keeps what to say to it, in Docker's file of who runs croftd.
#[utoipa::path(post, path = "/registries/login", request_body = Login,
    responses((status = 200), (status = 403, body = Problem), (status = 502, body = Problem)))]
async fn log_in(State(daemon): State<Arc<Daemon>>, Body(login): Body<Login>) -> Result<(), Refusal> {
    Ok(daemon.shared().roots.log_in(login).await?)
}

/// Forgets what to say to a registry.
#[utoipa::path(post, path = "/registries/logout", request_body = Logout,
    responses((status = 200), (status = 404, body = Problem)))]
async fn log_out(
    State(daemon): State<Arc<Daemon>>,
    Body(Logout { registry }): Body<Logout>,
) -> Result<(), Refusal> {
    Ok(blocking(move || daemon.shared().roots.log_out(&registry)).await?)
}
