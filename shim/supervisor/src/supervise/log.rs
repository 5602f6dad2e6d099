//! The log of one process: a JSON object a line, rotated by size, limited by rate.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::frames::Output;
use crate::protocol::{Log, LogMode};

/// A line longer than this is cut; the pieces but the last have no line feed.
const LONGEST_LINE: usize = 16 * 1024;

/// Entries are written when they are this many bytes: short lines are much longer as entries, and the memory stays.
const MOST_AT_ONCE: usize = 128 * 1024;

/// A log that is written.
#[derive(Debug)]
pub struct LogWriter {
    config: Log,
    file: File,
    /// How large the file is.
    bytes: u64,
    /// The number of the newest full file, once it was looked for.
    newest: Option<u32>,
    /// The beginnings of lines that have not ended yet.
    begun: [Vec<u8>; 2],
    bucket: Option<Bucket>,
    dropped: Dropped,
    /// What the entries stand for that are about to be written.
    tried: Dropped,
    /// Whether the last write failed.
    failing: bool,
}

/// What was left out since the last line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Dropped {
    lines: u64,
    bytes: u64,
}

impl Dropped {
    fn add(&mut self, more: Dropped) {
        self.lines += more.lines;
        self.bytes += more.bytes;
    }
}

/// A token bucket: `rate` bytes a second, as much at once.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    tokens: u64,
    filled: Instant,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        let more = (passed.as_micros() * u128::from(self.rate) / 1_000_000) as u64;
        if more > 0 {
            self.tokens = (self.tokens + more).min(self.rate);
            self.filled = now;
        }
    }
}

