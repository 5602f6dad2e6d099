//! The state folder: one folder a container, with its record and the configuration it was made from.
//!
//! The record is written to a new file and renamed, without fsync: a reboot ends every container and empties /run.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use croft_plan::build::{Groups, Keyring};
use croft_plan::lifecycle::{Answer, Status, Verb, allows};
use croft_plan::step::Undo;
use croft_sys::fs::{FlockOperation, flock};
use croft_sys::proc::Proc;
use croft_sys::{Errno, cgroup, wait};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// The version of the record's format. A reader refuses a newer one.
pub const FORMAT: u32 = 1;

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";

/// What is recorded of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version.
    pub format: u32,
    /// The container's id.
    pub id: String,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The root folder.
    pub rootfs: PathBuf,
    /// The container's process, once it is made.
    pub process: Option<ProcessRecord>,
    /// Whether creation has come to its end.
    pub complete: bool,
    /// When it was created: seconds and nanoseconds since 1970.
    pub created: (u64, u32),
    /// The user that created it.
    pub owner: u32,
    /// Whether it has a session keyring of its own.
    pub keyring: Keyring,
    /// Its control groups.
    pub groups: Groups,
    /// What delete has to take back, in the order in which it was done.
    pub undo: Vec<Undo>,
    /// The `memory.swap` that the last `update` gave, which cgroup2's files do not hold: there memory is not in it.
    #[serde(default)]
    pub swap: Option<i64>,
}

/// The container's process. A pid can be used again, so its start time goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// In the runtime's pid namespace.
    pub pid: i32,
    /// In clock ticks since boot.
    pub start_time: u64,
}

/// The folder that holds the containers' folders.
#[derive(Debug, Clone)]
pub struct StateRoot {
    path: PathBuf,
}

/// One container's folder, locked against other verbs while this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Option<OwnedFd>,
}

/// A file that is written, and not yet in its place.
#[derive(Debug)]
pub struct Prepared {
    new: PathBuf,
    path: PathBuf,
}

/// A container as it is found.
#[derive(Debug)]
pub struct Container {
    /// Its folder.
    pub dir: StateDir,
    /// What is recorded.
    pub record: Record,
    /// Its process, if that still lives.
    pub pidfd: Option<OwnedFd>,
    /// Its state.
    pub status: Status,
}

/// Refuses an id that could not be a folder's name, or that a caller would trip over; as runc, 1024 characters at most.
pub fn check_id(id: &str) -> Result<()> {
    let bad = |why| Err(Error::BadId { id: id.to_owned(), why });
    if id.is_empty() {
        return bad("it is empty");
    }
    if id.len() > 255 {
        return bad("it is longer than 255 characters");
    }
    if id == "." || id == ".." {
        return bad("it names a folder");
    }
    if !id.chars().all(|c| c.is_ascii_alphanumeric() || "_+-.".contains(c)) {
        return bad("only letters, digits, '_', '+', '-' and '.' are allowed");
    }
    Ok(())
}

impl StateRoot {
    /// The folder at `path`, which is made when a container is.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the root of container `id` is mounted when it has no mount namespace: no container can have this name.
    pub fn mount_point(&self, id: &str) -> PathBuf {
        self.path.join(format!(":{id}"))
    }

    /// Makes the folder of a new container.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one.
    pub fn make(&self, id: &str) -> Result<StateDir> {
        check_id(id)?;
        use std::os::unix::fs::DirBuilderExt;
        let path = self.path.join(id);
        let builder = |p: &Path| std::fs::DirBuilder::new().mode(0o711).create(p);
        match builder(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let mut all = std::fs::DirBuilder::new();
                all.recursive(true)
                    .mode(0o711)
                    .create(&self.path)
                    .map_err(|e| Error::file("make folder", &self.path, e))?;
                builder(&path)
            }
            other => other,
        }
        .map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => Error::Exists(id.to_owned()),
            _ => Error::file("make folder", &path, e),
        })?;
        StateDir::lock(path, id)
    }

    /// Opens a container for a verb and refuses if its state does not allow that.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::WrongState`].
    pub fn open_for(&self, id: &str, verb: Verb, proc: &Proc) -> Result<Container> {
        let container = self.open(id, proc)?;
        match allows(container.status, verb) {
            Answer::Do => Ok(container),
            Answer::Refuse(why) => {
                Err(Error::WrongState { id: id.to_owned(), status: container.status, why })
            }
        }
    }

    /// Locks a container's folder, whatever is in it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub fn lock(&self, id: &str) -> Result<StateDir> {
        check_id(id)?;
        StateDir::lock(self.path.join(id), id)
    }

    /// Opens a container, whatever its state.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, [`Error::BadState`] when its record is not to be read.
    pub fn open(&self, id: &str, proc: &Proc) -> Result<Container> {
        check_id(id)?;
        let path = self.path.join(id);
        look(StateDir::lock(path, id)?, id, proc)
    }

    /// Opens a container, unless another verb is at work on it.
    ///
    /// # Errors
    /// As [`StateRoot::open`].
    pub fn try_open(&self, id: &str, proc: &Proc) -> Result<Option<Container>> {
        check_id(id)?;
        StateDir::try_lock(self.path.join(id), id)?.map(|dir| look(dir, id, proc)).transpose()
    }

    /// Reads a container without waiting for a verb that is at work on it.
    ///
    /// # Errors
    /// As [`StateRoot::open`].
    pub fn peek(&self, id: &str, proc: &Proc) -> Result<Container> {
        check_id(id)?;
        look(StateDir { path: self.path.join(id), _lock: None }, id, proc)
    }

    /// The ids of all containers, in order.
    ///
    /// # Errors
    /// When the folder cannot be read; one that does not exist is empty.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|e| Error::file("read", &self.path, e))?,
        };
        let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        let mut ids: Vec<String> = names.filter(|name| check_id(name).is_ok()).collect();
        ids.sort();
        Ok(ids)
    }
}

