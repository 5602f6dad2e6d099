//! Actions, conditions, architectures, flags, and what is refused.

use super::*;
use serde_json::json;

const NONE: [u64; 6] = [0; 6];

#[test]
fn every_action_of_a_rule_is_the_kernels() {
    for (action, errno_ret, wanted) in [
        ("SCMP_ACT_KILL", None, libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", None, libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", None, libc::SECCOMP_RET_KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, libc::SECCOMP_RET_TRAP),
        ("SCMP_ACT_ERRNO", None, errno(libc::EPERM)),
        ("SCMP_ACT_ERRNO", Some(0), errno(0)),
        ("SCMP_ACT_ERRNO", Some(4094), errno(4094)),
        ("SCMP_ACT_TRACE", None, libc::SECCOMP_RET_TRACE | 1),
        ("SCMP_ACT_TRACE", Some(0xffff), libc::SECCOMP_RET_TRACE | 0xffff),
        ("SCMP_ACT_NOTIFY", None, libc::SECCOMP_RET_USER_NOTIF),
        ("SCMP_ACT_LOG", None, libc::SECCOMP_RET_LOG),
    ] {
        let mut rule = json!({"names": ["mkdir"], "action": action});
        if let Some(value) = errno_ret {
            rule["errnoRet"] = json!(value);
        }
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "syscalls": [rule]
        });
        let program = compiled(profile);
        assert_eq!(run(&program, "mkdir", NONE), wanted, "{action} {errno_ret:?}");
        assert_eq!(run(&program, "rmdir", NONE), libc::SECCOMP_RET_ALLOW, "{action} {errno_ret:?}");
    }
}

#[test]
fn every_action_may_be_the_default_but_notify() {
    for (action, errno_ret, wanted) in [
        ("SCMP_ACT_KILL", None, libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", None, libc::SECCOMP_RET_KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, libc::SECCOMP_RET_TRAP),
        ("SCMP_ACT_ERRNO", None, errno(libc::EPERM)),
        ("SCMP_ACT_ERRNO", Some(13), errno(13)),
        ("SCMP_ACT_TRACE", Some(5), libc::SECCOMP_RET_TRACE | 5),
        ("SCMP_ACT_LOG", None, libc::SECCOMP_RET_LOG),
    ] {
        let mut profile = json!({
            "defaultAction": action, "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}]
        });
        if let Some(value) = errno_ret {
            profile["defaultErrnoRet"] = json!(value);
        }
        let program = compiled(profile);
        // An older call than mkdir, so that it is not taken for a newer one.
        assert_eq!(run(&program, "open", NONE), wanted, "{action}");
        assert_eq!(run(&program, "mkdir", NONE), libc::SECCOMP_RET_ALLOW, "{action}");
    }
    let notify = profile(json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/agent"}));
    assert!(matches!(program(&notify, None), Err(SeccompError::NotifyByDefault)));
}

#[test]
fn every_operator_compares_all_64_bits() {
    const LARGE: u64 = 0x1_0000_0005;
    type Holds = fn(u64) -> bool;
    let operators: [(&str, Holds); 7] = [
        ("SCMP_CMP_NE", |value| value != LARGE),
        ("SCMP_CMP_LT", |value| value < LARGE),
        ("SCMP_CMP_LE", |value| value <= LARGE),
        ("SCMP_CMP_EQ", |value| value == LARGE),
        ("SCMP_CMP_GE", |value| value >= LARGE),
        ("SCMP_CMP_GT", |value| value > LARGE),
        ("SCMP_CMP_MASKED_EQ", |value| value & LARGE == 0x1_0000_0001),
    ];
    for (operator, holds) in operators {
        let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
            "names": ["mkdir"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 3, "value": LARGE, "valueTwo": 0x1_0000_0001_u64, "op": operator}]
        }]}));
        for value in [0, 5, LARGE - 4, LARGE - 1, LARGE, LARGE + 1, LARGE + 4, 0x2_0000_0001, u64::MAX] {
            let wanted = if holds(value) { libc::SECCOMP_RET_ALLOW } else { errno(libc::EPERM) };
            let got = run(&program, "mkdir", [!value, 7, 7, value, 7, 7]);
            assert_eq!(got, wanted, "{operator} {value:#x}");
        }
    }
}

#[test]
fn conditions_on_several_arguments_must_all_hold() {
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
        "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 9, "op": "SCMP_CMP_NE"}]
    }]}));
    for (arguments, wanted) in [
        ([16, 0, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW),
        ([16, 0, 9, 0, 0, 0], errno(libc::EPERM)),
        ([17, 0, 0, 0, 0, 0], errno(libc::EPERM)),
    ] {
        assert_eq!(run(&program, "socket", arguments), wanted, "{arguments:?}");
    }
}

#[test]
fn of_conditions_on_one_argument_any_may_hold() {
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
        "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]
    }]}));
    for (value, wanted) in
        [(0, libc::SECCOMP_RET_ALLOW), (8, libc::SECCOMP_RET_ALLOW), (1, errno(libc::EPERM))]
    {
        assert_eq!(run(&program, "personality", [value, 0, 0, 0, 0, 0]), wanted, "{value}");
    }
}

