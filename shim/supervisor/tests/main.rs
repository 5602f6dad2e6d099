//! The supervisor with the real croft-oci and real containers. Each subject is a file here.
use std::process::ExitCode;

use croft_harness::{Host, Subject, build};

mod figures;
mod fixture;
mod killed_clients;
mod logs;
mod restart;
mod streams;
mod supervision;

const SUBJECTS: &[Subject] = &[
    fixture::SUBJECT,
    supervision::SUBJECT,
    streams::SUBJECT,
    restart::SUBJECT,
    logs::SUBJECT,
    killed_clients::SUBJECT,
    figures::SUBJECT,
];

fn main() -> ExitCode {
    // The suite runs itself once more as a client that it can kill.
    let words: Vec<String> = std::env::args().collect();
    if let [_, part, rest @ ..] = words.as_slice()
        && part == killed_clients::PART
    {
        return killed_clients::client(rest);
    }
    croft_harness::suite::main_of(
        || {
            build::croft_shim()?;
            Host::of(build::croft_oci()?)
        },
        SUBJECTS,
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests"),
    )
}
