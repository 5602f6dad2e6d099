//! A container's output, from the files that the supervisor writes.

mod tail;

use std::borrow::Cow;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use croft_api::container::State;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{mpsc, watch};

use crate::container::View;

/// How often a file that is followed is looked at. The kernel could tell at each line, which costs more where there are many.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

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
    let mut position = match window.tail {
        None => 0,
        Some(count) => match tail::start(path.to_owned(), count, window.until).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            other => other?,
        },
    };
    let mut unfinished = Vec::new();
    loop {
        // Before the file is read: what comes after it is of the next round.
        let over =
            follow.as_ref().is_none_or(|view| view.has_changed().is_err() || has_ended(&view.borrow()));
        match piece(path, &mut position).await {
            Ok(bytes) if !bytes.is_empty() => {
                unfinished.extend(bytes);
                let Some(end) = unfinished.iter().rposition(|byte| *byte == b'\n') else { continue };
                let rest = unfinished.split_off(end + 1);
                let (wanted, last) = window.cut(std::mem::replace(&mut unfinished, rest));
                if (!wanted.is_empty() && lines.send(wanted.into()).await.is_err()) || last {
                    return Ok(());
                }
                continue;
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
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

/// The next bytes after `position`, which is 0 again in a file that has been begun anew.
async fn piece(path: &Path, position: &mut u64) -> std::io::Result<Vec<u8>> {
    let mut file = tokio::fs::File::open(path).await?;
    if file.metadata().await?.len() < *position {
        *position = 0;
    }
    file.seek(SeekFrom::Start(*position)).await?;
    let mut bytes = Vec::with_capacity(PIECE);
    file.take(PIECE as u64).read_to_end(&mut bytes).await?;
    *position += bytes.len() as u64;
    Ok(bytes)
}
