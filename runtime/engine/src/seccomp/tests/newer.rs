//! Calls newer than the profile get ENOSYS, and nothing else changes.

use super::*;
use crate::seccomp::enosys::prologue;
use proptest::prelude::*;
use serde_json::json;

const X86_64: &str = "SCMP_ARCH_X86_64";
const X86: &str = "SCMP_ARCH_X86";
const X32: &str = "SCMP_ARCH_X32";
const X32_BIT: u32 = 0x4000_0000;
const NONE: [u64; 6] = [0; 6];

fn allowing(default: &str, architectures: &[&str], names: &[&str]) -> serde_json::Value {
    json!({
        "defaultAction": default, "architectures": architectures,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]
    })
}

#[test]
fn it_begins_after_the_newest_call_that_is_named() {
    let program = compiled(allowing("SCMP_ACT_ERRNO", &[X86_64], &["mkdir", "openat2"]));
    let newest = number("openat2");
    for (number, wanted) in [
        (newest, libc::SECCOMP_RET_ALLOW),
        (newest - 1, errno(libc::EPERM)),
        (newest + 1, errno(libc::ENOSYS)),
        (X32_BIT - 1, errno(libc::ENOSYS)),
        (u32::MAX, errno(libc::ENOSYS)),
        (X32_BIT | 5, libc::SECCOMP_RET_KILL_THREAD),
    ] {
        assert_eq!(run_on(&program, check::NATIVE, number, NONE), wanted, "{number}");
    }
}

