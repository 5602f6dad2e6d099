//! The documents of an image: index, manifest, configuration; and the platform for which one is chosen.
//!
//! Documents are kept as the bytes that came, since their digests are of those; these types are for reading, and for writing new ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};

/// Media types that occur.
pub mod media {
    /// An OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
}

/// No manifest, index or configuration is larger: what is held in memory as a whole has to have a limit.
pub const LARGEST_DOCUMENT: u64 = 8 << 20;

/// What an image is made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The processor in Go's words: `amd64`, `arm64`...
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v7`, `v8`... where the architecture has variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What this program was built for.
    pub fn here() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { architecture: architecture.into(), os: "linux".into(), variant: variant.map(str::to_owned) }
    }

    /// Whether an image for `offered` runs on this. A variant counts only where both sides name one.
    pub fn accepts(&self, offered: &Platform) -> bool {
        let variant = match (&self.variant, &offered.variant) {
            (Some(wanted), Some(offered)) => wanted == offered,
            _ => true,
        };
        self.architecture == offered.architecture && self.os == offered.os && variant
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl std::str::FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None) if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self { architecture, os, variant })
            }
            _ => {
                Err(Error::malformed(format!("platform {text:?}"), "give OS/ARCHITECTURE, as in linux/arm64"))
            }
        }
    }
}

/// A reference from one document to another, or to a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// In an index: what the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Remarks.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor of these bytes.
    pub fn of(bytes: &[u8], media_type: &str) -> Self {
        Self::new(Digest::of(bytes), bytes.len() as u64, media_type)
    }

    /// A descriptor without platform and remarks.
    pub fn new(digest: Digest, size: u64, media_type: &str) -> Self {
        let annotations = BTreeMap::new();
        Self { media_type: media_type.to_owned(), digest, size, platform: None, annotations }
    }
}

/// A list of manifests for several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::INDEX`] or Docker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    #[serde(deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// The manifest for `platform`.
    ///
    /// # Errors
    /// None is for it; the error lists what there is.
    pub fn choose(&self, platform: &Platform, name: &str) -> Result<&Descriptor> {
        let suits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|offered| platform.accepts(offered));
        let only = match &self.manifests[..] {
            [one] if one.platform.is_none() => Some(one),
            _ => None,
        };
        self.manifests.iter().find(suits).or(only).ok_or_else(|| {
            let known = |p: &&Platform| p.os != "unknown";
            let mut offered: Vec<String> = self
                .manifests
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .filter(known)
                .map(Platform::to_string)
                .collect();
            offered.dedup();
            Error::NotFound {
                kind: "image for this platform",
                name: format!("{name} for {platform} (there is {})", offered.join(", ")),
            }
        })
    }
}

/// What an image consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::MANIFEST`] or Docker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// An OCI manifest of these parts.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: Some(media::MANIFEST.to_owned()), config, layers }
    }
}

/// A document that a name in a registry stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

impl Document {
    /// Reads a manifest or an index: told by what it holds, since the media type in it is optional and that beside it can lie.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Shape {
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            #[serde(rename = "schemaVersion")]
            version: Option<u32>,
        }
        let shape: Shape = parse("manifest", bytes)?;
        match shape {
            Shape { version: Some(1), .. } => Err(Error::malformed(
                "manifest",
                "schema version 1 is obsolete: push the image again with a newer Docker",
            )),
            Shape { manifests: Some(_), layers: None, .. } => parse("index", bytes).map(Self::Index),
            Shape { manifests: None, layers: Some(_), .. } => parse("manifest", bytes).map(Self::Manifest),
            _ => Err(Error::malformed("manifest", "neither a manifest nor an index")),
        }
    }
}

/// What a container of the image runs, unless its user says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Defaults {
    /// User, or user:group, by name or number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Words before the command.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command, or its arguments when there is an entry point.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The working folder.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Ports that are meant to be published, as `80/tcp`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Folders that are meant to be volumes.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Labels.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker's health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
}

/// How one layer, or one change of the configuration, came about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// By which command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// The layers by the digests of what they are unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of the uncompressed archives, the lowest first.
    #[serde(deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

