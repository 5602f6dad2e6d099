//! What is typed or piped in for a process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use croft_api::stream::{Frame, INPUT_WINDOW, PAYLOAD_LIMIT};
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, mpsc};

/// Detaches a terminal from a container that goes on: control-p, then control-q, as with Docker.
const DETACH: [u8; 2] = [0x10, 0x11];

/// One thing that the reader of the input says.
enum Piece {
    Bytes(Vec<u8>),
    Detach,
}

/// Input, kept until the process has got it.
pub struct Typed {
    pieces: tokio::sync::Mutex<mpsc::Receiver<Piece>>,
    kept: Mutex<Kept>,
    /// There may be room for more.
    room: Notify,
}

#[derive(Default)]
struct Kept {
    pieces: VecDeque<(u64, Vec<u8>)>,
    /// The number after the last byte that was read. Others may have typed before: croftd says first where this begins, and nothing is sent
    /// until then.
    end: Option<u64>,
    ended: bool,
}

impl Kept {
    fn has_room(&self) -> bool {
        let length: usize = self.pieces.iter().map(|(_, bytes)| bytes.len()).sum();
        !self.ended && self.end.is_some() && length + PAYLOAD_LIMIT <= INPUT_WINDOW
    }
}

impl Typed {
    /// Reads this process's input from now on.
    pub fn new(terminal: bool) -> Self {
        let (send, pieces) = mpsc::channel(1);
        tokio::spawn(read_input(send, terminal));
        Typed { pieces: tokio::sync::Mutex::new(pieces), kept: Mutex::default(), room: Notify::new() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process has all input below `taken`.
    pub fn taken(&self, taken: u64) {
        let mut kept = self.kept();
        kept.pieces.retain(|(offset, bytes)| offset + bytes.len() as u64 > taken);
        // Somebody else types too: what comes next is no repetition of theirs.
        if kept.pieces.is_empty() {
            kept.end = kept.end.max(Some(taken));
        }
        self.room.notify_one();
    }

    /// What has to be sent (again) on a new connection.
    pub fn again(&self) -> Vec<Frame> {
        let kept = self.kept();
        let pieces =
            kept.pieces.iter().map(|(offset, bytes)| Frame::Input { offset: *offset, bytes: bytes.clone() });
        pieces.chain(kept.ended.then_some(kept.end).flatten().map(Frame::EndInput)).collect()
    }

    /// The next thing to send, once it may be; none for the keys that detach. Nothing is lost when this is dropped.
    pub async fn next(&self) -> Option<Frame> {
        while !self.kept().has_room() {
            self.room.notified().await;
        }
        let piece = self.pieces.lock().await.recv().await;
        let mut kept = self.kept();
        let offset = kept.end.unwrap_or_default();
        match piece {
            Some(Piece::Detach) => None,
            Some(Piece::Bytes(bytes)) => {
                kept.end = Some(offset + bytes.len() as u64);
                kept.pieces.push_back((offset, bytes.clone()));
                Some(Frame::Input { offset, bytes })
            }
            None => {
                kept.ended = true;
                Some(Frame::EndInput(offset))
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
