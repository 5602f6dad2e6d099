//! A refusal, as JSON (RFC 9457, `application/problem+json`).

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What was asked, why it is not done, and what to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[error("{title}: {detail}")]
pub struct Problem {
    /// Which kind of problem: a word that programs can match on.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What was asked, on what.
    pub title: String,
    /// The status of the HTTP answer.
    pub status: u16,
    /// Why it is not done.
    pub detail: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The request itself is wrong.
    Invalid,
    /// Who asks may not, or a registry does not know them.
    Forbidden,
    /// What is named is not there.
    NotFound,
    /// A name, an address or a port is taken, or something is in use.
    Conflict,
    /// The container's state does not allow it.
    WrongState,
    /// The program in the container could not be run.
    CannotRun,
    /// Another party failed: a registry, a host.
    Upstream,
    /// The disk is full.
    NoSpace,
    /// croftd failed.
    Internal,
}

impl Kind {
    /// The status of the HTTP answer.
    pub fn status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::Conflict | Kind::WrongState => 409,
            Kind::CannotRun => 422,
            Kind::Upstream => 502,
            Kind::NoSpace => 507,
            Kind::Internal => 500,
        }
    }
}

impl Problem {
    /// A problem of `kind` with `title`, because of `detail`.
    pub fn new(kind: Kind, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem { kind, title: title.into(), status: kind.status(), detail: detail.into(), hint: None }
    }

    /// A problem of croftd with a file, or of the disk that has no room for it.
    pub fn of_file(title: impl Into<String>, path: &Path, error: &std::io::Error) -> Self {
        let detail = format!("{}: {error}", path.display());
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::no_space(title, detail),
            _ => Problem::new(Kind::Internal, title, detail),
        }
    }

    /// A problem of a disk that is full.
    pub fn no_space(title: impl Into<String>, detail: impl Into<String>) -> Self {
        let hint = "make room: croft system df says what croft keeps, and croft system prune removes what nobody needs";
        Problem::new(Kind::NoSpace, title, detail).hint(hint)
    }

    /// With what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_read_back_as_it_was_written() {
        let problem = Problem::new(Kind::WrongState, "start web", "it runs").hint("croft stop web");
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.contains(r#""type":"wrong-state""#) && text.contains(r#""status":409"#), "{text}");
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }

    #[test]
    fn a_full_disk_is_told_from_croftd_s_own_faults() {
        let of = |number| {
            Problem::of_file("keep x", Path::new("/x"), &std::io::Error::from_raw_os_error(number)).status
        };
        assert_eq!([28, 122, 5].map(of), [507, 507, 500]);
    }
}
