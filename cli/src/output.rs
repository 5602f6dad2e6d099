//! Tables for people, JSON for programs.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;

use comfy_table::{Table, presets};
use serde::Serialize;

use rustix::event::{PollFd, PollFlags, poll};

use crate::FAILED;
use crate::args::Format;

/// The status of a program that SIGPIPE ended: what this one ends with when nobody reads what it says, as others do (`croft ps | head -1`).
/// The signal itself is not for it: a connection to croftd that breaks is made again.
pub const UNREAD: u8 = 128 + 13;

/// Prints a line, or ends this program when that cannot be.
pub fn line(text: impl Display) {
    print(&format!("{text}\n"));
}

/// Prints a text, or ends this program when that cannot be.
pub fn print(text: &str) {
    print_to(std::io::stdout(), text);
}

/// The same on another stream.
pub fn print_to(to: impl Write + AsFd, text: &str) {
    let Err(error) = write_all(to, text.as_bytes()) else { return };
    let status = unwritten(&error);
    if status != UNREAD {
        let _ = writeln!(std::io::stderr(), "croft: write the output: {error}");
    }
    std::process::exit(status.into())
}

/// The status to end with when output could not be written.
pub fn unwritten(error: &std::io::Error) -> u8 {
    if error.kind() == ErrorKind::BrokenPipe { UNREAD } else { FAILED }
}

/// Writes all, and waits where whoever shares the file has made it non-blocking (`O_NONBLOCK` is the terminal's, not the program's).
///
/// # Errors
/// When it cannot be written.
pub fn write_all(mut to: impl Write + AsFd, mut bytes: &[u8]) -> std::io::Result<()> {
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

/// Prints `values`: as JSON, or as a table with `head` and a row for each.
pub fn list<T: Serialize>(format: Format, values: &[T], head: &[&str], row: impl Fn(&T) -> Vec<String>) {
    if format == Format::Json {
        return json(&values);
    }
    line(table(values, head, row));
}

/// A table with `head` and a row for each of `values`.
pub fn table<T>(values: &[T], head: &[&str], row: impl Fn(&T) -> Vec<String>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    values.iter().for_each(|value| {
        table.add_row(row(value));
    });
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// How much of an answer is printed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// How.
    pub format: Format,
    /// Whether ids only are printed of what is listed, and nothing of what is done.
    pub quiet: bool,
}

impl Shown {
    /// Prints what was done: `value` as JSON, or `text` for people.
    pub fn done<T: Serialize>(self, value: &T, text: &str) {
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, Format::Json) => json(value),
            (false, Format::Table) => line(text),
        }
    }

    /// The same for what several lines tell.
    pub fn lines<T: Serialize>(self, value: &T, lines: impl IntoIterator<Item = String>) {
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, Format::Json) => json(value),
            (false, Format::Table) => lines.into_iter().for_each(line),
        }
    }

    /// The same for one of several: JSON in one line.
    pub fn each<T: Serialize>(self, value: &T, text: &str) {
        match (self.quiet, self.format) {
            (true, _) => {}
            (false, Format::Json) => line(serde_json::to_string(value).unwrap_or_default()),
            (false, Format::Table) => line(text),
        }
    }
}

/// The last line of what was pruned.
pub fn freed(bytes: u64) -> String {
    format!("{} freed", size(bytes))
}

/// Prints `value` as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) {
    line(serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Whether somebody at the terminal says yes to `question`.
///
/// # Errors
/// When nobody can be asked.
pub fn agreed(question: &str) -> Result<bool, String> {
    use std::io::{IsTerminal, Write};
    if !std::io::stdin().is_terminal() {
        return Err(format!("{question} Nobody is there to say so: --force answers yes"));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| format!("read the answer: {e}"))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The beginning of an id that people read.
pub fn short(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

/// Bytes for people, in steps of 1000: what is stored and sent.
pub fn size(bytes: u64) -> String {
    in_steps(bytes, 1000.0, ["B", "kB", "MB", "GB", "TB"])
}

/// Bytes for people, in steps of 1024: memory.
pub fn binary(bytes: u64) -> String {
    in_steps(bytes, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB"])
}

fn in_steps(bytes: u64, step: f64, units: [&str; 5]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::write_all;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn sizes_are_short() {
        assert_eq!(super::size(999), "999 B");
        assert_eq!(super::size(1_234_567), "1.2 MB");
        assert_eq!(super::binary(32 << 20), "32.0 MiB");
        assert_eq!(super::short("sha256:0123456789abcdef"), "0123456789ab");
    }

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
