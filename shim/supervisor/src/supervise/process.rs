//! A process that is looked after: what is recorded of it, and what is held for it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::frames::Output;
use crate::protocol::{Exit, Io, Log, State, Status};
use crate::supervise::log::LogWriter;
use crate::supervise::operations::Verb;
use crate::supervise::ring::Ring;

/// The version of the record's format. A reader refuses a newer one.
const FORMAT: u32 = 1;

const RECORD: &str = "process.json";

/// The name of a process: its container, and its own if it is a further one. In a container's order, its own process comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The container.
    pub id: String,
    /// The further process.
    pub exec: Option<String>,
}

impl Key {
    /// Its folder below the supervisor's root.
    pub fn folder(&self, root: &Path) -> PathBuf {
        let container = root.join("containers").join(&self.id);
        match &self.exec {
            None => container,
            Some(exec) => container.join("execs").join(exec),
        }
    }

    /// What the holder calls the descriptor `what` of this process. An id has no `/`.
    pub fn held(&self, what: &str) -> String {
        format!("{}/{}/{what}", self.id, self.exec.as_deref().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.exec {
            None => write!(f, "container {}", self.id),
            Some(exec) => write!(f, "process {exec} of container {}", self.id),
        }
    }
}

/// A pid, which can be used again, with the start time, which cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// In the supervisor's pid namespace.
    pub pid: i32,
    /// In clock ticks since boot. 0: it had ended before that could be read.
    pub start_time: u64,
}

/// What is recorded of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version.
    pub format: u32,
    /// The container's bundle.
    pub bundle: PathBuf,
    /// Its streams.
    pub io: Io,
    /// Its log.
    pub log: Option<Log>,
    /// Where it stands.
    pub status: Status,
    /// The croft-oci that makes it, while it does.
    pub maker: Option<Identity>,
    /// The process, once it is made.
    pub process: Option<Identity>,
    /// Its end.
    pub exit: Option<Exit>,
    /// The number of the event that tells of its end.
    pub exit_event: u64,
}

impl Record {
    /// The record of a process that is to be made.
    pub fn new(bundle: PathBuf, io: Io, log: Option<Log>) -> Self {
        Record {
            format: FORMAT,
            bundle,
            io,
            log,
            status: Status::Creating,
            maker: None,
            process: None,
            exit: None,
            exit_event: 0,
        }
    }

    /// Writes it into `folder`, by rename: a reader never sees half of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let new = folder.join(".process.new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(&new, folder.join(RECORD))
    }

    /// Reads it from `folder`.
    ///
    /// # Errors
    /// When it cannot be read, or is of a newer format.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let record: Record = serde_json::from_slice(&std::fs::read(folder.join(RECORD))?)?;
        if record.format > FORMAT {
            let text =
                format!("format {} is newer than this supervisor, which knows {FORMAT}", record.format);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(record)
    }
}

/// An output stream.
#[derive(Debug)]
pub struct OutputStream {
    /// Where it is read; `None` once it has ended.
    pub fd: Option<OwnedFd>,
    /// Whether it is waited for.
    pub watched: bool,
    /// Its last bytes.
    pub ring: Ring,
    /// The number below which no client needs a byte again.
    pub seen: u64,
}

/// The input of a process.
#[derive(Debug, Default)]
pub struct Input {
    /// Where it is written; `None` when there is none (any more).
    pub fd: Option<OwnedFd>,
    /// Whether room is waited for.
    pub watched: bool,
    /// What was accepted and not yet written.
    pub pending: Vec<u8>,
    /// The number after the last byte that the process has got.
    pub written: u64,
    /// The input ends after this byte.
    pub end: Option<u64>,
}

impl Input {
    /// The number after the last byte that was accepted.
    pub fn accepted(&self) -> u64 {
        self.written + self.pending.len() as u64
    }
}

/// The end of a process that was seen but not yet told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The status as a shell gives it, if it is known.
    pub status: Option<i32>,
    /// Nanoseconds since 1970.
    pub at: u64,
}

/// A process that is looked after.
#[derive(Debug)]
pub struct Process {
    /// Its name.
    pub key: Key,
    /// Its folder.
    pub folder: PathBuf,
    /// What is recorded.
    pub record: Record,
    /// The process.
    pub pidfd: Option<OwnedFd>,
    /// Its input.
    pub input: Input,
    /// Its standard output and error, as far as it has them.
    pub outputs: [Option<OutputStream>; 2],
    /// Its log.
    pub log: Option<Box<LogWriter>>,
    /// Who is attached.
    pub attached: Vec<u32>,
    /// Who waits for its end: connection and call.
    pub waiters: Vec<(u32, u64)>,
    /// Who waits for its record to go once it has ended: connection and call.
    pub deleters: Vec<(u32, u64)>,
    /// What croft-oci is doing with it.
    pub busy: Option<Verb>,
    /// Whether the croft-oci that made it was killed: what it made has to be removed.
    pub torn: bool,
    /// Whether it is no child of this process, but of one that looked after it before.
    pub foreign: bool,
    /// Its end, while that cannot be told yet.
    pub ended: Option<Ended>,
    /// When a zombie that nobody reaps is given up.
    pub give_up: Option<Instant>,
    /// Until when a client that is to come, or to come back, is waited for.
    pub awaited: Option<Instant>,
    /// Whether it was deleted, and is only there for clients that have not got all of its output.
    pub forgotten: bool,
}

impl Process {
    /// A process without streams.
    pub fn new(key: Key, folder: PathBuf, record: Record) -> Self {
        Process {
            key,
            folder,
            record,
            pidfd: None,
            input: Input::default(),
            outputs: [None, None],
            log: None,
            attached: Vec::new(),
            waiters: Vec::new(),
            deleters: Vec::new(),
            busy: None,
            torn: false,
            foreign: false,
            ended: None,
            give_up: None,
            awaited: None,
            forgotten: false,
        }
    }

    /// Opens the ring of a stream, which is read from `fd` as long as it has not ended.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn open_output(&mut self, output: Output, fd: Option<OwnedFd>) -> io::Result<()> {
        let path = self.folder.join(format!("{}.ring", output.name()));
        let ring = Ring::open(path, self.record.io.ring)?;
        if output == Output::Stdout {
            self.input.written = ring.input();
        }
        // A supervisor that takes over does not know what was seen: what is kept may be wanted.
        let seen = ring.start();
        self.outputs[output.index()] = Some(OutputStream { fd, watched: false, ring, seen });
        Ok(())
    }

    /// Its state, for clients.
    pub fn state(&self) -> State {
        let pid = self.record.process.map(|process| process.pid);
        State {
            id: self.key.id.clone(),
            exec: self.key.exec.clone(),
            status: self.record.status,
            pid: pid.filter(|_| self.record.exit.is_none()),
            exit: self.record.exit,
            bundle: self.record.bundle.clone(),
        }
    }

    /// Records it.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn save(&self) -> io::Result<()> {
        self.record.save(&self.folder)
    }
}
