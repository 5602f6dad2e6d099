//! A container's output, from the files that the supervisor writes.

mod files;
mod tail;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use croft_api::container::State;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use crate::container::View;
use files::Reader;

/// How often a file that is followed is looked at. The kernel could tell at each line, which costs more where there are many.
const LOOK: Duration = Duration::from_millis(50);

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Window {
    /// So many of those that are there; all without it. Lines that come later are wanted in any case.
    pub tail: Option<u64>,
    /// Those of this time and later.
    pub since: Option<Timestamp>,
    /// Those of this time and earlier.
    pub until: Option<Timestamp>,
}

/// What is read of a line where only its time matters.
#[derive(Deserialize)]
struct Time<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// When a line was said; none for a line that does not tell.
fn time(line: &[u8]) -> Option<Timestamp> {
    serde_json::from_slice::<Time<'_>>(line).ok()?.time.parse().ok()
}

impl Window {
    /// Of whole lines those that are wanted, and whether none can follow.
    fn cut(&self, lines: Vec<u8>) -> (Vec<u8>, bool) {
        if self.since.is_none() && self.until.is_none() {
            return (lines, false);
        }
        let mut kept = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let when = time(line);
            if when.zip(self.until).is_some_and(|(when, until)| when > until) {
                return (kept, true);
            }
            if when.zip(self.since).is_none_or(|(when, since)| when >= since) {
                kept.extend(line);
            }
        }
        (kept, false)
    }
}

/// Sends the wanted lines of the log at `path`; with `follow`, those that come too, until the container has ended.
pub async fn send(
    path: PathBuf,
    window: Window,
    follow: Option<watch::Receiver<View>>,
    lines: mpsc::Sender<Bytes>,
) {
    if let Err(error) = send_some(&path, window, follow, lines).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a log cannot be read");
    }
}

async fn send_some(
    path: &Path,
    window: Window,
    follow: Option<watch::Receiver<View>>,
    lines: mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let whole = path.to_owned();
    let mut reader = blocking(move || match window.tail {
        None => Ok(Reader::new(whole)),
        Some(count) => tail::reader(whole, count, window.until),
    })
    .await?;
    let mut unfinished = Vec::new();
    loop {
        // Before the file is read: what comes after it is of the next round.
        let over =
            follow.as_ref().is_none_or(|view| view.has_changed().is_err() || has_ended(&view.borrow()));
        let bytes;
        (reader, bytes) = blocking(move || reader.piece().map(|bytes| (reader, bytes))).await?;
        if !bytes.is_empty() {
            unfinished.extend(bytes);
            let Some(end) = unfinished.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = unfinished.split_off(end + 1);
            let (wanted, last) = window.cut(std::mem::replace(&mut unfinished, rest));
            if (!wanted.is_empty() && lines.send(wanted.into()).await.is_err()) || last {
                return Ok(());
            }
            continue;
        }
        if over || window.until.is_some_and(|until| Timestamp::now() > until) {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = lines.closed() => return Ok(()),
        }
    }
}

fn has_ended(view: &View) -> bool {
    matches!(view.state, State::Stopped | State::Created)
}

/// Work that waits for files, where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
