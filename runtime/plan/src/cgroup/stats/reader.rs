//! Reading files of a group, and the forms that their text has.

use std::collections::BTreeMap;

use crate::cgroup::{CgroupHost, Files, Source, Version};

/// Why the numbers of a group could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError<E> {
    /// A file could not be read.
    #[error("read {file} of the {version} group")]
    Files {
        /// The file.
        file: String,
        /// The version of the hierarchy.
        version: Version,
        /// Why.
        source: E,
    },
    /// A file has not the form that the kernel documents.
    #[error("parse {file} of the {version} group: unexpected {text:?}")]
    Malformed {
        /// The file.
        file: String,
        /// The version of the hierarchy.
        version: Version,
        /// The line, or the word in it.
        text: String,
    },
}

/// The files of one group on one host.
pub(super) struct Reader<'a, F> {
    /// The host.
    pub host: &'a CgroupHost,
    /// The files.
    pub files: &'a mut F,
}

/// What reading gives: `None` without the file.
pub(super) type Read<T, F> = Result<Option<T>, ReadError<<F as Files>::Error>>;

impl<F: Files> Reader<'_, F> {
    /// The whole text. cgroup2 is always asked: some files (`cpu.stat`, `*.pressure`) need no controller.
    pub fn text(&mut self, source: Source<'_>) -> Read<String, F> {
        if source.version == Version::V1 && !self.host.has(source.controller, Version::V1) {
            return Ok(None);
        }
        let failed =
            |error| ReadError::Files { file: source.file.to_owned(), version: source.version, source: error };
        self.files.read(source).map_err(failed)
    }

    /// The one number in the file. `max` is the largest; a negative one, which the kernel shows when its counters
    /// disagree for a moment, is 0.
    pub fn number(&mut self, source: Source<'_>) -> Read<u64, F> {
        self.text(source)?.map(|text| number(source, text.trim())).transpose()
    }

    /// The numbers in the file, between white space.
    pub fn numbers(&mut self, source: Source<'_>) -> Read<Vec<u64>, F> {
        self.text(source)?
            .map(|text| text.split_whitespace().map(|word| number(source, word)).collect())
            .transpose()
    }

    /// The lines `KEY NUMBER` of the file.
    pub fn keyed(&mut self, source: Source<'_>) -> Read<BTreeMap<String, u64>, F> {
        let line = |line: &str| {
            let (key, value) = line.split_once(' ').ok_or_else(|| malformed(source, line))?;
            Ok((key.to_owned(), number(source, value)?))
        };
        self.text(source)?.map(|text| text.lines().map(line).collect()).transpose()
    }
}

/// One number, as [`Reader::number`] has it.
pub(super) fn number<E>(source: Source<'_>, word: &str) -> Result<u64, ReadError<E>> {
    let is_negative = || word.strip_prefix('-').is_some_and(|digits| digits.parse::<u64>().is_ok());
    match word.parse() {
        Ok(number) => Ok(number),
        Err(_) if word == "max" => Ok(u64::MAX),
        Err(_) if is_negative() => Ok(0),
        Err(_) => Err(malformed(source, word)),
    }
}

/// The error for a text of another form.
pub(super) fn malformed<E>(source: Source<'_>, text: &str) -> ReadError<E> {
    ReadError::Malformed { file: source.file.to_owned(), version: source.version, text: text.to_owned() }
}

/// A file of v1.
pub(super) fn v1<'a>(controller: &'a str, file: &'a str) -> Source<'a> {
    Source { controller, version: Version::V1, file }
}

/// A file of cgroup2.
pub(super) fn v2<'a>(controller: &'a str, file: &'a str) -> Source<'a> {
    Source { controller, version: Version::V2, file }
}
