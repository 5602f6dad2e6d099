//! The records of volumes.

use croft_api::problem::{Kind, Problem};
use rusqlite::{OptionalExtension, params};

use super::{Records, failed};
use crate::volumes::VolumeRecord;

impl Records {
    /// Keeps a volume's record, in place of one that is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_volume(&self, record: &VolumeRecord) -> Result<(), Problem> {
        let what = format!("keep volume {}", record.name);
        let text =
            serde_json::to_string(record).map_err(|e| Problem::new(Kind::Internal, &*what, e.to_string()))?;
        let done = self.lock().execute(
            "INSERT INTO volumes (name, record) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET record = ?2",
            params![record.name, text],
        );
        done.map(drop).map_err(failed(&what))
    }

    /// The record of the volume `name`; none where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn volume(&self, name: &str) -> Result<Option<VolumeRecord>, Problem> {
        let what = format!("read volume {name}");
        let text: Option<String> = self
            .lock()
            .query_row("SELECT record FROM volumes WHERE name = ?", [name], |row| row.get(0))
            .optional()
            .map_err(failed(&what))?;
        text.map(|text| parse(&text, &what)).transpose()
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, Problem> {
        let what = "read the volumes";
        let connection = self.lock();
        let mut statement =
            connection.prepare("SELECT record FROM volumes ORDER BY name").map_err(failed(what))?;
        let rows = statement.query_map((), |row| row.get::<_, String>(0)).map_err(failed(what))?;
        rows.map(|row| parse(&row.map_err(failed(what))?, what)).collect()
    }

    /// Forgets a volume.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remove_volume(&self, name: &str) -> Result<(), Problem> {
        let done = self.lock().execute("DELETE FROM volumes WHERE name = ?", [name]);
        done.map(drop).map_err(failed("forget a volume"))
    }
}

fn parse(text: &str, what: &str) -> Result<VolumeRecord, Problem> {
    serde_json::from_str(text).map_err(|e| Problem::new(Kind::Internal, what, e.to_string()))
}
