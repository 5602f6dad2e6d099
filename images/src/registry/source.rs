//! One host that serves a repository: the registry or a mirror of it, with what it takes to ask it.

use std::sync::Arc;
use std::time::Duration;

use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};

use super::{Credentials, Registry, refused};
use crate::error::{Error, Result};
use crate::reference::Reference;

/// A host, ready to be asked for one repository.
#[derive(Clone)]
pub(super) struct Source {
    pub client: Client,
    pub name: oci_client::Reference,
    pub auth: RegistryAuth,
}

impl Registry {
    /// The hosts that may have the image, in the order in which they are asked.
    pub(super) fn hosts(&self, reference: &Reference) -> Vec<String> {
        let mirrors = self.settings.mirrors.get(reference.registry()).cloned().unwrap_or_default();
        mirrors.into_iter().chain([reference.registry().to_owned()]).collect()
    }

    /// Makes `host` ready to be asked.
    pub(super) async fn source(
        &self,
        reference: &Reference,
        host: &str,
        operation: RegistryOperation,
    ) -> Result<Source> {
        let name = reference.on(host);
        let auth = match self.settings.docker_config.clone() {
            Some(path) => {
                let registry = host.to_owned();
                blocking(move || Credentials::new(&path).find(&registry)).await?
            }
            None => RegistryAuth::Anonymous,
        };
        let client = self.client(host)?;
        let mut retry = Retry::new(self.settings.attempts);
        while let Err(e) = client.auth(&name, &auth, operation).await {
            retry.after(&format!("log in at {host}"), e).await?;
        }
        Ok(Source { client, name, auth })
    }
}

/// Tries again what may work later.
#[derive(Debug)]
pub(super) struct Retry {
    attempts: u32,
    made: u32,
}

impl Retry {
    /// The pause before attempt `n`, counted from 1: longer each time.
    pub fn pause(n: u32) -> Duration {
        Duration::from_millis(200) * 2u32.saturating_pow(n.saturating_sub(1)).min(64)
    }

    /// Attempts that were made so far, without success: none.
    pub fn new(attempts: u32) -> Self {
        Self { attempts, made: 0 }
    }

    /// The attempt to do `op` failed: waits before the next one, or gives up when it is of no use or there were enough.
    pub async fn after(&mut self, op: &str, error: OciDistributionError) -> Result<()> {
        self.made += 1;
        if self.made >= self.attempts || is_final(&error) {
            return Err(refused(op.to_owned(), &error));
        }
        tokio::time::sleep(Self::pause(self.made)).await;
        Ok(())
    }
}

/// Whether trying again is of no use: the registry understood and said no.
pub(super) fn is_final(error: &OciDistributionError) -> bool {
    use OciDistributionError as E;
    match error {
        E::RequestError(e) => e.is_builder() || e.status().is_some_and(|status| status.is_client_error()),
        E::ServerError { code, .. } => *code < 500 && *code != 429 && *code != 408,
        E::RegistryError { envelope, .. } => {
            envelope.errors.iter().all(|e| e.code != OciErrorCode::Toomanyrequests)
        }
        E::IoError(_) => false,
        _ => true,
    }
}

/// Runs what blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Registry {
                op: "transfer".to_owned(),
                why: "the runtime is shutting down".to_owned(),
            }),
        },
    }
}

/// Who is told, shared by tasks.
pub(super) type Told = Arc<dyn super::Progress>;
