//! The files of a log: the one that is written, and the full ones before it, numbered upwards, of which the older are compressed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use croft_shim::supervise::full_log_files;
use flate2::read::MultiGzDecoder;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Reads a log from its oldest file on to the end of the newest, and further as it grows. Files that go while it reads elsewhere are left
/// out.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// The file that is read: the one that is written has the number that it will get.
    number: u32,
    offset: u64,
    open: Option<Open>,
}

/// A file of a log, as it was before it was compressed.
#[derive(Debug)]
pub struct Open {
    /// The file.
    pub file: File,
    /// Nothing more is written to it.
    is_full: bool,
}

impl Reader {
    /// Reads the log at `path` from its beginning.
    pub fn new(path: PathBuf) -> Self {
        Reader { path, number: 0, offset: 0, open: None }
    }

    /// The same from this place in a file that [`newest_first`] has opened.
    pub fn at(path: PathBuf, (number, open): (u32, Open), offset: u64) -> Self {
        Reader { path, number, offset, open: Some(open) }
    }

    /// The next bytes; none when there are no more yet.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn piece(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => match find(&self.path, self.number)? {
                    None => return Ok(Vec::new()),
                    Some((number, open)) => {
                        if number != self.number {
                            (self.number, self.offset) = (number, 0);
                        }
                        self.open.insert(open)
                    }
                },
            };
            let mut bytes = vec![0; PIECE];
            let count = open.file.read_at(&mut bytes, self.offset)?;
            if count > 0 {
                self.offset += count as u64;
                bytes.truncate(count);
                return Ok(bytes);
            }
            match (open.is_full, is_written(&self.path, &open.file)?) {
                (false, true) => return Ok(Vec::new()),
                // What was written to it before it was full is read first.
                (false, false) => open.is_full = true,
                (true, _) => (self.number, self.offset, self.open) = (self.number + 1, 0, None),
            }
        }
    }
}

/// The files of the log at `path`, the newest first, which is the one that is written, with their numbers.
///
/// # Errors
/// When they cannot be listed or read.
pub fn newest_first(path: &Path) -> io::Result<impl Iterator<Item = io::Result<(u32, Open)>> + use<>> {
    let mut numbers: Vec<u32> = full_log_files(path)?.into_iter().map(|(number, _)| number).collect();
    numbers.push(numbers.last().map_or(1, |newest| newest + 1));
    numbers.dedup();
    let path = path.to_owned();
    Ok(numbers.into_iter().rev().filter_map(move |number| match find(&path, number) {
        Ok(found) => found.filter(|(found, _)| *found == number).map(Ok),
        Err(e) => Some(Err(e)),
    }))
}

/// The file with this number, or the next there is, to be read as it was before it was compressed. None when it is not there yet.
fn find(path: &Path, number: u32) -> io::Result<Option<(u32, Open)>> {
    loop {
        let full = full_log_files(path)?;
        let written = full.last().map_or(1, |(newest, _)| newest + 1);
        let Some((found, place)) = full.into_iter().find(|(found, _)| *found >= number) else {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e),
            };
            // It may have become full, and another one may be written.
            if full_log_files(path)?.last().map_or(1, |(newest, _)| newest + 1) == written {
                return Ok(Some((written, Open { file, is_full: false })));
            }
            continue;
        };
        match plain(&place) {
            Ok(file) => return Ok(Some((found, Open { file, is_full: true }))),
            // It was compressed, or removed as the oldest, just now.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether `file` is the one that is written.
fn is_written(path: &Path, file: &File) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(now) => Ok((now.dev(), now.ino()) == (own.dev(), own.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// A full file, unpacked into one without a name if it is compressed.
fn plain(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if path.extension().is_none_or(|end| end != "gz") {
        return Ok(file);
    }
    let mut unpacked = tempfile::tempfile_in(path.parent().unwrap_or(Path::new("/")))?;
    io::copy(&mut MultiGzDecoder::new(file), &mut unpacked)?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A folder with the log `log`, whose full files 3 (compressed) and 4 have these texts.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let packed = File::create(folder.path().join("log.3.gz")).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        encoder.write_all(b"three\n").unwrap();
        encoder.finish().unwrap();
        std::fs::write(folder.path().join("log.4"), "four\n").unwrap();
        std::fs::write(&path, "five\n").unwrap();
        (folder, path)
    }

    fn rest(reader: &mut Reader) -> String {
        let mut text = Vec::new();
        loop {
            match reader.piece().unwrap() {
                piece if piece.is_empty() => return String::from_utf8(text).unwrap(),
                piece => text.extend(piece),
            }
        }
    }

    #[test]
    fn all_files_are_read_and_what_is_added_while_they_are_rotated() {
        let (folder, path) = folder();
        let mut reader = Reader::new(path.clone());
        assert_eq!(rest(&mut reader), "three\nfour\nfive\n");
        let mut written = File::options().append(true).open(&path).unwrap();
        written.write_all(b"more\n").unwrap();
        assert_eq!(rest(&mut reader), "more\n");
        // It becomes full, and so does the next, before anybody looks; and the one between is not written yet.
        written.write_all(b"last\n").unwrap();
        std::fs::rename(&path, folder.path().join("log.5")).unwrap();
        std::fs::write(folder.path().join("log.6"), "six\n").unwrap();
        assert_eq!(rest(&mut reader), "last\nsix\n");
        std::fs::write(&path, "seven\n").unwrap();
        assert_eq!(rest(&mut reader), "seven\n");
        assert_eq!(
            rest(&mut Reader { path: path.clone(), number: 5, offset: 5, open: None }),
            "more\nlast\nsix\nseven\n"
        );
        // The oldest go.
        for name in ["log.3.gz", "log.4"] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        assert!(rest(&mut Reader::new(path)).starts_with("five\nmore\n"));
    }

    #[test]
    fn files_come_from_the_newest_to_the_oldest() {
        let (_folder, path) = folder();
        let numbers =
            |path: &Path| -> Vec<u32> { newest_first(path).unwrap().map(|file| file.unwrap().0).collect() };
        assert_eq!(numbers(&path), [5, 4, 3]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(numbers(&path), [4, 3]);
        assert!(newest_first(Path::new("/nonexistent/log")).is_err());
    }
}
