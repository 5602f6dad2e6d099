//! Source packages: the upstream tarball that Debian builds from.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{FETCH_LIMIT, apt};
use crate::process;

/// Unpacks the upstream source of `package` into the empty folder `target`, from the first of `suites` that has it.
///
/// The lists are private, so the machine's apt needs no `deb-src`; the tarball is checked against the signed index.
/// Only the tarball is fetched: mirrors that lack one of a source package's files are met in practice.
pub fn fetch_source(package: &str, suites: &[&str], target: &Path) -> Result<()> {
    let mut errors = Vec::new();
    for suite in suites {
        match fetch_from(package, suite, target) {
            Ok(()) => return Ok(()),
            Err(error) => errors.push(format!("{suite}: {error:#}")),
        }
    }
    anyhow::bail!("fetch the source of {package}:\n{}", errors.join("\n"))
}

fn fetch_from(package: &str, suite: &str, target: &Path) -> Result<()> {
    let work = tempfile::tempdir().context("folder for a source package")?;
    for folder in ["lists/partial", "archives/partial", "download"] {
        fs::create_dir_all(work.path().join(folder))?;
    }
    let sources = work.path().join("sources.list");
    fs::write(&sources, apt::archive()?.source_packages(suite))?;
    let options = work.path().join("apt.conf");
    fs::write(&options, private_options(work.path(), &sources)?)?;
    let apt_get = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-qq").args(words).env("APT_CONFIG", &options).current_dir(work.path().join("download"));
        process::run(&mut command, FETCH_LIMIT)?.success()
    };
    apt_get(&["update"])?;
    apt_get(&["source", "--download-only", "--tar-only", package])?;
    let mut tarballs = fs::read_dir(work.path().join("download"))?.collect::<Result<Vec<_>, _>>()?;
    ensure!(tarballs.len() == 1, "expected one tarball, found {}", tarballs.len());
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(tarballs.remove(0).path()).arg("-C").arg(target).arg("--strip-components=1");
    process::run(&mut tar, FETCH_LIMIT)?.success().map(drop)
}

/// An apt.conf that keeps lists, sources and archives in `work`, and reaches the archive as the machine's own apt does.
fn private_options(work: &Path, sources: &Path) -> Result<String> {
    let mut lines = vec![
        format!("Dir::Etc::SourceList \"{}\";", sources.display()),
        "Dir::Etc::SourceParts \"-\";".to_owned(),
        format!("Dir::State::Lists \"{}\";", work.join("lists").display()),
        format!("Dir::Cache \"{}\";", work.display()),
        "Acquire::Languages \"none\";".to_owned(),
        // The folder is closed to the user that apt would otherwise fetch as.
        "APT::Sandbox::User \"root\";".to_owned(),
    ];
    lines.extend(apt::acquire_options()?);
    lines.push(String::new());
    Ok(lines.join("\n"))
}
