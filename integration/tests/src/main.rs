//! The integration suite. Each subject is a file here; `CROFT_OCI` names the runtime under test.
use std::process::ExitCode;

use croft_harness::Subject;

mod attacks;
mod bad_input;
mod callers_containerd;
mod callers_docker;
mod callers_podman;
mod coverage;
mod crash;
mod daemon;
mod daemon_api;
mod daemon_cdi;
mod daemon_check;
mod daemon_crash;
mod daemon_faults;
mod daemon_files;
mod daemon_health;
mod daemon_images;
mod daemon_lists;
mod daemon_networks;
mod daemon_options;
mod daemon_remote;
mod daemon_service;
mod daemon_streams;
mod daemon_systemd;
mod daemon_transfers;
mod daemon_volumes;
mod daemon_watch;
mod exec;
mod faults;
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
mod verbs;
mod wording;

const SUBJECTS: &[Subject] = &[
    coverage::SUBJECT,
    run::SUBJECT,
    verbs::SUBJECT,
    wording::SUBJECT,
    bad_input::SUBJECT,
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
    faults::SUBJECT,
    crash::SUBJECT,
    daemon::SUBJECT,
    daemon_api::SUBJECT,
    daemon_networks::SUBJECT,
    daemon_health::SUBJECT,
    daemon_options::SUBJECT,
    daemon_cdi::SUBJECT,
    daemon_streams::SUBJECT,
    daemon_faults::SUBJECT,
    daemon_files::SUBJECT,
    daemon_images::SUBJECT,
    daemon_systemd::SUBJECT,
    daemon_transfers::SUBJECT,
    daemon_volumes::SUBJECT,
    daemon_crash::SUBJECT,
    daemon_check::SUBJECT,
    daemon_lists::SUBJECT,
    daemon_remote::SUBJECT,
    daemon_service::SUBJECT,
    daemon_watch::SUBJECT,
    callers_podman::SUBJECT,
    callers_docker::SUBJECT,
    callers_containerd::SUBJECT,
];

fn main() -> ExitCode {
    croft_harness::suite::main(SUBJECTS, concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
}