/// An image's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// When the image was made, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What it is for.
    #[serde(flatten)]
    pub platform: Platform,
    /// What a container of it runs.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: Defaults,
    /// Its layers.
    pub rootfs: RootFs,
    /// How it came about.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

impl Config {
    /// Reads a configuration that names as many layers as the manifest does.
    pub fn parse(bytes: &[u8], layers: usize) -> Result<Self> {
        let config: Self = parse("image configuration", bytes)?;
        if config.rootfs.diff_ids.len() == layers {
            return Ok(config);
        }
        let why = format!("it names {} layers, the manifest {layers}", config.rootfs.diff_ids.len());
        Err(Error::malformed("image configuration", why))
    }

    /// A configuration for this platform without layers.
    pub fn empty(created: Option<String>) -> Self {
        let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() };
        Self { created, platform: Platform::here(), config: Defaults::default(), rootfs, history: Vec::new() }
    }
}

/// The name of each layer together with all below it: what an unpacked layer is filed under.
///
/// As the image specification says: the first is the layer's own digest, each next `SHA256(chain of the one below + " " + its own)`.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = chain.last().map_or(*diff_id, |below| {
            let mut hasher = Hasher::default();
            hasher.update(format!("{below} {diff_id}").as_bytes());
            hasher.finish()
        });
        chain.push(next);
    }
    chain
}

fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::malformed(what, e))
}

/// Go writes an empty list as null.
fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn index(platforms: &[&str]) -> Index {
        let entry = |(n, text): (usize, &&str)| Descriptor {
            platform: Some(platform(text)),
            ..Descriptor::new(digest(n as u8), 1, media::MANIFEST)
        };
        Index {
            schema_version: 2,
            media_type: None,
            manifests: platforms.iter().enumerate().map(entry).collect(),
        }
    }

    #[test]
    fn a_manifest_is_chosen_by_platform() {
        let index =
            index(&["unknown/unknown", "linux/arm/v5", "linux/arm/v7", "linux/amd64", "linux/arm64/v8"]);
        let chosen = |text| index.choose(&platform(text), "x").map(|d| d.digest);
        assert_eq!(chosen("linux/amd64").unwrap(), digest(3));
        assert_eq!(chosen("linux/arm/v7").unwrap(), digest(2));
        assert_eq!(chosen("linux/arm64").unwrap(), digest(4));
        let error = chosen("linux/s390x").unwrap_err().to_string();
        assert!(error.contains("x for linux/s390x") && error.contains("linux/arm64/v8"), "{error}");
    }

    #[test]
    fn documents_are_told_apart_by_what_they_hold() {
        let manifest = Manifest::new(Descriptor::of(b"{}", media::CONFIG), vec![]);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Document::parse(&bytes).unwrap(), Document::Manifest(manifest));
        let bytes = serde_json::to_vec(&index(&["linux/amd64"])).unwrap();
        assert!(matches!(Document::parse(&bytes).unwrap(), Document::Index(_)));
        for bad in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"layers":[],"manifests":[]}"#,
        ] {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_configuration_of_docker_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":null,"Labels":null,"Entrypoint":["/x"]},
            "rootfs":{"type":"layers","diff_ids":null},"history":null,"docker_version":"x"}"#;
        let config = Config::parse(text.as_bytes(), 0).unwrap();
        assert_eq!(
            (config.config.env, config.config.entrypoint),
            (vec!["A=b".to_owned()], vec!["/x".to_owned()])
        );
        assert!(Config::parse(text.as_bytes(), 1).unwrap_err().to_string().contains("names 0 layers"));
    }

    #[test]
    fn a_chain_names_each_layer_with_all_below() {
        let chain = chain_ids(&[digest(1), digest(2)]);
        assert_eq!(chain[0], digest(1));
        assert_eq!(chain[1], Digest::of(format!("{} {}", digest(1), digest(2)).as_bytes()));
        assert_ne!(chain_ids(&[digest(2), digest(1)])[1], chain[1]);
    }
}
