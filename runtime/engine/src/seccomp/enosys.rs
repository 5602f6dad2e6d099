//! A prologue that answers ENOSYS to system calls newer than the profile.
//!
//! Programs try a new call and take ENOSYS as "this kernel is old": they fall back to an older call. The default action of a
//! profile written before the call existed, mostly EPERM, they take as final. So a call with a number above all those that the
//! profile names, whatever it says of them, is answered as by the kernel that the profile's author knew. Calls that the
//! profile's author knew and left out still get the default action.
//!
//! This is done for default actions that refuse. One that lets calls through (allow, log) has nothing to mend, and with trace it
//! is the tracer who answers.

use super::compile::architecture;
use croft_sys::seccomp::SockFilter;
use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};
use oci_spec::runtime::{Arch, LinuxSeccomp};
use std::collections::BTreeMap;

/// The bit that marks a call of the x32 ABI, which shares its architecture with x86-64 (`__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 0x4000_0000;

/// The architecture of x86-64 and x32 as the kernel tells it (`AUDIT_ARCH_X86_64`).
const AUDIT_X86_64: u32 = 0xc000_003e;

/// What a program is answered whose call is too new.
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// What happens to the calls up to a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The rules decide.
    Rules,
    /// They are too new.
    TooNew,
}

/// For each architecture, as the kernel tells it, what happens to all calls up to which number: in rising order, each from where
/// the one before ends, the last up to the largest number.
pub(super) type Answers = BTreeMap<u32, Vec<(u32, Answer)>>;

/// The newest call that the profile knows of each ABI, as ranges of [`Answers`]. Empty if the default action asks for none.
pub(super) fn newest(profile: &LinuxSeccomp, default: ScmpAction) -> Answers {
    let refuses = match default {
        ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_) => false,
        ScmpAction::Errno(errno) => errno != libc::ENOSYS,
        _ => true,
    };
    if !refuses {
        return Answers::new();
    }
    // libseccomp always has rules for the machine's own architecture, listed or not.
    let listed = profile.architectures().iter().flatten().map(|name| architecture(*name));
    let mut answers = Answers::new();
    let mut wide = (None, None); // x86-64 and x32
    for abi in listed.chain([ScmpArch::native()]) {
        let Some(newest) = newest_of(profile, abi) else { continue };
        match abi {
            ScmpArch::X8664 => wide.0 = Some(newest),
            ScmpArch::X32 => wide.1 = Some(newest),
            _ => {
                answers.insert(audit(abi), up_to(newest, own_range(abi)));
            }
        }
    }
    if wide != (None, None) {
        answers.insert(AUDIT_X86_64, wide_answers(wide.0, wide.1));
    }
    answers
}

/// The highest number that a rule of the profile names in `abi`, its own range left out. `None`: it names none.
fn newest_of(profile: &LinuxSeccomp, abi: ScmpArch) -> Option<u32> {
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    names
        .filter_map(|name| ScmpSyscall::from_name_by_arch(name, abi).ok())
        // Negative numbers are libseccomp's own, for calls that this architecture does not have.
        .filter_map(|call| u32::try_from(i32::from(call)).ok())
        .filter(|number| own_range(abi).is_none_or(|(first, last)| *number < first || *number > last))
        .max()
}

/// Numbers of an ABI that stand apart from the sequence in which new calls are numbered.
fn own_range(abi: ScmpArch) -> Option<(u32, u32)> {
    match abi {
        // Calls whose x32 form differs (syscall_64.tbl of Linux: "Do not add new syscalls to this range").
        ScmpArch::X32 => Some((X32_BIT + 512, X32_BIT + 547)),
        // __ARM_NR_BASE: breakpoint, cacheflush, set_tls.
        ScmpArch::Arm => Some((0x000f_0000, 0x000f_ffff)),
        _ => None,
    }
}

/// An ABI that is alone in its architecture.
fn up_to(newest: u32, own: Option<(u32, u32)>) -> Vec<(u32, Answer)> {
    let mut answers = vec![(newest, Answer::Rules)];
    if let Some((first, last)) = own {
        answers.extend([(first - 1, Answer::TooNew), (last, Answer::Rules)]);
    }
    answers.push((u32::MAX, Answer::TooNew));
    in_order(answers)
}

