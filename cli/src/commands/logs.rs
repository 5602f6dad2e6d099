//! `logs`.

use croft_api::client::{Client, Error};
use croft_api::container::{Container, LogLine};
use http::Method;

use super::containers::runs;
use super::patience::{Contact, patiently};
use super::{Failed, part};
use crate::args::{Format, LogsArgs};
use crate::config::Tail;
use crate::output::{self, Shown};

/// Shows what a container has said, and what it says, also when croftd is restarted meanwhile.
///
/// # Errors
/// When it is not there, or its output cannot be written.
pub async fn run(client: &Client, args: &LogsArgs, shown: Shown) -> Result<u8, Failed> {
    let path = format!("/containers/{}", part(&args.name));
    let window = [("since", args.since), ("until", args.until)];
    let mut query: String =
        window.iter().filter_map(|(name, time)| time.map(|time| format!("&{name}={time}"))).collect();
    if let Tail::Last(lines) = args.tail {
        query += &format!("&tail={lines}");
    }
    let mut place = Place { is_cut: args.tail != Tail::All, ..Place::default() };
    let mut contact = Contact::None;
    let mut follows = args.follow;
    loop {
        let asked = format!("{path}/logs?follow={follows}{query}");
        let ended = show(client, &asked, contact, &mut place, (args.timestamps, shown.format)).await?;
        if ended && (!follows || args.until.is_some()) {
            return Ok(0);
        }
        // Either the container has ended or croftd has: what was said last is asked for once more.
        contact = Contact::Had;
        follows = match patiently(contact, || client.get::<Container>(&path)).await {
            Ok(container) => args.follow && runs(&container),
            // Removed, with its log.
            Err(Error::Refused(_)) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        if let Some(time) = &place.time {
            let until = args.until.map(|until| format!("&until={until}")).unwrap_or_default();
            query = format!("&since={time}{until}");
        }
    }
}

/// Where a log has been read to: the time of the last line, and which line of that time it is. Lines of one write have one time.
#[derive(Default)]
struct Place {
    time: Option<String>,
    lines: usize,
    /// Lines of this time were left out (`--tail`), and nobody knows how many: all of it are taken for shown.
    is_cut: bool,
}

/// Shows lines beyond `place`. Whether their end was reached; otherwise the connection broke.
async fn show(
    client: &Client,
    path: &str,
    contact: Contact,
    place: &mut Place,
    (timestamps, format): (bool, Format),
) -> Result<bool, Failed> {
    let mut lines = patiently(contact, || client.lines(Method::GET, path, None::<&()>)).await?;
    let mut repeated = match (&place.time, place.is_cut) {
        (None, _) => 0,
        (Some(_), false) => place.lines,
        (Some(_), true) => usize::MAX,
    };
    loop {
        let line = match lines.next::<LogLine>().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(true),
            Err(Error::Broken(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if place.time.as_deref() == Some(&line.time) {
            if repeated > 0 {
                repeated -= 1;
                continue;
            }
            place.lines += 1;
        } else {
            repeated = 0;
            let is_cut = place.is_cut && place.time.is_none();
            *place = Place { time: Some(line.time.clone()), lines: 1, is_cut };
        }
        if format == Format::Json {
            output::line(serde_json::to_string(&line).unwrap_or_default());
            continue;
        }
        if let Some(lines) = line.dropped_lines {
            let bytes = output::size(line.dropped_bytes.unwrap_or_default());
            eprintln!(
                "croft: {lines} lines ({bytes}) are missing here: past the rate of the log, or the disk was full"
            );
            continue;
        }
        let LogLine { time, stream, log, .. } = line;
        let text = if timestamps { format!("{time} {log}") } else { log };
        match stream.as_str() {
            "stderr" => output::print_to(std::io::stderr(), &text),
            _ => output::print(&text),
        }
    }
}
