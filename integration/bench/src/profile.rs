//! Docker's default system call profile, as it ends up in a container's config.json, and as the floor loads it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use croft_harness::{build, process};
use serde_json::{Value, json};

/// The package `golang-github-containers-common` has it here.
const SOURCE: &str = "/usr/share/containers/seccomp.json";

const COMPILE_LIMIT: Duration = Duration::from_secs(20);

/// The capabilities that Docker gives a container: the profile's rules depend on them.
pub const DOCKER_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The profile as `linux.seccomp`. It is kept in the bench's folder, from where the virtual machine takes it.
pub fn docker() -> Result<Value> {
    let kept = kept()?;
    if crate::can_build() {
        crate::ensure(&["golang-github-containers-common"])?;
        let text = fs::read_to_string(SOURCE).with_context(|| format!("read {SOURCE}"))?;
        let profile = resolve(&serde_json::from_str(&text).with_context(|| format!("parse {SOURCE}"))?);
        fs::write(&kept, serde_json::to_vec(&profile)?)
            .with_context(|| format!("write {}", kept.display()))?;
    }
    let text = fs::read(&kept).with_context(|| format!("read {}", kept.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", kept.display()))
}

fn kept() -> Result<PathBuf> {
    Ok(crate::folder()?.join("seccomp.json"))
}

/// Docker's own form, with conditions, for this architecture and Docker's capabilities.
fn resolve(profile: &Value) -> Value {
    let rules = profile["syscalls"].as_array().into_iter().flatten().filter(|rule| applies(rule));
    let rules: Vec<Value> = rules
        .map(|rule| {
            let mut made = json!({"names": rule["names"], "action": rule["action"]});
            for key in ["args", "errnoRet"] {
                if !rule[key].is_null() {
                    made[key] = rule[key].clone();
                }
            }
            made
        })
        .collect();
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn applies(rule: &Value) -> bool {
    let list = |condition: &str, key: &str| -> Vec<String> {
        let found = rule[condition][key].as_array().into_iter().flatten();
        found.filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let has = |capability: &String| DOCKER_CAPABILITIES.contains(&capability.as_str());
    let here = |arch: &String| arch == "amd64";
    let wanted = list("includes", "arches");
    (wanted.is_empty() || wanted.iter().any(here))
        && list("includes", "caps").iter().all(has)
        && !list("excludes", "arches").iter().any(here)
        && !list("excludes", "caps").iter().any(has)
}

/// The program that croft-oci loads for [`docker`], as a file of `struct sock_filter` for the floor. Kept as the profile is.
///
/// A program of its own compiles it: what xtask is made of links nothing that xtask itself installs.
pub fn docker_program() -> Result<PathBuf> {
    let program = crate::folder()?.join("filter.bpf");
    if crate::can_build() {
        docker()?;
        let mut compiler = Command::new(build::example("croft-engine", "seccomp-program")?);
        compiler.arg(kept()?).arg(&program);
        process::run(&mut compiler, COMPILE_LIMIT)?.success()?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_a_capability_that_docker_gives_stays() {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}},
            {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_BPF"]}},
            {"names": ["s390_runtime_instr"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390"]}},
        ]});
        let resolved = resolve(&profile);
        let kept: Vec<(&str, &str)> = resolved["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["names"][0].as_str().unwrap(), r["action"].as_str().unwrap()))
            .collect();
        assert_eq!(
            kept,
            [("read", "SCMP_ACT_ALLOW"), ("chroot", "SCMP_ACT_ALLOW"), ("bpf", "SCMP_ACT_ERRNO")]
        );
    }
}