#[test]
fn each_architecture_has_its_own_numbers() {
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}]);
    let all = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let program =
        compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": all, "syscalls": rules}));
    let (x86, x32) = (39, 83 | 0x4000_0000);
    assert_eq!(run_on(&program, I386, x86, NONE), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run_on(&program, I386, x86 - 1, NONE), errno(libc::EPERM));
    assert_eq!(run_on(&program, check::NATIVE, x32, NONE), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run_on(&program, check::NATIVE, 83, NONE), libc::SECCOMP_RET_ALLOW);
    // Without them every such call kills, newer or not.
    let alone = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    for (architecture, number) in
        [(I386, x86), (I386, 5000), (check::NATIVE, x32), (check::NATIVE, 0x4000_2000), (0xc000_00b7, 34)]
    {
        assert_eq!(run_on(&alone, architecture, number, NONE), libc::SECCOMP_RET_KILL_THREAD, "{number:#x}");
    }
    // The machine's own is always there.
    let foreign = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules
    });
    let foreign = compiled(foreign);
    assert_eq!(run(&foreign, "mkdir", NONE), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run_on(&foreign, check::NATIVE, 5000, NONE), errno(libc::ENOSYS));
}

#[test]
fn a_rule_said_twice_or_equal_to_the_default_does_no_harm() {
    let rule = json!({"names": ["mkdir", "mkdir"], "action": "SCMP_ACT_ALLOW"});
    let same = json!({"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule, same, rule]});
    let program = compiled(profile);
    assert_eq!(run(&program, "mkdir", NONE), libc::SECCOMP_RET_ALLOW);
    assert_eq!(run(&program, "rmdir", NONE), errno(libc::EPERM));
}

#[test]
fn unknown_calls_are_left_out_with_a_warning() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["mkdir", "no_such_call", "no_such_call", "nor_this"], "action": "SCMP_ACT_ALLOW"}]}));
    let compiled = program(&profile, None).unwrap();
    assert_eq!(compiled.warnings.len(), 1);
    assert!(compiled.warnings[0].ends_with(": no_such_call, nor_this"), "{:?}", compiled.warnings);
    assert_eq!(run(&compiled.program, "mkdir", NONE), libc::SECCOMP_RET_ALLOW);
}

#[test]
fn flags_and_the_listener_are_told() {
    let flags = |flags: serde_json::Value, action: &str| {
        let compiled = program(
            &profile(json!({
                "defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "listenerPath": "/run/agent",
                "syscalls": [{"names": ["mkdir"], "action": action}]
            })),
            None,
        )
        .unwrap();
        assert_eq!(compiled.listener, compiled.flags.contains(FilterFlags::NEW_LISTENER));
        compiled.flags
    };
    assert_eq!(flags(json!(null), "SCMP_ACT_ERRNO"), FilterFlags::SPEC_ALLOW);
    assert_eq!(flags(json!([]), "SCMP_ACT_ERRNO"), FilterFlags::empty());
    let all = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    assert_eq!(flags(all.clone(), "SCMP_ACT_NOTIFY"), FilterFlags::all());
    let without = FilterFlags::NEW_LISTENER | FilterFlags::WAIT_KILLABLE_RECV;
    assert_eq!(flags(all, "SCMP_ACT_ERRNO"), FilterFlags::all() - without);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let rule = |rule: serde_json::Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let conditions =
        |args: serde_json::Value| json!({"names": ["mkdir"], "action": "SCMP_ACT_LOG", "args": args});
    for (json, words) in [
        (rule(json!({"names": [""], "action": "SCMP_ACT_LOG"})), "system call \"\""),
        (rule(conditions(json!([{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]))), "argument 6"),
        (rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})), "listenerPath is not set"),
        (rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 3})), "takes no errno"),
        (rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4095})), "more than 4094"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "the default action"),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"]}), "S390X"),
    ] {
        let error = program(&profile(json.clone()), None).unwrap_err().to_string();
        assert!(error.contains(words), "{json}: {error}");
    }
    let mut write = rule(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"}));
    write["listenerPath"] = json!("/run/agent");
    assert!(matches!(program(&profile(write), None), Err(SeccompError::NotifyOf(name)) if name == "write"));
}

#[test]
fn what_init_needs_is_looked_up() {
    let refused_by = |json| {
        let refusals = refused(&compiled(json), &Call::ALL);
        refusals.iter().map(ToString::to_string).collect::<Vec<String>>()
    };
    assert!(refused_by(json!({"defaultAction": "SCMP_ACT_ALLOW"})).is_empty());
    let few = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "close", "exit_group", "execveat"], "action": "SCMP_ACT_ALLOW"},
        // For some arguments: not refused.
        {"names": ["execve"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]}]});
    assert_eq!(refused_by(few), ["write fails: Operation not permitted (os error 1)"]);
    let notify = json!({"defaultAction": "SCMP_ACT_LOG", "listenerPath": "/run/agent", "syscalls": [
        {"names": ["read", "execve"], "action": "SCMP_ACT_NOTIFY"},
        {"names": ["exit_group"], "action": "SCMP_ACT_KILL_PROCESS"}]});
    let wanted = ["read waits for a listener that is not there yet", "exit_group kills the process"];
    assert_eq!(refused_by(notify), wanted);
}

#[test]
fn the_interpreter_follows_both_ways_of_the_unknown() {
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
        "names": ["mkdir"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 1}]}]}));
    let attempt =
        Attempt { number: number("mkdir"), architecture: check::NATIVE, arguments: Arguments::Unknown };
    let both = outcomes(&program, attempt).unwrap();
    assert_eq!(both.into_iter().collect::<Vec<u32>>(), [errno(libc::EPERM), libc::SECCOMP_RET_ALLOW]);
    // A jump beyond the end, an unknown instruction, an offset that is none, and no end.
    let one = |code, k| SockFilter { code, jt: 0, jf: 0, k };
    for bad in [vec![one(0x05, 1)], vec![one(0xffff, 0)], vec![one(0x20, 2)], vec![one(0x20, 64)], vec![]] {
        assert!(outcomes(&bad, attempt).is_err(), "{bad:?}");
    }
}
