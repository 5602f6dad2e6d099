//! The eBPF program that filters a cgroup2 group's access to devices.

use std::os::fd::{AsFd, BorrowedFd};

use croft_plan::devices::Insn;
use croft_sys::bpf::{self, Instruction};

/// Attaches `code` to the group, and only then detaches what was there, so that there is no moment without a filter.
///
/// # Errors
/// In words: as bpf(2), or what its verifier said.
pub fn replace(group: BorrowedFd<'_>, code: &[Insn]) -> Result<(), String> {
    let program: Vec<Instruction> = code.iter().map(|i| Instruction::from_bytes(i.to_bytes())).collect();
    let program = bpf::load_device_filter("croft_devices", &program).map_err(|e| e.to_string())?;
    let before = bpf::attached(group).map_err(|e| e.to_string())?;
    bpf::attach(group, program.as_fd()).map_err(|e| e.to_string())?;
    for id in before {
        let old = bpf::program(id).map_err(|e| e.to_string())?;
        bpf::detach(group, old.as_fd()).map_err(|e| e.to_string())?;
    }
    Ok(())
}
