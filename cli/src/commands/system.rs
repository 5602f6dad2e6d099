//! `system` and `events`.

use croft_api::client::Client;
use croft_api::event::Event;
use croft_api::system::{Finding, Info};
use http::Method;

use super::Failed;
use crate::args::{EventsArgs, Format, SystemCommand};
use crate::output;

/// Does what is asked. 1 when `check` finds something.
///
/// # Errors
/// When croftd does not answer.
pub async fn run(client: &Client, command: &SystemCommand, format: Format) -> Result<u8, Failed> {
    match command {
        SystemCommand::Info => {
            output::json(&client.get::<Info>("/system/info").await?);
            Ok(0)
        }
        SystemCommand::Check => {
            let findings: Vec<Finding> = client.get("/system/check").await?;
            if findings.is_empty() && format == Format::Table {
                println!("nothing is left over");
                return Ok(0);
            }
            output::list(format, &findings, &["WHAT", "NAME", "WHY"], |finding| {
                vec![finding.what.clone(), finding.name.clone(), finding.why.clone()]
            });
            Ok(u8::from(!findings.is_empty()))
        }
    }
}

/// `events`.
///
/// # Errors
/// When croftd does not answer, or ends.
pub async fn events(client: &Client, args: &EventsArgs, format: Format) -> Result<u8, Failed> {
    let since = args.since.map(|number| format!("&since={number}")).unwrap_or_default();
    let path = format!("/events?follow={}{since}", !args.no_follow);
    let mut lines = client.lines(Method::GET, &path, None::<&()>).await?;
    while let Some(event) = lines.next::<Event>().await? {
        if format == Format::Json {
            println!("{}", serde_json::to_string(&event).unwrap_or_default());
        } else {
            let detail = event.detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
            println!("{} {} {} {} {}{detail}", event.id, event.time, event.object, event.action, event.name);
        }
    }
    Ok(0)
}