impl LogWriter {
    /// Opens the log, to go on where it ends.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(config: Log) -> io::Result<Self> {
        let file = open(&config.path)?;
        let bytes = file.metadata()?.len();
        let bucket = config.rate.map(|rate| Bucket { rate, tokens: rate, filled: Instant::now() });
        Ok(Self {
            config,
            file,
            bytes,
            newest: None,
            begun: Default::default(),
            bucket,
            dropped: Dropped::default(),
            tried: Dropped::default(),
            failing: false,
        })
    }

    /// How many bytes may be read now, and if none: for how long. Only a log in mode `block` limits that.
    pub fn allowance(&mut self, now: Instant) -> Result<usize, Duration> {
        let (Some(bucket), LogMode::Block) = (&mut self.bucket, self.config.mode) else {
            return Ok(usize::MAX);
        };
        bucket.fill(now);
        if bucket.tokens > 0 {
            return Ok(bucket.tokens as usize);
        }
        // For a twentieth of a second's worth, so that the process is not woken for every byte.
        Err(Duration::from_millis(50))
    }

    /// Writes what came from a stream. What has no line feed yet is kept for later. Gives the files to compress that
    /// became full.
    ///
    /// # Errors
    /// When a file cannot be written: the lines are counted as dropped.
    pub fn write(&mut self, output: Output, bytes: &[u8], scratch: &mut Vec<u8>) -> io::Result<Vec<PathBuf>> {
        if let (Some(bucket), LogMode::Block) = (&mut self.bucket, self.config.mode) {
            bucket.tokens = bucket.tokens.saturating_sub(bytes.len() as u64);
        }
        scratch.clear();
        let time = Time::now();
        let (mut rest, mut full, mut outcome) = (bytes, Vec::new(), Ok(()));
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            let mut begun = std::mem::take(&mut self.begun[output.index()]);
            if begun.is_empty() {
                self.line(output, line, &time, scratch);
            } else {
                begun.extend_from_slice(line);
                self.line(output, &begun, &time, scratch);
            }
            if scratch.len() > MOST_AT_ONCE {
                outcome = self.put(scratch).map(|more| full.extend(more)).and(outcome);
                scratch.clear();
            }
        }
        if !rest.is_empty() {
            let mut begun = std::mem::take(&mut self.begun[output.index()]);
            begun.extend_from_slice(rest);
            while begun.len() >= LONGEST_LINE {
                let cut = character_boundary(&begun, LONGEST_LINE);
                self.entry(output, &begun[..cut], &time, scratch);
                begun.drain(..cut);
            }
            self.begun[output.index()] = begun;
        }
        outcome = self.put(scratch).map(|more| full.extend(more)).and(outcome);
        outcome.map(|()| full)
    }

    /// Writes what is kept of a stream that has ended, and what was dropped.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end(&mut self, output: Output, scratch: &mut Vec<u8>) -> io::Result<Vec<PathBuf>> {
        scratch.clear();
        let time = Time::now();
        let begun = std::mem::take(&mut self.begun[output.index()]);
        if !begun.is_empty() {
            self.entry(output, &begun, &time, scratch);
        }
        self.mark_dropped(output, &time, scratch);
        self.put(scratch)
    }

    /// How many bytes of a stream wait for their line feed.
    pub fn waiting(&self, output: Output) -> usize {
        self.begun[output.index()].len()
    }

    fn line(&mut self, output: Output, mut line: &[u8], time: &Time, out: &mut Vec<u8>) {
        while line.len() > LONGEST_LINE {
            let cut = character_boundary(line, LONGEST_LINE);
            self.entry(output, &line[..cut], time, out);
            line = &line[cut..];
        }
        self.entry(output, line, time, out);
    }

    fn entry(&mut self, output: Output, line: &[u8], time: &Time, out: &mut Vec<u8>) {
        if let (Some(bucket), LogMode::Drop) = (&mut self.bucket, self.config.mode) {
            bucket.fill(time.instant);
            // A line longer than a second's worth passes when the bucket is full, or it never would.
            let price = (line.len() as u64).min(bucket.rate);
            if bucket.tokens < price {
                self.dropped.lines += 1;
                self.dropped.bytes += line.len() as u64;
                return;
            }
            bucket.tokens -= price;
        }
        self.mark_dropped(output, time, out);
        self.tried.add(Dropped { lines: 1, bytes: line.len() as u64 });
        begin(output, time, out);
        // It fails only if writing does, and a Vec takes everything.
        let _ = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(line));
        out.extend_from_slice(b"}\n");
    }

    fn mark_dropped(&mut self, output: Output, time: &Time, out: &mut Vec<u8>) {
        let Dropped { lines, bytes } = std::mem::take(&mut self.dropped);
        if lines > 0 {
            self.tried.add(Dropped { lines, bytes });
            begin(output, time, out);
            let _ = writeln!(out, "\"\",\"dropped_lines\":{lines},\"dropped_bytes\":{bytes}}}");
        }
    }

    fn put(&mut self, entries: &[u8]) -> io::Result<Vec<PathBuf>> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let tried = std::mem::take(&mut self.tried);
        if let Err(error) = self.file.write_all(entries) {
            self.dropped.add(tried);
            // Half an entry would spoil the one after it.
            let _ = self.file.set_len(self.bytes);
            // Said once, until it works again.
            return if std::mem::replace(&mut self.failing, true) { Ok(Vec::new()) } else { Err(error) };
        }
        self.failing = false;
        self.bytes += entries.len() as u64;
        if self.bytes < self.config.max_bytes { Ok(Vec::new()) } else { self.rotate() }
    }

    /// The full file gets the next number, and the oldest go.
    fn rotate(&mut self) -> io::Result<Vec<PathBuf>> {
        let newest = match self.newest {
            Some(newest) => newest,
            None => full_files(&self.config.path)?.last().map_or(0, |(number, _)| *number),
        };
        let full = numbered(&self.config.path, newest + 1);
        std::fs::rename(&self.config.path, &full)?;
        self.newest = Some(newest + 1);
        self.file = open(&self.config.path)?;
        self.bytes = 0;
        let files = full_files(&self.config.path)?;
        let surplus = files.len().saturating_sub(self.config.max_files as usize);
        for (_, path) in &files[..surplus] {
            // Compression may have taken it away meanwhile; its file goes with the next rotation.
            let _ = std::fs::remove_file(path);
        }
        let compress = self.config.compress && self.config.max_files > 0;
        Ok(if compress { vec![full] } else { Vec::new() })
    }
}

/// The time of an entry, as text.
struct Time {
    text: String,
    instant: Instant,
}

impl Time {
    fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            text: croft_engine::report::rfc3339(now.as_secs(), now.subsec_nanos()),
            instant: Instant::now(),
        }
    }
}

