//! A container's output, from the files that the supervisor writes.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use croft_api::container::State;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{mpsc, watch};

use crate::container::View;

/// How often a file that is followed is looked at. The kernel could tell at each line, which costs more where there are many.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Sends the lines of the log at `path`; with `until`, those that come too, until the container has ended.
pub async fn send(path: PathBuf, until: Option<watch::Receiver<View>>, lines: mpsc::Sender<Bytes>) {
    let mut position = 0;
    let mut unfinished = Vec::new();
    loop {
        // Before the file is read: what comes after it is of the next round.
        let over = until.as_ref().is_none_or(|view| view.has_changed().is_err() || has_ended(&view.borrow()));
        match piece(&path, &mut position).await {
            Ok(bytes) if !bytes.is_empty() => {
                unfinished.extend(bytes);
                let Some(end) = unfinished.iter().rposition(|byte| *byte == b'\n') else { continue };
                let rest = unfinished.split_off(end + 1);
                if lines.send(std::mem::replace(&mut unfinished, rest).into()).await.is_err() {
                    return;
                }
                continue;
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a log cannot be read");
                return;
            }
            _ => {}
        }
        if over {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = lines.closed() => return,
        }
    }
}

fn has_ended(view: &View) -> bool {
    matches!(view.state, State::Stopped | State::Created)
}

/// The next bytes after `position`, which is 0 again in a file that has been begun anew.
async fn piece(path: &std::path::Path, position: &mut u64) -> std::io::Result<Vec<u8>> {
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
