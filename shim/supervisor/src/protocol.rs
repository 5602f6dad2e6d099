//! What the supervisor is asked and what it says: every message, and nothing else.
//!
//! One `SOCK_SEQPACKET` connection carries them, one JSON object a packet, at most [`PACKET_LIMIT`] bytes; descriptors go beside
//! their packet (SCM_RIGHTS). The client sends [`Call`]s, the supervisor [`Packet`]s: one reply to each call, in any order, with the
//! call's number, and the events between them. The first call is [`Request::Hello`]; all others are refused before it.
//!
//! A process is named by its container's id and, for a further process in that container, by its own: `exec`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of this protocol. A supervisor serves every version from [`OLDEST`] to this one.
pub const VERSION: u32 = 1;

/// The oldest version that is still served.
pub const OLDEST: u32 = 1;

/// The most bytes that a packet has.
pub const PACKET_LIMIT: usize = 128 * 1024;

/// One request of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client; the reply carries it.
    pub number: u64,
    /// What is asked.
    pub request: Request,
}

/// What the supervisor sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packet {
    /// The answer to one call.
    Reply {
        /// The call's number.
        number: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something happened; sent after [`Request::Events`].
    Event(Event),
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first call of a connection. [`Reply::Welcome`], or a failure of kind [`FailureKind::Version`].
    Hello {
        /// The newest version that the client speaks.
        version: u32,
    },
    /// Makes a container that waits for [`Request::Start`]; its streams can be attached to from then on. [`Reply::Running`].
    Create {
        /// The new container's id.
        id: String,
        /// The folder with `config.json`.
        bundle: PathBuf,
        /// Its streams.
        io: Io,
        /// Where its output is logged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<Log>,
    },
    /// Lets a created container run its program. [`Reply::Done`].
    Start {
        /// The container.
        id: String,
    },
    /// Sends a signal. [`Reply::Done`] once it is sent.
    Kill {
        /// The container.
        id: String,
        /// A further process, if not the container's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<String>,
        /// The signal's number.
        signal: i32,
        /// Whether every process of the container gets it.
        #[serde(default)]
        all: bool,
    },
    /// Removes a stopped container with its further processes, or the record of one further process that has ended.
    /// [`Reply::Done`]. Logs stay.
    Delete {
        /// The container.
        id: String,
        /// A further process, if not the container as a whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<String>,
        /// Whether what still runs is killed first, and a making that is under way broken off.
        #[serde(default)]
        force: bool,
    },
    /// Runs a further process in a container. One descriptor goes beside it: a file, read from its beginning, with `process` as in
    /// `config.json` (a descriptor, as an environment may be larger than a packet). [`Reply::Running`].
    Exec {
        /// The container.
        id: String,
        /// The new process's id.
        exec: String,
        /// Its streams.
        io: Io,
        /// Where its output is logged.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<Log>,
    },
    /// Sets the size of a terminal. [`Reply::Done`].
    Resize {
        /// The container.
        id: String,
        /// A further process, if not the container's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<String>,
        /// The size.
        size: Size,
    },
    /// Ends the input of a process, after what has been accepted: a pipe is closed, a terminal gets its end-of-file key.
    /// [`Reply::Done`].
    CloseStdin {
        /// The container.
        id: String,
        /// A further process, if not the container's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<String>,
    },
    /// Attaches to the streams of a process, before its start, while it runs or after its end. [`Reply::Attached`], with one socket
    /// beside it that carries frames (see [`crate::frames`]).
    Attach {
        /// The container.
        id: String,
        /// A further process, if not the container's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<String>,
        /// From where the standard output (a terminal's: everything) is wanted. `None`: not at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stdout: Option<From>,
        /// From where the standard error is wanted. `None`: not at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stderr: Option<From>,
    },
    /// [`Reply::Exited`] when the process has ended, at once if it has already.
    Wait {
        /// The container.
        id: String,
        /// A further process, if not the container's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<String>,
    },
    /// [`Reply::State`].
    State {
        /// The container.
        id: String,
        /// A further process, if not the container's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec: Option<String>,
    },
    /// All processes in order, as many as fit into a packet. [`Reply::List`].
    List {
        /// Only those after this one (container, exec).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<(String, Option<String>)>,
    },
    /// Asks for the events after number `since`, and for all that come. [`Reply::Subscribed`], then [`Packet::Event`]s.
    Events {
        /// The last event that the client knows; 0 for none.
        since: u64,
    },
    /// Ends the supervisor and its holder. Refused (kind [`FailureKind::State`]) while a container is left. [`Reply::Done`].
    Stop,
}

/// From where a stream is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// The oldest byte that is kept.
    Oldest,
    /// Byte number `n`, the first being 0: what a client that comes back has not seen yet. It needs none before it again.
    At(u64),
    /// What comes from now on.
    Now,
}

/// The streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// What they are.
    pub kind: IoKind,
    /// How many bytes of each output stream are kept for who attaches, also after the end.
    pub ring: u32,
    /// What happens when that is full.
    pub when_full: WhenFull,
}

impl Io {
    /// Nothing in, nothing kept.
    pub const NULL: Io = Io { kind: IoKind::Null, ring: 0, when_full: WhenFull::Forget };

    /// Pipes without input of which 16 KiB are kept.
    pub const PIPES: Io =
        Io { kind: IoKind::Pipes { stdin: false }, ring: 16 << 10, when_full: WhenFull::Forget };

    /// A terminal of which 64 KiB are kept.
    pub const TERMINAL: Io = Io { kind: IoKind::Terminal, ring: 64 << 10, when_full: WhenFull::Forget };
}

