//! The supervisor: one thread, one set of descriptors, no call that waits.
//!
//! [`Supervisor::turn`] waits for whatever is ready and hands it to the file that knows what to do: [`connection`] and [`requests`] for
//! clients, [`operations`] for the croft-oci processes that it runs, [`starts`] for what it starts without one, [`ends`] for processes that ended, [`streams`] and [`attach`] for
//! bytes, [`adopt`] for what an earlier supervisor left.

mod adopt;
mod attach;
mod compress;
mod connection;
mod ends;
mod journal;
mod log;
mod operations;
mod process;
mod requests;
mod ring;
mod starts;
mod streams;
mod token;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use croft_engine::state::StateRoot;
use croft_sys::epoll::{Epoll, Interest, Ready};
use croft_sys::{prctl, rlimit, signal, socket};

use crate::holder::{Holder, raise_descriptor_limit};
use crate::protocol::PACKET_LIMIT;
use crate::supervise::process::{Key, Process};
use crate::supervise::streams::Rate;
use crate::supervise::token::Token;

pub use compress::compress;
pub use log::full_files as full_log_files;

/// How many containers one supervisor takes, unless it is told otherwise.
pub const MOST_CONTAINERS: usize = 512;

/// The bytes that are read at once: a pipe's.
const READ_AT_ONCE: usize = 64 * 1024;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// How a supervisor is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of its state, on a tmpfs.
    pub root: PathBuf,
    /// Where clients connect.
    pub socket: PathBuf,
    /// The croft-oci program.
    pub runtime: PathBuf,
    /// croft-oci's `--root`.
    pub runtime_root: PathBuf,
    /// The most containers.
    pub containers: usize,
    /// The most croft-oci processes at a time.
    pub parallel: usize,
    /// How long each of them may take.
    pub limit: Duration,
}

/// Why a supervisor could not start or go on.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    what: String,
    source: io::Error,
}

trait Context<T> {
    fn on(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn on(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error { what: what(), source: e.into() })
    }
}

/// Whether it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It does.
    Serving,
    /// It ends: nothing is left to look after, and the holder goes too.
    Finished,
    /// It ends, and what runs goes on, held by the holder.
    Leaving,
}

/// A supervisor.
#[derive(Debug)]
pub struct Supervisor {
    options: Options,
    states: StateRoot,
    poll: Epoll,
    listener: OwnedFd,
    signals: OwnedFd,
    holder: Holder,
    connections: HashMap<u32, connection::Connection>,
    attached: HashMap<u32, attach::Attached>,
    processes: HashMap<u32, Process>,
    names: BTreeMap<Key, u32>,
    operations: operations::Operations,
    /// The starts that are under way without a croft-oci.
    starts: HashMap<u32, starts::Start>,
    compressions: compress::Compressions,
    journal: journal::Journal,
    timers: BinaryHeap<Reverse<(Instant, Token)>>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    next: u32,
    phase: Phase,
    /// What croft-oci, and so a container, gets: this process itself may need more.
    descriptors: rlimit::Limit,
    /// The signals that croft-oci, and so a hook, has blocked: those that were before this process blocked its own.
    unblocked: signal::Set,
    /// The file of a mount namespace with few mounts, where croft-oci has containers born.
    mount_base: Option<OwnedFd>,
    /// Whether children may have ended without a signal that tells of it.
    look_for_ends: bool,
    /// Held as long as this supervisor lives: one at a time looks after a root.
    _lock: File,
}

/// Whether the user at the other end of a connection may use it: root, and the user that this process runs as.
pub(crate) fn may_connect(socket: BorrowedFd<'_>) -> bool {
    let own = croft_sys::credentials::user().1;
    socket::peer_user(socket).is_ok_and(|user| user == 0 || user == own)
}

/// Says on standard error what went wrong and hinders nothing else.
fn complain(what: &str, error: &io::Error) {
    say(format_args!("{what}: {error}"));
}

