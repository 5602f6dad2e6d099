//! From a packed layer to the bytes of its archive: read, hashed and decompressed on one thread, used on another.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender};

use crate::digest::{Digest, Hasher, HashingReader};
use crate::error::{Error, Result, is_full};
use crate::layer::{Compression, Limits};

/// Bytes in one piece; with [`PIECES`] of them under way, this bounds the memory of a layer.
const PIECE: usize = 256 << 10;
/// Pieces that may wait for their user.
pub(super) const PIECES: usize = 8;

/// A piece of the archive, and how many packed bytes had been read when it was complete.
pub(super) struct Piece {
    bytes: Vec<u8>,
    packed: u64,
}

/// What was read in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    pub digest: Digest,
    pub size: u64,
    pub compression: Compression,
}

/// Reads and decompresses `source` to its end, in pieces to `to`. Ends early, without an error, when nobody wants more.
pub(super) fn decompress(source: impl Read, to: &SyncSender<io::Result<Piece>>) -> Result<Option<Packed>> {
    let mut source = HashingReader::new(source);
    let mut start = Vec::new();
    let failed = |e: io::Error| match is_full(&e) {
        true => read_error(Path::new(""), e),
        false => Error::malformed("layer", e),
    };
    source.by_ref().take(Compression::MAGIC as u64).read_to_end(&mut start).map_err(failed)?;
    let compression = Compression::detect(&start).map_err(|kind| {
        Error::malformed(
            "layer",
            format!("it is packed by {kind}, which is not supported: repack it with gzip or zstd"),
        )
    })?;
    // The count is read between two reads of the decoder, which holds the source meanwhile.
    let counted = Rc::new(Cell::new(0));
    let reader = io::Cursor::new(start).chain(Counted { inner: &mut source, count: counted.clone() });
    let wanted = match compression {
        Compression::None => send(reader, &counted, to),
        Compression::Gzip => {
            send(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(PIECE, reader)), &counted, to)
        }
        Compression::Zstd => match zstd::stream::read::Decoder::new(reader) {
            Ok(decoder) => send(decoder, &counted, to),
            Err(e) => return Err(failed(e)),
        },
    };
    if !wanted {
        return Ok(None);
    }
    let (digest, size) = source.finish().map_err(failed)?;
    Ok(Some(Packed { digest, size, compression }))
}

/// Counts what passes.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

/// Sends all of `reader`; false when the other side wants no more, or was told of an error.
fn send(mut reader: impl Read, counted: &Cell<u64>, to: &SyncSender<io::Result<Piece>>) -> bool {
    loop {
        let mut bytes = Vec::with_capacity(PIECE);
        match reader.by_ref().take(PIECE as u64).read_to_end(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {
                let piece = Piece { bytes, packed: counted.get() + Compression::MAGIC as u64 };
                if to.send(Ok(piece)).is_err() {
                    return false;
                }
            }
            Err(e) => {
                let _ = to.send(Err(e));
                return false;
            }
        }
    }
}

/// What one entry's headers may still take, shared between the reader of the archive and its user.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    /// From here on this many bytes may be read.
    pub fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

/// The bytes of the archive, hashed and counted against the limits.
pub(super) struct Archive {
    from: Receiver<io::Result<Piece>>,
    piece: Piece,
    position: usize,
    hasher: Hasher,
    limits: Limits,
    allowance: Allowance,
}

impl Archive {
    pub fn new(from: Receiver<io::Result<Piece>>, limits: Limits) -> (Self, Allowance) {
        let allowance = Allowance(Rc::new(Cell::new(u64::MAX)));
        let piece = Piece { bytes: Vec::new(), packed: 0 };
        let archive = Self {
            from,
            piece,
            position: 0,
            hasher: Hasher::default(),
            limits,
            allowance: allowance.clone(),
        };
        (archive, allowance)
    }

    /// Reads what follows the archive's end, and tells digest and length of the whole.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.allowance.set(u64::MAX);
        while self.next_piece()? {
            self.position = self.piece.bytes.len();
        }
        let length = self.hasher.length();
        Ok((self.hasher.finish(), length))
    }

    fn next_piece(&mut self) -> io::Result<bool> {
        let Ok(piece) = self.from.recv() else { return Ok(false) };
        self.piece = piece?;
        self.position = 0;
        self.hasher.update(&self.piece.bytes);
        let (unpacked, packed) = (self.hasher.length(), self.piece.packed.max(1));
        if unpacked > self.limits.bytes {
            return Err(io::Error::other(Exceeded { limit: self.limits.bytes, of: "bytes" }));
        }
        if unpacked > Limits::RATIO_FROM && unpacked / packed > self.limits.ratio {
            return Err(io::Error::other(Exceeded {
                limit: self.limits.ratio,
                of: "bytes for each packed one",
            }));
        }
        Ok(true)
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.piece.bytes.len() && !self.next_piece()? {
            return Ok(0);
        }
        let allowed = self.allowance.0.get();
        if allowed == 0 {
            return Err(io::Error::other(Exceeded {
                limit: self.limits.header,
                of: "bytes of headers for one entry",
            }));
        }
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
        let count = buffer.len().min(self.piece.bytes.len() - self.position).min(allowed);
        buffer[..count].copy_from_slice(&self.piece.bytes[self.position..self.position + count]);
        self.position += count;
        if allowed != usize::MAX {
            self.allowance.set((allowed - count) as u64);
        }
        Ok(count)
    }
}

/// A limit that was passed, carried through `io::Error`, since the archive is read through foreign code.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("more than {limit} {of}")]
pub(super) struct Exceeded {
    pub limit: u64,
    pub of: &'static str,
}

/// The error of reading the archive, at or before the entry `name`.
pub(super) fn read_error(name: &Path, error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Exceeded>()) {
        Some(Exceeded { limit, of }) => Error::Limit { limit: *limit, of },
        // Who reads keeps what it reads: the archive is all right.
        None if is_full(&error) => Error::file("keep a copy of the layer, at", name, error),
        None => Error::entry(name, error),
    }
}
