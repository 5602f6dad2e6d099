//! What has to survive croftd and a reboot: containers and events, in SQLite.
//!
//! One croftd writes, under a lock that is held for single statements and transactions only. WAL: whatever is written outlives croftd at once, and a power
//! cut too where [`Sync::Now`] is asked for. A commit waits for the disk then, longer than for all the rest of a start.

mod volumes;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use croft_api::container::{Config, Exit, Limits, Restart};
use croft_api::event::Event;
use croft_api::problem::{Kind, Problem};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

/// Each brings the tables from the version of its index to the next. What was released is never changed.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL) STRICT;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, action TEXT NOT NULL, object TEXT NOT NULL,
        name TEXT NOT NULL, detail TEXT
    ) STRICT;
",
    "CREATE TABLE volumes (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;",
    "
    CREATE TABLE ends (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, exit TEXT NOT NULL
    ) STRICT;
",
];

/// Of how many removed containers it is known how they ended.
const MOST_ENDS: i64 = 10_000;

/// How many events are kept.
const MOST_EVENTS: i64 = 10_000;

/// After how many events those are removed that are too many.
const PRUNED_EVERY: i64 = 100;

/// What is kept of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What was asked for.
    pub config: Config,
    /// The image that it is made from.
    pub image_id: String,
    /// The first of its own ids.
    pub ids: Option<u32>,
    /// When it was created.
    pub created: String,
    /// When it was last started.
    pub started: Option<String>,
    /// How it ended the last time.
    pub exit: Option<Exit>,
    /// How far its making or removing is.
    pub phase: Phase,
    /// What somebody wants of it.
    pub wanted: Wanted,
    /// How often its policy has started it again.
    pub restarts: u32,
    /// Whether its volumes without names go with it: meant from [`Phase::Removing`] on.
    #[serde(default)]
    pub volumes_go: bool,
    /// Its limits before those in `config`, as long as these are not applied to it while it runs.
    #[serde(default)]
    pub limits_before: Option<Limits>,
}

/// How far a container is: recorded before the first effect and after the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It is being made: what is found of it is removed after a crash.
    Making,
    /// It is there.
    Made,
    /// It is being removed: a crash does not bring it back.
    Removing,
}

/// What somebody wants of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// That it runs.
    Running,
    /// That it does not.
    Stopped,
}

/// When a change is on the disk. What comes first is there whenever what comes later is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before anybody is told: it survives a power cut.
    Now,
    /// When the kernel or a later change brings it there: a power cut may take it back, and the death of croftd does not.
    Later,
}

impl Record {
    /// For what its user was told of it. A container that goes at its end goes with a power cut as well.
    pub fn told(&self) -> Sync {
        if self.config.auto_remove { Sync::Later } else { Sync::Now }
    }

    /// For what shall be of it after a power cut: that is for its policy to say, if it has one.
    pub fn policy(&self) -> Sync {
        if self.config.restart == Restart::No { Sync::Later } else { Sync::Now }
    }
}

/// The database.
#[derive(Debug)]
pub struct Records {
    connection: Mutex<Connection>,
}

pub(crate) fn failed(what: &str) -> impl Fn(rusqlite::Error) -> Problem {
    move |e| {
        let detail = format!("the database: {e}");
        match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Problem::no_space(what, detail),
            _ => Problem::new(Kind::Internal, what, detail),
        }
    }
}

/// As [`failed`], where a name may be taken.
fn refused(what: &str) -> impl Fn(rusqlite::Error) -> Problem {
    move |e| match e.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => {
            Problem::new(Kind::Conflict, what, "a container of that name is there")
        }
        _ => failed(what)(e),
    }
}

/// Room that the database's log takes on the disk from the beginning: SQLite begins it anew after 1000 pages. With it, a container can be
/// removed from a disk that containers have filled.
const RESERVE: u64 = 5 << 20;

/// Takes the room. The log does not grow by it, so SQLite sees nothing of it; the last one to close the database removes both.
fn reserve(database: &Path) {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    // SQLite's locks, which a close would drop, are on the two other files.
    let log = std::fs::File::options().write(true).open(&path);
    let reserved = log.and_then(|log| Ok(fallocate(log, FallocateFlags::KEEP_SIZE, 0, RESERVE)?));
    if let Err(error) = reserved {
        // All else works without, and the disk may have got full while croftd was away.
        tracing::warn!(path = %Path::new(&path).display(), %error, "no room is kept for removals from a full disk");
    }
}

