//! Where the last lines of a log begin, found from its end: a log may be large.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use jiff::Timestamp;

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;

/// Where the last `count` lines of the file at `path` begin that are not later than `until`. What follows the last line's end is none.
///
/// # Errors
/// When it cannot be read.
pub async fn start(path: PathBuf, count: u64, until: Option<Timestamp>) -> std::io::Result<u64> {
    let found = tokio::task::spawn_blocking(move || find(&File::open(path)?, count, until)).await;
    found.map_err(std::io::Error::other)?
}

fn find(file: &File, count: u64, mut until: Option<Timestamp>) -> std::io::Result<u64> {
    let mut ends = Ends { file, before: file.metadata()?.len(), piece: Vec::new() };
    let mut end = ends.next()?;
    let mut left = count;
    while let Some(this) = end {
        end = ends.next()?;
        let start = end.map_or(0, |before| before + 1);
        if let Some(limit) = until {
            let mut line = vec![0; usize::try_from(this + 1 - start).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut line, start)?;
            if super::time(&line).is_some_and(|when| when > limit) {
                continue;
            }
            // Lines come in the order of their times.
            until = None;
        }
        if left == 0 {
            return Ok(this + 1);
        }
        left -= 1;
        if left == 0 {
            return Ok(start);
        }
    }
    Ok(0)
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

    #[test]
    fn the_last_lines_are_found_over_pieces() {
        let (mut file, starts) = log(40);
        file.write_all(b"unfinished").unwrap();
        for count in 0..=40 {
            assert_eq!(find(&file, count, None).unwrap(), starts[40 - count as usize], "{count}");
        }
        assert_eq!(find(&file, 100, None).unwrap(), 0);
    }

    #[test]
    fn later_lines_do_not_count() {
        let (file, starts) = log(40);
        let until = Some("2026-01-01T00:00:29.5Z".parse().unwrap());
        assert_eq!(find(&file, 3, until).unwrap(), starts[27]);
        assert_eq!(find(&file, 0, until).unwrap(), starts[30]);
        assert_eq!(find(&file, 3, Some("2020-01-01T00:00:00Z".parse().unwrap())).unwrap(), 0);
        assert_eq!(find(&tempfile::tempfile().unwrap(), 3, None).unwrap(), 0);
    }
}
