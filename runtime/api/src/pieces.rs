//! A body between its connection, where it comes and goes piece by piece, and a thread that reads or writes it.

use std::io::{self, ErrorKind, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Pieces that may wait for who takes them.
pub const AHEAD: usize = 16;

/// Bytes that are best sent at once.
pub const SIZE: usize = 64 << 10;

/// What comes, for a thread that reads it.
#[derive(Debug)]
pub struct Reader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Reader {
    /// Reads what comes through `pieces`, whose first error is the end.
    pub fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Reader { pieces, piece: Bytes::new() }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Where a thread writes what goes. Each write is a piece.
#[derive(Debug)]
pub struct Writer<E> {
    pieces: mpsc::Sender<Result<Bytes, E>>,
    gone: &'static str,
}

impl<E> Writer<E> {
    /// Writes into `pieces`; `gone` is said, as [`ErrorKind::BrokenPipe`], when nobody takes any more.
    pub fn new(pieces: mpsc::Sender<Result<Bytes, E>>, gone: &'static str) -> Self {
        Writer { pieces, gone }
    }
}

impl<E> Write for Writer<E> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::new(ErrorKind::BrokenPipe, self.gone);
        self.pieces.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_until_an_error() {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let mut to = Writer::new(sender.clone(), "nobody reads");
        to.write_all(b"ab").unwrap();
        to.write_all(b"c").unwrap();
        sender.blocking_send(Err(io::Error::other("cut"))).unwrap();
        let (mut from, mut text) = (Reader::new(pieces), String::new());
        assert_eq!(from.read_to_string(&mut text).unwrap_err().to_string(), "cut");
        assert_eq!(text, "abc");
        drop(from);
        assert_eq!(to.write(b"d").unwrap_err().to_string(), "nobody reads");
    }
}
