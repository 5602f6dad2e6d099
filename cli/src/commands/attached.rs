//! Staying with a process: its output here, this terminal's input and size there.

use std::io::{IsTerminal, Write};

use croft_api::client::Client;
use croft_api::stream::{self, Frame, Output, PAYLOAD_LIMIT};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use super::Failed;

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

/// Detaches a terminal from a container that goes on: control-p, then control-q, as with Docker.
const DETACH: [u8; 2] = [0x10, 0x11];

/// How an attachment came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The process's output has ended.
    Process,
    /// The user detached.
    User,
}

/// Attaches to the streams at `path` until they end, or the user detaches.
///
/// # Errors
/// When croftd refuses, or the connection breaks.
pub async fn stay(client: &Client, path: &str, wanted: Wanted) -> Result<Ended, Failed> {
    let both = if wanted.terminal { "" } else { "&stderr=oldest" };
    let path = format!("{path}stdout={}{both}", wanted.from);
    let connection = client.attach(&path).await?;
    let (mut from, to) = tokio::io::split(connection);
    let raw = (wanted.terminal && wanted.stdin && std::io::stdin().is_terminal()).then(Raw::new).flatten();
    let (frames, mut sent) = tokio::sync::mpsc::channel::<Frame>(16);
    let mut to = to;
    let sender = tokio::spawn(async move {
        while let Some(frame) = sent.recv().await {
            if stream::write(&mut to, &frame.encode()).await.is_err() {
                return;
            }
        }
    });
    let (detached, mut by_user) = tokio::sync::oneshot::channel();
    let mut helpers = Vec::new();
    if wanted.terminal {
        helpers.push(tokio::spawn(sizes(frames.clone())));
    }
    if wanted.stdin {
        helpers.push(tokio::spawn(input(frames.clone(), raw.is_some(), detached)));
    }
    let mut typing = wanted.stdin;
    let mut open = if wanted.terminal { 1 } else { 2 };
    let ended = loop {
        tokio::select! {
            packet = stream::read(&mut from) => {
                let broken = |e: std::io::Error| Failed::from(format!("the connection to croftd broke: {e}"));
                let Some(packet) = packet.map_err(broken)? else { break Ended::Process };
                match Frame::decode(&packet) {
                    Some(Frame::Data { output, offset, bytes }) => {
                        show(output, &bytes);
                        let _ = frames.send(Frame::Seen { output, offset: offset + bytes.len() as u64 }).await;
                    }
                    Some(Frame::Gap { lost, .. }) => eprintln!("croft: {lost} bytes of output are not kept any more"),
                    Some(Frame::End { .. }) => {
                        open -= 1;
                        if open == 0 {
                            break Ended::Process;
                        }
                    }
                    _ => {}
                }
            }
            left = &mut by_user, if typing => {
                if left.is_ok() {
                    break Ended::User;
                }
                // The input has ended, and the process goes on.
                typing = false;
            }
        }
    };
    helpers.iter().for_each(tokio::task::JoinHandle::abort);
    sender.abort();
    drop(raw);
    Ok(ended)
}

fn show(output: Output, bytes: &[u8]) {
    // Whoever read it has gone; the process goes on.
    let _ = match output {
        Output::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
        Output::Stderr => std::io::stderr().write_all(bytes),
    };
}

/// Sends this terminal's size now and whenever it changes.
async fn sizes(frames: tokio::sync::mpsc::Sender<Frame>) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok(size) = tcgetwinsize(std::io::stdout()) {
            let _ = frames.send(Frame::Resize { rows: size.ws_row, columns: size.ws_col }).await;
        }
        if changed.recv().await.is_none() {
            return;
        }
    }
}

/// Sends what is typed or piped in.
async fn input(
    frames: tokio::sync::mpsc::Sender<Frame>,
    terminal: bool,
    detached: tokio::sync::oneshot::Sender<()>,
) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; PAYLOAD_LIMIT];
    let (mut offset, mut last) = (0, 0);
    loop {
        let Ok(length) = stdin.read(&mut buffer).await else { return };
        if length == 0 {
            let _ = frames.send(Frame::EndInput(offset)).await;
            return;
        }
        let bytes = &buffer[..length];
        if terminal {
            let mut before = last;
            for byte in bytes {
                if [before, *byte] == DETACH {
                    let _ = detached.send(());
                    return;
                }
                before = *byte;
            }
            last = before;
        }
        let _ = frames.send(Frame::Input { offset, bytes: bytes.to_vec() }).await;
        offset += length as u64;
    }
}
