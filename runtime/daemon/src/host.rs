//! `croftd check`: what this host can and cannot do, with the cure for each; `--fix` does the safe ones.

mod checks;
mod fix;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::args::{Args, CheckArgs, CheckFormat};
use fix::Fix;

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What: `cgroup2`, `program nft`, `sysctl fs.inotify.max_user_instances`, ...
    pub what: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// What `--fix` does.
    #[serde(skip)]
    fix: Option<Fix>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// croft works, and something does not.
    Limited,
    /// croft does not work.
    Missing,
}

/// Where to look: the host's files, or those of a folder that stands for a host.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }
}

impl Check {
    fn new(what: impl Into<String>, state: State, found: impl Into<String>) -> Self {
        Check { what: what.into(), state, found: found.into(), cure: None, fix: None }
    }

    /// With a cure, unless there is nothing to cure.
    fn cure(mut self, cure: impl Into<String>) -> Self {
        if self.state != State::Ok {
            self.cure = Some(cure.into());
        }
        self
    }

    fn fix(mut self, fix: Fix) -> Self {
        if self.state != State::Ok {
            self.fix = Some(fix);
        }
        self
    }
}

/// Looks, fixes what is to be fixed, and prints. Whether croft works on this host.
///
/// # Errors
/// When a fix fails.
pub fn check(args: &Args, asked: &CheckArgs) -> Result<bool> {
    let host = Host { root: asked.host_root.clone() };
    let mut found = checks::all(&host, args);
    if asked.fix {
        for fix in found.iter().filter_map(|check| check.fix.as_ref()) {
            eprintln!("croftd check: {}", fix.apply(&host)?);
        }
        found = checks::all(&host, args);
    }
    match asked.format {
        CheckFormat::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        CheckFormat::Table => found.iter().for_each(print),
    }
    Ok(found.iter().all(|check| check.state != State::Missing))
}

fn print(check: &Check) {
    let word = match check.state {
        State::Ok => "ok",
        State::Limited => "limited",
        State::Missing => "MISSING",
    };
    println!("{word:8} {:40} {}", check.what, check.found);
    if let Some(cure) = &check.cure {
        println!("{:8} {:40} -> {cure}{}", "", "", if check.fix.is_some() { " (or --fix)" } else { "" });
    }
}
