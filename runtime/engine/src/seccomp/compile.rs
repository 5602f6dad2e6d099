//! A profile becomes a program: libseccomp does the rules, [`super::enosys`] what comes before them.

use super::{Entry, SeccompError, enosys};
use croft_sys::seccomp::{MAX_INSTRUCTIONS, SockFilter};
use libseccomp::error::{SeccompErrno, SeccompError as LibraryError};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use rustix::fs::MemfdFlags;
use std::collections::BTreeSet;
use std::io::{Read, Seek};

/// The largest errno that libseccomp takes, one less than the kernel's own limit (`MAX_ERRNO` of linux/err.h).
const MAX_ERRNO: u32 = 4094;

/// The largest value that a tracer can be told (`SECCOMP_RET_DATA`).
const MAX_TRACE: u32 = 0xffff;

/// Compiles a profile.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Entry, SeccompError> {
    let default = action("the default action", profile.default_action(), profile.default_errno_ret())?;
    if default == ScmpAction::Notify {
        return Err(SeccompError::NotifyByDefault);
    }
    let mut filter = ScmpFilterContext::new(default).map_err(library("start a filter"))?;
    // A binary tree over the numbers: it installs in less than half the time of a list, and runs faster.
    filter.set_ctl_optimize(2).map_err(library("choose a binary tree"))?;
    for name in profile.architectures().iter().flatten() {
        filter
            .add_arch(architecture(*name))
            .map_err(|source| SeccompError::Architecture { name: name.to_string(), source })?;
    }
    let mut unknown = BTreeSet::new();
    for rule in profile.syscalls().iter().flatten() {
        add(&mut filter, profile, default, rule, &mut unknown)?;
    }
    let mut program = enosys::prologue(&enosys::newest(profile, default));
    program.extend(export(&filter)?);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(program.len()));
    }
    // One warning for all: the log of each container has it.
    let names = unknown.into_iter().collect::<Vec<String>>().join(", ");
    let warnings = match names.is_empty() {
        true => Vec::new(),
        false => vec![format!("seccomp: left out is what libseccomp does not know: {names}")],
    };
    Ok(Entry { program, warnings })
}

/// Adds one rule of the profile, which may name many system calls.
fn add(
    filter: &mut ScmpFilterContext,
    profile: &LinuxSeccomp,
    default: ScmpAction,
    rule: &LinuxSyscall,
    unknown: &mut BTreeSet<String>,
) -> Result<(), SeccompError> {
    for name in rule.names() {
        if name.is_empty() {
            return Err(SeccompError::EmptyName);
        }
        let action = action(name, rule.action(), rule.errno_ret())?;
        if action == ScmpAction::Notify {
            if name == "write" {
                return Err(SeccompError::NotifyOf(name.clone()));
            }
            if profile.listener_path().is_none() {
                return Err(SeccompError::NoListener(name.clone()));
            }
        }
        // libseccomp refuses a rule that changes nothing.
        if action == default {
            continue;
        }
        let Ok(call) = ScmpSyscall::from_name(name) else {
            unknown.insert(name.clone());
            continue;
        };
        for conditions in alternatives(name, rule.args().as_deref().unwrap_or_default())? {
            match filter.add_rule_conditional(action, call, &conditions) {
                Err(error) if error.errno() == Some(SeccompErrno::EEXIST) => {} // said before in the profile
                result => {
                    result.map_err(|source| SeccompError::Rule { call: name.clone(), source })?;
                }
            }
        }
    }
    Ok(())
}

/// The conditions of a rule: all of a list must hold, for any of the lists. There is one list, unless two conditions are on the
/// same argument: libseccomp cannot join those, and each condition then stands alone, as runc has it and profiles rely on.
fn alternatives(call: &str, args: &[LinuxSeccompArg]) -> Result<Vec<Vec<ScmpArgCompare>>, SeccompError> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for arg in args {
        if arg.index() > 5 {
            return Err(SeccompError::NoSuchArgument { call: call.to_owned(), index: arg.index() });
        }
        seen.insert(arg.index());
        all.push(condition(arg));
    }
    if seen.len() == all.len() { Ok(vec![all]) } else { Ok(all.into_iter().map(|one| vec![one]).collect()) }
}

fn condition(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let index = arg.index() as u32;
    let operator = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            // runtime-spec: `value` is the mask here, `valueTwo` what must remain.
            let masked = ScmpCompareOp::MaskedEqual(arg.value());
            return ScmpArgCompare::new(index, masked, arg.value_two().unwrap_or(0));
        }
    };
    ScmpArgCompare::new(index, operator, arg.value())
}

/// The action as libseccomp wants it; the errno, EPERM if none is given, is part of it.
fn action(subject: &str, action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, SeccompError> {
    let value = |most| match errno {
        None => Ok(libc::EPERM as u32),
        Some(errno) if errno <= most => Ok(errno),
        Some(errno) => Err(SeccompError::LargeErrno { subject: subject.to_owned(), errno, most }),
    };
    let action_without = match action {
        LinuxSeccompAction::ScmpActErrno => return Ok(ScmpAction::Errno(value(MAX_ERRNO)? as i32)),
        LinuxSeccompAction::ScmpActTrace => return Ok(ScmpAction::Trace(value(MAX_TRACE)? as u16)),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    };
    match errno {
        None => Ok(action_without),
        Some(errno) => Err(SeccompError::UnwantedErrno {
            subject: subject.to_owned(),
            action: action.to_string(),
            errno,
        }),
    }
}

/// The architecture as libseccomp calls it.
pub(super) fn architecture(name: Arch) -> ScmpArch {
    match name {
        Arch::ScmpArchNative => ScmpArch::native(),
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

/// Takes the finished program out of libseccomp, which only writes it to an fd.
fn export(filter: &ScmpFilterContext) -> Result<Vec<SockFilter>, SeccompError> {
    let failed = |op| move |source: std::io::Error| SeccompError::Export { op, source };
    let memory = rustix::fs::memfd_create("seccomp", MemfdFlags::CLOEXEC)
        .map_err(|errno| failed("make room for the program")(errno.into()))?;
    let mut file = std::fs::File::from(memory);
    filter.export_bpf(&file).map_err(library("generate the program"))?;
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(failed("read the program"))?;
    Ok(instructions(&bytes))
}

/// The instructions in these bytes, eight to each, in the order of `struct sock_filter`.
pub(super) fn instructions(bytes: &[u8]) -> Vec<SockFilter> {
    let instruction = |b: &[u8]| SockFilter {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    bytes.chunks_exact(8).map(instruction).collect()
}

fn library(op: &'static str) -> impl Fn(LibraryError) -> SeccompError {
    move |source| SeccompError::Library { op, source }
}