impl StateDir {
    fn lock(path: PathBuf, id: &str) -> Result<Self> {
        let file = StateDir::folder(&path, id)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::file("lock", &path, e))?;
        StateDir::locked(path, file, id)
    }

    fn try_lock(path: PathBuf, id: &str) -> Result<Option<Self>> {
        let file = StateDir::folder(&path, id)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => StateDir::locked(path, file, id).map(Some),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(Error::file("lock", &path, e)),
        }
    }

    fn folder(path: &Path, id: &str) -> Result<File> {
        File::open(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::NotFound(id.to_owned()),
            _ => Error::file("open", path, e),
        })
    }

    fn locked(path: PathBuf, file: File, id: &str) -> Result<Self> {
        // A delete may have won the lock and removed the folder that we hold, and a create have made another.
        let held = file.metadata().map_err(|e| Error::file("look at", &path, e))?;
        match std::fs::metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {}
            _ => return Err(Error::NotFound(id.to_owned())),
        }
        Ok(StateDir { path, _lock: Some(file.into()) })
    }

    /// Lets other verbs at it while this one only waits.
    pub fn unlock(&mut self) {
        self._lock = None;
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration that the container was made from.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn config(&self) -> Result<Vec<u8>> {
        let path = self.path.join(CONFIG);
        std::fs::read(&path).map_err(|e| Error::file("read", &path, e))
    }

    /// Keeps the configuration, which nobody reads before the record is complete.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_config(&self, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(CONFIG);
        std::fs::write(&path, bytes).map_err(|e| Error::file("write", &path, e))
    }

    /// Keeps the record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, record: &Record) -> Result<()> {
        self.commit(self.prepare(record)?)
    }

    /// Writes the record down without anybody seeing it yet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prepare(&self, record: &Record) -> Result<Prepared> {
        let text = serde_json::to_vec(record)
            .map_err(|e| Error::file("write", &self.path, std::io::Error::from(e)))?;
        let new = self.path.join(format!(".{RECORD}.new"));
        std::fs::write(&new, text).map_err(|e| Error::file("write", &new, e))?;
        Ok(Prepared { new, path: self.path.join(RECORD) })
    }

    /// Puts what was prepared in the place of what was there.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn commit(&self, prepared: Prepared) -> Result<()> {
        let Prepared { new, path } = prepared;
        std::fs::rename(&new, &path).map_err(|e| Error::file("write", &path, e))
    }

    fn load(&self, id: &str) -> Result<Record> {
        let path = self.path.join(RECORD);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // The configuration is kept after the record is: with it alone the record was lost.
            Err(e) if e.kind() == ErrorKind::NotFound && self.path.join(CONFIG).exists() => {
                return Err(Error::BadState { id: id.to_owned(), why: "its record is missing".into() });
            }
            Err(e) if e.kind() == ErrorKind::NotFound && self.path.is_dir() => return Ok(Record::empty(id)),
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(Error::NotFound(id.to_owned())),
            Err(e) => return Err(Error::file("read", &path, e)),
        };
        Record::parse(&bytes).map_err(|why| Error::BadState { id: id.to_owned(), why })
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> Result<()> {
        let failed = |e| Error::file("remove", &self.path, e);
        // The record goes last: cut off half way, this still is the container that it was.
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() != RECORD {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        match std::fs::remove_file(self.path.join(RECORD)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(e)),
            _ => std::fs::remove_dir(&self.path).map_err(failed),
        }
    }
}

impl Record {
    /// The record of a container whose making ended before it was first recorded.
    pub(crate) fn empty(id: &str) -> Self {
        Record {
            format: FORMAT,
            id: id.to_owned(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            process: None,
            complete: false,
            created: (0, 0),
            owner: 0,
            keyring: Keyring::New,
            groups: Groups::default(),
            undo: Vec::new(),
            swap: None,
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// In words, when it is not one or of a newer format.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        // The version first: of a newer record nothing else need be understood.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if format > FORMAT {
            return Err(format!("its format {format} is newer than this croft-oci, which knows {FORMAT}"));
        }
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }
}

/// Opens the recorded process if it still is the one that was recorded.
fn open_process(record: &Record, proc: &Proc) -> Option<OwnedFd> {
    let recorded = record.process?;
    let pidfd = wait::pidfd_open(recorded.pid).ok()?;
    // Read after the pidfd is held: the pid cannot change hands any more.
    let stat = proc.stat(recorded.pid).ok()?;
    (stat.start_time == recorded.start_time && !"ZX".contains(stat.state)).then_some(pidfd)
}

fn look(dir: StateDir, id: &str, proc: &Proc) -> Result<Container> {
    let record = dir.load(id)?;
    let pidfd = open_process(&record, proc);
    let status = match &pidfd {
        _ if !record.complete => Status::Creating,
        None => Status::Stopped,
        Some(_) if is_frozen(&record)? => Status::Paused,
        Some(_) if crate::gate::is_closed(dir.path()) => Status::Created,
        Some(_) => Status::Running,
    };
    Ok(Container { dir, record, pidfd, status })
}

fn is_frozen(record: &Record) -> Result<bool> {
    let Some(group) = &record.groups.v2 else { return Ok(false) };
    let Ok(fd) = cgroup::open(&group.dir) else { return Ok(false) };
    let text = cgroup::read(fd.as_fd(), "cgroup.freeze").on(|| format!("read {}", group.dir.display()))?;
    Ok(text.trim() == "1")
}
