//! What happened: a stream that can be taken up again where it was lost.

use serde::{Deserialize, Serialize};

/// One event. Their numbers have no gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its number: ask for events since the last one seen.
    pub id: u64,
    /// When: RFC 3339, UTC.
    pub time: String,
    /// What happened: `create`, `start`, `exit`, `delete`, `pull`, `adopt`, ...
    pub action: String,
    /// On what: `container`, `image`, `network`, `volume`.
    pub object: String,
    /// Its name or id.
    pub name: String,
    /// More, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
