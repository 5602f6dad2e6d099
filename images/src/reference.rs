//! Names of images: `debian:13`, `localhost:5000/team/app:1.2@sha256:...`, completed as Docker's users expect.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// A complete name: registry, repository, and a tag, a digest or both. `debian` is `docker.io/library/debian:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    name: oci_client::Reference,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with its port if one was given.
    pub fn registry(&self) -> &str {
        self.name.registry()
    }

    /// The repository in the registry.
    pub fn repository(&self) -> &str {
        self.name.repository()
    }

    /// The tag. There is none only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.name.tag()
    }

    /// The digest that the image's manifest must have.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The name in the words of Docker's users: without what the defaults add.
    pub fn familiar(&self) -> String {
        let whole = self.to_string();
        let short = whole.strip_prefix("docker.io/").unwrap_or(&whole);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }

    /// The same image by the digest of its manifest.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { name: self.name.clone_with_digest(digest.to_string()), digest: Some(digest) }
    }

    /// The same repository on another host: a mirror's.
    pub(crate) fn on(&self, registry: &str) -> oci_client::Reference {
        let repository = self.name.repository().to_owned();
        match (self.name.digest(), self.name.tag()) {
            (Some(digest), _) => {
                oci_client::Reference::with_digest(registry.to_owned(), repository, digest.to_owned())
            }
            (None, tag) => {
                let tag = tag.unwrap_or("latest").to_owned();
                oci_client::Reference::with_tag(registry.to_owned(), repository, tag)
            }
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |why: String| Error::Reference { text: text.to_owned(), why };
        let name: oci_client::Reference =
            text.parse().map_err(|e: oci_client::ParseError| refuse(e.to_string()))?;
        let digest = name.digest().map(str::parse::<Digest>).transpose();
        let digest = digest.map_err(|_| refuse("only sha256 digests are supported".to_owned()))?;
        Ok(Self { name, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, Option<String>, bool) {
        let r: Reference = text.parse().unwrap();
        let tag = r.tag().map(str::to_owned);
        (r.registry().to_owned(), r.repository().to_owned(), tag, r.digest().is_some())
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        let hex = "a".repeat(64);
        let table = [
            ("debian", "docker.io", "library/debian", Some("latest"), false),
            ("debian:13", "docker.io", "library/debian", Some("13"), false),
            ("team/app", "docker.io", "team/app", Some("latest"), false),
            ("localhost:5000/x/y:t", "localhost:5000", "x/y", Some("t"), false),
            ("localhost/x", "localhost", "x", Some("latest"), false),
            ("ghcr.io/a/b:v1", "ghcr.io", "a/b", Some("v1"), false),
        ];
        for (text, registry, repository, tag, digest) in table {
            let expected = (registry.to_owned(), repository.to_owned(), tag.map(str::to_owned), digest);
            assert_eq!(parts(text), expected, "{text}");
        }
        let both = format!("localhost:5000/x/y:t@sha256:{hex}");
        assert_eq!(parts(&both), ("localhost:5000".into(), "x/y".into(), Some("t".into()), true));
        assert_eq!(parts(&format!("x@sha256:{hex}")).2, None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "UPPER", "a b", "../x", "a//b", "x:", "x@sha256:12", "-x", "x/../y", "x\0y", "x\n"] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_familiar_form_leaves_out_the_defaults() {
        for (text, familiar) in
            [("debian:13", "debian:13"), ("a/b", "a/b:latest"), ("x.io/a", "x.io/a:latest")]
        {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), familiar);
        }
    }
}
