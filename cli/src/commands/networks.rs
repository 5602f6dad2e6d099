//! `network`.

use croft_api::client::Client;
use croft_api::network::{Join, Mode, Network, NewNetwork, Rates};

use super::{Failed, part, report};
use crate::args::{ConnectArgs, Format, NetworkCommand, NetworkCreateArgs};
use crate::output::Shown;
use crate::{config, output};

/// Does what is asked.
///
/// # Errors
/// When it cannot be done.
pub async fn run(client: &Client, command: &NetworkCommand, shown: Shown) -> Result<u8, Failed> {
    match command {
        NetworkCommand::Create(args) => create(client, args, shown).await?,
        NetworkCommand::Ls { quiet } => list(client, *quiet, shown.format).await?,
        NetworkCommand::Inspect(args) => {
            let mut all = Vec::new();
            for name in &args.names {
                all.push(client.get::<Network>(&format!("/networks/{}", part(name))).await?);
            }
            output::json(&all);
        }
        NetworkCommand::Rm(args) => {
            let mut failed = None;
            for name in &args.names {
                report(client.delete(&format!("/networks/{}", part(name))).await, name, shown, &mut failed);
            }
            return failed.map_or(Ok(0), Err);
        }
        NetworkCommand::Prune { force } => {
            if !force && !output::agreed("Remove all networks that no container is in?")? {
                return Ok(0);
            }
            let removed: Vec<String> = client.post::<(), _>("/networks/prune", &()).await?;
            shown.lines(&removed, removed.iter().cloned());
        }
        NetworkCommand::Connect(args) => connect(client, args).await?,
        NetworkCommand::Limit { limits, network, container } => {
            let path = format!("/containers/{}/networks/{}/limits", part(container), part(network));
            client.post::<_, ()>(&path, &Rates::from(*limits)).await?;
        }
        NetworkCommand::Disconnect { network, container } => {
            let path = format!("/containers/{}/networks/{}", part(container), part(network));
            client.delete(&path).await?;
        }
    }
    Ok(0)
}

async fn create(client: &Client, args: &NetworkCreateArgs, shown: Shown) -> Result<(), Failed> {
    let asked = NewNetwork {
        name: args.name.clone(),
        subnets: args.subnet.clone(),
        gateways: args.gateway.clone(),
        internal: args.internal,
        labels: config::pairs("--label", &args.label)?,
        mode: args.mode.into(),
        mtu: args.mtu,
    };
    let network: Network = client.post("/networks", &asked).await?;
    shown.done(&network, &network.name);
    Ok(())
}

async fn list(client: &Client, quiet: bool, format: Format) -> Result<(), Failed> {
    let networks: Vec<Network> = client.get("/networks").await?;
    if quiet {
        networks.iter().for_each(|network| output::line(&network.name));
        return Ok(());
    }
    output::list(format, &networks, &["NAME", "MODE", "SUBNETS", "INTERNAL", "CONTAINERS"], |network| {
        let mode = match network.mode {
            Mode::Bridge => "bridge",
            Mode::Routed => "routed",
        };
        vec![
            network.name.clone(),
            mode.to_owned(),
            network.subnets.join(" "),
            if network.internal { "yes" } else { "no" }.to_owned(),
            network.containers.len().to_string(),
        ]
    });
    Ok(())
}

async fn connect(client: &Client, args: &ConnectArgs) -> Result<(), Failed> {
    let mut join =
        Join { aliases: args.alias.clone(), limits: args.wishes.limits.into(), ..Join::any(&args.network) };
    args.wishes.wish(&mut join);
    client.post::<_, ()>(&format!("/containers/{}/networks", part(&args.container)), &join).await?;
    Ok(())
}
