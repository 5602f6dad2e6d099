//! `cargo xtask test`: all tests, natively and in the virtual machine.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::check::{self, cargo};
use croft_harness::build::{self, Build};

use crate::{packages, project};

/// Runs all tests: checks, unit and plan tests, the integration suite here, against runc and in the virtual machine, and
/// the conformance programs.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only these parts, in this order
    #[arg(value_enum)]
    parts: Vec<Part>,
}

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Form, lints, documentation, house rules.
    Check,
    /// What needs no container.
    Unit,
    /// The integration suite on this host.
    Native,
    /// The integration suite against Debian's runc, so that the tests are tested too.
    Runc,
    /// The integration suite in a virtual machine with the unified cgroup v2 hierarchy.
    Vm,
    /// The validation programs of OCI runtime-tools.
    Conformance,
}

const ALL: [Part; 6] = [Part::Check, Part::Unit, Part::Native, Part::Runc, Part::Vm, Part::Conformance];

/// Runs the parts and says at the end how each went.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    packages::for_tests()?;
    let parts = if arguments.parts.is_empty() { ALL.to_vec() } else { arguments.parts.clone() };
    let mut failed = Vec::new();
    let mut summary = Vec::new();
    for part in parts {
        println!("\n==== {part:?}");
        let begun = Instant::now();
        let outcome = one(part);
        let seconds = begun.elapsed().as_secs();
        if let Err(error) = &outcome {
            eprintln!("xtask: {part:?}: {error:#}");
            failed.push(part);
        }
        summary
            .push(format!("{part:?}: {} in {seconds} s", if outcome.is_ok() { "passed" } else { "FAILED" }));
    }
    println!("\n==== Summary\n{}", summary.join("\n"));
    ensure!(failed.is_empty(), "failed: {failed:?}");
    Ok(ExitCode::SUCCESS)
}

fn one(part: Part) -> Result<()> {
    match part {
        Part::Check => check::run(&check::Arguments {}).map(drop),
        Part::Unit => cargo(&["test", "--quiet", "--workspace", "--exclude", "croft-integration"]),
        Part::Native => suite(&build::croft_oci()?),
        Part::Runc => suite(Path::new("/usr/sbin/runc")),
        Part::Vm => in_vm(),
        Part::Conformance => {
            build::croft_oci()?;
            this_program(&["conformance"])
        }
    }
}

fn suite(runtime: &Path) -> Result<()> {
    println!("$ CROFT_OCI={} cargo test -p croft-integration", runtime.display());
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--quiet", "-p", "croft-integration"]).current_dir(project::checkout()?);
    let status = command.env("CROFT_OCI", runtime).status()?;
    ensure!(status.success(), "the suite against {}: {status}", runtime.display());
    Ok(())
}

/// Subjects that do not depend on the kind of host, and for which the guest's processor, about twenty times slower, has no time.
const NATIVE_ONLY: [&str; 4] = ["attacks::", "bad_input::", "crash::", "faults::"];

/// The suite's own program is run in the guest, where there is no cargo: once with a shell as process 1, and with systemd for
/// what needs it.
fn in_vm() -> Result<()> {
    let croft_oci = build::croft_oci()?;
    build::probe()?;
    build::daemon(Build::Debug)?;
    let suite = suite_program()?;
    let env = format!("CROFT_OCI={}", croft_oci.display());
    let suite = suite.to_str().context("the target folder's path is not UTF-8")?;
    let run = |options: &[&str], filters: &[&str]| {
        let limits = ["vm", "--timeout", "2400", "--env", &env];
        this_program(&[&limits, options, &["--", suite], filters].concat())
    };
    let skipped: Vec<&str> = NATIVE_ONLY.iter().flat_map(|subject| ["--skip", subject]).collect();
    run(&[], &skipped)?;
    run(&["--systemd"], &["systemd::"])
}

/// Builds the integration suite and finds its program in what cargo says.
pub fn suite_program() -> Result<PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--quiet", "-p", "croft-integration", "--no-run", "--message-format", "json"]);
    let out = command.current_dir(project::checkout()?).output()?;
    ensure!(out.status.success(), "build the suite: {}", String::from_utf8_lossy(&out.stderr));
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let is_suite = message["package_id"].as_str().is_some_and(|id| id.contains("croft-integration"))
            || message["target"]["src_path"].as_str().is_some_and(|p| p.contains("integration/tests/"));
        if let (true, Some(program)) = (is_suite, message["executable"].as_str()) {
            return Ok(PathBuf::from(program));
        }
    }
    bail!("cargo named no program of the suite")
}

/// Runs another command of this program.
fn this_program(args: &[&str]) -> Result<()> {
    println!("$ cargo xtask {}", args.join(" "));
    let status = Command::new(project::this_program()?).args(args).status()?;
    ensure!(status.success(), "cargo xtask {}: {status}", args.join(" "));
    Ok(())
}
