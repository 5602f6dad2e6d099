//! Docker's default profile, as Debian's golang-github-containers-common has it, as a spec of a container without capabilities
//! beyond the usual carries it.

use super::*;
use croft_sys::prctl;
use croft_sys::seccomp::load;
use serde_json::{Value, json};
use std::process::Command;

const FILE: &str = "/usr/share/containers/seccomp.json";

/// The profile as a container engine resolves it for x86-64 and these capabilities. `None`, said as a skip: the package is missing.
fn docker(test: &str) -> Option<Value> {
    let Ok(text) = std::fs::read_to_string(FILE) else {
        skipped(test, "golang-github-containers-common is not installed");
        return None;
    };
    let raw: Value = serde_json::from_str(&text).unwrap();
    let capabilities = ["CAP_CHOWN", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_KILL"];
    let has =
        |list: &Value, name: &str| list.as_array().is_some_and(|list| list.iter().any(|each| each == name));
    let mut rules = Vec::new();
    for rule in raw["syscalls"].as_array().unwrap() {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let wanted = includes["caps"].as_array().into_iter().flatten();
        let is_meant = (includes["arches"].is_null() || has(&includes["arches"], "amd64"))
            && !has(&excludes["arches"], "amd64")
            && wanted.into_iter().all(|cap| capabilities.contains(&cap.as_str().unwrap()))
            && !capabilities.iter().any(|cap| has(&excludes["caps"], cap));
        if !is_meant {
            continue;
        }
        let mut resolved = json!({"names": rule["names"], "action": rule["action"]});
        if rule["args"].as_array().is_some_and(|args| !args.is_empty()) {
            resolved["args"] = rule["args"].clone();
        }
        if rule["action"] == "SCMP_ACT_ERRNO" && !rule["errnoRet"].is_null() {
            resolved["errnoRet"] = rule["errnoRet"].clone();
        }
        rules.push(resolved);
    }
    Some(json!({
        "defaultAction": raw["defaultAction"], "defaultErrnoRet": 1, "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    }))
}

#[test]
fn it_does_what_it_says() {
    let Some(profile) = docker("seccomp: Docker's profile") else { return };
    let program = compiled(profile);
    let allow = libc::SECCOMP_RET_ALLOW;
    let on = |name, first| run(&program, name, [first, 0, 0, 0, 0, 0]);
    assert_eq!((on("read", 0), on("mkdir", 0), on("execveat", 0)), (allow, allow, allow));
    assert_eq!((on("kexec_load", 0), on("bpf", 0)), (errno(libc::EPERM), errno(libc::EPERM)));
    assert_eq!((on("personality", 8), on("personality", 7)), (allow, errno(libc::EPERM)));
    // An audit socket, which is refused in words of its own, and another netlink socket.
    let socket = |protocol| run(&program, "socket", [16, 3, protocol, 0, 0, 0]);
    assert_eq!((socket(9), socket(0)), (errno(libc::EINVAL), allow));
    assert_eq!(run_on(&program, check::NATIVE, 1000, [0; 6]), errno(libc::ENOSYS));
    assert!(refused(&program, &Call::ALL).is_empty());
}

/// The kernel and the interpreter agree on every call that the program refuses by an errno: perl makes them all.
#[test]
fn the_kernel_does_as_the_interpreter_says() {
    let Some(profile) = docker("seccomp: in the kernel") else { return };
    let program = compiled(profile);
    // 335 and 336, uretprobe and uprobe, are for the kernel's own trampolines: it lets them past any filter (Linux 6.14), and kills
    // who makes them from elsewhere.
    let refused: Vec<(u32, u32)> = (0..600)
        .filter(|number| ![335, 336].contains(number))
        .map(|number| (number, run_on(&program, check::NATIVE, number, [0; 6])))
        .filter(|(_, action)| action & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_ERRNO)
        .map(|(number, action)| (number, action & libc::SECCOMP_RET_DATA))
        .collect();
    assert!(refused.len() > 100, "{}", refused.len());
    let script = r#"for (@ARGV) { $! = 0; syscall($_ + 0, 0, 0, 0, 0, 0, 0); print "$_ ", $! + 0, "\n" }"#;
    let numbers = refused.iter().map(|(number, _)| number.to_string());
    let mut perl = Command::new("perl");
    perl.args(["-e", script]).args(numbers);
    // A filter is a thread's: only this one gets it, and what it executes.
    let output = std::thread::spawn(move || {
        prctl::set_no_new_privs().unwrap();
        assert!(load(&program, FilterFlags::empty()).unwrap().is_none());
        perl.output()
    });
    let output = match output.join().unwrap() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return skipped("seccomp: in the kernel", "perl is not installed");
        }
        output => output.unwrap(),
    };
    let wanted: String = refused.iter().map(|(number, errno)| format!("{number} {errno}\n")).collect();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
}
