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

/// One line of a pull's or push's answer.
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
    /// A layer is there already, at who gets it.
    Present {
        /// Its digest.
        digest: String,
    },
    /// A transfer broke off and goes on.
    Retry {
        /// The layer's digest.
        digest: String,
        /// From which byte.
        from: u64,
        /// Why it broke off.
        why: String,
    },
    /// A layer is unpacked.
    Unpacked {
        /// Its digest.
        digest: String,
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

/// All that is known of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Details {
    /// The digest of its configuration.
    pub id: String,
    /// The names that lead to it.
    pub names: Vec<String>,
    /// The digest of its manifest: what registries know it by.
    pub digest: String,
    /// What it is for: `linux/amd64`.
    pub platform: String,
    /// When it was made: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Bytes of its packed layers.
    pub size: u64,
    /// Its unpacked layers by digest, the lowest first.
    pub layers: Vec<String>,
    /// What its containers run, in the words of the OCI image specification.
    #[cfg_attr(feature = "schema", schema(value_type = Object))]
    pub config: serde_json::Value,
    /// The names of the containers that are made from it.
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// One step of how an image came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Step {
    /// The packed layer that it made; none for one that changed the configuration only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// When: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Bytes of the packed layer.
    pub size: u64,
}

/// Asks for another name for an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Tag {
    /// Its name or id.
    pub image: String,
    /// The name that it gets too.
    pub name: String,
}

/// Asks for an image to be sent to the registry that its name says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Push {
    /// Its name.
    pub image: String,
}

/// Asks for an image of Debian's packages, made by mmdebstrap(1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BuildRootfs {
    /// The image's name.
    pub name: String,
    /// `trixie`, `bookworm`...
    pub suite: String,
    /// mmdebstrap's variant: `minbase`, `essential`, `apt`...
    pub variant: String,
    /// More packages.
    pub packages: Vec<String>,
    /// Where from, as in sources.list(5) or as an address; mmdebstrap's own choice without one.
    pub mirrors: Vec<String>,
}

/// What was removed because nothing uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PrunedImages {
    /// The names of images.
    pub names: Vec<String>,
    /// How many unpacked layers.
    pub layers: u64,
    /// How many packed layers and documents.
    pub blobs: u64,
    /// Bytes of the disk that were theirs.
    pub bytes: u64,
}

/// What croftd is to say at a registry from now on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Login {
    /// The registry's host.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The password, or an access token.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("registry", &self.registry)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What croftd is not to say any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Logout {
    /// The registry's host.
    pub registry: String,
}
