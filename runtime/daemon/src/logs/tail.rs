//! Where the last lines of a log begin, found from its end: a log may be large.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use jiff::Timestamp;

use super::files::{Reader, newest_first};

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;

/// Reads from where the last `count` lines of the log at `path` begin that are not later than `until`. What follows the last line's end is
/// none.
///
/// # Errors
/// When it cannot be read.
pub fn reader(path: PathBuf, count: u64, until: Option<Timestamp>) -> std::io::Result<Reader> {
    let mut wanted = Wanted { left: count, until };
    for file in newest_first(&path)? {
        let (number, open) = file?;
        if let Some(offset) = find(&open.file, &mut wanted)? {
            return Ok(Reader::at(path, (number, open), offset));
        }
    }
    Ok(Reader::new(path))
}

/// What is looked for from the end on.
struct Wanted {
    /// So many lines more.
    left: u64,
    /// Later ones do not count; none when one was found that counts, since lines come in the order of their times.
    until: Option<Timestamp>,
}

/// Where the wanted lines begin in this file; none when they begin before it.
fn find(file: &File, wanted: &mut Wanted) -> std::io::Result<Option<u64>> {
    let mut ends = Ends { file, before: file.metadata()?.len(), piece: Vec::new() };
    let mut end = ends.next()?;
    while let Some(this) = end {
        end = ends.next()?;
        let start = end.map_or(0, |before| before + 1);
        if let Some(limit) = wanted.until {
            let mut line = vec![0; usize::try_from(this + 1 - start).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut line, start)?;
            if super::time(&line).is_some_and(|when| when > limit) {
                continue;
            }
            wanted.until = None;
        }
        if wanted.left == 0 {
            return Ok(Some(this + 1));
        }
        wanted.left -= 1;
        if wanted.left == 0 {
            return Ok(Some(start));
        }
    }
    Ok(None)
}

/// The positions of the lines' ends, the last first.
struct Ends<'a> {
    file: &'a File,
    /// Where the piece begins.
    before: u64,
    piece: Vec<u8>,
}

impl Ends<'_> {
    fn next(&mut self) -> std::io::Result<Option<u64>> {
        loop {
            if let Some(at) = self.piece.iter().rposition(|byte| *byte == b'\n') {
                self.piece.truncate(at);
                return Ok(Some(self.before + at as u64));
            }
            if self.before == 0 {
                return Ok(None);
            }
            let length = self.before.min(PIECE);
            self.before -= length;
            self.piece.resize(usize::try_from(length).unwrap_or_default(), 0);
            self.file.read_exact_at(&mut self.piece, self.before)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn log(lines: usize) -> (File, Vec<u64>) {
        let mut file = tempfile::tempfile().unwrap();
        let (mut starts, mut at) = (Vec::new(), 0);
        for n in 0..lines {
            let line =
                format!("{{\"time\":\"2026-01-01T00:00:{n:02}Z\",\"log\":\"{}\"}}\n", "x".repeat(n * 4000));
            file.write_all(line.as_bytes()).unwrap();
            starts.push(at);
            at += line.len() as u64;
        }
        starts.push(at);
        (file, starts)
    }

    fn begin(file: &File, left: u64, until: Option<Timestamp>) -> Option<u64> {
        find(file, &mut Wanted { left, until }).unwrap()
    }

    #[test]
    fn the_last_lines_are_found_over_pieces() {
        let (mut file, starts) = log(40);
        file.write_all(b"unfinished").unwrap();
        for count in 0..=40 {
            assert_eq!(begin(&file, count, None), Some(starts[40 - count as usize]), "{count}");
        }
        let mut wanted = Wanted { left: 100, until: None };
        assert_eq!(find(&file, &mut wanted).unwrap(), None);
        assert_eq!(wanted.left, 60, "the others are looked for in the file before");
    }

    #[test]
    fn later_lines_do_not_count() {
        let (file, starts) = log(40);
        let until = Some("2026-01-01T00:00:29.5Z".parse().unwrap());
        assert_eq!(begin(&file, 3, until), Some(starts[27]));
        assert_eq!(begin(&file, 0, until), Some(starts[30]));
        assert_eq!(begin(&file, 3, Some("2020-01-01T00:00:00Z".parse().unwrap())), None);
        assert_eq!(begin(&tempfile::tempfile().unwrap(), 3, None), None);
    }
}
