//! The eBPF program that filters a cgroup2 group's access to devices.
//!
//! Most containers have the same rules, and the kernel takes half a millisecond to verify and translate their program. So a program that
//! is there already, for another container, is attached a second time: a file by its instructions holds the kernel's identity of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use croft_plan::devices::Insn;
use croft_sys::bpf::{self, Identity, Instruction, Kind};

use crate::cache::{self, Folder};

/// Attaches `code` to the group, and only then detaches what was there, so that there is no moment without a filter.
///
/// # Errors
/// In words: as bpf(2), or what its verifier said.
pub fn replace(group: BorrowedFd<'_>, code: &[Insn]) -> Result<(), String> {
    let folder = cache::place("croft-oci.devices").and_then(|path| Folder::open(&path).ok());
    let (program, id) = program(code, folder.as_ref())?;
    let before = bpf::attached(group).map_err(|e| e.to_string())?;
    // Attached twice it would be refused.
    if !before.contains(&id) {
        bpf::attach(group, program.as_fd()).map_err(|e| e.to_string())?;
    }
    for old in before.into_iter().filter(|old| *old != id) {
        let old = bpf::program(old).map_err(|e| e.to_string())?;
        bpf::detach(group, old.as_fd()).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The program of `code` and its id: the one that the kernel has, or a new one.
fn program(code: &[Insn], folder: Option<&Folder>) -> Result<(OwnedFd, u32), String> {
    let bytes: Vec<u8> = code.iter().flat_map(|insn| insn.to_bytes()).collect();
    let name = cache::file_name(&bytes);
    if let Some(found) = folder.and_then(|folder| find(&folder.read(&name)?, &bytes)) {
        return Ok(found);
    }
    let code: Vec<Instruction> = code.iter().map(|i| Instruction::from_bytes(i.to_bytes())).collect();
    let program = bpf::load(Kind::DeviceFilter, "croft_devices", &code).map_err(|e| e.to_string())?;
    let identity = bpf::identity(program.as_fd(), Kind::DeviceFilter).map_err(|e| e.to_string())?;
    let identity = identity.ok_or("the kernel takes the program that was loaded for one of another kind")?;
    if let Some(folder) = folder {
        // Without the file, the next container has a program of its own.
        let _ = folder.write(&name, &encode(identity, &bytes));
    }
    Ok((program, identity.id))
}

/// id 4 | tag 8 | instructions
fn encode(Identity { id, tag }: Identity, code: &[u8]) -> Vec<u8> {
    [&id.to_ne_bytes()[..], &tag, code].concat()
}

/// The program that a file is about, if that is of these instructions and still there. Its number may be another program's by now, but
/// not with the same hash.
fn find(file: &[u8], code: &[u8]) -> Option<(OwnedFd, u32)> {
    let (id, rest) = file.split_first_chunk()?;
    let (tag, code_there) = rest.split_first_chunk()?;
    let kept = Identity { id: u32::from_ne_bytes(*id), tag: *tag };
    if code_there != code {
        return None;
    }
    let program = bpf::program(kept.id).ok()?;
    let found = bpf::identity(program.as_fd(), Kind::DeviceFilter).ok()?;
    (found == Some(kept)).then_some((program, kept.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that gives `verdict` for every access.
    fn always(verdict: i32) -> [Insn; 2] {
        [(0xb7, verdict), (0x95, 0)].map(|(code, imm)| Insn { code, dst: 0, src: 0, off: 0, imm })
    }

    fn bytes(code: &[Insn]) -> Vec<u8> {
        code.iter().flat_map(|insn| insn.to_bytes()).collect()
    }

    #[test]
    fn the_same_rules_share_a_program() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(&parent.path().join("cache")).unwrap();
        let (first, id) = program(&always(1), Some(&folder)).unwrap();
        let (second, again) = program(&always(1), Some(&folder)).unwrap();
        assert_eq!(again, id);
        let (_other, other) = program(&always(0), Some(&folder)).unwrap();
        assert_ne!(other, id);
        let (_own, own) = program(&always(1), None).unwrap();
        assert_ne!(own, id);
        drop((first, second));
        // The kernel has let go of it, in a moment: a new one takes its place.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while bpf::program(id).is_ok() {
            assert!(std::time::Instant::now() < end, "the program stays");
        }
        let (_third, new) = program(&always(1), Some(&folder)).unwrap();
        assert_ne!(new, id);
        assert_eq!(program(&always(1), Some(&folder)).unwrap().1, new);
    }

    #[test]
    fn a_file_that_is_about_another_program_is_not_believed() {
        let (allow, deny) = (bytes(&always(1)), bytes(&always(0)));
        let (program, _) = program(&always(1), None).unwrap();
        let identity = bpf::identity(program.as_fd(), Kind::DeviceFilter).unwrap().unwrap();
        assert!(find(&encode(identity, &allow), &allow).is_some());
        let tag = identity.tag.map(|byte| !byte);
        for file in [
            encode(identity, &deny),
            encode(Identity { tag, ..identity }, &allow),
            encode(Identity { id: u32::MAX - 7, ..identity }, &allow),
            encode(identity, &allow)[..19].to_vec(),
            Vec::new(),
        ] {
            assert!(find(&file, &allow).is_none(), "{file:?}");
        }
    }
}
