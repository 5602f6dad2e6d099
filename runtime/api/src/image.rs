//! Images.

use serde::{Deserialize, Serialize};

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// The names that lead to it.
    pub names: Vec<String>,
    /// Bytes of its packed layers, those that it shares with others too.
    pub size: u64,
    /// When it was made: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How many layers it has.
    pub layers: usize,
}

/// Asks for an image from a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Pull {
    /// Its name.
    pub image: String,
    /// For which platform, as `linux/arm64`; croftd's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// Asks for a name for what lies in a file on croftd's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Import {
    /// The file or folder: an OCI layout, a docker-save archive, or the tarball of a root filesystem.
    pub path: String,
    /// The name it gets.
    pub name: String,
}

/// One line of a pull's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Progress {
    /// So much of a layer has come.
    Layer {
        /// Its digest.
        digest: String,
        /// Bytes that have come.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The image is there.
    Done {
        /// The image.
        image: Image,
    },
    /// It failed.
    Failed {
        /// Why.
        problem: crate::problem::Problem,
    },
}
