//! The key of this host, and the hosts that are trusted: who may ask a croftd from afar, and whom a croft may ask.
//!
//! A host has one key with a certificate that it signed itself. Trust is in exactly that certificate, as with SSH's `known_hosts`: no
//! authority stands over it, and it ends by revoking and not by a date. All of it is files in a folder: `host.key`, `host.crt`, and one
//! for each trusted host below `trusted`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::names;

/// Why keys are not made, read, trusted or revoked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This host has no key yet.
    #[error("this host has no key in {}", _0.display())]
    NoKey(PathBuf),
    /// It is no certificate.
    #[error("{what} is no certificate in PEM: {why}")]
    NoCertificate {
        /// What was taken for one.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// No host can be called that.
    #[error(
        "{_0:?}: a host's name is 1 to 63 letters, digits, '-', '_' and '.', and begins with a letter or a digit"
    )]
    Name(String),
    /// Another host is called that, or the same key has another name.
    #[error("{name} is trusted already, with {with}")]
    Taken {
        /// The name.
        name: String,
        /// What differs.
        with: String,
    },
    /// No host of that name is trusted.
    #[error("no host {name} is trusted")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        others: Vec<String>,
    },
    /// Nobody has said where it listens.
    #[error("where {_0} listens is not known")]
    NoAddress(String),
    /// A key could not be made or used.
    #[error("the key: {_0}")]
    Make(String),
}

/// A host that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trusted {
    /// What it is called here.
    pub name: String,
    /// Where its croftd listens, as `HOST:PORT`, if it is to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// SHA-256 of its certificate in DER, in hexadecimal digits.
    pub fingerprint: String,
    /// Its certificate, in PEM.
    pub certificate: String,
}

/// The folder of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    folder: PathBuf,
}

/// This host's certificate and private key.
#[derive(Debug)]
pub struct Host {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

/// SHA-256 of a certificate, in hexadecimal digits: what people compare.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The only certificate in `pem`.
///
/// # Errors
/// [`Error::NoCertificate`]: when it is none, several, or has a private key beside it, which nobody should hand around.
pub fn certificate(pem: &str, what: &str) -> Result<CertificateDer<'static>, Error> {
    let no = |why: &str| Error::NoCertificate { what: what.to_owned(), why: why.to_owned() };
    if pem.contains("PRIVATE KEY-----") {
        return Err(no("there is a private key in it, which is to stay on its own host"));
    }
    let mut found = Vec::new();
    for one in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        found.push(one.map_err(|e| no(&e.to_string()))?);
    }
    match <[_; 1]>::try_from(found) {
        Ok([one]) => {
            // What is no X.509 is found out now, not at the first connection.
            rustls::server::ParsedCertificate::try_from(&one).map_err(|e| no(&e.to_string()))?;
            Ok(one)
        }
        Err(all) if all.is_empty() => Err(no("there is none in it")),
        Err(_) => Err(no("there are several in it")),
    }
}

