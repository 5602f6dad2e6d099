//! Configurations: texts, properties one by one, and the program.
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use croft_harness::{Bundle, Host};
use serde_json::{Value, json};

use super::{refused, verb};

/// What `config.json` holds, and what the message has to have.
const TEXTS: &[(&str, &[&str])] = &[
    ("", &["config.json", "EOF while parsing"]),
    ("{", &["config.json", "EOF while parsing", "line 1 column 1"]),
    ("not json", &["config.json", "expected ident", "line 1"]),
    ("[]", &["config.json"]),
    ("null", &["config.json", "invalid type: null"]),
    ("{}", &["config.json", "ociVersion"]),
    (r#"{"ociVersion":"1.0.2"}"#, &["config.json", "root must not be empty"]),
    (r#"{"ociVersion":"1.0.2","root":{"path":""}}"#, &["config.json", "root.path must not be empty"]),
    ("{\"ociVersion\":\"1.0.2\"}{", &["config.json", "trailing characters"]),
    ("\u{feff}{}", &["config.json", "expected value"]),
];

/// Texts that are no configuration; one that is not even text, and one larger than any.
pub fn texts(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["true"])?;
    let path = bundle.folder().join("config.json");
    let truncated = serde_json::to_string(&bundle.config)?;
    let truncated = &truncated[..truncated.len() / 2];
    let deep = "[".repeat(100_000);
    let huge = format!("{{\"ociVersion\":\"{}\"}}", "9".repeat(8 << 20));
    let more: [(&str, &[&str]); 3] = [
        (truncated, &["config.json", "EOF while parsing"]),
        (&deep, &["config.json", "recursion limit"]),
        (&huge, &["config.json", "ociVersion", "99999..."]),
    ];
    for (text, says) in TEXTS.iter().chain(&more) {
        std::fs::write(&path, text)?;
        let shown: String = text.chars().take(40).collect();
        refused(host, &bundle, verb(&bundle, "create", &[], &[]), says).context(shown)?;
    }
    std::fs::write(&path, b"{\"ociVersion\":\"\xff\xfe\"}")?;
    refused(host, &bundle, verb(&bundle, "run", &[], &[]), &["config.json", "invalid unicode"])
}

/// A property's place, what is put there, and what the message has to have.
type Case = (&'static str, &'static str, &'static [&'static str]);