/// x86-64 below the x32 bit, x32 from there on, and no call at all from 2^31. An ABI that the profile does not have, or of which
/// it names no call, is left to the rules.
fn wide_answers(x86_64: Option<u32>, x32: Option<u32>) -> Vec<(u32, Answer)> {
    let mut answers = Vec::new();
    if let Some(newest) = x86_64 {
        answers.push((newest, Answer::Rules));
    }
    let old_end = if x86_64.is_some() { Answer::TooNew } else { Answer::Rules };
    answers.push((X32_BIT - 1, old_end));
    if let Some(newest) = x32 {
        answers.push((newest, Answer::Rules));
        let (first, last) = own_range(ScmpArch::X32).expect("x32 has a range of its own");
        answers.extend([(first - 1, Answer::TooNew), (last, Answer::Rules)]);
    }
    let end = if x32.is_some() { Answer::TooNew } else { Answer::Rules };
    answers.extend([(2 * X32_BIT - 1, end), (u32::MAX, Answer::TooNew)]);
    in_order(answers)
}

/// Leaves out ranges that the one before has swallowed (the newest call may lie above the ABI's own range), and joins equals.
fn in_order(answers: Vec<(u32, Answer)>) -> Vec<(u32, Answer)> {
    let mut ordered: Vec<(u32, Answer)> = Vec::new();
    for (last, answer) in answers {
        match ordered.last_mut() {
            Some((end, _)) if *end >= last => {}
            Some((end, before)) if *before == answer => *end = last,
            _ => ordered.push((last, answer)),
        }
    }
    ordered
}

/// The architecture's number in `struct seccomp_data`, which oci-spec and libseccomp use too (x32 apart).
fn audit(abi: ScmpArch) -> u32 {
    const ALL: [Arch; 23] = [
        Arch::ScmpArchX86,
        Arch::ScmpArchX86_64,
        Arch::ScmpArchX32,
        Arch::ScmpArchArm,
        Arch::ScmpArchAarch64,
        Arch::ScmpArchMips,
        Arch::ScmpArchMips64,
        Arch::ScmpArchMips64n32,
        Arch::ScmpArchMipsel,
        Arch::ScmpArchMipsel64,
        Arch::ScmpArchMipsel64n32,
        Arch::ScmpArchPpc,
        Arch::ScmpArchPpc64,
        Arch::ScmpArchPpc64le,
        Arch::ScmpArchS390,
        Arch::ScmpArchS390x,
        Arch::ScmpArchParisc,
        Arch::ScmpArchParisc64,
        Arch::ScmpArchRiscv64,
        Arch::ScmpArchLoongarch64,
        Arch::ScmpArchM68k,
        Arch::ScmpArchSh,
        Arch::ScmpArchSheb,
    ];
    let name = ALL.into_iter().find(|name| architecture(*name) == abi);
    name.expect("every architecture of libseccomp has a name in the spec") as u32
}

/// The prologue's instructions: they answer ENOSYS, or go on after the last one. They use only what the kernel can see through
/// when it works out which calls are always allowed (`seccomp_is_const_allow`), so that those stay free.
pub(super) fn prologue(answers: &Answers) -> Vec<SockFilter> {
    const LOAD: u16 = 0x20;
    const JUMP: u16 = 0x05;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0; // offsets in struct seccomp_data
    const ARCHITECTURE: u32 = 4;
    let plain = |code, k| SockFilter { code, jt: 0, jf: 0, k };
    if answers.is_empty() {
        return Vec::new();
    }
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    for (architecture, ranges) in answers {
        // For each range a comparison and its answer, but for the last, which needs no comparison; before them the load.
        let length = 2 * ranges.len();
        program.push(SockFilter { code: JUMP_IF_EQUAL, jt: 0, jf: length as u8, k: *architecture });
        program.push(plain(LOAD, NUMBER));
        for (last, answer) in ranges {
            if *last != u32::MAX {
                program.push(SockFilter { code: JUMP_IF_GREATER, jt: 1, jf: 0, k: *last });
            }
            program.push(match answer {
                Answer::Rules => plain(JUMP, 0), // to the end, below
                Answer::TooNew => plain(RETURN, ENOSYS),
            });
        }
    }
    let end = program.len();
    for (position, instruction) in program.iter_mut().enumerate() {
        if instruction.code == JUMP {
            instruction.k = (end - position - 1) as u32;
        }
    }
    program
}
