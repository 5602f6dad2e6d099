//! What goes wrong with images: the operation, its object, and why.

use std::path::{Path, PathBuf};

/// The outcome of an operation on images.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that cannot be one of an image.
    #[error("invalid image name {text:?}: {why}")]
    Reference {
        /// What was given.
        text: String,
        /// Why not.
        why: String,
    },
    /// Something that others wrote cannot be understood.
    #[error("{what}: {why}")]
    Malformed {
        /// The document or archive.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Content that is not what its digest promised.
    #[error("{what}: content is {found}, not {expected}: it was damaged or replaced on the way")]
    Mismatch {
        /// The blob, layer or document.
        what: String,
        /// The digest that was promised.
        expected: String,
        /// That of what came.
        found: String,
    },
    /// An entry of a layer that is not unpacked.
    #[error("layer entry {entry:?}: {why}")]
    Entry {
        /// Its name in the archive.
        entry: String,
        /// Why not.
        why: String,
    },
    /// A layer that is larger than is allowed.
    #[error("layer: more than {limit} {of}; raise the limit if you trust this image")]
    Limit {
        /// The limit.
        limit: u64,
        /// What is counted.
        of: &'static str,
    },
    /// A file or folder could not be used.
    #[error("{op} {}", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A kernel call failed.
    #[error("{op}")]
    Kernel {
        /// What was tried, on what.
        op: String,
        /// Why not.
        source: croft_sys::Error,
    },
    /// A new mount was refused.
    #[error("{op}")]
    Mount {
        /// What was tried, on what.
        op: String,
        /// Why not, in the kernel's words.
        source: croft_sys::mount::FilesystemError,
    },
    /// There is no such thing.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// `image`, `snapshot`, `blob`...
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A short id that more than one image has.
    #[error("image id {0:?} is ambiguous: give more of it, or a name")]
    Ambiguous(String),
    /// The name is taken.
    #[error("{kind} {name:?} exists already")]
    Exists {
        /// `snapshot`...
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It is used, so it stays.
    #[error("{what} is in use: {by}")]
    InUse {
        /// What was to be removed or changed.
        what: String,
        /// By whom, and what to do.
        by: String,
    },
    /// A registry does not know who asks, or does not let them.
    #[error("{op}: {why}")]
    Denied {
        /// What was tried, on what.
        op: String,
        /// What the registry said.
        why: String,
    },
    /// A registry refused or could not be reached.
    #[error("{op}: {why}")]
    Registry {
        /// What was tried, on what.
        op: String,
        /// What the registry or the network said.
        why: String,
    },
    /// A program that was needed failed.
    #[error("{program}: {why}")]
    Program {
        /// Its name.
        program: String,
        /// What it said.
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

impl Error {
    /// An error of a file.
    pub fn file(op: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Error::File { op, path: path.to_owned(), source: source.into() }
    }

    /// Whether it failed because the disk is full, or somebody's share of it.
    pub fn is_full(&self) -> bool {
        match self {
            Error::File { source, .. } => is_full(source),
            Error::Kernel { source, .. } => is_full(&(*source).into()),
            _ => false,
        }
    }

    /// A document that cannot be understood.
    pub fn malformed(what: impl Into<String>, why: impl ToString) -> Self {
        Error::Malformed { what: what.into(), why: why.to_string() }
    }

    /// An entry of a layer that is not unpacked.
    pub(crate) fn entry(name: &Path, why: impl ToString) -> Self {
        Error::Entry { entry: name.to_string_lossy().into_owned(), why: why.to_string() }
    }
}

/// Whether a call failed because the disk is full, or somebody's share of it.
pub fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Names the operation and the object of a failed call.
pub(crate) trait Context<T> {
    /// Says what was tried on which file.
    fn on_file(self, op: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for std::result::Result<T, E> {
    fn on_file(self, op: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::file(op, path, source))
    }
}
