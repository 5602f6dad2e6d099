//! The store against real files, a real registry and other people's tools. Runs as root, in namespaces of its own.

mod archives;
mod crash;
mod flaky;
mod hostile;
mod pull;
mod registry;
mod sample;
mod snapshot;
mod speed;
mod tree;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use croft_harness::{Host, debian};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A test: its name, the Debian packages that it needs, and itself.
type Test = (&'static str, &'static [&'static str], fn() -> Result<()>);

const SUBJECTS: [(&str, &[Test]); 5] = [
    ("archives", archives::TESTS),
    ("crash", crash::TESTS),
    ("hostile", hostile::TESTS),
    ("pull", pull::TESTS),
    ("snapshot", snapshot::TESTS),
];

fn main() -> ExitCode {
    if let Some(at) = std::env::var_os(crash::VICTIM) {
        return match crash::victim(at.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("images: victim: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let args = Arguments::from_args();
    let tests =
        || SUBJECTS.iter().flat_map(|(subject, tests)| tests.iter().map(move |test| (*subject, test)));
    let slow = || speed::TESTS.iter().map(|test| ("speed", test));
    let mut lacking = BTreeSet::new();
    if !args.list {
        if croft_sys::credentials::user().1 != 0 {
            lacking.insert("root");
        } else {
            // The archive is out of reach of the namespaces below.
            lacking.extend(missing(tests().chain(slow()).map(|(_, test)| test.1)));
            // Before any other thread exists: mounts and the registry's port are nobody else's business.
            if let Err(error) = Host::settle_apart().and_then(|_| Ok(croft_sys::loopback::up()?)) {
                eprintln!("images: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    let trials = tests().map(|(subject, test)| trial(subject, test, &lacking));
    let slow = slow().map(|(subject, test)| trial(subject, test, &lacking).with_ignored_flag(true));
    libtest_mimic::run(&args, trials.chain(slow).collect()).exit_code()
}

/// Those packages of the tests that are not there and cannot be installed.
fn missing(sets: impl Iterator<Item = &'static [&'static str]>) -> BTreeSet<&'static str> {
    let all: BTreeSet<&str> = sets.flatten().copied().collect();
    let together: Vec<&str> = all.iter().copied().collect();
    if debian::ensure_packages(&together).is_ok() {
        return BTreeSet::new();
    }
    all.into_iter().filter(|package| debian::ensure_packages(&[package]).is_err()).collect()
}

fn trial(subject: &str, (name, packages, test): &'static Test, lacking: &BTreeSet<&'static str>) -> Trial {
    let needs = packages.iter().chain(&["root"]).find(|need| lacking.contains(*need)).copied();
    Trial::ignorable_test(format!("{subject}::{name}"), move || match needs {
        Some(need) => Ok(Completion::ignored_with(format!("needs {need}"))),
        None => test().map(|()| Completion::Completed).map_err(|e| Failed::from(format!("{e:#}"))),
    })
}
