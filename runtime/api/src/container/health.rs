//! Health checks: a command that is run in a container now and then, and what its statuses say.

use serde::{Deserialize, Serialize};

/// A health check as it is asked for. What is not given is the image's, or the usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// What is run: `CMD` and a program with its arguments, `CMD-SHELL` and a line for a shell, or `NONE`. Empty: what the image says.
    pub test: Vec<String>,
    /// Milliseconds from the end of one run to the next.
    pub interval_ms: Option<u64>,
    /// Milliseconds that a run may take.
    pub timeout_ms: Option<u64>,
    /// How many runs in a row have to fail.
    pub retries: Option<u32>,
    /// Milliseconds after its start in which failures do not count.
    pub start_period_ms: Option<u64>,
}

/// What a container's health check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Health {
    /// How it is.
    pub state: HealthState,
    /// How many runs in a row have failed.
    pub failing: u32,
    /// The last runs, the newest last.
    pub log: Vec<Probe>,
}

/// How a container is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Nobody knows yet.
    #[default]
    Starting,
    /// The last run that counts went well.
    Healthy,
    /// Too many in a row did not.
    Unhealthy,
}

impl HealthState {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            HealthState::Starting => "starting",
            HealthState::Healthy => "healthy",
            HealthState::Unhealthy => "unhealthy",
        }
    }
}

/// One run of a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Probe {
    /// When it began: RFC 3339.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// Its status; none when it could not be run, or took too long.
    pub status: Option<i32>,
    /// What it printed: the last 4096 bytes.
    pub output: String,
}
