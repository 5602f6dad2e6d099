//! What a process says, shown here.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;

use croft_api::stream::Output;
use rustix::event::{PollFd, PollFlags, poll};

use super::Wanted;

/// What has been shown so far of each output: the number of its next byte.
pub struct Shown {
    from: &'static str,
    next: [Option<u64>; 2],
    open: [bool; 2],
}

fn index(output: Output) -> usize {
    usize::from(output == Output::Stderr)
}

impl Shown {
    /// Nothing yet.
    pub fn new(wanted: Wanted) -> Self {
        Shown { from: wanted.from, next: [None, None], open: [true, !wanted.terminal] }
    }

    /// Whether it is anything.
    pub fn is_some(&self) -> bool {
        self.next.iter().any(Option::is_some)
    }

    /// `path` with where each output goes on.
    pub fn path(&self, path: &str) -> String {
        let mut text = path.to_owned();
        for (name, (next, open)) in ["stdout", "stderr"].into_iter().zip(self.next.iter().zip(self.open)) {
            if open {
                let from = next.map_or_else(|| self.from.to_owned(), |next| next.to_string());
                text.push_str(&format!("{name}={from}&"));
            }
        }
        text
    }

    /// Shows bytes, the first of which has this number. Gives the number after the last.
    pub fn show(&mut self, output: Output, offset: u64, bytes: &[u8]) -> u64 {
        // Whoever read it has gone; the process goes on.
        let _ = match output {
            Output::Stdout => write_all(std::io::stdout(), bytes),
            Output::Stderr => write_all(std::io::stderr(), bytes),
        };
        self.skip(output, offset, bytes.len() as u64)
    }

    /// Goes on after bytes that there are none of.
    pub fn skip(&mut self, output: Output, offset: u64, count: u64) -> u64 {
        *self.next[index(output)].insert(offset + count)
    }

    /// An output has ended: whether both have.
    pub fn end(&mut self, output: Output) -> bool {
        self.open[index(output)] = false;
        self.open == [false, false]
    }
}

/// Writes all, and waits where whoever shares the file has made it non-blocking (`O_NONBLOCK` is the terminal's, not the program's).
fn write_all(mut to: impl Write + AsFd, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => wait_for_room(&to)?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    loop {
        match to.flush() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => wait_for_room(&to)?,
            other => return other,
        }
    }
}

fn wait_for_room(to: &impl AsFd) -> std::io::Result<()> {
    match poll(&mut [PollFd::new(to, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A socket that does not block, and whose buffer is smaller than what is written.
    #[test]
    fn nothing_is_lost_where_writing_does_not_block() {
        let (to, mut from) = UnixStream::pair().unwrap();
        to.set_nonblocking(true).unwrap();
        let bytes: Vec<u8> = (0..4 << 20_u32).map(|n| (n % 251) as u8).collect();
        let written = bytes.clone();
        let writer = std::thread::spawn(move || write_all(to, &written).unwrap());
        let mut read = Vec::new();
        from.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert!(read == bytes, "{} of {} bytes", read.len(), bytes.len());
    }
}
