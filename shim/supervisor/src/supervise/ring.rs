//! The last bytes of an output stream, in a file below the supervisor's root.
//!
//! A file and not memory, for two reasons: a container that says little costs the supervisor nothing, and a supervisor that takes over
//! after a SIGKILL goes on with the same numbers and still has what was said. The root is on a tmpfs, where a write is a copy.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where the bytes begin in the file, after the three numbers.
const DATA: u64 = 64;

/// The last `size` bytes of a stream.
#[derive(Debug)]
pub struct Ring {
    path: PathBuf,
    /// Made with the first byte.
    file: Option<File>,
    size: u64,
    numbers: Numbers,
}

/// What stands at the beginning of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Numbers {
    /// How long the stream is.
    end: u64,
    /// How much of it has gone to the log.
    logged: u64,
    /// How much input the process has got (in the ring of its standard output).
    input: u64,
}

impl Ring {
    /// The ring in the file at `path`, as it was left, or an empty one.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(path: PathBuf, size: u32) -> io::Result<Self> {
        let (file, numbers) = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => {
                let mut header = [0; 24];
                file.read_exact_at(&mut header, 0)?;
                let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
                (Some(file), Numbers { end: number(0), logged: number(8), input: number(16) })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => (None, Numbers::default()),
            Err(e) => return Err(e),
        };
        Ok(Self { path, file, size: u64::from(size), numbers })
    }

    /// How many bytes are kept.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How long the stream is.
    pub fn end(&self) -> u64 {
        self.numbers.end
    }

    /// The number of the oldest byte that is kept.
    pub fn start(&self) -> u64 {
        self.numbers.end.saturating_sub(self.size)
    }

    /// How much of the stream has gone to the log.
    pub fn logged(&self) -> u64 {
        self.numbers.logged
    }

    /// How much input the process has got.
    pub fn input(&self) -> u64 {
        self.numbers.input
    }

    /// Adds bytes to the stream, the number after them last: a reader of the file never sees a byte that is not there.
    ///
    /// # Errors
    /// When the file cannot be written. The stream has grown all the same; what could not be kept reads as zeroes.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (size, end) = (self.size, self.numbers.end);
        self.numbers.end = end + bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(size as usize)..];
        let first = self.numbers.end - kept.len() as u64;
        let file = self.file()?;
        if !kept.is_empty() {
            let at = first % size;
            let (head, tail) = kept.split_at(kept.len().min((size - at) as usize));
            file.write_all_at(head, DATA + at)?;
            file.write_all_at(tail, DATA)?;
        }
        self.save()
    }

    /// Copies bytes from number `offset` on, which is kept, into `buffer`: how many.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = &self.file else { return Ok(0) };
        let at = offset % self.size.max(1);
        let there = (self.numbers.end - offset).min(buffer.len() as u64) as usize;
        let (head, tail) = buffer[..there].split_at_mut(there.min((self.size - at) as usize));
        file.read_exact_at(head, DATA + at)?;
        file.read_exact_at(tail, DATA)?;
        Ok(there)
    }

    /// Everything up to `logged` has gone to the log. Kept with the next write of the numbers.
    pub fn set_logged(&mut self, logged: u64) {
        self.numbers.logged = logged;
    }

    /// The process has got all input below `input`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_input(&mut self, input: u64) -> io::Result<()> {
        self.numbers.input = input;
        self.save()
    }

    /// Writes the numbers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&mut self) -> io::Result<()> {
        let Numbers { end, logged, input } = self.numbers;
        let mut header = [0; 24];
        for (at, number) in [end, logged, input].into_iter().enumerate() {
            header[at * 8..at * 8 + 8].copy_from_slice(&number.to_le_bytes());
        }
        self.file()?.write_all_at(&header, 0)
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            self.file = Some(make(&self.path)?);
        }
        Ok(self.file.as_ref().expect("it was made just now"))
    }
}

fn make(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(&[0; 24], 0)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ring: &Ring) -> Vec<u8> {
        let (mut got, mut at) = (Vec::new(), ring.start());
        while at < ring.end() {
            let mut buffer = [0; 3];
            let n = ring.read(at, &mut buffer).unwrap();
            got.extend_from_slice(&buffer[..n]);
            at += n as u64;
        }
        got
    }

    #[test]
    fn the_last_bytes_are_kept_whatever_the_pieces() {
        let folder = tempfile::tempdir().unwrap();
        for size in [1, 5, 8] {
            let path = folder.path().join(size.to_string());
            let mut ring = Ring::open(path.clone(), size).unwrap();
            let mut whole = Vec::new();
            for piece in 0..40u8 {
                let bytes: Vec<u8> = (0..piece % 12).map(|n| piece.wrapping_mul(7).wrapping_add(n)).collect();
                whole.extend_from_slice(&bytes);
                ring.append(&bytes).unwrap();
                assert_eq!(all(&ring), whole[whole.len().saturating_sub(size as usize)..], "{size}");
                assert_eq!(all(&Ring::open(path.clone(), size).unwrap()), all(&ring), "opened again");
            }
            assert_eq!(ring.end(), whole.len() as u64);
        }
    }

    #[test]
    fn the_numbers_outlive_the_supervisor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring");
        let mut ring = Ring::open(path.clone(), 4).unwrap();
        ring.append(b"abc").unwrap();
        ring.set_logged(2);
        ring.set_input(9).unwrap();
        let again = Ring::open(path, 4).unwrap();
        assert_eq!((again.end(), again.logged(), again.input()), (3, 2, 9));
    }
}