/// What the streams of a process are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IoKind {
    /// `/dev/null` in and out.
    Null,
    /// A pipe for each output stream, and one for the input if that is asked for, else `/dev/null`.
    Pipes {
        /// Whether there is an input.
        stdin: bool,
    },
    /// One terminal; `terminal` must be true in the configuration.
    Terminal,
}

/// How long a client that is to come, or to come back, is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What happens when the kept bytes of a stream reach their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The oldest are forgotten; a client that wanted them is told of the gap.
    Forget,
    /// The process waits until a client has acknowledged some. Nothing is ever lost, and nothing goes on without a client.
    Wait,
    /// As `Wait` while a client is attached that wants the stream, and for [`PATIENCE`] after the last one was cut off without saying that it
    /// leaves ([`crate::frames::Frame::Leave`]): it may come back. As `Forget` otherwise. What such a client has not got yet when the process
    /// is deleted is still sent to it.
    WaitForClient {
        /// Whether one is to come: it is waited for from the beginning, for as long.
        promised: bool,
    },
}

/// Where and how output is logged: one JSON object a line, `{"time":…,"stream":"stdout"|"stderr","log":"…"}`; `log` has the line
/// feed, unless the line was cut or never ended. Lines that cannot be written, on a full disk, are dropped and counted in any mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The file that grows. Full ones become `PATH.1`, `PATH.2`…, the highest being the newest.
    pub path: PathBuf,
    /// A file past this many bytes is full.
    #[serde(default = "ten_mebibytes")]
    pub max_bytes: u64,
    /// How many full files are kept.
    #[serde(default = "three")]
    pub max_files: u32,
    /// Whether full files are compressed, to `PATH.1.gz`…
    #[serde(default)]
    pub compress: bool,
    /// Bytes a second that are logged, with a burst of as much; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// What happens past the rate.
    #[serde(default)]
    pub mode: LogMode,
}

fn ten_mebibytes() -> u64 {
    10 << 20
}

fn three() -> u32 {
    3
}

impl Log {
    /// A log with the usual limits: files of 10 MiB, 3 old ones, no limit on the rate.
    pub fn at(path: PathBuf) -> Self {
        Log {
            path,
            max_bytes: ten_mebibytes(),
            max_files: three(),
            compress: false,
            rate: None,
            mode: LogMode::Drop,
        }
    }
}

/// What happens to output past the rate of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogMode {
    /// Lines are dropped, counted, and a line with `dropped_lines` and `dropped_bytes` stands in their place.
    #[default]
    Drop,
    /// The process waits.
    Block,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Welcome {
        /// The version that both speak: the lower of the two.
        version: u32,
        /// The supervisor's pid.
        pid: i32,
        /// The number of the last event.
        last_event: u64,
    },
    /// It is done.
    Done,
    /// To [`Request::Create`] and [`Request::Exec`].
    Running {
        /// The new process, in the supervisor's pid namespace.
        pid: i32,
    },
    /// To [`Request::Attach`]: a socket goes beside it.
    Attached {
        /// The number of the next byte of input that the process has not got yet: from there a client sends (again).
        input: u64,
    },
    /// To [`Request::Wait`].
    Exited(Exit),
    /// To [`Request::State`].
    State(State),
    /// To [`Request::List`].
    List {
        /// Some of the processes.
        processes: Vec<State>,
        /// Whether there are more after the last of these.
        more: bool,
    },
    /// To [`Request::Events`]; events follow.
    Subscribed {
        /// The number of the first event that is sent. If it is more than `since` + 1, the supervisor has forgotten those between,
        /// and [`Request::List`] says how things stand.
        first: u64,
    },
    /// It was not done, and nothing of it is left.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Failure {
    /// What a program can act on.
    pub kind: FailureKind,
    /// What failed, on what.
    pub what: String,
    /// Why, and what to try.
    pub why: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The other side speaks another version.
    Version,
    /// The request cannot be understood, or its values are not allowed.
    Request,
    /// No such container or process.
    NotFound,
    /// The name is taken.
    Exists,
    /// The process is in a state that does not allow it, or another request on it is under way.
    State,
    /// croft-oci refused or failed; `why` has its words.
    Runtime,
    /// The supervisor itself failed.
    Supervisor,
}

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The status as a shell gives it, 128 + n for signal n. `None`: it ended while no supervisor ran, and the kernel is too old to
    /// tell afterwards.
    pub status: Option<i32>,
    /// When that was seen: nanoseconds since 1970.
    pub at: u64,
    /// Whether the kernel killed a process of the container for want of memory.
    pub oom: bool,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The container.
    pub id: String,
    /// A further process, if not the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Its pid, while it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Its end, once it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// The folder of its container's bundle.
    pub bundle: PathBuf,
}

/// Where a process stands. A paused container is `Running` here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// croft-oci is making it.
    Creating,
    /// It waits for its start.
    Created,
    /// Its program runs.
    Running,
    /// It has ended.
    Stopped,
}

/// Something that happened, in the order in which it did. Recorded on disk before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// One more than the event before; goes on over the supervisor's end.
    pub sequence: u64,
    /// When: nanoseconds since 1970.
    pub at: u64,
    /// The container.
    pub id: String,
    /// A further process, if not the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A container was made.
    Created,
    /// A container's program, or a further process, runs.
    Started,
    /// A process ended; all that it wrote is in its log, unless another process still writes there.
    Exited(Exit),
    /// A container is gone.
    Deleted,
}