#[test]
fn a_rule_of_any_kind_makes_a_call_known() {
    let mut profile = allowing("SCMP_ACT_ERRNO", &[X86_64], &["mkdir"]);
    let syscalls = profile["syscalls"].as_array_mut().unwrap();
    syscalls.push(json!({"names": ["openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}));
    syscalls.push(json!({"names": ["close_range"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}]}));
    let program = compiled(profile);
    assert_eq!(run(&program, "close_range", NONE), errno(libc::EPERM));
    assert_eq!(run(&program, "openat2", NONE), errno(libc::EPERM));
    assert_eq!(run(&program, "pidfd_getfd", NONE), errno(libc::ENOSYS));
}

#[test]
fn each_abi_has_its_own_newest_call() {
    // mmap2 is x86's alone, where it has the number 192; mkdir has 39 there and 83 elsewhere.
    let program = compiled(allowing("SCMP_ACT_ERRNO", &[X86_64, X86, X32], &["mkdir", "mmap2"]));
    for (architecture, number, wanted) in [
        (I386, 192, libc::SECCOMP_RET_ALLOW),
        (I386, 191, errno(libc::EPERM)),
        (I386, 193, errno(libc::ENOSYS)),
        (I386, u32::MAX, errno(libc::ENOSYS)),
        (check::NATIVE, 83, libc::SECCOMP_RET_ALLOW),
        (check::NATIVE, 84, errno(libc::ENOSYS)),
        (check::NATIVE, X32_BIT | 83, libc::SECCOMP_RET_ALLOW),
        (check::NATIVE, X32_BIT | 82, errno(libc::EPERM)),
        (check::NATIVE, X32_BIT | 84, errno(libc::ENOSYS)),
        // x32's own range is old, and not in sequence with the rest.
        (check::NATIVE, X32_BIT | 511, errno(libc::ENOSYS)),
        (check::NATIVE, X32_BIT | 512, errno(libc::EPERM)),
        (check::NATIVE, X32_BIT | 547, errno(libc::EPERM)),
        (check::NATIVE, X32_BIT | 548, errno(libc::ENOSYS)),
    ] {
        assert_eq!(run_on(&program, architecture, number, NONE), wanted, "{architecture:x} {number:x}");
    }
}

#[test]
fn a_call_of_x32s_own_range_does_not_hide_newer_ones() {
    // rt_sigaction is 512 in x32, mkdir 83.
    let program = compiled(allowing("SCMP_ACT_ERRNO", &[X86_64, X32], &["mkdir", "rt_sigaction"]));
    assert_eq!(run_on(&program, check::NATIVE, X32_BIT | 512, NONE), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run_on(&program, check::NATIVE, X32_BIT | 451, NONE), errno(libc::ENOSYS));
}

#[test]
fn an_architecture_of_which_nothing_is_named_is_left_to_its_rules() {
    let program = compiled(allowing("SCMP_ACT_ERRNO", &[X86_64, X86], &["mmap2"]));
    assert_eq!(run_on(&program, check::NATIVE, 5000, NONE), errno(libc::EPERM));
    assert_eq!(run_on(&program, I386, 5000, NONE), errno(libc::ENOSYS));
    assert_eq!(run_on(&program, check::NATIVE, X32_BIT, NONE), libc::SECCOMP_RET_KILL_THREAD);
}

#[test]
fn it_is_for_defaults_that_refuse() {
    for (default, errno_ret, newer) in [
        ("SCMP_ACT_ERRNO", Some(1), errno(libc::ENOSYS)),
        ("SCMP_ACT_ERRNO", Some(13), errno(libc::ENOSYS)),
        ("SCMP_ACT_KILL", None, errno(libc::ENOSYS)),
        ("SCMP_ACT_KILL_PROCESS", None, errno(libc::ENOSYS)),
        ("SCMP_ACT_TRAP", None, errno(libc::ENOSYS)),
        ("SCMP_ACT_TRACE", Some(9), libc::SECCOMP_RET_TRACE | 9),
        ("SCMP_ACT_LOG", None, libc::SECCOMP_RET_LOG),
    ] {
        let mut profile = allowing(default, &[X86_64], &["mkdir"]);
        if let Some(value) = errno_ret {
            profile["defaultErrnoRet"] = json!(value);
        }
        assert_eq!(run_on(&compiled(profile), check::NATIVE, 5000, NONE), newer, "{default}");
    }
    // Where the default is ENOSYS, there is nothing to add.
    let mut profile = allowing("SCMP_ACT_ERRNO", &[X86_64], &["mkdir"]);
    profile["defaultErrnoRet"] = json!(libc::ENOSYS);
    assert!(enosys::newest(&super::profile(profile), libseccomp::ScmpAction::Errno(libc::ENOSYS)).is_empty());
}

#[test]
fn other_machines_have_their_numbers_too() {
    // Not to be compiled here, where the byte order or the numbers differ; but the ranges are known.
    let profile =
        allowing("SCMP_ACT_ERRNO", &["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"], &["mkdirat", "set_tls"]);
    let answers = enosys::newest(&super::profile(profile), libseccomp::ScmpAction::Errno(1));
    let program = prologue(&answers);
    let (arm, aarch64) = (0x4000_0028, 0xc000_00b7);
    let mut ended = program.clone();
    ended.push(SockFilter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW });
    for (architecture, number, wanted) in [
        (arm, 323, libc::SECCOMP_RET_ALLOW),
        (arm, 324, errno(libc::ENOSYS)),
        (arm, 0x000e_ffff, errno(libc::ENOSYS)),
        (arm, 0x000f_0005, libc::SECCOMP_RET_ALLOW),
        (arm, 0x0010_0000, errno(libc::ENOSYS)),
        (aarch64, 34, libc::SECCOMP_RET_ALLOW),
        (aarch64, 35, errno(libc::ENOSYS)),
        (I386, 5000, libc::SECCOMP_RET_ALLOW),
    ] {
        assert_eq!(run_on(&ended, architecture, number, NONE), wanted, "{architecture:x} {number:x}");
    }
}

/// Calls of all ages, some of which are of one architecture only.
const NAMES: [&str; 16] = [
    "read",
    "mkdir",
    "mmap2",
    "socketcall",
    "rt_sigaction",
    "ioctl",
    "personality",
    "unshare",
    "setns",
    "clone3",
    "openat2",
    "faccessat2",
    "clock_gettime64",
    "process_madvise",
    "set_mempolicy_home_node",
    "arch_prctl",
];

/// The highest number among `names` in `abi`, told without the code under test.
fn newest_by_hand(names: &[&str], abi: ScmpArch) -> Option<u32> {
    let numbers = names.iter().filter_map(|name| ScmpSyscall::from_name_by_arch(name, abi).ok());
    let numbers = numbers.map(i32::from).filter(|number| *number >= 0).map(|number| number as u32);
    numbers.filter(|number| abi != ScmpArch::X32 || !(512..548).contains(&(number & !X32_BIT))).max()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is named and listed: a newer call gets ENOSYS, every other what libseccomp's program alone gives it.
    #[test]
    fn only_newer_calls_are_answered(
        names in proptest::sample::subsequence(&NAMES[..], 1..NAMES.len()),
        listed in proptest::sample::subsequence(vec![X86_64, X86, X32], 0..=3),
        default in proptest::sample::select(vec!["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"]),
        number in prop_oneof![0_u32..600, (X32_BIT..X32_BIT + 600), any::<u32>()],
        nudge in 0_u32..3,
        architecture in proptest::sample::select(vec![check::NATIVE, I386, 0xc000_00b7]),
    ) {
        let json = allowing(default, &listed, &names);
        let whole = compiled(json.clone());
        let answers = enosys::newest(&profile(json), libseccomp::ScmpAction::KillProcess);
        let rules = &whole[prologue(&answers).len()..];

        let native = newest_by_hand(&names, ScmpArch::X8664);
        let x86 = listed.contains(&X86).then(|| newest_by_hand(&names, ScmpArch::X86)).flatten();
        let x32 = listed.contains(&X32).then(|| newest_by_hand(&names, ScmpArch::X32)).flatten();
        // Every number drawn, and those around each border.
        let borders = [native, x86, x32].into_iter().flatten().map(|newest| newest.saturating_sub(1) + nudge);
        for number in borders.chain([number]) {
            let newer = match architecture {
                I386 => x86.is_some_and(|newest| number > newest),
                check::NATIVE if number >= 2 * X32_BIT => native.is_some() || x32.is_some(),
                check::NATIVE if number >= X32_BIT => {
                    let own = (512..548).contains(&(number & !X32_BIT));
                    x32.is_some_and(|newest| number > newest && !own)
                }
                check::NATIVE => native.is_some_and(|newest| number > newest),
                _ => false,
            };
            let alone = run_on(rules, architecture, number, NONE);
            let wanted = if newer { errno(libc::ENOSYS) } else { alone };
            prop_assert_eq!(run_on(&whole, architecture, number, NONE), wanted, "{:x} {:x}", architecture, number);
        }
    }
}
