//! Registries: pull and push. Asynchronous, for a tokio runtime; what blocks (files, unpacking) runs on its blocking threads.

mod auth;
mod growing;
mod pull;
mod push;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Limits;
use crate::manifest::{self, Platform};
use crate::reference::Reference;

pub use auth::Credentials;
pub use pull::Pull;

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For each registry, the hosts to ask first, in order; the registry itself comes last.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts that speak plain HTTP. Hosts on the loopback interface need not be listed.
    pub plain: BTreeSet<String>,
    /// Docker's configuration file with credentials; `None` for access without.
    pub docker_config: Option<PathBuf>,
    /// How often a request is made in all, before it is given up.
    pub attempts: u32,
    /// How many layers are downloaded at once.
    pub parallel: usize,
    /// How long a connection may take, or be silent.
    pub timeout: Duration,
    /// How large layers may be.
    pub limits: Limits,
    /// For which platform an image is chosen.
    pub platform: Platform,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            plain: BTreeSet::new(),
            docker_config: None,
            attempts: 5,
            parallel: 3,
            timeout: Duration::from_secs(30),
            limits: Limits::default(),
            platform: Platform::here(),
        }
    }
}

/// What happens during a pull or a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The manifest is known: this many layers, this many bytes packed.
    Resolved {
        /// The manifest's digest.
        manifest: Digest,
        /// How many layers it has.
        layers: usize,
        /// Their bytes, packed.
        bytes: u64,
    },
    /// This layer is there already.
    Present(Digest),
    /// So much of this blob is transferred.
    Transferred {
        /// Which.
        blob: Digest,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A transfer failed and is tried again from where it stopped.
    Retry {
        /// Of which blob.
        blob: Digest,
        /// From which byte.
        from: u64,
        /// Why it failed.
        why: String,
    },
    /// This layer is unpacked.
    Unpacked(Digest),
    /// The image is complete.
    Done,
}

/// Who is told what happens. Called from several threads at once.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event);
}

/// For who does not want to know.
impl Progress for () {
    fn event(&self, _: Event) {}
}

/// Registries, reached by these settings.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    settings: Settings,
}

impl Registry {
    /// Registries, reached by these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Asks the registry at `host` whether it knows this user. One that asks nobody knows everybody.
    pub async fn log_in(&self, host: &str, user: &str, password: &str) -> Result<()> {
        use OciDistributionError as E;
        use oci_client::secrets::RegistryAuth;
        let name: Reference = format!("{host}/croft/login:none").parse()?;
        let name = name.on(host);
        let auth = RegistryAuth::Basic(user.to_owned(), password.to_owned());
        let client = self.client(host)?;
        let failed = |e: E| refused(format!("log in at {host} as {user}"), &e);
        // A token is only given to who is known. Where there are none, the name and password go with every request, so one is made,
        // for an image that need not be there.
        if client.auth(&name, &auth, oci_client::RegistryOperation::Pull).await.map_err(failed)?.is_some() {
            return Ok(());
        }
        match client.pull_manifest_raw(&name, &auth, &[manifest::media::MANIFEST]).await {
            Ok(_) | Err(E::ImageManifestNotFoundError(_)) => Ok(()),
            Err(E::RegistryError { envelope, .. })
                if envelope
                    .errors
                    .iter()
                    .all(|e| matches!(e.code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown)) =>
            {
                Ok(())
            }
            Err(E::ServerError { code: 404, .. }) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }

    fn client(&self, host: &str) -> Result<oci_client::Client> {
        // The first that asks decides for the process; if that was somebody else, theirs serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = self.settings.plain.contains(host) || is_loopback(host);
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            read_timeout: Some(self.settings.timeout),
            connect_timeout: Some(self.settings.timeout),
            user_agent: concat!("croft/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        oci_client::Client::try_from(config).map_err(|e| refused(format!("connect to {host}"), &e))
    }
}

/// Docker's rule too: what does not leave the machine needs no encryption.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An error of the registry with all its causes in one line: the chain ends here, at foreign code.
fn refused(op: String, error: &OciDistributionError) -> Error {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let text = next.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        cause = next.source();
    }
    if is_denied(error) { Error::Denied { op, why } } else { Error::Registry { op, why } }
}

/// Whether the registry, or who gives tokens for it, does not know who asks or does not let them.
fn is_denied(error: &OciDistributionError) -> bool {
    use OciDistributionError as E;
    match error {
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => true,
        E::ServerError { code, .. } => matches!(code, 401 | 403),
        E::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|e| matches!(e.code, OciErrorCode::Unauthorized | OciErrorCode::Denied)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_without_encryption() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["docker.io", "localhost.example.com", "10.0.0.1:5000", "[2001:db8::1]:5000", "127.0.0.1.nip.io"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
