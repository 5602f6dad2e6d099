//! `volume`.

use croft_api::client::{Client, Error};
use croft_api::problem::Kind;
use croft_api::volume::{Create, Pruned, Volume};

use super::{Failed, part};
use crate::args::VolumeCommand;
use crate::config;
use crate::output::{self, Shown};

/// Does what is asked.
///
/// # Errors
/// When it cannot be done.
pub async fn run(client: &Client, command: &VolumeCommand, shown: Shown) -> Result<u8, Failed> {
    match command {
        VolumeCommand::Create { label, name } => {
            let asked = Create { name: name.clone(), labels: config::pairs("--label", label)? };
            let made: Volume = client.post("/volumes", &asked).await?;
            shown.done(&made, &made.name);
        }
        VolumeCommand::Ls => list(client, shown).await?,
        VolumeCommand::Inspect { names } => {
            let mut all: Vec<Volume> = Vec::new();
            for name in names {
                all.push(client.get(&format!("/volumes/{}", part(name))).await?);
            }
            output::json(&all);
        }
        VolumeCommand::Rm { force, names } => {
            let mut failed = None;
            for name in names {
                let done = match client.delete(&format!("/volumes/{}", part(name))).await {
                    Err(Error::Refused(problem)) if *force && problem.kind == Kind::NotFound => continue,
                    done => done,
                };
                super::report(done, name, shown, &mut failed);
            }
            return failed.map_or(Ok(0), Err);
        }
        VolumeCommand::Prune { all, force } => prune(client, *all, *force, shown).await?,
    }
    Ok(0)
}

async fn list(client: &Client, shown: Shown) -> Result<(), Failed> {
    let volumes: Vec<Volume> = client.get("/volumes").await?;
    if shown.quiet {
        volumes.iter().for_each(|volume| output::line(&volume.name));
        return Ok(());
    }
    output::list(shown.format, &volumes, &["NAME", "CREATED", "USED BY"], |volume| {
        let created = volume.created.chars().take(19).collect();
        vec![volume.name.clone(), created, volume.used_by.join(" ")]
    });
    Ok(())
}

async fn prune(client: &Client, all: bool, force: bool, shown: Shown) -> Result<(), Failed> {
    let what = if all { "all volumes" } else { "the volumes without names" };
    if !force && !output::agreed(&format!("Remove {what} that no container has?"))? {
        return Ok(());
    }
    let pruned: Pruned = client.post(&format!("/volumes/prune?all={all}"), &()).await?;
    shown.lines(&pruned, pruned.volumes.iter().cloned().chain([output::freed(pruned.bytes)]));
    Ok(())
}
