//! The machine's own packages and its archive.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::FETCH_LIMIT;
use crate::{cache, process};

/// Installs those of the named packages that are missing, from the machine's own suites.
///
/// Asks dpkg first, so that the common case, nothing missing, costs milliseconds. The lists are fetched only when
/// an installation fails with those that are there.
pub fn ensure_packages(names: &[&str]) -> Result<()> {
    if missing(names)?.is_empty() {
        return Ok(());
    }
    let lock_path = cache::root()?.join(".apt.lock");
    let lock = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;
    let missing = missing(names)?;
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing Debian packages: {}", missing.join(" "));
    if install(&missing).is_err() {
        process::run(Command::new("apt-get").args(["-qq", "update"]), FETCH_LIMIT)?.success()?;
        install(&missing)?;
    }
    Ok(())
}

/// While this lives, packages that are installed start no service: the tests start their own, apart from the host.
struct NoServices {
    policy: Option<PathBuf>,
}

impl NoServices {
    /// Puts a policy in place that refuses all starts (invoke-rc.d(8)), unless the machine has one.
    fn enforce() -> Result<Self> {
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self { policy: None });
        }
        fs::write(&policy, "#!/bin/sh\nexit 101\n").context("write policy-rc.d")?;
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).context("mode of policy-rc.d")?;
        Ok(Self { policy: Some(policy) })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy {
            let _ = fs::remove_file(policy);
        }
    }
}

fn install(names: &[&str]) -> Result<()> {
    let _none_start = NoServices::enforce()?;
    let mut apt_get = Command::new("apt-get");
    apt_get.args([
        "-qq",
        "-y",
        "--no-install-recommends",
        "--no-remove",
        "-o",
        "DPkg::Lock::Timeout=300",
        "install",
    ]);
    apt_get.args(names).env("DEBIAN_FRONTEND", "noninteractive");
    process::run(&mut apt_get, FETCH_LIMIT)?.success().map(drop)
}

/// Those of the named packages that dpkg does not call installed.
fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query exits 1 when it knows one of the names not at all, and still answers for the others.
    let answer = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\\n", "--"])
        .args(names)
        .output()
        .context("run dpkg-query")?;
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    let installed: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    Ok(names.iter().copied().filter(|name| !installed.contains(name)).collect())
}

/// Where the machine's own Debian comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    /// The archive's root, as apt's sources name it.
    pub uri: String,
    /// The keys that sign it.
    pub keyring: String,
}

impl Archive {
    /// A line of sources.list for the main component of a suite of this archive.
    pub fn source(&self, suite: &str) -> String {
        format!("deb [signed-by={}] {} {suite} main", self.keyring, self.uri)
    }

    /// As [`Archive::source`], for source packages.
    pub fn source_packages(&self, suite: &str) -> String {
        format!("deb-src [signed-by={}] {} {suite} main\n", self.keyring, self.uri)
    }
}

/// The archive from which apt gets the suite that this machine runs.
pub(super) fn archive() -> Result<Archive> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("find this machine's suite: /etc/os-release has no VERSION_CODENAME")?
        .trim_matches('"');
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    for item in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten() {
        files.push(item.context("read /etc/apt/sources.list.d")?.path());
    }
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => text.split("\n\n").find_map(|stanza| from_stanza(stanza, suite)),
            Some("list") => text.lines().find_map(|line| from_line(line, suite)),
            _ => None,
        };
        if let Some(archive) = found {
            return Ok(archive);
        }
    }
    bail!("find the Debian archive: no source in /etc/apt has the suite {suite} with component main")
}

/// The root of the archive from which apt gets the suite that this machine runs.
pub fn archive_uri() -> Result<String> {
    archive().map(|archive| archive.uri)
}

const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Reads a stanza of a deb822 file, sources.list(5); `None` when it is not the suite's main component.
fn from_stanza(stanza: &str, suite: &str) -> Option<Archive> {
    let field = |name: &str| {
        let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
        let value = lines.find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        value.unwrap_or_default()
    };
    let has = |name: &str, word: &str| field(name).split_whitespace().any(|found| found == word);
    if !has("Types", "deb") || !has("Suites", suite) || !has("Components", "main") {
        return None;
    }
    let keyring = Some(field("Signed-By")).filter(|path| path.starts_with('/')).unwrap_or(DEBIAN_KEYRING);
    let uri = field("URIs").split_whitespace().next()?;
    Some(Archive { uri: uri.to_owned(), keyring: keyring.to_owned() })
}

/// Reads a line of the older form of sources.list(5); `None` when it is not the suite's main component.
fn from_line(line: &str, suite: &str) -> Option<Archive> {
    let rest = line.trim().strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, found) = (words.next()?, words.next()?);
    if found != suite || !words.any(|component| component == "main") {
        return None;
    }
    let mut options = options.split_whitespace();
    let keyring = options.find_map(|option| option.strip_prefix("signed-by=")).unwrap_or(DEBIAN_KEYRING);
    Some(Archive { uri: uri.to_owned(), keyring: keyring.to_owned() })
}

/// How this machine reaches its archive (proxies, checks of the archive's dates), for an apt with settings of its own.
pub(super) fn acquire_options() -> Result<Vec<String>> {
    let mut apt_config = Command::new("apt-config");
    apt_config.args(["dump", "--no-empty", "--format", "%F \"%v\";%n"]);
    let dump = process::run(&mut apt_config, Duration::from_secs(60))?.success()?.stdout;
    let wanted = |line: &&str| {
        let mut prefixes = ["Acquire::http", "Acquire::Check-", "Acquire::Retries"].iter();
        prefixes.any(|prefix| line.starts_with(prefix))
    };
    Ok(dump.lines().filter(wanted).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_package_costs_no_installation() {
        assert_eq!(missing(&["dpkg", "no-such-package-croft"]).unwrap(), ["no-such-package-croft"]);
    }

    #[test]
    fn both_forms_of_sources_are_read() {
        let stanza = "Types: deb\n# was elsewhere\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                      Components: main\nSigned-By: /keys.gpg\n";
        let line = "deb [arch=amd64 signed-by=/keys.gpg] http://mirror.example/debian bookworm main contrib";
        let archive = Archive { uri: "http://mirror.example/debian".into(), keyring: "/keys.gpg".into() };
        assert_eq!(from_stanza(stanza, "bookworm"), Some(archive.clone()));
        assert_eq!(from_line(line, "bookworm"), Some(archive));
        assert_eq!(from_stanza(stanza, "bookworm-security"), None);
        assert_eq!(from_line(line, "trixie"), None);
        assert_eq!(from_line("deb-src http://mirror.example/debian bookworm main", "bookworm"), None);
    }
}
