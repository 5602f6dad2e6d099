//! `cargo xtask install`: croft on this machine, or in a folder that becomes a package.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::build::programs;
use crate::project::checkout;

/// Build croft and install it: programs, man pages, systemd's units. What is there is replaced, also while it runs.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// A folder that stands for the root of the host, to make a package of
    #[arg(long, value_name = "DIR", default_value = "/")]
    destdir: PathBuf,
}

/// Installs, and says what and where.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { prefix, destdir } = arguments;
    ensure!(prefix.is_absolute(), "--prefix {}: has to be an absolute path", prefix.display());
    let there = destdir.join(prefix.strip_prefix("/").context("an absolute path")?);
    let bin = there.join("bin");
    for program in programs()? {
        let name = program.file_name().context("a program has a name")?;
        put(&bin.join(name), &fs::read(&program).with_context(|| read(&program))?, 0o755)?;
    }
    let root = checkout()?;
    let mut pages = 0;
    for page in files(&root.join("man"))? {
        let section = page.extension().and_then(|section| section.to_str()).unwrap_or_default();
        if !matches!(section, "1" | "8") {
            continue;
        }
        let name = page.file_name().context("a page has a name")?;
        let folder = there.join("share/man").join(format!("man{section}"));
        put(&folder.join(name), &fs::read(&page).with_context(|| read(&page))?, 0o644)?;
        pages += 1;
    }
    let units = there.join("lib/systemd/system");
    for unit in ["croftd.service", "croftd.socket"] {
        let file = root.join("integration/systemd").join(unit);
        let text = fs::read_to_string(&file).with_context(|| read(&file))?;
        put(&units.join(unit), with_prefix(&text, prefix).as_bytes(), 0o644)?;
    }
    println!("programs:  {}", bin.display());
    println!("man pages: {} ({pages})", there.join("share/man").display());
    println!("units:     {}", units.display());
    // systemd looks there only.
    if destdir == Path::new("/") && [Path::new("/usr"), Path::new("/usr/local")].contains(&prefix.as_path()) {
        println!(
            "to begin:  addgroup --system croft && systemctl daemon-reload && systemctl enable --now croftd"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> String {
    format!("read {}", path.display())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| read(folder))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// A unit that starts croftd where it is installed.
fn with_prefix(unit: &str, prefix: &Path) -> String {
    unit.replace("ExecStart=/usr/bin/", &format!("ExecStart={}/", prefix.join("bin").display()))
}

/// Writes a file by rename: a program that runs goes on as it is.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    let install = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut new, bytes)?;
        new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        new.persist(path)?;
        Ok(())
    };
    install().with_context(|| format!("install {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_what_is_installed() {
        let unit =
            fs::read_to_string(checkout().unwrap().join("integration/systemd/croftd.service")).unwrap();
        let changed = with_prefix(&unit, Path::new("/opt/croft"));
        assert!(
            changed.contains("\nExecStart=/opt/croft/bin/croftd\n") && !changed.contains("/usr/bin/croftd")
        );
        assert_eq!(with_prefix(&unit, Path::new("/usr")), unit);
    }

    #[test]
    fn a_program_is_replaced_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bin/sleep");
        put(&path, &fs::read("/bin/sleep").unwrap(), 0o755).unwrap();
        let mut child = std::process::Command::new(&path).arg("1000").spawn().unwrap();
        let replaced = put(&path, b"#!/bin/sh\nexit 7\n", 0o755);
        child.kill().unwrap();
        child.wait().unwrap();
        replaced.unwrap();
        assert_eq!(std::process::Command::new(&path).status().unwrap().code(), Some(7));
    }
}
