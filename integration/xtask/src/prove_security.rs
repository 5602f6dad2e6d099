//! `cargo xtask prove-security`: the attack tests are tested. Each defence is taken away in a copy of the tree, and its attack has
//! to succeed there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use anyhow::{Context, Result, ensure};

use crate::{project, test};

/// Takes the defence behind each published escape away, one at a time, and sees the attack succeed
///
/// `integration/security/CVE.patch` is applied to a copy of the tree, croft-oci is built from it, and the integration test of
/// that CVE is run with it and, before, with the tree as it is. Exits with 1 unless every attack fails with the defence and
/// succeeds without it. Needs root.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only these, such as 2019-5736
    cves: Vec<String>,
}

/// How an attack went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// It came to nothing: the test passed.
    Failed,
    /// It worked, and the test says so.
    Succeeded,
    /// The test failed for another reason.
    Unclear,
}

impl std::fmt::Display for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Attack::Failed => "fails",
            Attack::Succeeded => "succeeds",
            Attack::Unclear => "unclear",
        })
    }
}

/// One defence that can be taken away.
#[derive(Debug)]
struct Defence {
    cve: String,
    /// The patch's own first line.
    what: String,
    patch: PathBuf,
}

/// Where the copy is built, and what runs the attacks.
#[derive(Debug)]
struct Workshop {
    checkout: PathBuf,
    tree: PathBuf,
    target: PathBuf,
    suite: PathBuf,
}

/// Runs every attack twice and prints the table.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let checkout = project::checkout()?;
    let defences = defences(&checkout.join("integration/security"), &arguments.cves)?;
    ensure!(!defences.is_empty(), "no patch for {}", arguments.cves.join(" "));
    let workshop = Workshop::open(checkout)?;
    let whole = workshop.build("as it is")?;
    let mut rows = Vec::new();
    for defence in &defences {
        println!("==== {}: {}", defence.cve, defence.what);
        let with = workshop.attack(defence, &whole)?;
        let without = workshop.attack(defence, &workshop.build_without(defence)?)?;
        println!("     with the defence it {with}, without it {without}");
        rows.push((defence, with, without));
    }
    let width = defences.iter().map(|d| d.what.chars().count()).max().unwrap_or(0);
    println!("\n{:<16}{:<width$}  with defence  without", "CVE", "defence");
    for (defence, with, without) in &rows {
        println!("{:<16}{:<width$}  {with:<12}  {without}", defence.cve, defence.what);
    }
    let proven =
        rows.iter().all(|(_, with, without)| (*with, *without) == (Attack::Failed, Attack::Succeeded));
    Ok(if proven { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The patches of the folder, in order, whose CVE is asked for.
fn defences(folder: &Path, only: &[String]) -> Result<Vec<Defence>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let patch = entry?.path();
        let Some(name) = patch.file_name().and_then(|n| n.to_str()) else { continue };
        let Some(cve) = name.strip_suffix(".patch").and_then(|n| n.strip_prefix("cve-")) else { continue };
        if !only.is_empty() && !only.iter().any(|o| o.to_lowercase().trim_start_matches("cve-") == cve) {
            continue;
        }
        let text = fs::read_to_string(&patch)?;
        let what = text.lines().next().unwrap_or_default().trim_start_matches("Without ").to_owned();
        found.push(Defence { cve: cve.to_owned(), what, patch });
    }
    found.sort_by(|a, b| a.cve.cmp(&b.cve));
    Ok(found)
}

impl Workshop {
    /// Copies the tree as it lies, changes that are not committed included, and builds the suite.
    fn open(checkout: PathBuf) -> Result<Self> {
        let folder = project::target()?.join("prove-security");
        let tree = folder.join("tree");
        copy_changes(&checkout, &tree)?;
        let suite = test::suite_program()?;
        Ok(Self { checkout, tree, target: folder.join("target"), suite })
    }

