//! `seccomp-program PROFILE PROGRAM`: compiles a system call profile, `linux.seccomp` of a config.json, and writes the program that
//! croft-oci loads for it: an array of `struct sock_filter` (seccomp(2)).

use std::env;
use std::error::Error;
use std::fs;

use oci_spec::runtime::LinuxSeccomp;

fn main() -> Result<(), Box<dyn Error>> {
    let [_, profile, program] = env::args_os()
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "usage: seccomp-program PROFILE PROGRAM")?;
    let profile: LinuxSeccomp = serde_json::from_slice(&fs::read(profile)?)?;
    let mut bytes = Vec::new();
    for instruction in &croft_engine::seccomp::program(&profile, None)?.program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    Ok(fs::write(program, bytes)?)
}
