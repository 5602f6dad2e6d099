//! What a process says, shown here.

use croft_api::stream::Output;

use super::Wanted;
use crate::output::write_all;

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
    ///
    /// # Errors
    /// When they cannot be written, as when whoever read them has gone.
    pub fn show(&mut self, output: Output, offset: u64, bytes: &[u8]) -> std::io::Result<u64> {
        match output {
            Output::Stdout => write_all(std::io::stdout(), bytes),
            Output::Stderr => write_all(std::io::stderr(), bytes),
        }?;
        Ok(self.skip(output, offset, bytes.len() as u64))
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
