//! How a property finds its file.

use super::{CgroupHost, Current, OnMissing, Refusal, Version, Write, Writes};

/// A file of a controller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// The controller that has the file.
    pub controller: &'static str,
    /// The file's name.
    pub file: &'static str,
}

/// One property of `linux.resources` and the files that enforce it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Knob {
    /// The property, as the spec names it below `linux.resources`.
    pub property: &'static str,
    /// Where v1 has it.
    pub v1: Option<At>,
    /// Where v2 has it.
    pub v2: Option<At>,
    /// What a kernel needs to have the file.
    pub needs: &'static str,
}

impl Knob {
    /// The place in this version.
    pub fn at(&self, version: Version) -> Option<At> {
        match version {
            Version::V1 => self.v1,
            Version::V2 => self.v2,
        }
    }
}

/// The writes for one `linux.resources`, as they are collected.
pub(crate) struct Table<'a> {
    /// The host they are for.
    pub host: &'a CgroupHost,
    /// What the group's files hold now.
    pub current: &'a Current,
    collected: Writes,
}

impl<'a> Table<'a> {
    /// An empty table.
    pub fn new(host: &'a CgroupHost, current: &'a Current) -> Table<'a> {
        Table { host, current, collected: Writes::default() }
    }

    /// What was collected.
    pub fn finish(self) -> Writes {
        self.collected
    }

    /// The version of the hierarchy that can enforce this property here, or a refusal that names what is missing.
    pub fn place(&self, knob: &Knob) -> Result<Version, Refusal> {
        let has =
            |version: &Version| knob.at(*version).is_some_and(|at| self.host.has(at.controller, *version));
        [Version::V2, Version::V1].into_iter().find(has).ok_or_else(|| nowhere(knob))
    }

    /// Writes this value into the knob's file of this version, which [`Table::place`] gave. A missing file is refused.
    pub fn put(&mut self, knob: &Knob, version: Version, value: impl ToString) {
        let on_missing = OnMissing::Refuse { needs: knob.needs.to_owned() };
        self.push(knob, version, value.to_string(), on_missing);
    }

    /// As [`Table::put`], where a group without the file already does what the value asks for.
    pub fn put_if_there(&mut self, knob: &Knob, version: Version, value: impl ToString) {
        self.push(knob, version, value.to_string(), OnMissing::Skip);
    }

    /// As [`Table::put`], where a group without the file may have another for the same purpose.
    pub fn put_or(&mut self, (knob, value): (&Knob, String), other: (&Knob, String), version: Version) {
        let (other, other_value) = other;
        let refuse = OnMissing::Refuse { needs: other.needs.to_owned() };
        let Some(instead) = write(other, version, other_value, refuse) else { return };
        self.push(knob, version, value, OnMissing::Instead(Box::new(instead)));
    }

    /// Adds a write that has no knob.
    pub fn push_write(&mut self, write: Write) {
        self.collected.writes.push(write);
    }

    /// Adds a line for the log.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.collected.warnings.push(warning.into());
    }

    fn push(&mut self, knob: &Knob, version: Version, value: String, on_missing: OnMissing) {
        self.collected.writes.extend(write(knob, version, value, on_missing));
    }
}

fn write(knob: &Knob, version: Version, value: String, on_missing: OnMissing) -> Option<Write> {
    let at = knob.at(version)?;
    let (property, controller, file) =
        (knob.property.to_owned(), at.controller.to_owned(), at.file.to_owned());
    Some(Write { property, controller, version, file, value, on_missing })
}

/// The refusal of a property that no hierarchy here can enforce.
pub(crate) fn nowhere(knob: &Knob) -> Refusal {
    let name = |version| {
        knob.at(version).map(|at: At| format!("{} ({version} controller {})", at.file, at.controller))
    };
    let files: Vec<String> = [Version::V2, Version::V1].into_iter().filter_map(name).collect();
    Refusal::Nowhere {
        property: knob.property.to_owned(),
        file: files.join(" or "),
        needs: knob.needs.to_owned(),
    }
}