const PROPERTIES: &[Case] = &[
    ("/ociVersion", r#""2.0.0""#, &["ociVersion", "2.0.0", "1.x"]),
    ("/ociVersion", r#""one""#, &["ociVersion", "one"]),
    ("/ociVersion", "1", &["ociVersion", "expected a string"]),
    // The wrong type for each main property.
    ("/process", "3", &["process", "invalid type"]),
    ("/process/args", r#""sh""#, &["process.args", "expected a sequence"]),
    ("/process/args", "[1]", &["process.args[0]", "expected a string"]),
    ("/process/env", r#"{"A":"b"}"#, &["process.env", "expected a sequence"]),
    ("/process/cwd", "1", &["process.cwd", "invalid type"]),
    ("/process/user", r#""root""#, &["process.user", "invalid type"]),
    ("/process/user/uid", "-1", &["process.user.uid", "-1", "u32"]),
    ("/process/user/uid", "4294967296", &["process.user.uid", "4294967296", "u32"]),
    ("/process/capabilities", r#""all""#, &["process.capabilities", "invalid type"]),
    ("/process/rlimits", "{}", &["process.rlimits", "invalid type"]),
    ("/process/terminal", r#""yes""#, &["process.terminal", "expected a boolean"]),
    ("/root", r#""rootfs""#, &["root", "invalid type"]),
    ("/root/readonly", r#""yes""#, &["root.readonly", "expected a boolean"]),
    ("/mounts", "{}", &["mounts", "expected a sequence"]),
    ("/hostname", "7", &["hostname", "expected a string"]),
    ("/hooks", r#""x""#, &["hooks", "invalid type"]),
    ("/annotations", "[]", &["annotations", "expected a map"]),
    ("/linux", r#""x""#, &["linux", "invalid type"]),
    ("/linux/namespaces", "{}", &["linux.namespaces", "expected a sequence"]),
    ("/linux/resources", r#""x""#, &["linux.resources", "invalid type"]),
    ("/linux/resources/memory", r#"{"limit":"1g"}"#, &["linux.resources.memory.limit", "1g"]),
    ("/linux/sysctl", "[]", &["linux.sysctl", "expected a map"]),
    ("/linux/seccomp", "[3]", &["linux.seccomp", "invalid type"]),
    // Values that cannot be.
    ("/process/args", "[]", &["process.args", "must not be empty"]),
    ("/process/args", r#"["a\u0000"]"#, &["process.args", "NUL"]),
    ("/process/cwd", r#""here""#, &["process.cwd", "here", "absolute"]),
    ("/process/oomScoreAdj", "5000", &["process.oomScoreAdj", "5000", "1000"]),
    (
        "/process/rlimits",
        r#"[{"type":"RLIMIT_NOFILE","hard":1,"soft":2}]"#,
        &["RLIMIT_NOFILE", "above the hard"],
    ),
    (
        "/process/rlimits",
        r#"[{"type":"RLIMIT_CPU","hard":1,"soft":1},{"type":"RLIMIT_CPU","hard":1,"soft":1}]"#,
        &["RLIMIT_CPU", "twice"],
    ),
    (
        "/process/rlimits",
        r#"[{"type":"RLIMIT_NOFILE","hard":-1,"soft":1}]"#,
        &["process.rlimits[0].hard", "-1"],
    ),
    (
        "/process/capabilities/effective",
        r#"["CAP_SYS_ADMIN"]"#,
        &["process.capabilities.effective", "CAP_SYS_ADMIN", "permitted"],
    ),
    ("/process/scheduler", r#"{"policy":"SCHED_NOSUCH"}"#, &["process.scheduler.policy", "SCHED_NOSUCH"]),
    (
        "/process/ioPriority",
        r#"{"class":"IOPRIO_CLASS_NO","priority":1}"#,
        &["process.ioPriority", "IOPRIO_CLASS_NO"],
    ),
    (
        "/hostname",
        r#""xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
        &["hostname", "64 bytes"],
    ),
    ("/root/path", r#""nosuch""#, &["rootfs", "nosuch", "no such file or directory"]),
    ("/root/path", r#""config.json""#, &["rootfs", "config.json", "not a folder"]),
    ("/root/path", r#""link""#, &["rootfs", "link", "symbolic link"]),
    (
        "/mounts/9",
        r#"{"destination":"/mnt","type":"bind","source":"/nosuch","options":["bind"]}"#,
        &["/nosuch", "no such file or directory"],
    ),
    (
        "/mounts/9",
        r#"{"destination":"/proc/sys","source":"/tmp","options":["bind"]}"#,
        &["/proc/sys", "inside /proc"],
    ),
    ("/mounts/9", r#"{"destination":"/mnt","source":"","options":["bind"]}"#, &["mounts[/mnt]", "no source"]),
    ("/mounts/9", r#"{"destination":"/mnt"}"#, &["mounts[/mnt]", "type"]),
    ("/mounts/9", r#"{"destination":"","type":"tmpfs"}"#, &["mounts.destination", "empty"]),
    ("/mounts/9", r#"{"destination":"/mnt","type":"nosuchfs"}"#, &["nosuchfs", "/mnt", "no such device"]),
    (
        "/mounts/9",
        r#"{"destination":"/mnt","type":"tmpfs","options":["nosuch=1"]}"#,
        &["tmpfs", "/mnt", "nosuch"],
    ),
    (
        "/mounts/9",
        r#"{"destination":"/mnt","type":"proc","options":["tmpcopyup"]}"#,
        &["mounts[/mnt]", "tmpfs only"],
    ),
    ("/linux/rootfsPropagation", r#""sideways""#, &["linux.rootfsPropagation", "sideways"]),
    ("/linux/sysctl", r#"{"kernel.panic":"1"}"#, &["linux.sysctl[kernel.panic]", "namespace"]),
    ("/linux/sysctl", r#"{"net.nosuch":"1"}"#, &["net.nosuch", "no such file or directory"]),
    ("/linux/sysctl", r#"{"net/../kernel/panic":"1"}"#, &["linux.sysctl", "not the name"]),
    (
        "/linux/namespaces",
        r#"[{"type":"user"},{"type":"uts"}]"#,
        &["linux.namespaces", "user namespace needs a mount namespace"],
    ),
    ("/linux/namespaces", r#"[{"type":"mount"}]"#, &["hostname", "uts namespace"]),
    ("/linux/namespaces/5", r#"{"type":"pid"}"#, &["linux.namespaces", "pid", "twice"]),
    ("/linux/namespaces/5", r#"{"type":"nosuch"}"#, &["linux.namespaces[5].type", "nosuch"]),
    ("/linux/namespaces/5", r#"{"type":"user"}"#, &["linux.uidMappings", "user namespace"]),
    (
        "/linux/namespaces/1",
        r#"{"type":"network","path":"net"}"#,
        &["linux.namespaces.path", "net", "absolute"],
    ),
    (
        "/linux/namespaces/1",
        r#"{"type":"network","path":"/nosuch"}"#,
        &["network", "/nosuch", "no such file"],
    ),
    (
        "/linux/namespaces/1",
        r#"{"type":"network","path":"/etc/passwd"}"#,
        &["network", "/etc/passwd", "namespace"],
    ),
    (
        "/linux/namespaces/1",
        r#"{"type":"network","path":"/proc/self/ns/uts"}"#,
        &["ns/uts", "not a network namespace"],
    ),
    (
        "/linux/uidMappings",
        r#"[{"containerID":0,"hostID":0,"size":1}]"#,
        &["linux.uidMappings", "user namespace"],
    ),
    ("/linux/timeOffsets", r#"{"monotonic":{"secs":1}}"#, &["linux.timeOffsets", "time namespace"]),
    ("/linux/timeOffsets", r#"{"wall":{"secs":1}}"#, &["linux.timeOffsets", "wall"]),
    (
        "/linux/devices",
        r#"[{"path":"/dev/x","type":"q","major":1,"minor":3}]"#,
        &["linux.devices[0].type", "q"],
    ),
    ("/linux/devices", r#"[{"path":"/dev/x","type":"a","major":1,"minor":3}]"#, &["linux.devices", "/dev/x"]),
    (
        "/linux/devices",
        r#"[{"path":"/dev/x","type":"c","major":-1,"minor":3}]"#,
        &["linux.devices", "/dev/x", "-1"],
    ),
    (
        "/linux/resources/devices",
        r#"[{"allow":true,"access":"xyz"}]"#,
        &["resources.devices[0].access", "xyz"],
    ),
    ("/linux/resources/unified", r#"{"a/b":"1"}"#, &["resources.unified", "a/b", "slashes"]),
    ("/linux/resources/unified", r#"{"nosuch.file":"1"}"#, &["unified", "nosuch.file"]),
    ("/linux/resources/blockIO", r#"{"weight":5}"#, &["blockIO.weight", "5", "10-1000"]),
    ("/linux/resources/memory", r#"{"limit":1000000,"swap":5}"#, &["memory.swap", "5", "memory limit"]),
    ("/linux/resources/memory", r#"{"limit":1}"#, &["OOM-killed", "memory limit too low"]),
    ("/linux/resources/hugepageLimits", r#"[{"pageSize":"3MB","limit":1}]"#, &["hugepageLimits", "3MB"]),
    ("/linux/resources/rdma", r#"{"nosuch0":{"hcaHandles":1}}"#, &["rdma"]),
    ("/linux/resources/cpu", r#"{"cpus":"900"}"#, &["cpuset.cpus", "900"]),
    ("/linux/intelRdt", r#"{"closID":"a/b"}"#, &["linux.intelRdt"]),
    ("/linux/personality", r#"{"domain":"MINIX"}"#, &["linux.personality.domain", "MINIX"]),
    ("/linux/memoryPolicy", r#"{"mode":"MPOL_NOSUCH"}"#, &["linux.memoryPolicy.mode", "MPOL_NOSUCH"]),
    ("/linux/netDevices", r#"{"nosuch0":{}}"#, &["nosuch0"]),
    ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_NO"}"#, &["linux.seccomp.defaultAction", "SCMP_ACT_NO"]),
    ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, &["linux.seccomp", "SCMP_ACT_NOTIFY"]),
    ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_KILL"}"#, &["linux.seccomp", "could not start"]),
    (
        "/linux/seccomp",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#,
        &["linux.seccomp.flags[0]", "X"],
    ),
    ("/hooks", r#"{"prestart":[{"path":"rel"}]}"#, &["hooks.path", "rel", "absolute"]),
    ("/hooks", r#"{"prestart":[{"path":"/bin/true","timeout":0}]}"#, &["hooks.timeout", "0"]),
    ("/hooks", r#"{"createRuntime":[{"path":"/nosuch"}]}"#, &["createRuntime", "/nosuch", "no such file"]),
    ("/hooks", r#"{"createContainer":[{"path":"/bin/false"}]}"#, &["createContainer", "/bin/false"]),
];

/// Puts JSON at a place of a configuration: the parents are there, and an index past the end appends.
fn put(config: &mut Value, place: &str, text: &str) -> Result<()> {
    let value: Value = serde_json::from_str(text).context("the table's own JSON")?;
    let (parent, key) = place.rsplit_once('/').context("a place begins with a slash")?;
    match config.pointer_mut(parent).with_context(|| format!("{parent} of {place}"))? {
        Value::Array(list) => match list.get_mut(key.parse::<usize>()?) {
            Some(old) => *old = value,
            None => list.push(value),
        },
        object => object[key] = value,
    }
    Ok(())
}

/// One property wrong at a time.
pub fn properties(host: &Host) -> Result<()> {
    let mut bundle = Bundle::new(host, &["true"])?;
    std::os::unix::fs::symlink("rootfs", bundle.folder().join("link"))?;
    let good = bundle.config.clone();
    for (place, text, says) in PROPERTIES {
        bundle.config = good.clone();
        put(&mut bundle.config, place, text)?;
        bundle.save()?;
        let what = || format!("{place} = {text}");
        refused(host, &bundle, verb(&bundle, "run", &[], &[]), says).with_context(what)?;
    }
    for (ranges, why) in [
        (json!([[0, 1000, 10], [5, 3000, 10]]), "overlap"),
        (json!([[0, 1000, 10], [10, 1005, 10]]), "overlap"),
        (json!([[0, 1000, 0]]), "empty"),
        (json!([[0, 4294967290u32, 10]]), "last id"),
        ((0..400).map(|n| json!([n, 1000 + n, 1])).collect(), "400 ranges"),
    ] {
        bundle.config = good.clone();
        let range = |r: &Value| json!({ "containerID": r[0], "hostID": r[1], "size": r[2] });
        let ranges: Value = ranges.as_array().into_iter().flatten().map(range).collect();
        put(&mut bundle.config, "/linux/namespaces/5", r#"{"type":"user"}"#)?;
        bundle.config["linux"]["uidMappings"] = ranges;
        bundle.config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        bundle.save()?;
        let says = ["linux.uidMappings", why];
        refused(host, &bundle, verb(&bundle, "run", &[], &[]), &says).context(why)?;
    }
    Ok(())
}

/// The program, and what the message has to have: the path and the reason, as runc says them.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("nosuch", &["exec: \"nosuch\"", "executable file not found in $PATH"]),
    ("", &["exec: \"\"", "executable file not found in $PATH"]),
    ("/nosuch", &["\"/nosuch\"", "no such file or directory"]),
    ("/bin/sh/x", &["\"/bin/sh/x\"", "not a directory"]),
    ("/etc", &["\"/etc\"", "is a directory"]),
    ("/noexec", &["\"/noexec\"", "permission denied"]),
    ("/text", &["\"/text\"", "exec format error"]),
    ("/badinterpreter", &["\"/badinterpreter\"", "no such file or directory"]),
];

/// Programs that cannot be run: `run` and `create` then `start` say so.
pub fn programs(host: &Host) -> Result<()> {
    let mut bundle = Bundle::new(host, &["true"])?;
    for (name, text, mode) in [
        ("noexec", "#!/bin/sh\n", 0o644),
        ("text", "no script\n", 0o755),
        ("badinterpreter", "#!/nosuch\n", 0o755),
    ] {
        let path = bundle.rootfs().join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    for (program, says) in PROGRAMS {
        bundle.config["process"]["args"] = json!([program]);
        bundle.save()?;
        refused(host, &bundle, verb(&bundle, "run", &[], &[]), says)
            .with_context(|| (*program).to_owned())?;
    }
    bundle.config["process"]["args"] = json!(["true"]);
    bundle.config["process"]["cwd"] = json!("/bin/sh");
    bundle.save()?;
    refused(host, &bundle, verb(&bundle, "run", &[], &[]), &["/bin/sh", "cwd", "not a directory"])
}
