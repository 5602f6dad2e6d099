//! The integration suite. Each subject is a file here; `CROFT_OCI` names the runtime under test.
use std::process::ExitCode;

use croft_harness::Subject;

mod attacks;
mod callers_containerd;
mod callers_docker;
mod callers_podman;
mod coverage;
mod exec;
mod hooks;
mod idmap;
mod limits;
mod limits_v2;
mod mounts;
mod namespaces;
mod network;
mod process;
mod rootless;
mod run;
mod seccomp;
mod systemd;
mod terminal;
mod user_namespace;

const SUBJECTS: &[Subject] = &[
    coverage::SUBJECT,
    run::SUBJECT,
    process::SUBJECT,
    mounts::SUBJECT,
    limits::SUBJECT,
    limits_v2::SUBJECT,
    hooks::SUBJECT,
    network::SUBJECT,
    seccomp::SUBJECT,
    namespaces::SUBJECT,
    user_namespace::SUBJECT,
    idmap::SUBJECT,
    rootless::SUBJECT,
    systemd::SUBJECT,
    attacks::SUBJECT,
    exec::SUBJECT,
    terminal::SUBJECT,
    callers_podman::SUBJECT,
    callers_docker::SUBJECT,
    callers_containerd::SUBJECT,
];

fn main() -> ExitCode {
    croft_harness::suite::main(SUBJECTS, concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}
