//! tar archives between threads that read and write them, and the connection.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Read, Write};
use std::path::Path;

use croft_api::client::{Client, Pieces};
use croft_api::pieces::{self, Reader};
use http::Method;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::Failed;

/// Where a thread writes what goes to croftd.
pub type Sender = pieces::Writer<io::Error>;

/// Sends what `work` writes.
///
/// # Errors
/// What croftd says, or `work` where croftd took everything.
pub async fn send<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    work: impl FnOnce(&mut BufWriter<Sender>) -> io::Result<()> + Send + 'static,
) -> Result<T, Failed> {
    let (sender, received) = mpsc::channel(pieces::AHEAD);
    let worked = tokio::task::spawn_blocking(move || {
        let ends = sender.clone();
        let mut to = BufWriter::with_capacity(pieces::SIZE, Sender::new(sender, "croftd takes no more"));
        let done = work(&mut to).and_then(|()| to.flush());
        if let Err(e) = &done {
            // Without this croftd would take the end for that of the archive.
            let _ = ends.blocking_send(Err(io::Error::new(e.kind(), e.to_string())));
        }
        done
    });
    let answer = client.upload(method, path, received).await;
    let worked = worked.await.map_err(|e| Failed::from(e.to_string()))?;
    match (answer, worked) {
        (Err(croft_api::client::Error::Broken(_)), Err(e)) => Err(Failed::from(e.to_string())),
        (Ok(_), Err(e)) if e.kind() != ErrorKind::BrokenPipe => Err(Failed::from(e.to_string())),
        (answer, _) => Ok(answer?),
    }
}

/// Has `work` read what comes.
///
/// # Errors
/// When the connection breaks, or what `work` says.
pub async fn receive<T: Send + 'static>(
    mut from: Pieces,
    work: impl FnOnce(Reader) -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    let (sender, received) = mpsc::channel(pieces::AHEAD);
    let worked = tokio::task::spawn_blocking(move || work(Reader::new(received)));
    let broken = loop {
        match from.next().await {
            Ok(Some(piece)) => {
                if sender.send(Ok(piece)).await.is_err() {
                    break None;
                }
            }
            Ok(None) => break None,
            Err(e) => {
                let _ = sender
                    .send(Err(io::Error::new(ErrorKind::ConnectionAborted, "croftd could not go on")))
                    .await;
                break Some(e);
            }
        }
    };
    drop(sender);
    let worked = worked.await.map_err(|e| Failed::from(e.to_string()))?;
    match broken {
        Some(error) => Err(error.into()),
        None => worked,
    }
}

/// Writes what comes to the file `path`, or to the standard output unless that is a terminal. A file that is not complete is removed.
///
/// # Errors
/// When the connection breaks, or it cannot be written.
pub async fn save(from: Pieces, path: Option<&Path>) -> Result<(), Failed> {
    let named = path.map(Path::to_owned);
    let saved = receive(from, move |mut from| match &named {
        Some(path) => {
            let failed = |e: io::Error| Failed::from(format!("{}: {e}", path.display()));
            let mut file = std::fs::File::create(path).map_err(failed)?;
            io::copy(&mut from, &mut file).map(drop).map_err(failed)
        }
        None => copy_out(&mut from),
    });
    let saved = saved.await;
    if let (Err(_), Some(path)) = (&saved, path)
        && path.is_file()
    {
        let _ = std::fs::remove_file(path);
    }
    saved
}

/// Refuses to write an archive to a terminal.
///
/// # Errors
/// When the standard output is one.
pub fn no_terminal(what: &str) -> Result<(), Failed> {
    if io::stdout().is_terminal() {
        return Err(Failed::from(format!("{what} is not for a terminal: --output FILE, or a pipe")));
    }
    Ok(())
}

/// To the standard output.
///
/// # Errors
/// When it cannot be written.
pub fn copy_out(from: &mut impl Read) -> Result<(), Failed> {
    let mut to = io::stdout().lock();
    match io::copy(from, &mut to).and_then(|_| to.flush()) {
        Err(e) => Err(Failed::from(format!("write the archive: {e}"))),
        Ok(()) => Ok(()),
    }
}
