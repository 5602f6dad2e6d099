//! Staying with a process: its output here, this terminal's input and size there.
//!
//! croftd may be killed, restarted or upgraded meanwhile: the process goes on, and so does this, from the byte where it was cut off.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use croft_api::client::{Client, Error};
use croft_api::stream::{self, Frame, Output, PAYLOAD_LIMIT};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::Failed;
use super::patience::{Contact, patiently};

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
            Err(Error::Refused(_)) if own.typed.is_none() || shown.is_some() => return Ok(Ended::Process),
            Err(error @ Error::Refused(_)) => return Err(error.into()),
            Err(_) => return Err(Failed::from(format!("the connection to croftd broke: {lost}"))),
        };
        match pass(again, &mut shown, &mut own).await {
            Ok(ended) => return Ok(ended),
            Err(error) => lost = error,
        }
    }
}

/// What has been shown so far of each output: the number of its next byte.
struct Shown {
    from: &'static str,
    next: [Option<u64>; 2],
    open: [bool; 2],
}

impl Shown {
    fn new(wanted: Wanted) -> Self {
        Shown { from: wanted.from, next: [None, None], open: [true, !wanted.terminal] }
    }

    fn is_some(&self) -> bool {
        self.next.iter().any(Option::is_some)
    }

    /// `path` with where each output goes on.
    fn path(&self, path: &str) -> String {
        let mut text = path.to_owned();
        for (name, (next, open)) in ["stdout", "stderr"].into_iter().zip(self.next.iter().zip(self.open)) {
            if open {
                let from = next.map_or_else(|| self.from.to_owned(), |next| next.to_string());
                text.push_str(&format!("{name}={from}&"));
            }
        }
        text
    }

    fn show(&mut self, output: Output, offset: u64, bytes: &[u8]) {
        // Whoever read it has gone; the process goes on.
        let _ = match output {
            Output::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Output::Stderr => std::io::stderr().write_all(bytes),
        };
        self.next[index(output)] = Some(offset + bytes.len() as u64);
    }
}

fn index(output: Output) -> usize {
    usize::from(output == Output::Stderr)
}

/// What this terminal has for the process.
struct Own {
    typed: Option<Typed>,
    sizes: Option<Signal>,
}

/// Pieces of input that are under way at most.
const UNDER_WAY: usize = 16;

/// What is typed or piped in: kept until the process has got it.
struct Typed {
    pieces: mpsc::Receiver<Piece>,
    kept: VecDeque<(u64, Vec<u8>)>,
    /// The number after the last byte that was read. Others may have typed before: croftd says first where this begins, and nothing is sent
    /// until then.
    end: Option<u64>,
    ended: bool,
}

/// One thing that the reader of the input says.
enum Piece {
    Bytes(Vec<u8>),
    Detach,
}

impl Typed {
    fn new(terminal: bool) -> Self {
        let (send, pieces) = mpsc::channel(1);
        tokio::spawn(read_input(send, terminal));
        Typed { pieces, kept: VecDeque::new(), end: None, ended: false }
    }

    fn has_room(&self) -> bool {
        !self.ended && self.end.is_some() && self.kept.len() < UNDER_WAY
    }

    /// The process has all input below `taken`.
    fn taken(&mut self, taken: u64) {
        self.kept.retain(|(offset, bytes)| offset + bytes.len() as u64 > taken);
        // Somebody else types too: what comes next is no repetition of theirs.
        if self.kept.is_empty() {
            self.end = self.end.max(Some(taken));
        }
    }

    /// What has to be sent (again) on a new connection.
    fn again(&self) -> Vec<Frame> {
        let kept =
            self.kept.iter().map(|(offset, bytes)| Frame::Input { offset: *offset, bytes: bytes.clone() });
        kept.chain(self.ended.then_some(self.end).flatten().map(Frame::EndInput)).collect()
    }

    /// What is to be sent for a new piece; none for the keys that detach.
    fn take(&mut self, piece: Option<Piece>) -> Option<Frame> {
        match piece {
            Some(Piece::Detach) => None,
            Some(Piece::Bytes(bytes)) => {
                let offset = self.end.unwrap_or_default();
                self.end = Some(offset + bytes.len() as u64);
                self.kept.push_back((offset, bytes.clone()));
                Some(Frame::Input { offset, bytes })
            }
            None => {
                self.ended = true;
                Some(Frame::EndInput(self.end.unwrap_or_default()))
            }
        }
    }
}

/// Reads what is typed or piped in.
async fn read_input(pieces: mpsc::Sender<Piece>, terminal: bool) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; PAYLOAD_LIMIT];
    let mut last = 0;
    while let Ok(length @ 1..) = stdin.read(&mut buffer).await {
        let bytes = &buffer[..length];
        if terminal {
            for byte in bytes {
                if [last, *byte] == DETACH {
                    let _ = pieces.send(Piece::Detach).await;
                    return;
                }
                last = *byte;
            }
        }
        if pieces.send(Piece::Bytes(bytes.to_vec())).await.is_err() {
            return;
        }
    }
}

/// Passes everything on over one connection, until it breaks.
async fn pass<C: AsyncRead + AsyncWrite>(
    connection: C,
    shown: &mut Shown,
    own: &mut Own,
) -> std::io::Result<Ended> {
    let (from, mut to) = tokio::io::split(connection);
    let to = &mut to;
    if own.sizes.is_some() {
        send_size(to).await?;
    }
    for frame in own.typed.iter().flat_map(Typed::again) {
        stream::write(to, &frame.encode()).await?;
    }
    let mut packets = Box::pin(stream::next(from));
    loop {
        tokio::select! {
            (packet, from) = &mut packets => {
                packets = Box::pin(stream::next(from));
                let cut_off = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                match Frame::decode(&packet?.ok_or_else(cut_off)?) {
                    Some(Frame::Data { output, offset, bytes }) => {
                        shown.show(output, offset, &bytes);
                        let offset = offset + bytes.len() as u64;
                        stream::write(to, &Frame::Seen { output, offset }.encode()).await?;
                    }
                    Some(Frame::Gap { output, offset, lost }) => {
                        eprintln!("croft: {lost} bytes of output are not kept any more");
                        shown.next[index(output)] = Some(offset + lost);
                    }
                    Some(Frame::End { output, .. }) => {
                        shown.open[index(output)] = false;
                        if shown.open == [false, false] {
                            return Ok(Ended::Process);
                        }
                    }
                    Some(Frame::InputTaken(taken)) => {
                        own.typed.iter_mut().for_each(|typed| typed.taken(taken));
                    }
                    _ => {}
                }
            }
            frame = typed(&mut own.typed) => {
                let Some(frame) = frame else { return Ok(Ended::User) };
                stream::write(to, &frame.encode()).await?;
            }
            () = resized(&mut own.sizes) => send_size(to).await?,
        }
    }
}

/// The next thing to send of what is typed, if anything may be; none for the keys that detach.
async fn typed(typed: &mut Option<Typed>) -> Option<Frame> {
    match typed {
        Some(typed) if typed.has_room() => {
            let piece = typed.pieces.recv().await;
            typed.take(piece)
        }
        _ => std::future::pending().await,
    }
}

/// Tells this terminal's size, where there is one.
async fn send_size(to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) => {
            let frame = Frame::Resize { rows: size.ws_row, columns: size.ws_col };
            stream::write(to, &frame.encode()).await
        }
        Err(_) => Ok(()),
    }
}

/// Waits for another size of this terminal.
async fn resized(sizes: &mut Option<Signal>) {
    match sizes {
        Some(sizes) => drop(sizes.recv().await),
        None => std::future::pending().await,
    }
}
