//! Staying with a process: its output here, this terminal's input and size there.
//!
//! croftd may be killed, restarted or upgraded meanwhile: the process goes on, and so does this, from the byte where it was cut off.

mod pass;
mod shown;
pub mod signals;
mod typed;

use std::io::IsTerminal;

use croft_api::client::{Client, Error};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};

use super::Failed;
use super::patience::{Contact, patiently};
use crate::output;
use pass::{Own, pass};
use shown::Shown;
use typed::Typed;

/// What of a process is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Whether it has a terminal, which takes this one's place.
    pub terminal: bool,
    /// Whether this process's input is for it.
    pub stdin: bool,
    /// From where its output is wanted: `oldest` or `now`.
    pub from: &'static str,
}

/// A terminal in raw mode, for as long as this lives.
struct Raw(Termios);

impl Raw {
    fn new() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// How an attachment came to its end.
#[derive(Debug)]
pub enum Ended {
    /// The process's output has ended.
    Process,
    /// The user detached.
    User,
    /// What the process said could not be written here, as whoever read it has gone. The process goes on.
    Unshown(std::io::Error),
}

impl Ended {
    /// Whether the process's end is to be waited for, now.
    ///
    /// # Errors
    /// When its output could not be written.
    pub fn with_process(self) -> Result<bool, Failed> {
        match self {
            Ended::Process => Ok(true),
            Ended::User => Ok(false),
            Ended::Unshown(error) => Err(Failed {
                status: output::unwritten(&error),
                ..Failed::from(format!("write the output: {error}"))
            }),
        }
    }
}

/// An attachment to the streams at a path.
pub struct Attached<C> {
    path: String,
    wanted: Wanted,
    connection: C,
}

/// Attaches to the streams at `path`.
///
/// # Errors
/// When croftd refuses.
pub async fn attach(
    client: &Client,
    path: &str,
    wanted: Wanted,
) -> Result<Attached<impl AsyncRead + AsyncWrite + use<>>, Failed> {
    let connection = client.attach(&Shown::new(wanted).path(path)).await?;
    Ok(Attached { path: path.to_owned(), wanted, connection })
}

/// Attaches to the streams of a container at `path`, and has it started then.
///
/// # Errors
/// When croftd refuses, or it cannot be started.
pub async fn start(
    client: &Client,
    path: &str,
    wanted: Wanted,
) -> Result<Attached<impl AsyncRead + AsyncWrite + use<>>, Failed> {
    let attached = attach(client, &format!("{path}start=true&"), wanted).await?;
    // Who comes back after a break has it started no more.
    Ok(Attached { path: path.to_owned(), ..attached })
}

impl<C: AsyncRead + AsyncWrite> Attached<C> {
    /// Stays until the streams end, or the user detaches.
    ///
    /// # Errors
    /// When the connection breaks for long.
    pub async fn stay(self, client: &Client) -> Result<Ended, Failed> {
        stay(client, &self.path, self.wanted, self.connection).await
    }
}

async fn stay(
    client: &Client,
    path: &str,
    wanted: Wanted,
    first: impl AsyncRead + AsyncWrite,
) -> Result<Ended, Failed> {
    let mut shown = Shown::new(wanted);
    let raw = (wanted.terminal && wanted.stdin && std::io::stdin().is_terminal()).then(Raw::new).flatten();
    let mut own = Own {
        typed: wanted.stdin.then(|| Typed::new(raw.is_some())),
        sizes: if wanted.terminal { signal(SignalKind::window_change()).ok() } else { None },
    };
    let mut lost = match pass(first, &mut shown, &mut own).await {
        Ok(ended) => return Ok(ended),
        Err(error) => error,
    };
    loop {
        let path = shown.path(path);
        let again = match patiently(Contact::Had, || client.attach(&path)).await {
            Ok(connection) => connection,
            // It has ended meanwhile, and is gone with what it said last.
            Err(Error::Refused(_)) if own.typed.is_none() || shown.is_some() => {
                eprintln!("croft: the connection broke, and the rest of the output is not kept any more");
                return Ok(Ended::Process);
            }
            Err(error @ Error::Refused(_)) => return Err(error.into()),
            Err(_) => return Err(Failed::from(format!("the connection to croftd broke: {lost}"))),
        };
        match pass(again, &mut shown, &mut own).await {
            Ok(ended) => return Ok(ended),
            Err(error) => lost = error,
        }
    }
}
