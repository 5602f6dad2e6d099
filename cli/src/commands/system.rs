//! `system` and `events`.

use croft_api::client::{Client, Error};
use croft_api::event::Event;
use croft_api::system::{Finding, Fixed, Info, Prune, PrunedSystem, Usage, Used};
use http::Method;

use super::Failed;
use super::patience::{Contact, patiently};
use crate::args::{EventsArgs, Format, SystemCommand};
use crate::output::{self, Shown};

/// Does what is asked. 1 when `check` finds something.
///
/// # Errors
/// When croftd does not answer.
pub async fn run(client: &Client, command: &SystemCommand, shown: Shown) -> Result<u8, Failed> {
    match command {
        SystemCommand::Info => {
            output::json(&client.get::<Info>("/system/info").await?);
            Ok(0)
        }
        SystemCommand::Df => usage(client, shown.format).await,
        SystemCommand::Prune { all, volumes, force } => {
            prune(client, Prune { all: *all, volumes: *volumes }, *force, shown).await
        }
        SystemCommand::Check { fix: false } => {
            let findings: Vec<Finding> = client.get("/system/check").await?;
            match shown.format {
                _ if shown.quiet => {}
                Format::Json => output::json(&findings),
                Format::Table => print(&findings, "WHY"),
            }
            Ok(u8::from(!findings.is_empty()))
        }
        SystemCommand::Check { fix: true } => {
            let done: Fixed = client.post("/system/check", &()).await?;
            match shown.format {
                _ if shown.quiet => {}
                Format::Json => output::json(&done),
                Format::Table => {
                    if !done.fixed.is_empty() {
                        print(&done.fixed, "FIXED");
                    }
                    print(&done.left, "LEFT");
                }
            }
            Ok(u8::from(!done.left.is_empty()))
        }
    }
}

/// Prints findings below a word for their reasons.
fn print(findings: &[Finding], why: &str) {
    if findings.is_empty() {
        return output::line("nothing is left over");
    }
    let row = |finding: &Finding| vec![finding.what.clone(), finding.name.clone(), finding.why.clone()];
    output::line(output::table(findings, &["WHAT", "NAME", why], row));
}

async fn usage(client: &Client, format: Format) -> Result<u8, Failed> {
    let usage: Usage = client.get("/system/usage").await?;
    if format == Format::Json {
        output::json(&usage);
        return Ok(0);
    }
    let Usage { images, containers, volumes, logs } = usage;
    let rows = [("images", images), ("containers", containers), ("volumes", volumes), ("logs", logs)];
    output::list(format, &rows, &["TYPE", "COUNT", "ACTIVE", "SIZE", "RECLAIMABLE"], |(name, used)| {
        let Used { count, active, bytes, reclaimable } = used;
        let sizes = [output::size(*bytes), output::size(*reclaimable)];
        [vec![(*name).to_owned(), count.to_string(), active.to_string()], sizes.into()].concat()
    });
    Ok(0)
}

async fn prune(client: &Client, asked: Prune, force: bool, shown: Shown) -> Result<u8, Failed> {
    let images = if asked.all { "images that no container is made from" } else { "what no image needs" };
    let volumes = match (asked.volumes, asked.all) {
        (false, _) => "",
        (true, false) => ", volumes without names that no container has",
        (true, true) => ", volumes that no container has",
    };
    if !force && !output::agreed(&format!("Remove all containers that do not run, {images}{volumes}?"))? {
        return Ok(0);
    }
    let pruned: PrunedSystem = client.post("/system/prune", &asked).await?;
    let PrunedSystem { containers, volumes, images, bytes } = &pruned;
    let all = [("container", containers), ("volume", volumes), ("image", images)];
    let lines =
        all.into_iter().flat_map(|(what, names)| names.iter().map(move |name| format!("{what} {name}")));
    shown.lines(&pruned, lines.chain([output::freed(*bytes)]));
    Ok(0)
}

/// `events`, also when croftd is restarted meanwhile.
///
/// # Errors
/// When croftd does not answer, or ends for long.
pub async fn events(client: &Client, args: &EventsArgs, format: Format) -> Result<u8, Failed> {
    let mut since = args.since;
    let mut contact = Contact::None;
    loop {
        let known = since.map(|number| format!("&since={number}")).unwrap_or_default();
        let path = format!("/events?follow={}{known}", !args.no_follow);
        let mut lines = patiently(contact, || client.lines(Method::GET, &path, None::<&()>)).await?;
        loop {
            match lines.next::<Event>().await {
                Ok(Some(event)) => {
                    since = Some(event.id);
                    show(&event, format);
                }
                Ok(None) if args.no_follow => return Ok(0),
                Ok(None) | Err(Error::Broken(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        contact = Contact::Had;
    }
}

fn show(event: &Event, format: Format) {
    if format == Format::Json {
        return output::line(serde_json::to_string(event).unwrap_or_default());
    }
    let Event { id, time, object, action, name, detail, .. } = event;
    let detail = detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    output::line(format_args!("{id} {time} {object} {action} {name}{detail}"));
}
