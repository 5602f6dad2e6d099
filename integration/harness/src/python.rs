//! Programs of the Python Package Index, each in an environment of its own in the cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Entry;
use crate::process;

/// Fetching from the index ends within this, or something is wrong with the network.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// schemathesis and what it needs, each with its version: the same requests are made on every machine.
const SCHEMATHESIS: &str = include_str!("python/schemathesis.txt");

/// The folder of schemathesis, which tries an HTTP API by its OpenAPI document. It is run as `bin/python bin/st`: the first line
/// of `st` has the name that the folder had when it was made.
///
/// What is not there is fetched, which the suite cannot, in its own network namespace. `cargo xtask test` does before.
pub fn schemathesis() -> Result<PathBuf> {
    environment("schemathesis", SCHEMATHESIS)
}

/// An environment with packages as pip(1) lists them. Needs Debian's package `python3-venv`.
fn environment(name: &str, requirements: &str) -> Result<PathBuf> {
    Entry::by_hash(name, requirements.to_owned()).ready(|new, _| {
        let list = new.join("requirements.txt");
        fs::write(&list, requirements).with_context(|| format!("write {}", list.display()))?;
        // Debian's own python, which python3-venv goes with, and not another that is first in PATH.
        process::run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(new), FETCH_LIMIT)?
            .success()?;
        let mut pip = Command::new(new.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]);
        process::run(pip.arg("--requirement").arg(list), FETCH_LIMIT)?.success().map(drop)
    })
}
