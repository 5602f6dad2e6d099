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
        let parts = Parts::of(text).map_err(|why| refuse(why.to_owned()))?;
        let digest = parts.digest.map(str::parse::<Digest>).transpose();
        let digest =
            digest.map_err(|_| refuse("no sha256 digest, and others are not supported".to_owned()))?;
        Ok(Self { name: parts.complete(), digest })
    }
}

/// What a name says before it is completed.
///
/// Taken apart by hand, and not by the parser of `oci_client`: its one regular expression keeps 2 to 5 MB for each thread that has used it
/// (measured), and a name is parsed at every start of a container. The tests hold the two against each other.
struct Parts<'a> {
    registry: Option<&'a str>,
    repository: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

/// The registry that is meant where none is named, by Docker's custom.
const REGISTRY: &str = "docker.io";

/// Letters of a repository's name (the distribution's reference grammar).
const LONGEST: usize = 255;

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> std::result::Result<Self, &'static str> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name[last..].split_once(':') {
            Some((end, tag)) => (&name[..last + end.len()], Some(tag)),
            None => (name, None),
        };
        let is_registry = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first), rest),
            _ => (None, name),
        };
        if registry.is_some_and(|registry| !is_host(registry)) {
            return Err("its registry is no HOST or HOST:PORT");
        }
        if !repository.split('/').all(is_component) {
            return Err("its parts are small letters and digits, with '.', '_', '__' or '-' between them");
        }
        if repository.len() > LONGEST {
            return Err("it is longer than 255 letters");
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(
                "its tag is 1 to 128 letters, digits, '_', '.' and '-', and begins with none of the last two",
            );
        }
        Ok(Self { registry, repository, tag, digest })
    }

    /// With what the defaults add.
    fn complete(&self) -> oci_client::Reference {
        let registry = match self.registry {
            None | Some("index.docker.io") => REGISTRY,
            Some(registry) => registry,
        };
        let in_library = registry == REGISTRY && !self.repository.contains('/');
        let repository =
            if in_library { format!("library/{}", self.repository) } else { self.repository.into() };
        let (registry, owned) = (registry.to_owned(), str::to_owned);
        match (self.tag.map(owned), self.digest.map(owned)) {
            (Some(tag), Some(digest)) => {
                oci_client::Reference::with_tag_and_digest(registry, repository, tag, digest)
            }
            (None, Some(digest)) => oci_client::Reference::with_digest(registry, repository, digest),
            (tag, None) => {
                let tag = tag.unwrap_or_else(|| "latest".to_owned());
                oci_client::Reference::with_tag(registry, repository, tag)
            }
        }
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let fits = |part: &str| {
        part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    host.split('.').all(fits)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

/// Letters and digits, between which stand '.', '_', '__' or any number of '-'.
fn is_component(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|c| c == b'-');
    text.starts_with(is_word) && text.ends_with(is_word) && text.split(is_word).all(between)
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    text.bytes().next().is_some_and(is_word)
        && text.len() <= 128
        && text.bytes().all(|c| is_word(c) || c == b'.' || c == b'-')
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

    proptest::proptest! {
        /// What both take means the same, and either takes what the other does, but for two things that no registry has: `oci_client`
        /// makes a repository of a first part in capitals that is no host, and a host of one with `_`.
        #[test]
        fn names_are_as_oci_client_has_them(text in r"([a-cA]([.:_-]{0,2}[a-c0A]){0,4}/){0,2}[a-c]([._-]{0,3}[a-c0A]){0,4}(:[a-c_.-]{0,3})?(@sha256:[0-9a]{63,65})?") {
            let theirs = text.parse::<oci_client::Reference>();
            let ours = text.parse::<Reference>();
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => proptest::prop_assert_eq!(ours.name, theirs),
                (Ok(ours), Err(why)) => proptest::prop_assert!(false, "only we take {ours}: {why}"),
                (Err(why), Ok(theirs)) => proptest::prop_assert!(
                    theirs.repository().contains(char::is_uppercase) || theirs.registry().contains('_'), "only they take {theirs}: {why}"
                ),
                (Err(_), Err(_)) => {}
            }
        }
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