impl Records {
    /// Opens the database at `path`, made or brought up to date.
    ///
    /// # Errors
    /// When it cannot be read or written, or is of a newer croftd.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        let version: u32 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
        let version = version as usize;
        anyhow::ensure!(
            version <= MIGRATIONS.len(),
            "{}: is of a newer croftd: version {version}, and this one knows {}",
            path.display(),
            MIGRATIONS.len()
        );
        for (at, migration) in MIGRATIONS.iter().enumerate().skip(version) {
            let transaction = connection.transaction()?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", (at + 1) as i64)?;
            transaction.commit()?;
        }
        reserve(path);
        Ok(Records { connection: Mutex::new(connection) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in between leaves SQLite as it is after any error.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes, and gives what `write` gives.
    fn write<T>(
        &self,
        sync: Sync,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let connection = self.lock();
        if sync == Sync::Now {
            return write(&connection);
        }
        connection.pragma_update(None, "synchronous", "normal")?;
        let written = write(&connection);
        connection.pragma_update(None, "synchronous", "full")?;
        written
    }

    /// Keeps a new container before anything of it is there. A power cut may take the record alone: what of it is there and
    /// empty goes at croftd's next start.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when its name is taken.
    pub fn insert(&self, record: &Record) -> Result<(), Problem> {
        let title = format!("create {}", record.name);
        let text = text(record)?;
        let done = self.write(Sync::Later, |connection| {
            connection
                .prepare_cached("INSERT INTO containers (id, name, record) VALUES (?, ?, ?)")?
                .execute(params![record.id, record.name, text])
        });
        done.map(drop).map_err(|e| match refused(&title)(e) {
            problem if problem.kind == Kind::Conflict => {
                problem.hint(format!("croft rm {}, or take another --name", record.name))
            }
            other => other,
        })
    }

    /// Keeps what has changed of a container.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when it has a new name, and that is taken; when it cannot be written.
    pub fn update(&self, record: &Record, sync: Sync) -> Result<(), Problem> {
        let text = text(record)?;
        let done = self.write(sync, |connection| {
            connection
                .prepare_cached("UPDATE containers SET name = ?2, record = ?3 WHERE id = ?1")?
                .execute(params![record.id, record.name, text])
        });
        done.map(drop).map_err(refused(&format!("keep {}", record.name)))
    }

    /// Forgets a container, but for how it ended: who waits for that may have been cut off.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove(&self, record: &Record) -> Result<(), Problem> {
        let what = "forget a container";
        // A power cut may bring it back, as one that is being removed.
        let removed = self.write(Sync::Later, |connection| {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute("DELETE FROM containers WHERE id = ?", [&record.id])?;
            if let Some(exit) = record.exit.as_ref().and_then(|exit| serde_json::to_string(exit).ok()) {
                transaction
                    .execute("INSERT OR REPLACE INTO ends (id, exit) VALUES (?, ?)", [&record.id, &exit])?;
                let oldest = transaction.last_insert_rowid() - MOST_ENDS;
                transaction.execute("DELETE FROM ends WHERE number <= ?", [oldest])?;
            }
            transaction.commit()
        });
        removed.map_err(failed(what))
    }

    /// How a container ended that has been removed since.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn end_of(&self, id: &str) -> Result<Option<Exit>, Problem> {
        let what = "read how a container ended";
        let text: Option<String> = self
            .lock()
            .query_row("SELECT exit FROM ends WHERE id = ?", [id], |row| row.get(0))
            .optional()
            .map_err(failed(what))?;
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|e| Problem::new(Kind::Internal, what, e.to_string()))
    }

    /// All containers.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn all(&self) -> Result<Vec<Record>, Problem> {
        let what = "read the containers";
        let connection = self.lock();
        let mut statement =
            connection.prepare("SELECT record FROM containers ORDER BY rowid").map_err(failed(what))?;
        let rows = statement.query_map((), |row| row.get::<_, String>(0)).map_err(failed(what))?;
        rows.map(|row| {
            let row = row.map_err(failed(what))?;
            serde_json::from_str(&row).map_err(|e| Problem::new(Kind::Internal, what, e.to_string()))
        })
        .collect()
    }

    /// Keeps an event and gives it its number.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event(&self, mut event: Event) -> Result<Event, Problem> {
        let what = "keep an event";
        let id = self.write(Sync::Later, |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO events (time, action, object, name, detail) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![event.time, event.action, event.object, event.name, event.detail])?;
            let id = connection.last_insert_rowid();
            if id % PRUNED_EVERY == 0 {
                connection.execute("DELETE FROM events WHERE id <= ?", [id - MOST_EVENTS])?;
            }
            Ok(id)
        });
        let id = id.map_err(failed(what))?;
        event.id = id.unsigned_abs();
        Ok(event)
    }

    /// The events after number `since`, at most `most`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn events(&self, since: u64, most: usize) -> Result<Vec<Event>, Problem> {
        let what = "read the events";
        let connection = self.lock();
        let mut statement = connection
            .prepare(
                "SELECT id, time, action, object, name, detail FROM events WHERE id > ? ORDER BY id LIMIT ?",
            )
            .map_err(failed(what))?;
        let rows = statement.query_map(params![since.cast_signed(), most.cast_signed()], |row| {
            Ok(Event {
                id: row.get::<_, i64>(0)?.unsigned_abs(),
                time: row.get(1)?,
                action: row.get(2)?,
                object: row.get(3)?,
                name: row.get(4)?,
                detail: row.get(5)?,
            })
        });
        rows.map_err(failed(what))?.collect::<Result<_, _>>().map_err(failed(what))
    }

    /// The number of the newest event; 0 before the first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn newest_event(&self) -> Result<u64, Problem> {
        let newest: Option<i64> = self
            .lock()
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'events'", (), |row| row.get(0))
            .optional()
            .map_err(failed("read the events"))?;
        Ok(newest.unwrap_or_default().unsigned_abs())
    }
}

