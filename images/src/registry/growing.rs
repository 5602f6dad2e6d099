//! A file that is read while it is still being written: layers are unpacked as they arrive.
//!
//! What was downloaded stays in the file, so that a transfer that breaks off goes on where it stopped and the reader notices nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct State {
    length: u64,
    /// How it ended: complete, or why not.
    end: Option<Result<(), String>>,
    /// The reader is gone.
    unwanted: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing side. Dropped without [`Writer::finish`], the reader gets an error.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

/// The reading side: waits for what is not there yet.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    position: u64,
    shared: Arc<Shared>,
}

/// The two sides of `file`, of which `length` bytes are there.
pub(super) fn pair(file: File, length: u64) -> (Writer, Reader) {
    let state = State { length, ..State::default() };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    (Writer(shared.clone()), Reader { file, position: 0, shared })
}

impl Writer {
    /// So many bytes are in the file now.
    pub fn grown(&self, length: u64) {
        self.0.lock().length = length;
        self.0.changed.notify_all();
    }

    /// Whether somebody still reads.
    pub fn wanted(&self) -> bool {
        !self.0.lock().unwanted
    }

    /// No more comes: the file is complete, or it failed.
    pub fn finish(self, outcome: Result<(), String>) {
        self.0.lock().end.get_or_insert(outcome);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.lock().end.get_or_insert(Err("the download was given up".to_owned()));
        self.0.changed.notify_all();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.lock().unwanted = true;
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = {
            let mut state = self.shared.lock();
            loop {
                match &state.end {
                    _ if state.length > self.position => break state.length - self.position,
                    Some(Ok(())) => return Ok(0),
                    Some(Err(why)) => return Err(io::Error::other(why.clone())),
                    None => {
                        state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
        };
        let wanted = buffer.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..wanted], self.position)?;
        if count == 0 {
            return Err(io::Error::other("the download was cut short by somebody else"));
        }
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_reader_waits_for_what_is_written_later() {
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(b"abc").unwrap();
        let (writer, mut reader) = pair(file.try_clone().unwrap(), 3);
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        for (n, byte) in b"defgh".iter().enumerate() {
            (&file).write_all(&[*byte]).unwrap();
            writer.grown(4 + n as u64);
        }
        writer.finish(Ok(()));
        assert_eq!(read.join().unwrap().unwrap(), "abcdefgh");
    }

    #[test]
    fn a_reader_learns_of_a_failure_and_the_writer_of_its_end() {
        let (writer, mut reader) = pair(tempfile::tempfile().unwrap(), 0);
        writer.finish(Err("cut".to_owned()));
        assert_eq!(reader.read(&mut [0]).unwrap_err().to_string(), "cut");
        let (writer, mut reader) = pair(tempfile::tempfile().unwrap(), 0);
        drop(writer);
        assert!(reader.read(&mut [0]).is_err());
        let (writer, reader) = pair(tempfile::tempfile().unwrap(), 0);
        drop(reader);
        assert!(!writer.wanted());
    }
}