/// Says something on standard error.
fn say(text: std::fmt::Arguments<'_>) {
    // That is a file beside the state: where the file system is full there is nobody to tell, and the containers go on.
    let _ = writeln!(io::stderr(), "croft-shim: {text}");
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl Supervisor {
    /// Makes a supervisor, and adopts what an earlier one with the same root looked after.
    ///
    /// # Errors
    /// When another one looks after this root, or the host does not allow something that is needed.
    pub fn new(options: Options) -> Result<Self, Error> {
        // Whatever a careless parent left open is no business of the holder, of croft-oci or of a container.
        croft_sys::exec::close_on_exec_from(3).on(|| "mark descriptors".into())?;
        let root = options.root.clone();
        std::fs::create_dir_all(root.join("containers")).on(|| format!("make {}", root.display()))?;
        let lock = File::create(root.join("lock")).on(|| format!("make a lock in {}", root.display()))?;
        croft_sys::fs::flock(&lock, croft_sys::fs::FlockOperation::NonBlockingLockExclusive)
            .on(|| format!("lock {}: is another supervisor at work there?", root.display()))?;
        prctl::set_child_subreaper().on(|| "become a subreaper".into())?;
        let handled = signal::Set::of(&[SIGHUP, SIGINT, SIGTERM, SIGCHLD]);
        let unblocked = signal::set_blocked(handled).on(|| "block signals".into())?;
        let signals = signal::signalfd(handled).on(|| "make a signalfd".into())?;
        let descriptors = raise_descriptor_limit();
        let holder = Holder::find(&root).on(|| format!("find or start the holder of {}", root.display()))?;
        let journal =
            journal::Journal::open(root.join("events")).on(|| "open the journal of events".into())?;
        let listener = listen(&options)?;
        let poll = Epoll::new().on(|| "make an epoll set".into())?;
        for (fd, token) in [
            (listener.as_fd(), Token::Listener),
            (signals.as_fd(), Token::Signals),
            (holder.as_fd(), Token::Holder),
        ] {
            poll.add(fd, token.number(), Interest::Readable).on(|| "watch a socket".into())?;
        }
        let mut supervisor = Self {
            states: StateRoot::new(options.runtime_root.clone()),
            operations: operations::Operations::new(options.parallel),
            starts: HashMap::new(),
            options,
            poll,
            listener,
            signals,
            holder,
            connections: HashMap::new(),
            attached: HashMap::new(),
            processes: HashMap::new(),
            names: BTreeMap::new(),
            compressions: compress::Compressions::default(),
            journal,
            timers: BinaryHeap::new(),
            buffer: vec![0; READ_AT_ONCE.max(PACKET_LIMIT)],
            scratch: Vec::new(),
            next: 0,
            phase: Phase::Serving,
            descriptors,
            unblocked,
            mount_base: mount_base(),
            look_for_ends: false,
            _lock: lock,
        };
        supervisor.adopt()?;
        Ok(supervisor)
    }

    /// Serves until it is told to end.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn run(mut self) -> Result<(), Error> {
        let mut ready = Vec::new();
        while self.phase == Phase::Serving {
            self.turn(&mut ready).on(|| "wait".into())?;
        }
        let _ = std::fs::remove_file(&self.options.socket);
        if self.phase == Phase::Finished {
            self.holder.quit();
        }
        Ok(())
    }

    fn turn(&mut self, ready: &mut Vec<Ready>) -> croft_sys::Result<()> {
        let next = self.timers.peek().map(|Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        let next = if self.look_for_ends { Some(Duration::ZERO) } else { next };
        // A millisecond more: the kernel's timers may come a little early.
        self.poll.wait(next.map(|next| next + Duration::from_millis(1)), ready)?;
        for event in ready.iter() {
            match Token::of(event.token) {
                Some(Token::Listener) => self.accept(),
                Some(Token::Signals) => self.take_signals(),
                Some(Token::Holder) => self.holder_gone(),
                Some(Token::Connection(n)) => self.connection_ready(n, *event),
                Some(Token::Attached(n)) => self.attached_ready(n, *event),
                Some(Token::Process(n)) => self.foreign_ready(n),
                Some(Token::Input(n)) => self.write_input(n),
                Some(Token::Output(n, output)) => self.read_output(n, output, Rate::Kept, 4 * READ_AT_ONCE),
                Some(Token::Start(n)) => self.start_ready(n),
                Some(Token::Operation(_)) | None => {}
            }
        }
        while std::mem::take(&mut self.look_for_ends) {
            self.reap();
        }
        let now = Instant::now();
        while self.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            match self.timers.pop() {
                Some(Reverse((_, Token::Output(n, output)))) => {
                    self.read_output(n, output, Rate::Kept, READ_AT_ONCE);
                }
                Some(Reverse((_, Token::Process(n)))) => self.foreign_ready(n),
                Some(Reverse((_, Token::Listener))) => self.accept_again(),
                Some(Reverse((at, Token::Operation(pid)))) => self.operations.end_late(pid.cast_signed(), at),
                Some(Reverse((at, Token::Start(n)))) => self.start_late(n, at),
                _ => {}
            }
        }
        Ok(())
    }

    fn take_signals(&mut self) {
        while let Ok(Some(got)) = signal::read_signal(self.signals.as_fd()) {
            match got.signal {
                SIGCHLD => self.reap(),
                // What runs goes on: the next supervisor takes it over.
                SIGTERM | SIGINT => {
                    self.phase = if self.names.is_empty() { Phase::Finished } else { Phase::Leaving };
                }
                _ => {}
            }
        }
    }

    fn holder_gone(&mut self) {
        let _ = self.poll.remove(self.holder.as_fd());
        match Holder::find(&self.options.root) {
            Ok(holder) => self.holder = holder,
            Err(error) => return complain("start a new holder", &error),
        }
        let _ = self.poll.add(self.holder.as_fd(), Token::Holder.number(), Interest::Readable);
        for process in self.processes.values() {
            adopt::hold(&self.holder, process);
        }
    }

    /// A number that no connection, attachment or process has.
    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }
}

/// A mount namespace for containers to be born in. Without one, making a container takes longer the more there are.
fn mount_base() -> Option<OwnedFd> {
    // An ordinary user could not join it.
    if !croft_engine::is_root() {
        return None;
    }
    croft_engine::base::make().map_err(|e| complain("make a base for containers", &io::Error::other(e))).ok()
}

fn listen(options: &Options) -> Result<OwnedFd, Error> {
    let path = &options.socket;
    let what = || format!("listen at {}", path.display());
    if socket::connect_packet(path).is_ok() {
        return Err(io::Error::from(io::ErrorKind::AddrInUse)).on(what);
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).on(what),
        _ => {}
    }
    let listener = socket::listen_packet(path).on(what)?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).on(what)?;
    Ok(listener)
}