    /// Builds croft-oci from the copy as it is now, and keeps the program.
    fn build(&self, name: &str) -> Result<PathBuf> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "croft-oci", "--target-dir"]).arg(&self.target);
        // What only the defence used is unused now, which is no error here.
        cargo.env("RUSTFLAGS", "--cap-lints=warn").current_dir(&self.tree);
        output(&mut cargo).with_context(|| format!("build {name}"))?;
        let kept = self.target.join("kept").join(name.replace(' ', "-"));
        fs::create_dir_all(&kept)?;
        let program = kept.join("croft-oci");
        fs::copy(self.target.join("debug/croft-oci"), &program)?;
        Ok(program)
    }

    fn build_without(&self, defence: &Defence) -> Result<PathBuf> {
        self.patch(defence, &["--recount"])?;
        let built = self.build(&defence.cve);
        self.patch(defence, &["--recount", "--reverse"])?;
        built
    }

    fn patch(&self, defence: &Defence, options: &[&str]) -> Result<()> {
        // Not a repository of its own, so git is told not to look for the one around it.
        let mut git = Command::new("git");
        git.arg("apply").args(options).arg(&defence.patch).current_dir(&self.tree);
        git.env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(&self.tree));
        output(&mut git).with_context(|| format!("the patch of {} does not apply any more", defence.cve))?;
        Ok(())
    }

    fn attack(&self, defence: &Defence, runtime: &Path) -> Result<Attack> {
        let name = format!("attacks::cve_{}", defence.cve.replace('-', "_"));
        let mut suite = Command::new(&self.suite);
        suite.args([&name, "--exact"]).env("CROFT_OCI", runtime).env("CARGO", env!("CARGO"));
        let out = suite.current_dir(&self.checkout).output().context("run the suite")?;
        let text = String::from_utf8_lossy(&out.stdout);
        ensure!(text.contains("running 1 test"), "the suite has no test {name}:\n{text}");
        ensure!(!text.contains("1 ignored"), "this host cannot run {name}:\n{text}");
        Ok(if text.contains("attack succeeded") {
            Attack::Succeeded
        } else if text.contains("test result: ok. 1 passed") {
            Attack::Failed
        } else {
            println!("{text}");
            Attack::Unclear
        })
    }
}

/// Makes `tree` the same as `checkout`. Only what differs is written, with the time of now: cargo then builds what an earlier
/// run has left patched, and nothing else.
fn copy_changes(checkout: &Path, tree: &Path) -> Result<()> {
    fs::create_dir_all(tree)?;
    let mut names = files(checkout)?;
    names.retain(|name| checkout.join(name).is_file());
    for name in &names {
        let (from, to) = (fs::read(checkout.join(name))?, tree.join(name));
        if fs::read(&to).is_ok_and(|there| there == from) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::write(&to, from).with_context(|| format!("copy {name}"))?;
    }
    remove_others(tree, tree, &names)
}

/// What git knows of and what it would add.
fn files(checkout: &Path) -> Result<BTreeSet<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = output(Command::new("git").args(arguments).current_dir(checkout))?;
    let text = String::from_utf8(listed.stdout).context("names in the tree are UTF-8")?;
    Ok(text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn remove_others(tree: &Path, folder: &Path, names: &BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(tree)?.to_str().context("names in the tree are UTF-8")?;
        if path.is_dir() && !path.is_symlink() {
            remove_others(tree, &path, names)?;
        } else if !names.contains(name) {
            fs::remove_file(&path).with_context(|| format!("remove {name}"))?;
        }
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<Output> {
    let out = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_has_a_patch_and_every_patch_a_row() {
        let integration = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let attacks = fs::read_to_string(integration.join("tests/src/attacks/mod.rs")).unwrap();
        let tests: BTreeSet<String> = attacks
            .lines()
            .filter_map(|line| line.trim().strip_prefix("cve_")?.split_once(':'))
            .map(|(cve, _)| cve.replace('_', "-"))
            .collect();
        let found = defences(&integration.join("security"), &[]).unwrap();
        let patches: BTreeSet<String> = found.iter().map(|d| d.cve.clone()).collect();
        assert_eq!(tests, patches);
        assert!(patches.len() >= 20, "{patches:?}");
        let rows = fs::read_to_string(integration.join("security/README.md")).unwrap();
        for Defence { cve, what, .. } in &found {
            assert!(!what.is_empty() && rows.contains(&format!("| {cve} (")), "{cve} has no row");
        }
    }

    #[test]
    fn every_patch_applies() {
        let integration = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for Defence { cve, patch, .. } in defences(&integration.join("security"), &[]).unwrap() {
            let mut git = Command::new("git");
            git.args(["apply", "--recount", "--check"]).arg(patch).current_dir(integration.join(".."));
            output(&mut git).unwrap_or_else(|e| panic!("the patch of {cve}: {e:#}"));
        }
    }
}