fn text(record: &Record) -> Result<String, Problem> {
    serde_json::to_string(record)
        .map_err(|e| Problem::new(Kind::Internal, "keep a container's record", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_for_changes_on_a_full_disk() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let _records = Records::open(&folder.path().join("db")).unwrap();
        let log = std::fs::metadata(folder.path().join("db-wal")).unwrap();
        assert!(log.blocks() * 512 >= RESERVE && log.len() < RESERVE, "{log:?}");
    }

    pub(crate) fn record(name: &str) -> Record {
        Record {
            id: format!("id-{name}"),
            name: name.to_owned(),
            config: Config::default(),
            image_id: String::new(),
            ids: None,
            created: String::new(),
            started: None,
            exit: None,
            phase: Phase::Making,
            wanted: Wanted::Stopped,
            restarts: 0,
            volumes_go: false,
            limits_before: None,
        }
    }

    #[test]
    fn a_name_belongs_to_one_container() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("db")).unwrap();
        let mut web = record("web");
        records.insert(&web).unwrap();
        let again = records.insert(&Record { id: "other".into(), ..record("web") });
        assert_eq!(again.unwrap_err().kind, Kind::Conflict);
        web.phase = Phase::Made;
        records.update(&web, Sync::Later).unwrap();
        drop(records);
        let records = Records::open(&folder.path().join("db")).unwrap();
        assert_eq!(records.all().unwrap(), [web.clone()]);
        web.exit = Some(Exit { status: Some(3), at: "t".into(), oom: false });
        records.remove(&web).unwrap();
        assert_eq!(records.all().unwrap(), []);
        assert_eq!((records.end_of("id-web").unwrap(), records.end_of("id-x").unwrap()), (web.exit, None));
    }

    #[test]
    fn events_go_on_where_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("db")).unwrap();
        let event = |name: &str| Event {
            id: 0,
            time: "t".into(),
            action: "start".into(),
            object: "container".into(),
            name: name.into(),
            detail: None,
        };
        assert_eq!(records.newest_event().unwrap(), 0);
        let first = records.event(event("a")).unwrap();
        let second = records.event(event("b")).unwrap();
        assert_eq!((first.id, second.id, records.newest_event().unwrap()), (1, 2, 2));
        assert_eq!(records.events(1, 10).unwrap(), [second]);
    }

    #[test]
    fn a_database_of_a_newer_croftd_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(Records::open(&path).unwrap_err().to_string().contains("newer"));
    }
}
