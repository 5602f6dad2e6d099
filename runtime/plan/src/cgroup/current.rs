//! What a group's files hold now, for an order of writes that the kernel accepts.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::{CgroupHost, Version};

/// A file of the container's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source<'a> {
    /// The controller, by the name that this version has for it; [`super::CORE`] for core files of cgroup2.
    pub controller: &'a str,
    /// The version of the hierarchy.
    pub version: Version,
    /// The file's name in the group's folder.
    pub file: &'a str,
}

/// Reads files of one container's group. Any closure of this form is one.
pub trait Files {
    /// Why a file could not be read.
    type Error;

    /// The file's whole text; `None` when there is no such file, or no such group in that hierarchy (ENOENT).
    ///
    /// # Errors
    /// Whatever else reading it fails with.
    fn read(&mut self, source: Source<'_>) -> Result<Option<String>, Self::Error>;
}

impl<F, E> Files for F
where
    F: FnMut(Source<'_>) -> Result<Option<String>, E>,
{
    type Error = E;

    fn read(&mut self, source: Source<'_>) -> Result<Option<String>, E> {
        self(source)
    }
}

/// What the files of a group hold that bear on the order of writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    values: BTreeMap<String, String>,
    swap_total: Option<i64>,
}

/// The files that matter, by the section of `linux.resources` that they matter to. The names differ between the
/// versions, so the name alone says which file it is.
const MEMORY: &[Source<'_>] = &[
    Source { controller: "memory", version: Version::V1, file: "memory.limit_in_bytes" },
    Source { controller: "memory", version: Version::V2, file: "memory.max" },
    Source { controller: "memory", version: Version::V2, file: "memory.current" },
];
const CPU: &[Source<'_>] = &[
    Source { controller: "cpu", version: Version::V1, file: "cpu.cfs_quota_us" },
    Source { controller: "cpu", version: Version::V1, file: "cpu.cfs_period_us" },
    Source { controller: "cpu", version: Version::V1, file: "cpu.cfs_burst_us" },
    Source { controller: "cpu", version: Version::V1, file: "cpu.rt_period_us" },
    Source { controller: "cpu", version: Version::V2, file: "cpu.max" },
    Source { controller: "cpu", version: Version::V2, file: "cpu.max.burst" },
];

impl Current {
    /// A group just made: every file holds the kernel's default.
    pub fn new_group() -> Current {
        Current::default()
    }

    /// What an existing group holds, as far as these resources need to know.
    ///
    /// # Errors
    /// What reading a file fails with.
    pub fn read<F: Files>(
        resources: &LinuxResources,
        host: &CgroupHost,
        files: &mut F,
    ) -> Result<Current, F::Error> {
        let memory = if resources.memory().is_some() { MEMORY } else { &[] };
        let cpu = if resources.cpu().is_some() { CPU } else { &[] };
        let mut current = Current::new_group();
        for source in memory.iter().chain(cpu).filter(|s| host.has(s.controller, s.version)) {
            if let Some(text) = files.read(*source)? {
                current.values.insert(source.file.to_owned(), text.trim().to_owned());
            }
        }
        Ok(current)
    }

    /// The same, knowing the `memory.swap` that the container was last given. On v2, where the kernel limits swap
    /// apart from memory, a new memory limit alone then keeps the sum of the two, as it does on v1 by itself.
    pub fn with_swap(self, swap: Option<i64>) -> Current {
        Current { swap_total: swap.filter(|swap| *swap > 0), ..self }
    }

    /// The last `memory.swap` given, if it was a limit.
    pub(super) fn swap_total(&self) -> Option<i64> {
        self.swap_total
    }

    /// The file's text, without the newline.
    pub(super) fn text(&self, file: &str) -> Option<&str> {
        self.values.get(file).map(String::as_str)
    }

    /// The number in the file. `None` for `max` too.
    pub(super) fn number<T: std::str::FromStr>(&self, file: &str) -> Option<T> {
        self.text(file)?.parse().ok()
    }
}
