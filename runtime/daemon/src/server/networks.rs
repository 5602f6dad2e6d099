//! Networks, and who is on them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use croft_api::network::{Counters, Join, Network, NewNetwork, Rates};
use croft_api::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, Body, Path, Refusal};
use crate::container::Command;
use crate::daemon::{Daemon, NetworkChange, blocking};

pub fn router() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(prune))
        .routes(routes!(inspect, remove))
        .routes(routes!(connect))
        .routes(routes!(disconnect))
        .routes(routes!(limit))
        .routes(routes!(counters))
}

/// Networks.
#[utoipa::path(get, path = "/networks", responses((status = 200, body = Vec<Network>)))]
async fn list(State(daemon): State<Arc<Daemon>>) -> Json<Vec<Network>> {
    Json(daemon.shared().networks.list())
}

/// Makes a network.
#[utoipa::path(post, path = "/networks", request_body = NewNetwork,
    responses((status = 201, body = Network), (status = 400, body = Problem), (status = 409, body = Problem)))]
async fn create(
    State(daemon): State<Arc<Daemon>>,
    Body(asked): Body<NewNetwork>,
) -> Result<(StatusCode, Json<Network>), Refusal> {
    let made = blocking(move || {
        let network = daemon.shared().networks.create(asked.try_into()?)?;
        daemon.shared().happened_to("network", "create", &network.name, None);
        Ok(network)
    });
    Ok((StatusCode::CREATED, Json(made.await?)))
}

/// Removes all networks that no container is in, but for the one that is there without being made. Gives their names.
#[utoipa::path(post, path = "/networks/prune", responses((status = 200, body = Vec<String>)))]
async fn prune(State(daemon): State<Arc<Daemon>>) -> Answer<Vec<String>> {
    let removed = blocking(move || {
        let removed = daemon.shared().networks.prune()?;
        removed.iter().for_each(|name| daemon.shared().happened_to("network", "delete", name, None));
        Ok(removed)
    });
    Ok(Json(removed.await?))
}

/// One network.
#[utoipa::path(get, path = "/networks/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Network), (status = 404, body = Problem)))]
async fn inspect(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<Network> {
    Ok(Json(daemon.shared().networks.inspect(&name)?))
}

/// Removes a network that no container is in.
#[utoipa::path(delete, path = "/networks/{name}", params(("name" = String, Path)),
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Result<(), Refusal> {
    let removed = blocking(move || {
        daemon.shared().networks.remove(&name)?;
        daemon.shared().happened_to("network", "delete", &name, None);
        Ok(())
    });
    Ok(removed.await?)
}

/// Lets a container join a network, whether it runs or not.
#[utoipa::path(post, path = "/containers/{name}/networks", params(("name" = String, Path)), request_body = Join,
    responses((status = 200), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn connect(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    Body(join): Body<Join>,
) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(|answer| Command::Network(NetworkChange::Join(join), answer)).await?)
}

/// Lets a container leave a network.
#[utoipa::path(delete, path = "/containers/{name}/networks/{network}",
    params(("name" = String, Path), ("network" = String, Path)),
    responses((status = 200), (status = 404, body = Problem)))]
async fn disconnect(
    State(daemon): State<Arc<Daemon>>,
    Path((name, network)): Path<(String, String)>,
) -> Result<(), Refusal> {
    Ok(daemon.find(&name)?.ask(|answer| Command::Network(NetworkChange::Leave(network), answer)).await?)
}

/// Limits what goes between a container and a network; what is not given is not limited.
#[utoipa::path(post, path = "/containers/{name}/networks/{network}/limits",
    params(("name" = String, Path), ("network" = String, Path)), request_body = Rates,
    responses((status = 200), (status = 400, body = Problem), (status = 404, body = Problem)))]
async fn limit(
    State(daemon): State<Arc<Daemon>>,
    Path((name, network)): Path<(String, String)>,
    Body(rates): Body<Rates>,
) -> Result<(), Refusal> {
    let change = NetworkChange::Limit(network, rates);
    Ok(daemon.find(&name)?.ask(|answer| Command::Network(change, answer)).await?)
}

/// What went through each interface of a container since it was connected.
#[utoipa::path(get, path = "/containers/{name}/networks/counters", params(("name" = String, Path)),
    responses((status = 200, body = Vec<Counters>), (status = 404, body = Problem)))]
async fn counters(State(daemon): State<Arc<Daemon>>, Path(name): Path<String>) -> Answer<Vec<Counters>> {
    let id = daemon.find(&name)?.view().record.id;
    Ok(Json(blocking(move || daemon.shared().networks.counters(&id)).await?))
}
