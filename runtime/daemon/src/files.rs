//! A container's files, for who copies them from outside.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use croft_api::container::{Mount, State};
use croft_api::problem::{Kind, Problem};
use croft_images::Error;
use croft_images::files::{Found, Last, Root};
use croft_images::pack::Owners;
use croft_images::snapshot::IdRange;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

use crate::container::{FilesHold, View};
use crate::daemon::{Daemon, Shared, blocking};
use crate::ids;
use crate::records::Record;
use crate::roots::problem;

/// Which files of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those below this path, as the container's processes see them: with what is mounted.
    Seen(PathBuf),
    /// Those of its own root, without what is mounted.
    Own,
}

/// A container's files, for as long as this lives.
#[derive(Debug)]
pub struct Files {
    root: Root,
    path: PathBuf,
    read_only: bool,
    _hold: FilesHold,
}

/// How file systems refuse what they cannot have: whiteouts in an overlay, and anything in those of the kernel.
const REFUSED: [Errno; 4] = [Errno::PERM, Errno::ACCESS, Errno::ROFS, Errno::NOENT];

impl Files {
    /// Writes what is meant as an archive.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn pack(&self, last: Last, to: impl Write, title: &str) -> Result<(), Problem> {
        self.root.pack(&self.path, last, to).map_err(problem(title))
    }

    /// Unpacks an archive into the folder that is meant.
    ///
    /// # Errors
    /// When it is no folder, cannot be written, or the archive is broken.
    pub fn unpack(&self, source: impl Read + Send, title: &str) -> Result<(), Problem> {
        if self.read_only {
            return Err(Problem::new(Kind::WrongState, title, "it is read-only"));
        }
        self.root.unpack(&self.path, source).map_err(|error| {
            let errno = match &error {
                Error::Kernel { source, .. } => Some(source.errno()),
                Error::File { source, .. } => Errno::from_io_error(source),
                _ => None,
            };
            match errno.filter(|errno| REFUSED.contains(errno)) {
                Some(errno) => {
                    Problem::new(Kind::Invalid, title, format!("{error}: {errno}: it cannot be there"))
                }
                None => problem(title)(error),
            }
        })
    }

    /// What is there.
    ///
    /// # Errors
    /// When nothing is.
    pub fn look(&self, last: Last, title: &str) -> Result<Found, Problem> {
        self.root.look(&self.path, last).map_err(problem(title))
    }
}

/// The files of the container `name`.
///
/// # Errors
/// When there is no such container, or its root cannot be had.
pub async fn of(daemon: &Daemon, name: &str, which: Which, title: &str) -> Result<Files, Problem> {
    let handle = daemon.find(name)?;
    let hold = handle.hold_files().await;
    let view = handle.view();
    let (shared, title) = (daemon.shared().clone(), title.to_owned());
    blocking(move || {
        let path = match &which {
            Which::Seen(path) => path.clone(),
            Which::Own => PathBuf::from("/"),
        };
        let read_only = which != Which::Own && view.record.config.read_only;
        let (root, path, read_only) = match (&hold, which) {
            (FilesHold::Running { .. }, Which::Own) => {
                let place = shared.roots.place(&view.record.id);
                (Root { top: folder(&place, &title)?, owners: owners(&view.record) }, path, read_only)
            }
            (FilesHold::Running { .. }, Which::Seen(_)) => {
                // The kernel says what is read-only there.
                (Root { top: seen(&view, &title)?, owners: owners(&view.record) }, path, false)
            }
            (FilesHold::Stopped { .. }, _) => stopped(&shared, &view.record, path, read_only, &title)?,
        };
        Ok(Files { root, path, read_only, _hold: hold })
    })
    .await
}

/// What the host's ids are to the files of a running container.
fn owners(record: &Record) -> Owners {
    match record.ids {
        Some(start) => Owners::Of(IdRange { start, size: ids::COUNT }),
        None => Owners::Same,
    }
}

fn folder(path: &Path, title: &str) -> Result<OwnedFd, Problem> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Problem::new(Kind::Internal, title, format!("{}: {e}", path.display())))
}

/// The root that a container's process has: with everything that is mounted in its namespace.
fn seen(view: &View, title: &str) -> Result<OwnedFd, Problem> {
    let gone = |why: &str| Problem::new(Kind::WrongState, title, format!("it has just ended: {why}"));
    let pid = view.pid.filter(|_| view.state != State::Stopped).ok_or_else(|| gone("no process"))?;
    // Everything by this one descriptor, which means this process and no later one of its number.
    let process = folder(Path::new(&format!("/proc/{pid}")), title).map_err(|_| gone("no process"))?;
    let text = |name: &str| {
        let file = openat(&process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).map(|_| text)
    };
    let groups = text("cgroup").map_err(|e| gone(&e.to_string()))?;
    if !groups.contains(&view.record.id) {
        return Err(gone("its process's number is another's"));
    }
    openat(&process, "root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| gone(&e.to_string()))
}

/// The files below `path` of a container that does not run: its root, or what would be mounted there.
fn stopped(
    shared: &Shared,
    record: &Record,
    path: PathBuf,
    read_only: bool,
    title: &str,
) -> Result<(Root, PathBuf, bool), Problem> {
    let below = |mount: &&Mount| path.starts_with(mount.target()) && mount.target() != "/";
    // The innermost; of several on one folder the last hides the others.
    let mount = record
        .config
        .mounts
        .iter()
        .filter(below)
        .max_by_key(|mount| Path::new(mount.target()).components().count());
    let rest = |target: &str| path.strip_prefix(target).map(Path::to_owned).unwrap_or_default();
    match mount {
        Some(Mount::Volume { name, target, read_only, .. }) => {
            let top = folder(&shared.volumes.data(name), title)?;
            Ok((Root { top, owners: Owners::Same }, rest(target), *read_only))
        }
        Some(Mount::Bind { source, target, read_only, unmapped, .. }) => {
            let owners = if *unmapped { owners(record) } else { Owners::Same };
            let top = folder(Path::new(source), title)?;
            Ok((Root { top, owners }, rest(target), *read_only))
        }
        Some(Mount::Tmpfs { target, .. }) => {
            let why = format!("{target} is in memory and is there only while it runs");
            Err(Problem::new(Kind::WrongState, title, why))
        }
        None => {
            let top = shared.roots.view(&record.id, title)?;
            Ok((Root { top, owners: Owners::Same }, path, read_only))
        }
    }
}
