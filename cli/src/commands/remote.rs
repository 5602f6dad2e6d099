//! `remote`: this host's key and those that it trusts, which are files. croftd looks at them whenever it is asked.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use croft_api::keys::{self, Error, Keys};
use serde::Serialize;

use super::Failed;
use crate::args::{Cli, RemoteCommand};
use crate::output::{self, Shown};

/// More is no certificate.
const LARGEST: u64 = 64 << 10;

/// What is printed of a key.
#[derive(Debug, Serialize)]
struct Key {
    fingerprint: String,
    certificate: String,
}

/// Does what is asked.
///
/// # Errors
/// When it cannot be done.
pub fn run(keys: &Keys, command: &RemoteCommand, shown: Shown) -> Result<u8, Failed> {
    match command {
        RemoteCommand::Make => {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            keys.make(&name)?;
            let key = own(keys)?;
            shown.done(&key, &key.fingerprint);
        }
        RemoteCommand::Show => {
            let key = own(keys)?;
            match shown.format {
                crate::args::Format::Json => output::json(&key),
                crate::args::Format::Table => output::print(&key.certificate),
            }
        }
        RemoteCommand::Trust { address, name, certificate } => {
            let pem = read(certificate)?;
            let own = keys.own().ok().and_then(|own| keys::certificate(&own, "host.crt").ok());
            let is_own = own.zip(keys::certificate(&pem, name).ok()).is_some_and(|(own, new)| own == new);
            if is_own {
                return Err(Failed {
                    hint: Some("give it what croft remote show prints on the other host".into()),
                    ..Failed::from(format!("trust {name}: that is the key of this host"))
                });
            }
            let trusted = keys.trust(name, &pem, address.as_deref())?;
            shown.done(&trusted, &format!("{}  {}", trusted.name, trusted.fingerprint));
        }
        RemoteCommand::List => {
            let all = keys.trusted()?;
            if shown.quiet {
                all.iter().for_each(|one| output::line(&one.name));
                return Ok(0);
            }
            output::list(shown.format, &all, &["NAME", "ADDRESS", "FINGERPRINT"], |one| {
                vec![
                    one.name.clone(),
                    one.address.clone().unwrap_or_else(|| "-".into()),
                    one.fingerprint.clone(),
                ]
            });
        }
        RemoteCommand::Revoke { names } => {
            let mut failed = None;
            for name in names {
                match keys.revoke(name) {
                    Ok(()) => shown.each(&serde_json::json!({ "name": name }), name),
                    Err(error) => {
                        if let Some(before) = failed.replace(Failed::from(error)) {
                            eprintln!("croft: {}", before.text);
                        }
                    }
                }
            }
            return failed.map_or(Ok(0), Err);
        }
    }
    Ok(0)
}

/// The keys that are meant: those that are named, or this user's.
pub fn keys(cli: &Cli) -> Keys {
    Keys::new(cli.keys.clone().unwrap_or_else(usual_folder))
}

/// Where this user's keys are. Root's are croftd's.
pub fn usual_folder() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/croft/keys");
    }
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = given("XDG_CONFIG_HOME").or_else(|| Some(given("HOME")?.join(".config")));
    config.unwrap_or_else(|| PathBuf::from("/nonexistent")).join("croft/keys")
}

fn own(keys: &Keys) -> Result<Key, Error> {
    let certificate = keys.own()?;
    let parsed = keys::certificate(&certificate, "host.crt")?;
    Ok(Key { fingerprint: keys::fingerprint(&parsed), certificate })
}

fn read(path: &Path) -> Result<String, Failed> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => stdin().take(LARGEST).read_to_string(&mut text),
        _ => File::open(path).and_then(|file| file.take(LARGEST).read_to_string(&mut text)),
    };
    match read {
        Ok(_) => Ok(text),
        Err(e) => Err(Failed::from(format!("read {}: {e}", path.display()))),
    }
}
