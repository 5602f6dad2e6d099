//! The streams of a process, over a connection that was upgraded to [`PROTOCOL`]: frames, each after its length in four bytes (little endian).
//!
//! A frame is one byte that says what it is, eight bytes with a number (little endian), and its payload. Every byte of a stream has a
//! number from 0 at the birth of the process, so that a client that lost its connection asks for what it has not seen and sends again what
//! was not taken; nothing is lost or repeated. These are the frames of croft's supervisor, which croftd passes on as they are.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a connection is upgraded to.
pub const PROTOCOL: &str = "croft-frames-1";

/// The most bytes of input in a frame.
pub const PAYLOAD_LIMIT: usize = 16 << 10;

/// The most bytes of input that a client has under way, sent and not yet taken. The supervisor reads no frame behind more than
/// it can keep, [`Frame::Seen`] neither, and a process whose output nobody acknowledges reads no input.
pub const INPUT_WINDOW: usize = 48 << 10;

const HEADER: usize = 9;

/// Which of the output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The standard output, or everything that a terminal shows.
    Stdout,
    /// The standard error.
    Stderr,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Output.
    Data {
        /// The stream.
        output: Output,
        /// The number of its first byte.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Bytes that are not kept any more.
    Gap {
        /// The stream.
        output: Output,
        /// The first that is lost.
        offset: u64,
        /// How many are.
        lost: u64,
    },
    /// A stream has ended.
    End {
        /// The stream.
        output: Output,
        /// How long it was.
        offset: u64,
    },
    /// The process has all input below this number.
    InputTaken(u64),
    /// Nobody reads the input any more.
    InputClosed(u64),
    /// Input.
    Input {
        /// The number of its first byte.
        offset: u64,
        /// The bytes, [`PAYLOAD_LIMIT`] at most.
        bytes: Vec<u8>,
    },
    /// The input ends at this number.
    EndInput(u64),
    /// The client needs no byte below this number again.
    Seen {
        /// The stream.
        output: Output,
        /// The number.
        offset: u64,
    },
    /// The terminal's size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// The client goes and does not come back: its process need not wait for it.
    Leave,
}

impl Frame {
    /// The frame as bytes, without its length.
    pub fn encode(&self) -> Vec<u8> {
        let of = |first: u8, output: &Output| first + u8::from(*output == Output::Stderr);
        let lost_bytes;
        let (kind, number, payload): (u8, u64, &[u8]) = match self {
            Frame::Data { output, offset, bytes } => (of(b'o', output), *offset, bytes),
            Frame::Gap { output, offset, lost } => {
                lost_bytes = lost.to_le_bytes();
                (of(b'g', output), *offset, &lost_bytes)
            }
            Frame::End { output, offset } => (of(b'e', output), *offset, &[]),
            Frame::InputTaken(offset) => (b't', *offset, &[]),
            Frame::InputClosed(offset) => (b'c', *offset, &[]),
            Frame::Input { offset, bytes } => (b'i', *offset, bytes),
            Frame::EndInput(offset) => (b'z', *offset, &[]),
            Frame::Seen { output, offset } => (of(b'a', output), *offset, &[]),
            Frame::Leave => (b'l', 0, &[]),
            Frame::Resize { rows, columns } => (b's', u64::from(*rows) << 16 | u64::from(*columns), &[]),
        };
        let mut packet = Vec::with_capacity(HEADER + payload.len());
        packet.push(kind);
        packet.extend(number.to_le_bytes());
        packet.extend(payload);
        packet
    }

    /// Reads a frame; none for bytes that are none.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let (header, payload) = packet.split_first_chunk::<HEADER>()?;
        let [kind, number @ ..] = *header;
        let offset = u64::from_le_bytes(number);
        let bytes = payload.to_vec();
        let output = |first: u8| if kind == first { Output::Stdout } else { Output::Stderr };
        Some(match kind {
            b'o' | b'p' => Frame::Data { output: output(b'o'), offset, bytes },
            b'g' | b'h' => Frame::Gap {
                output: output(b'g'),
                offset,
                lost: u64::from_le_bytes(payload.try_into().ok()?),
            },
            b'e' | b'f' => Frame::End { output: output(b'e'), offset },
            b't' => Frame::InputTaken(offset),
            b'c' => Frame::InputClosed(offset),
            b'i' => Frame::Input { offset, bytes },
            b'z' => Frame::EndInput(offset),
            b'a' | b'b' => Frame::Seen { output: output(b'a'), offset },
            b'l' => Frame::Leave,
            b's' => Frame::Resize { rows: (offset >> 16) as u16, columns: offset as u16 },
            _ => return None,
        })
    }
}

/// Reads the bytes of one frame; none at the end.
///
/// # Errors
/// When the connection breaks, or what comes is longer than any frame.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_le_bytes(length) as usize;
    if !(HEADER..=HEADER + PAYLOAD_LIMIT).contains(&length) {
        let text = format!("a frame of {length} bytes: {} at most", HEADER + PAYLOAD_LIMIT);
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    let mut packet = vec![0; length];
    from.read_exact(&mut packet).await?;
    Ok(Some(packet))
}

/// Writes the bytes of one frame.
///
/// # Errors
/// When the connection breaks.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), packet: &[u8]) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(4 + packet.len());
    bytes.extend((packet.len() as u32).to_le_bytes());
    bytes.extend(packet);
    to.write_all(&bytes).await?;
    to.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_comes_back_as_it_was() {
        let mut frames = vec![
            Frame::InputTaken(5),
            Frame::InputClosed(u64::MAX),
            Frame::Input { offset: 9, bytes: b"abc".to_vec() },
            Frame::EndInput(3),
            Frame::Resize { rows: 25, columns: 65535 },
            Frame::Leave,
        ];
        for output in [Output::Stdout, Output::Stderr] {
            frames.push(Frame::Data { output, offset: 1 << 40, bytes: b"abc".to_vec() });
            frames.push(Frame::Gap { output, offset: 7, lost: 1 << 33 });
            frames.push(Frame::End { output, offset: 8 });
            frames.push(Frame::Seen { output, offset: 8 });
        }
        for frame in frames {
            assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        }
        assert_eq!(Frame::decode(b"?12345678"), None);
    }
}
