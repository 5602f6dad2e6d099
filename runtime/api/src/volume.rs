//! Volumes: folders that containers share and that outlive them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was made: RFC 3339.
    pub created: String,
    /// Its folder on croftd's host. Files in it have the owners that containers see.
    pub mountpoint: String,
    /// Whether a container got it without asking for a name.
    pub anonymous: bool,
    /// Labels for people and programs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The names of the containers that it is mounted in when they run.
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// Asks for a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Create {
    /// Its name; one is made up without it.
    pub name: Option<String>,
    /// Labels for people and programs.
    pub labels: BTreeMap<String, String>,
}

/// What was removed because nothing uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Pruned {
    /// The names of the volumes.
    pub volumes: Vec<String>,
    /// Bytes of the disk that were theirs.
    pub bytes: u64,
}
