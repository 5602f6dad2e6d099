//! Compression of full log files, in a process of its own: the loop never waits for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::supervise::complain;

/// The files to compress, one at a time.
#[derive(Debug, Default)]
pub struct Compressions {
    running: Option<i32>,
    waiting: VecDeque<PathBuf>,
}

impl Compressions {
    /// Lets `path` be compressed.
    pub fn add(&mut self, path: PathBuf) {
        self.waiting.push_back(path);
        self.start();
    }

    /// Whether `pid`, which has ended, was a compression; the next one begins.
    pub fn ended(&mut self, pid: i32) -> bool {
        if self.running != Some(pid) {
            return false;
        }
        self.running = None;
        self.start();
        true
    }

    fn start(&mut self) {
        while self.running.is_none() {
            let Some(path) = self.waiting.pop_front() else { return };
            if !path.exists() {
                // It was the oldest by then.
                continue;
            }
            let mut command = Command::new("/proc/self/exe");
            command.arg("compress").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
            match command.spawn() {
                Ok(child) => self.running = Some(child.id() as i32),
                Err(error) => complain(&format!("compress {}", path.display()), &error),
            }
        }
    }
}

/// Compresses the file at `path` to `PATH.gz`, and removes it.
///
/// # Errors
/// When a file cannot be read or written; the original stays then.
pub fn compress(path: &Path) -> io::Result<()> {
    // It was born with the supervisor's blocked signals.
    croft_sys::signal::set_blocked(croft_sys::signal::Set::EMPTY)?;
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let (new, done) = (named(".gz.new"), named(".gz"));
    let mut source = File::open(path)?;
    let mut encoder = GzEncoder::new(BufWriter::new(File::create(&new)?), Compression::fast());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    std::fs::rename(&new, &done)?;
    match std::fs::remove_file(path) {
        // It became the oldest meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => std::fs::remove_file(&done),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_original_goes_when_the_whole_of_it_is_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.1");
        let text = "a line\n".repeat(100_000);
        std::fs::write(&path, &text).unwrap();
        compress(&path).unwrap();
        let names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["log.1.gz"]);
        let mut back = String::new();
        let file = File::open(folder.path().join("log.1.gz")).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }
}
