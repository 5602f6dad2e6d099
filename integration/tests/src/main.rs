//! The integration suite. Each subject is a file here; `CROFT_OCI` names the runtime under test.
use std::process::ExitCode;

use croft_harness::Subject;

mod callers_containerd;
mod callers_docker;
mod callers_podman;
mod hooks;
mod limits;
mod mounts;
mod network;
mod process;
mod run;

const SUBJECTS: &[Subject] = &[
    run::SUBJECT,
    process::SUBJECT,
    mounts::SUBJECT,
    limits::SUBJECT,
    hooks::SUBJECT,
    network::SUBJECT,
    callers_podman::SUBJECT,
    callers_docker::SUBJECT,
    callers_containerd::SUBJECT,
];

fn main() -> ExitCode {
    croft_harness::suite::main(SUBJECTS, concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}
