//! What goes wrong in a verb: the operation, its object, and why.

use std::path::{Path, PathBuf};

use croft_plan::build::PlanError;
use croft_plan::handshake::Failure;
use croft_plan::lifecycle::Status;
use croft_plan::spec::SpecError;

/// The outcome of a verb.
pub type Result<T> = std::result::Result<T, Error>;

/// A verb that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error("config.json: {0}")]
    Spec(SpecError),
    /// This host cannot do what the configuration asks.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file or folder of ours or the user's could not be used.
    #[error("{op} {}", path.display())]
    File {
        /// What was tried: "read", "make folder"...
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: Reason,
    },
    /// A kernel call failed.
    #[error("{op}")]
    Kernel {
        /// What was tried, on what.
        op: String,
        /// Why not.
        source: croft_sys::Error,
    },
    /// A step of the plan failed on the host's side.
    #[error("{}", said(&.0.step, &.0.reason))]
    Step(Failure),
    /// A step of the plan failed in the container's process.
    #[error("unable to start container process: {}", said(&.0.step, &.0.reason))]
    Init(Failure),
    /// The container's process ended before it was ready.
    #[error("unable to start container process: it ended before it was ready ({0})")]
    InitDied(String),
    /// A hook failed.
    #[error("error running {point} hook {}: {why}", path.display())]
    Hook {
        /// When it was to run.
        point: &'static str,
        /// The hook's program.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// No container has this id.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// A container has this id already.
    #[error("container with given ID already exists: {0:?}")]
    Exists(String),
    /// The id cannot be one.
    #[error("invalid container id {id:?}: {why}")]
    BadId {
        /// What was given.
        id: String,
        /// Why not.
        why: &'static str,
    },
    /// The container's state does not allow the verb.
    #[error("container {id:?} is {}: {why}", status.word())]
    WrongState {
        /// The container.
        id: String,
        /// Its state.
        status: Status,
        /// In runc's words.
        why: &'static str,
    },
    /// The container's recorded state cannot be understood.
    #[error("state of container {id:?}: {why}")]
    BadState {
        /// The container.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// What was asked contradicts itself or is not possible here.
    #[error("{what}: {why}")]
    Refused {
        /// The option or object.
        what: String,
        /// Why not, and what to do.
        why: String,
    },
}

/// Why a file could not be used, in the words of [`croft_sys::reason`].
#[derive(Debug)]
pub struct Reason(std::io::Error);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => f.write_str(&croft_sys::reason(croft_sys::Errno::from_raw_os_error(number))),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Reason {}

impl From<std::io::Error> for Reason {
    fn from(error: std::io::Error) -> Self {
        Reason(error)
    }
}

/// A failed step in words. A program that cannot be run is said in runc's words alone, since its callers match on them.
fn said(step: &str, reason: &str) -> String {
    if reason.starts_with("exec: ") { reason.to_owned() } else { format!("{step}: {reason}") }
}

impl From<SpecError> for Error {
    fn from(error: SpecError) -> Self {
        Error::Spec(error)
    }
}

impl Error {
    /// An error of a file.
    pub fn file(op: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Error::File { op, path: path.to_owned(), source: Reason(source.into()) }
    }

    /// A refusal.
    pub fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Refused { what: what.into(), why: why.into() }
    }
}

/// Names the operation of a failed kernel call.
pub trait Context<T> {
    /// Says what was tried.
    fn on(self, op: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for croft_sys::Result<T> {
    fn on(self, op: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Kernel { op: op(), source })
    }
}
