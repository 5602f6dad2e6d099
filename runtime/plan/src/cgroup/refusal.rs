//! Why a resource cannot be given.

use super::Version;

/// Why a resource in `linux.resources` cannot be given on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No hierarchy of this host has the file that would enforce it.
    #[error("cannot set resources.{property}: this host has no {file}, which takes {needs}")]
    Nowhere {
        /// The property, as the spec names it below `linux.resources`.
        property: String,
        /// The file or files that could enforce it.
        file: String,
        /// What would provide the file.
        needs: String,
    },
    /// The controller is there, its file is not: an older kernel, or one built without it.
    #[error(
        "cannot set resources.{property}: the {version} group of {controller} has no file {file}, which takes {needs}"
    )]
    Missing {
        /// The property, as the spec names it below `linux.resources`.
        property: String,
        /// The controller.
        controller: String,
        /// The version of the hierarchy.
        version: Version,
        /// The file that is not there.
        file: String,
        /// What would provide the file.
        needs: String,
    },
    /// A value that no kernel takes, or that contradicts another.
    #[error("invalid resources.{property} {value}: {why}")]
    Value {
        /// The property, as the spec names it below `linux.resources`.
        property: String,
        /// The value that was asked for.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// `checkBeforeUpdate`: a new limit at or below what is used now.
    #[error("rejecting {what} limit {limit} <= usage {usage}")]
    BelowUsage {
        /// `memory` or `memory+swap`.
        what: &'static str,
        /// The limit asked for, in bytes.
        limit: i64,
        /// What the group uses now, in bytes.
        usage: u64,
    },
}

impl Refusal {
    /// A refusal of a value.
    pub(crate) fn value(property: &str, value: impl ToString, why: impl Into<String>) -> Refusal {
        Refusal::Value { property: property.to_owned(), value: value.to_string(), why: why.into() }
    }
}