fn begin(output: Output, time: &Time, out: &mut Vec<u8>) {
    for part in ["{\"time\":\"", &time.text, "\",\"stream\":\"", output.name(), "\",\"log\":"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The last place up to `limit` that does not cut a character of UTF-8.
fn character_boundary(bytes: &[u8], limit: usize) -> usize {
    let is_inside = |at: &usize| bytes.get(*at).is_some_and(|b| b & 0xc0 == 0x80);
    (limit - 3..=limit).rev().find(|at| !is_inside(at)).unwrap_or(limit)
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// What an end in the middle of compression left of the log at `path`: the half files are removed, and the full files that were not
/// compressed are given.
pub fn uncompressed(config: &Log) -> io::Result<Vec<PathBuf>> {
    let folder = config.path.parent().unwrap_or(Path::new("/"));
    let mut half = config.path.file_name().unwrap_or_default().to_owned();
    half.push(".");
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&*half.to_string_lossy()) && name.ends_with(".gz.new") {
            std::fs::remove_file(entry.path())?;
        }
    }
    let files = full_files(&config.path)?.into_iter().map(|(_, path)| path);
    Ok(files.filter(|path| config.compress && path.extension().is_none_or(|end| end != "gz")).collect())
}

/// The full files of the log at `path`, the oldest first. One that is being compressed may be there twice.
///
/// # Errors
/// When its folder cannot be read.
pub fn full_files(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let rest = file.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.'));
        if let Some(Ok(number)) = rest.map(|rest| rest.trim_end_matches(".gz").parse()) {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn entries(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn text(entries: &[Value]) -> String {
        entries.iter().map(|entry| entry["log"].as_str().unwrap()).collect()
    }

    #[test]
    fn lines_are_whole_and_long_ones_are_cut_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogWriter::open(Log::at(path.clone())).unwrap();
        let mut scratch = Vec::new();
        log.write(Output::Stdout, b"one\ntw", &mut scratch).unwrap();
        log.write(Output::Stderr, "\"ä\"\n".as_bytes(), &mut scratch).unwrap();
        log.write(Output::Stdout, b"o\n", &mut scratch).unwrap();
        let seen = entries(&path);
        let of = |n: usize| (seen[n]["stream"].as_str().unwrap(), seen[n]["log"].as_str().unwrap());
        assert_eq!([of(0), of(1), of(2)], [("stdout", "one\n"), ("stderr", "\"ä\"\n"), ("stdout", "two\n")]);
        assert!(seen[0]["time"].as_str().unwrap().ends_with('Z'));
        let long = format!("x{}", "ä".repeat(30_000));
        for piece in long.as_bytes().chunks(777) {
            log.write(Output::Stdout, piece, &mut scratch).unwrap();
        }
        log.end(Output::Stdout, &mut scratch).unwrap();
        assert_eq!(text(&entries(&path)[3..]), long);
    }

    #[test]
    fn full_files_are_numbered_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let config = Log { max_bytes: 200, max_files: 2, ..Log::at(path.clone()) };
        let mut log = LogWriter::open(config.clone()).unwrap();
        let mut scratch = Vec::new();
        for n in 0..20 {
            if n == 10 {
                log = LogWriter::open(config.clone()).unwrap();
            }
            log.write(Output::Stdout, format!("line {n}\n").as_bytes(), &mut scratch).unwrap();
        }
        let files = full_files(&path).unwrap();
        assert_eq!(files.len(), 2);
        let mut all: Vec<Value> = files.iter().flat_map(|(_, path)| entries(path)).collect();
        all.extend(entries(&path));
        let last: Vec<u32> = (20 - all.len() as u32..20).collect();
        assert_eq!(text(&all), last.iter().map(|n| format!("line {n}\n")).collect::<String>());
    }

    #[test]
    fn what_was_not_compressed_any_more_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for name in ["log", "log.1.gz", "log.2", "log.2.gz.new", "login.3", "other.1.gz.new"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let config = Log { compress: true, ..Log::at(path.clone()) };
        assert_eq!(uncompressed(&config).unwrap(), [folder.path().join("log.2")]);
        assert!(
            !folder.path().join("log.2.gz.new").exists() && folder.path().join("other.1.gz.new").exists()
        );
        assert!(uncompressed(&Log::at(path)).unwrap().is_empty());
    }

    #[test]
    fn past_the_rate_lines_are_dropped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogWriter::open(Log { rate: Some(100), ..Log::at(path.clone()) }).unwrap();
        let mut scratch = Vec::new();
        for _ in 0..50 {
            log.write(Output::Stdout, b"123456789\n", &mut scratch).unwrap();
        }
        log.end(Output::Stdout, &mut scratch).unwrap();
        let seen = entries(&path);
        let dropped: u64 = seen.iter().filter_map(|e| e["dropped_lines"].as_u64()).sum();
        let bytes: u64 = seen.iter().filter_map(|e| e["dropped_bytes"].as_u64()).sum();
        let kept = text(&seen).len() as u64;
        assert!(kept >= 100 && dropped >= 30, "{kept} {dropped}");
        assert_eq!((kept + bytes, kept / 10 + dropped), (500, 50));
    }

    #[test]
    fn in_block_mode_reading_has_to_wait() {
        let folder = tempfile::tempdir().unwrap();
        let config = Log { rate: Some(100), mode: LogMode::Block, ..Log::at(folder.path().join("log")) };
        let mut log = LogWriter::open(config).unwrap();
        let now = Instant::now();
        assert_eq!(log.allowance(now), Ok(100));
        log.write(Output::Stdout, &[b'x'; 100], &mut Vec::new()).unwrap();
        assert!(log.allowance(now).is_err());
        assert_eq!(log.allowance(now + Duration::from_millis(500)), Ok(50));
    }
}
