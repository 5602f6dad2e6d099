//! Events: numbered, written to a file before anybody is told, and the last ones kept for clients that come back.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::protocol::Event;

/// How many events are kept.
const KEPT: usize = 1024;

/// The events so far.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    events: VecDeque<Event>,
    last: u64,
}

impl Journal {
    /// Opens the journal in the file at `path`, to go on where it ends.
    ///
    /// # Errors
    /// When the file cannot be read or made.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        // The last line may be half of one: then nobody has been told of it.
        let events: Vec<Event> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let last = events.last().map_or(0, |event| event.sequence);
        let events: VecDeque<Event> = events.into_iter().rev().take(KEPT).rev().collect();
        let file = rewrite(&path, &events)?;
        Ok(Self { path, file, lines: events.len(), events, last })
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Records an event, which has the number after the last one.
    ///
    /// # Errors
    /// When it cannot be written. It is kept all the same.
    pub fn add(&mut self, event: Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        self.last = event.sequence;
        self.events.push_back(event);
        if self.events.len() > KEPT {
            self.events.pop_front();
        }
        self.file.write_all(&line)?;
        self.lines += 1;
        if self.lines > 4 * KEPT {
            self.file = rewrite(&self.path, &self.events)?;
            self.lines = self.events.len();
        }
        Ok(())
    }

    /// The events after number `since` that are kept.
    pub fn after(&self, since: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.sequence > since)
    }
}

fn rewrite(path: &Path, events: &VecDeque<Event>) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut text = Vec::new();
    for event in events {
        serde_json::to_writer(&mut text, event)?;
        text.push(b'\n');
    }
    std::fs::write(&new, text)?;
    let file = OpenOptions::new().append(true).open(&new)?;
    std::fs::rename(&new, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::EventKind;

    fn event(sequence: u64) -> Event {
        Event { sequence, at: 1, id: "a".into(), exec: None, kind: EventKind::Started }
    }

    #[test]
    fn goes_on_where_it_ended_and_forgets_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let mut journal = Journal::open(path.clone()).unwrap();
        let count = 5 * KEPT as u64;
        for sequence in 1..=count {
            journal.add(event(sequence)).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() < 5 * KEPT);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"sequen").unwrap();
        let mut journal = Journal::open(path.clone()).unwrap();
        assert_eq!(journal.last(), count);
        journal.add(event(count + 1)).unwrap();
        let journal = Journal::open(path).unwrap();
        let after: Vec<u64> = journal.after(count - 1).map(|e| e.sequence).collect();
        assert_eq!(after, [count, count + 1]);
        assert_eq!(journal.after(0).count(), KEPT);
    }
}