impl Keys {
    /// The keys in `folder`. Nothing is read yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Keys { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes this host's key, for a host that calls itself `name`, unless there is one. Whether it was made.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn make(&self, name: &str) -> Result<bool, Error> {
        if self.path("host.key").exists() && self.path("host.crt").exists() {
            return Ok(false);
        }
        let failed = |e: rcgen::Error| Error::Make(e.to_string());
        let key = rcgen::KeyPair::generate().map_err(failed)?;
        let mut parameters = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(failed)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).map_err(failed)?;
        private_folder(&self.folder)?;
        // The key first: a certificate without its key would be taken for a host that can be asked.
        replace(&self.path("host.key"), key.serialize_pem().as_bytes())?;
        replace(&self.path("host.crt"), certificate.pem().as_bytes())?;
        Ok(true)
    }

    /// This host's certificate in PEM, to be given to other hosts.
    ///
    /// # Errors
    /// [`Error::NoKey`], or when it cannot be read.
    pub fn own(&self) -> Result<String, Error> {
        self.read("host.crt")?.ok_or_else(|| Error::NoKey(self.folder.clone()))
    }

    /// This host's certificate and key.
    ///
    /// # Errors
    /// [`Error::NoKey`], or when they cannot be read.
    pub fn host(&self) -> Result<Host, Error> {
        let certificate = certificate(&self.own()?, &self.path("host.crt").display().to_string())?;
        let path = self.path("host.key");
        let pem = self.read("host.key")?.ok_or_else(|| Error::NoKey(self.folder.clone()))?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::File {
            path,
            source: io::Error::new(ErrorKind::InvalidData, e.to_string()),
        })?;
        Ok(Host { certificate, key })
    }

    /// Trusts a host from now on.
    ///
    /// # Errors
    /// When it cannot be called so, its certificate is none, or the name or the key is taken.
    pub fn trust(&self, name: &str, pem: &str, address: Option<&str>) -> Result<Trusted, Error> {
        names::check(name).map_err(Error::Name)?;
        let certificate = certificate(pem, &format!("what is to be trusted as {name}"))?;
        let new = Trusted {
            name: name.to_owned(),
            address: address.map(str::to_owned),
            fingerprint: fingerprint(&certificate),
            certificate: pem.to_owned(),
        };
        let taken = |name: &str, with: &str| Error::Taken { name: name.to_owned(), with: with.to_owned() };
        for old in self.trusted()? {
            match (old.name == new.name, old.fingerprint == new.fingerprint) {
                (true, false) => return Err(taken(name, "another key")),
                (false, true) => return Err(taken(&old.name, "the same key")),
                _ => {}
            }
        }
        private_folder(&self.path("trusted"))?;
        let mut text = serde_json::to_vec_pretty(&new).map_err(|e| Error::Make(e.to_string()))?;
        text.push(b'\n');
        replace(&self.path_of(name), &text)?;
        Ok(new)
    }

    /// The hosts that are trusted, by their names.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn trusted(&self) -> Result<Vec<Trusted>, Error> {
        let folder = self.path("trusted");
        let failed = |source| Error::File { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // A file that is being written is not there yet.
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            match self.find(name) {
                Ok(one) => all.push(one),
                // It was revoked just now.
                Err(Error::Unknown { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The trusted host that is called `name`.
    ///
    /// # Errors
    /// [`Error::Unknown`], or when its file cannot be read.
    pub fn find(&self, name: &str) -> Result<Trusted, Error> {
        let unknown = || Error::Unknown { name: name.to_owned(), others: Vec::new() };
        let path = self.path_of(name);
        let text = if names::check(name).is_ok() { read(&path)? } else { None };
        serde_json::from_str(&text.ok_or_else(unknown)?).map_err(|e| Error::File { path, source: e.into() })
    }

    /// As [`Keys::find`]; the error knows who else there is.
    ///
    /// # Errors
    /// As [`Keys::find`].
    pub fn named(&self, name: &str) -> Result<Trusted, Error> {
        self.find(name).map_err(|error| match error {
            Error::Unknown { name, .. } => {
                let others = self.trusted().unwrap_or_default().into_iter().map(|one| one.name).collect();
                Error::Unknown { name, others }
            }
            error => error,
        })
    }

    /// Whether `host` is trusted still, with the same key.
    pub fn still_trusts(&self, host: &Trusted) -> bool {
        self.find(&host.name).is_ok_and(|now| now.fingerprint == host.fingerprint)
    }

    /// Trusts a host no more.
    ///
    /// # Errors
    /// [`Error::Unknown`], or when its file cannot be removed.
    pub fn revoke(&self, name: &str) -> Result<(), Error> {
        self.named(name)?;
        let path = self.path_of(name);
        fs::remove_file(&path).map_err(|source| Error::File { path, source })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.folder.join("trusted").join(format!("{name}.json"))
    }

    fn read(&self, name: &str) -> Result<Option<String>, Error> {
        read(&self.path(name))
    }
}

/// The name in every host's certificate: which host it is, its key says.
pub const SERVER_NAME: &str = "croft";

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

fn private_folder(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Writes a file that only its owner can read, all of it or nothing, and has it outlive a crash of the host.
fn replace(path: &Path, text: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all()));
    written.map_err(|source| {
        let _ = fs::remove_file(&new);
        failed(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn keys() -> (tempfile::TempDir, Keys) {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new(folder.path().join("keys"));
        (folder, keys)
    }

    #[test]
    fn a_key_is_made_once_and_nobody_else_reads_it() {
        let (_folder, keys) = keys();
        assert!(matches!(keys.own(), Err(Error::NoKey(_))));
        assert!(keys.make("here").unwrap());
        let own = keys.own().unwrap();
        assert!(!keys.make("here").unwrap() && keys.own().unwrap() == own);
        let mode = |name: &str| fs::metadata(keys.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("host.key"), mode(".")), (0o600, 0o700));
        keys.host().unwrap();
    }

    #[test]
    fn who_is_trusted_is_so_until_revoked() {
        let ((_a, here), (_b, there), (_c, third)) = (keys(), keys(), keys());
        there.make("there").unwrap();
        third.make("third").unwrap();
        let pem = there.own().unwrap();
        let trusted = here.trust("east", &pem, Some("192.0.2.1:8443")).unwrap();
        assert_eq!(here.trusted().unwrap(), std::slice::from_ref(&trusted));
        assert!(here.still_trusts(&trusted));
        // Said again, it may listen elsewhere.
        here.trust("east", &pem, Some("192.0.2.2:8443")).unwrap();
        assert_eq!(here.find("east").unwrap().address.as_deref(), Some("192.0.2.2:8443"));
        for (name, pem) in [("east", third.own().unwrap()), ("west", pem)] {
            assert!(matches!(here.trust(name, &pem, None), Err(Error::Taken { .. })), "{name}");
        }
        here.revoke("east").unwrap();
        assert!(!here.still_trusts(&trusted) && here.trusted().unwrap().is_empty());
        assert!(matches!(here.revoke("east"), Err(Error::Unknown { .. })));
    }

    #[test]
    fn what_is_no_certificate_is_not_trusted() {
        let ((_a, here), (_b, there)) = (keys(), keys());
        there.make("there").unwrap();
        let (own, key) = (there.own().unwrap(), fs::read_to_string(there.path("host.key")).unwrap());
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, word) in [
            (String::new(), "there is none"),
            (own.repeat(2), "several"),
            (own + &key, "private key"),
            (nonsense.to_owned(), "no certificate"),
        ] {
            let error = here.trust("east", &pem, None).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        for name in ["", "../x", ".x", "a/b", "a b"] {
            assert!(matches!(here.trust(name, &there.own().unwrap(), None), Err(Error::Name(_))), "{name}");
        }
        assert!(here.trusted().unwrap().is_empty() && !here.folder().exists());
    }
}
