//! Frames: numbered bytes both ways on the socket that [`crate::protocol::Request::Attach`] gives.
//!
//! The socket is a `SOCK_SEQPACKET` one; a packet is a frame: one byte that says what it is, eight bytes with a number (little
//! endian), then the payload. Every byte of a stream has a number, from 0 at the birth of the process. So a client that lost its
//! connection attaches from the number that it has not seen, and sends its input again from the one that the process has not got:
//! repeats are recognised by their numbers and dropped.
//!
//! Frames are read in order, and none behind input that there is no room for: a client has at most some tens of kilobytes of input under way
//! (sent, and not said to be taken), or what it says of output waits there, too.

use std::borrow::Cow;

use crate::protocol::Size;

/// The most bytes that a frame carries.
pub const PAYLOAD_LIMIT: usize = 16 * 1024;

/// The bytes of a frame before its payload.
pub const HEADER: usize = 9;

/// Which of the output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// The standard output, or everything that a terminal shows.
    Stdout,
    /// The standard error.
    Stderr,
}

impl Output {
    /// Both, in order.
    pub const BOTH: [Output; 2] = [Output::Stdout, Output::Stderr];

    /// Its name, as logs give it.
    pub fn name(self) -> &'static str {
        match self {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        }
    }

    /// Its place in [`Output::BOTH`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// To the client: output.
    Data {
        /// The stream.
        output: Output,
        /// The number of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Cow<'a, [u8]>,
    },
    /// To the client: bytes that it wanted are not kept any more.
    Gap {
        /// The stream.
        output: Output,
        /// The first byte that is lost.
        offset: u64,
        /// How many are.
        lost: u64,
    },
    /// To the client: the stream has ended; `offset` bytes were written in all.
    End {
        /// The stream.
        output: Output,
        /// How long it was.
        offset: u64,
    },
    /// To the client: the process's pipe or terminal has got all input below this number.
    InputTaken {
        /// The number.
        offset: u64,
    },
    /// To the client: nobody reads the input any more; what is sent from now on is dropped.
    InputClosed {
        /// How many bytes were taken.
        offset: u64,
    },
    /// To the supervisor: input. Bytes below the number that was accepted already are dropped; a frame beyond it is dropped as a whole.
    Input {
        /// The number of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Cow<'a, [u8]>,
    },
    /// To the supervisor: the input ends once `offset` bytes were taken.
    EndInput {
        /// The number.
        offset: u64,
    },
    /// To the supervisor: the client needs no byte below this number again.
    Seen {
        /// The stream.
        output: Output,
        /// The number.
        offset: u64,
    },
    /// To the supervisor: the terminal's size.
    Resize(Size),
    /// To the supervisor: the client goes and does not come back.
    Leave,
}

/// A packet that is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {length} bytes that is no frame")]
pub struct NotAFrame {
    /// How long it was.
    pub length: usize,
}

impl<'a> Frame<'a> {
    /// Writes the frame into `packet`, which is emptied before.
    pub fn encode(&self, packet: &mut Vec<u8>) {
        packet.clear();
        let lost_bytes;
        let (kind, number, payload): (u8, u64, &[u8]) = match self {
            Frame::Data { output, offset, bytes } => (b'o' + output.index() as u8, *offset, bytes),
            Frame::Gap { output, offset, lost } => {
                lost_bytes = lost.to_le_bytes();
                (b'g' + output.index() as u8, *offset, &lost_bytes)
            }
            Frame::End { output, offset } => (b'e' + output.index() as u8, *offset, &[]),
            Frame::InputTaken { offset } => (b't', *offset, &[]),
            Frame::InputClosed { offset } => (b'c', *offset, &[]),
            Frame::Input { offset, bytes } => (b'i', *offset, bytes),
            Frame::EndInput { offset } => (b'z', *offset, &[]),
            Frame::Seen { output, offset } => (b'a' + output.index() as u8, *offset, &[]),
            Frame::Resize(size) => (b's', u64::from(size.rows) << 16 | u64::from(size.columns), &[]),
            Frame::Leave => (b'l', 0, &[]),
        };
        packet.push(kind);
        packet.extend_from_slice(&number.to_le_bytes());
        packet.extend_from_slice(payload);
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// When the packet is none.
    pub fn decode(packet: &'a [u8]) -> Result<Self, NotAFrame> {
        let bad = NotAFrame { length: packet.len() };
        let (header, payload) = packet.split_first_chunk::<HEADER>().ok_or(bad)?;
        let [kind, number @ ..] = *header;
        let offset = u64::from_le_bytes(number);
        let bytes = Cow::Borrowed(payload);
        let output = |first: u8| if kind == first { Output::Stdout } else { Output::Stderr };
        Ok(match kind {
            b'o' | b'p' => Frame::Data { output: output(b'o'), offset, bytes },
            b'g' | b'h' => {
                let lost = u64::from_le_bytes(payload.try_into().map_err(|_| bad)?);
                Frame::Gap { output: output(b'g'), offset, lost }
            }
            b'e' | b'f' => Frame::End { output: output(b'e'), offset },
            b't' => Frame::InputTaken { offset },
            b'c' => Frame::InputClosed { offset },
            b'i' => Frame::Input { offset, bytes },
            b'z' => Frame::EndInput { offset },
            b'a' | b'b' => Frame::Seen { output: output(b'a'), offset },
            b'l' => Frame::Leave,
            b's' => Frame::Resize(Size { rows: (offset >> 16) as u16, columns: offset as u16 }),
            _ => return Err(bad),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_comes_back_as_it_was() {
        let bytes = Cow::Borrowed(&b"abc"[..]);
        let mut frames = vec![
            Frame::InputTaken { offset: 5 },
            Frame::InputClosed { offset: u64::MAX },
            Frame::Input { offset: 9, bytes: bytes.clone() },
            Frame::EndInput { offset: 3 },
            Frame::Resize(Size { rows: 25, columns: 65535 }),
            Frame::Leave,
        ];
        for output in Output::BOTH {
            frames.push(Frame::Data { output, offset: 1 << 40, bytes: bytes.clone() });
            frames.push(Frame::Gap { output, offset: 7, lost: 1 << 33 });
            frames.push(Frame::End { output, offset: 8 });
            frames.push(Frame::Seen { output, offset: 8 });
        }
        let mut packet = Vec::new();
        for frame in frames {
            frame.encode(&mut packet);
            assert_eq!(Frame::decode(&packet), Ok(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for packet in [&b""[..], b"o1234567", b"?12345678", b"g12345678short"] {
            assert_eq!(Frame::decode(packet), Err(NotAFrame { length: packet.len() }));
        }
    }
}
