//! `cargo xtask check`: form, lints, documentation, man pages and the house rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::{packages, project};

/// Checks form, lints, documentation and the house rules.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Lines that a source file may have.
const LONGEST_FILE: usize = 600;

/// Folders at the top of the repository, beside dot-files.
const TOP: &[&str] = &["runtime", "shim", "cli", "images", "integration", "man", "target"];

/// Runs all checks.
pub fn run(_: &Arguments) -> Result<ExitCode> {
    packages::for_build()?;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    doc()?;
    house_rules(&project::checkout()?)?;
    println!("check: all is well");
    Ok(ExitCode::SUCCESS)
}

/// Runs cargo in the checkout.
pub fn cargo(args: &[&str]) -> Result<()> {
    println!("$ cargo {}", args.join(" "));
    let status = Command::new(env!("CARGO")).args(args).current_dir(project::checkout()?).status()?;
    ensure!(status.success(), "cargo {}: {status}", args.join(" "));
    Ok(())
}

fn doc() -> Result<()> {
    let args = ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"];
    println!("$ RUSTDOCFLAGS='-D warnings' cargo {}", args.join(" "));
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(project::checkout()?);
    let status = command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links").status()?;
    ensure!(status.success(), "cargo doc: {status}");
    Ok(())
}

/// The rules of the house that no lint has.
pub fn house_rules(checkout: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(checkout)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') && !TOP.contains(&name.as_str()) {
            wrong.push(format!("{name}: a folder at the top that the design does not have"));
        }
    }
    let mut sources = Vec::new();
    for folder in ["runtime", "shim", "cli", "images", "integration"] {
        collect(&checkout.join(folder), &mut sources)?;
    }
    ensure!(sources.len() > 50, "only {} sources found: the rules look in the wrong place", sources.len());
    for source in &sources {
        wrong.extend(breaches(source, &fs::read_to_string(source).context("read a source")?));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("house rules:\n{}", wrong.join("\n"))
}

fn collect(folder: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

fn breaches(source: &Path, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = source.file_stem().unwrap_or_default().to_string_lossy();
    if ["utils", "util", "helpers", "common", "misc"].contains(&name.as_ref()) {
        wrong.push(format!("{}: a name that says nothing", source.display()));
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        wrong.push(format!("{}: {lines} lines, {LONGEST_FILE} at most", source.display()));
    }
    if !text.starts_with("//!") && !text.starts_with("#!") {
        wrong.push(format!("{}: does not begin by saying what it is", source.display()));
    }
    let locked = |line: &&str| {
        let line = line.trim_start();
        (line.starts_with("static ") || line.starts_with("pub static "))
            && ["Mutex", "RwLock", "LazyLock", "OnceLock"].iter().any(|lock| line.contains(lock))
    };
    wrong.extend(
        text.lines().filter(locked).map(|line| format!("{}: a global: {}", source.display(), line.trim())),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_are_seen() {
        let long = format!("//! x\n{}", "\n".repeat(700));
        assert_eq!(breaches(Path::new("a/utils.rs"), &long).len(), 2);
        assert_eq!(
            breaches(Path::new("a/b.rs"), "fn main() {}\nstatic X: Mutex<u8> = Mutex::new(1);").len(),
            2
        );
        assert!(breaches(Path::new("a/b.rs"), "//! b\nfn main() {}").is_empty());
    }

    #[test]
    fn this_checkout_keeps_the_rules() {
        house_rules(&project::checkout().unwrap()).unwrap();
    }
}
