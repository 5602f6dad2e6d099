//! `cargo xtask fuzz`: the parsers of foreign text against libFuzzer.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::project;

/// The programs of `integration/fuzz`.
const TARGETS: [&str; 5] = ["config", "resources", "process", "state", "handshake"];

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What cargo-fuzz gives the compiler, as far as it is the same on the stable toolchain: coverage, but no sanitizer, since the
/// targets have no unsafe code. What is looked for are panics and hangs.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Fuzzes config.json, --resources, --process, state.json and the messages of the handshake
///
/// What is found stays in the target folder, as a file to give to the target's program.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Only these
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
}

/// Builds the targets and runs each from what earlier runs have learned.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let source = project::checkout()?.join("integration/fuzz");
    let target = project::target()?.join("fuzz");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--target", TRIPLE, "--target-dir"]).arg(&target);
    let built = cargo.env("RUSTFLAGS", FLAGS).current_dir(&source).status().context("start cargo")?;
    ensure!(built.success(), "build the fuzz targets: {built}");
    let mut failed = Vec::new();
    for name in
        TARGETS.iter().filter(|t| arguments.targets.is_empty() || arguments.targets.iter().any(|a| a == *t))
    {
        println!("==== {name}");
        if !one(name, arguments.seconds, &source, &target)? {
            failed.push(*name);
        }
    }
    ensure!(failed.is_empty(), "found something: {}", failed.join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Whether the target held.
fn one(name: &str, seconds: u32, source: &Path, target: &Path) -> Result<bool> {
    let (corpus, found) = (target.join("corpus").join(name), target.join("found"));
    for folder in [&corpus, &found] {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let mut fuzzer = Command::new(target.join(TRIPLE).join("release").join(name));
    fuzzer.arg(format!("-max_total_time={seconds}"));
    fuzzer.args([
        "-timeout=5",
        "-rss_limit_mb=1024",
        "-max_len=20000",
        "-verbosity=0",
        "-print_final_stats=1",
    ]);
    fuzzer.arg(format!("-artifact_prefix={}/{name}-", found.display()));
    // New inputs go to the first folder; the seeds are only read.
    let out = fuzzer.arg(&corpus).arg(source.join("seeds").join(name)).output();
    let out = out.with_context(|| format!("start the target {name}"))?;
    let text = String::from_utf8_lossy(&out.stderr);
    // Its last word counts; all it said is for who looks into what it found.
    let lines: Vec<&str> =
        text.lines().filter(|line| !out.status.success() || line.starts_with("stat::")).collect();
    println!("{}", lines.join("\n"));
    Ok(out.status.success())
}
