//! Files of containers.

use serde::{Deserialize, Serialize};

/// What is there under a name in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Stat {
    /// What kind of file.
    pub kind: FileKind,
    /// Its permissions.
    pub mode: u32,
    /// Its length in bytes.
    pub size: u64,
    /// Where it leads, for a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket.
    Other,
}

/// A file that is not as in the container's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Its path in the container.
    pub path: String,
}

/// How a file is not as in the image, in Docker's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum ChangeKind {
    /// Added.
    A,
    /// Changed.
    C,
    /// Deleted.
    D,
}

/// Asks for an image of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Commit {
    /// The image's name.
    pub image: String,
    /// What containers of it do otherwise, as lines of a Dockerfile: CMD, ENTRYPOINT, ENV, WORKDIR, USER, EXPOSE, LABEL, VOLUME, STOPSIGNAL.
    pub changes: Vec<String>,
    /// A remark.
    pub message: Option<String>,
    /// Who makes it.
    pub author: Option<String>,
    /// Whether a running container is frozen meanwhile.
    pub pause: bool,
}

impl Default for Commit {
    fn default() -> Self {
        Commit { image: String::new(), changes: Vec::new(), message: None, author: None, pause: true }
    }
}
