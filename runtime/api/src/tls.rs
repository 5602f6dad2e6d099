//! Mutual TLS 1.3 between hosts that trust each other's keys: see [`crate::keys`].
//!
//! Who is at the other end is decided by its certificate alone: the one that is trusted, byte for byte, whose key signed the handshake.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use crate::keys::{Host, Keys, Trusted, fingerprint};

/// What a croftd serves with: who connects has to be a host that is trusted at that moment.
///
/// # Errors
/// When the host's key does not work with its certificate.
pub fn server(keys: &Keys, host: Host) -> Result<ServerConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let guests = Guests { keys: keys.clone(), provider: Arc::clone(&provider) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(guests))
        .with_single_cert(vec![host.certificate], host.key)?;
    // Every connection shows its certificate: a session that is resumed would outlive a revocation.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What a croft asks `there` with.
///
/// # Errors
/// When the host's key does not work with its certificate.
pub fn client(there: &Trusted, host: Host) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let one = One { fingerprint: there.fingerprint.clone(), provider: Arc::clone(&provider) };
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(one))
        .with_client_auth_cert(vec![host.certificate], host.key)
}

/// Which trusted host has this certificate.
pub fn who(keys: &Keys, certificate: &CertificateDer<'_>) -> Option<Trusted> {
    let fingerprint = fingerprint(certificate);
    keys.trusted().ok()?.into_iter().find(|one| one.fingerprint == fingerprint)
}

/// Whether the other end has ended a connection because it does not trust this one's certificate.
pub fn is_distrust(error: &std::io::Error) -> bool {
    matches!(
        error.get_ref().and_then(|inner| inner.downcast_ref()),
        Some(Error::AlertReceived(
            AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
        ))
    )
}

/// Whether the other end has another certificate than the one that is trusted.
pub fn is_another(error: &std::io::Error) -> bool {
    matches!(
        error.get_ref().and_then(|inner| inner.downcast_ref()),
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    )
}

const NOT_TRUSTED: Error = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

/// The hosts that are trusted, at a server.
#[derive(Debug)]
struct Guests {
    keys: Keys,
    provider: Arc<CryptoProvider>,
}

/// The one host that a client asks.
#[derive(Debug)]
struct One {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

/// How a signature is looked at, the same in both directions: who made it is decided elsewhere.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::Tls12NotOffered.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(
                message,
                certificate,
                signature,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for Guests {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        who(&self.keys, certificate).map(|_| ClientCertVerified::assertion()).ok_or(NOT_TRUSTED)
    }

    signatures!();
}

impl ServerCertVerifier for One {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if fingerprint(certificate) == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(NOT_TRUSTED)
    }

    signatures!();
}
