//! One connection to a process's streams: both ways at once, as neither may wait for the other.
//!
//! A process that answers while it reads (`cat`) does not read on until its output is taken, and whoever does not read what it says while it
//! sends would wait for it for ever.

use std::future::pending;
use std::io::{ErrorKind, Result};
use std::sync::{Mutex, PoisonError};

use croft_api::stream::{self, Frame, Output};
use rustix::termios::tcgetwinsize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::Signal;
use tokio::sync::Notify;

use super::Ended;
use super::shown::Shown;
use super::typed::Typed;

/// What this terminal has for the process.
pub struct Own {
    /// What is typed.
    pub typed: Option<Typed>,
    /// Its changes of size.
    pub sizes: Option<Signal>,
}

/// What has been shown and is not acknowledged yet: the latest number of each output.
#[derive(Default)]
struct Unacknowledged {
    numbers: Mutex<[Option<(Output, u64)>; 2]>,
    news: Notify,
}

impl Unacknowledged {
    fn add(&self, output: Output, number: u64) {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers[usize::from(output == Output::Stderr)] = Some((output, number));
        self.news.notify_one();
    }

    fn take(&self) -> impl Iterator<Item = Frame> + use<> {
        let numbers = std::mem::take(&mut *self.numbers.lock().unwrap_or_else(PoisonError::into_inner));
        numbers.into_iter().flatten().map(|(output, offset)| Frame::Seen { output, offset })
    }
}

/// Passes everything on over one connection, until it breaks.
pub async fn pass<C: AsyncRead + AsyncWrite>(
    connection: C,
    shown: &mut Shown,
    own: &mut Own,
) -> Result<Ended> {
    let (from, to) = tokio::io::split(connection);
    let unacknowledged = Unacknowledged::default();
    let Own { typed, sizes } = own;
    let sent = async {
        match send(to, typed.as_ref(), sizes, &unacknowledged).await {
            // What was said before it broke is still there to be read.
            Err(_) => pending().await,
            Ok(ended) => Ok(ended),
        }
    };
    tokio::select! {
        ended = receive(from, shown, typed.as_ref(), &unacknowledged) => ended,
        ended = sent => ended,
    }
}

/// Shows what comes, to the end of it.
async fn receive(
    mut from: impl AsyncRead + Unpin,
    shown: &mut Shown,
    typed: Option<&Typed>,
    unacknowledged: &Unacknowledged,
) -> Result<Ended> {
    loop {
        let packet = stream::read(&mut from).await?.ok_or(ErrorKind::UnexpectedEof)?;
        match Frame::decode(&packet) {
            Some(Frame::Data { output, offset, bytes }) => match shown.show(output, offset, &bytes) {
                Ok(next) => unacknowledged.add(output, next),
                Err(error) => return Ok(Ended::Unshown(error)),
            },
            Some(Frame::Gap { output, offset, lost }) => {
                eprintln!("croft: {lost} bytes of output are not kept any more");
                shown.skip(output, offset, lost);
            }
            Some(Frame::End { output, .. }) if shown.end(output) => return Ok(Ended::Process),
            Some(Frame::InputTaken(taken)) => typed.into_iter().for_each(|typed| typed.taken(taken)),
            _ => {}
        }
    }
}

/// Sends what is typed, this terminal's size, and what has been shown, until the keys that detach.
async fn send(
    mut to: impl AsyncWrite + Unpin,
    typed: Option<&Typed>,
    sizes: &mut Option<Signal>,
    unacknowledged: &Unacknowledged,
) -> Result<Ended> {
    let to = &mut to;
    if sizes.is_some() {
        send_size(to).await?;
    }
    for frame in typed.into_iter().flat_map(Typed::again) {
        stream::write(to, &frame.encode()).await?;
    }
    loop {
        tokio::select! {
            () = unacknowledged.news.notified() => {
                for frame in unacknowledged.take() {
                    stream::write(to, &frame.encode()).await?;
                }
            }
            frame = next(typed) => {
                let Some(frame) = frame else { return Ok(Ended::User) };
                stream::write(to, &frame.encode()).await?;
            }
            () = resized(sizes) => send_size(to).await?,
        }
    }
}

/// The next thing to send of what is typed; none for the keys that detach.
async fn next(typed: Option<&Typed>) -> Option<Frame> {
    match typed {
        Some(typed) => typed.next().await,
        None => pending().await,
    }
}

/// Tells this terminal's size, where there is one.
async fn send_size(to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
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
        None => pending().await,
    }
}
