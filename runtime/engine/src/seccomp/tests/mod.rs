//! What profiles become, judged by running the programs in the interpreter, and once in the kernel.

mod cached;
mod docker;
mod newer;
mod rules;

use super::*;
use libseccomp::{ScmpArch, ScmpSyscall};

/// `AUDIT_ARCH_I386`.
const I386: u32 = 0x4000_0003;

fn profile(json: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn compiled(json: serde_json::Value) -> Vec<SockFilter> {
    program(&profile(json), None).unwrap().program
}

/// The number of a call on this machine.
fn number(name: &str) -> u32 {
    u32::try_from(i32::from(ScmpSyscall::from_name_by_arch(name, ScmpArch::Native).unwrap())).unwrap()
}

/// What a program returns for a call with known arguments, which is one thing.
fn run_on(program: &[SockFilter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let attempt = Attempt { number, architecture, arguments: Arguments::Known(arguments) };
    let outcomes = outcomes(program, attempt).unwrap();
    assert_eq!(outcomes.len(), 1, "{outcomes:x?}");
    *outcomes.first().unwrap()
}

fn run(program: &[SockFilter], name: &str, arguments: [u64; 6]) -> u32 {
    run_on(program, check::NATIVE, number(name), arguments)
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

/// Says on the real standard error what was not tested, and why.
fn skipped(test: &str, why: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").unwrap();
}
