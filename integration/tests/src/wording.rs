//! The words that callers of an OCI runtime match on. Each row says who reads them and what happens without them; a row that
//! fails means that this caller misunderstands croft-oci.
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::bundle::VERB_LIMIT;
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test, process};
use serde_json::{Value, json};

const ROOT: &[Facility] = &[Facility::Root];

pub const SUBJECT: Subject = Subject {
    name: "wording",
    tests: &[
        Test {
            name: "of_containers_that_are_not_there",
            requires: ROOT,
            run: of_containers_that_are_not_there,
        },
        Test { name: "of_states", requires: ROOT, run: of_states },
        Test { name: "of_programs", requires: ROOT, run: of_programs },
        Test { name: "of_the_version", requires: &[], run: of_the_version },
        Test { name: "of_features", requires: &[], run: of_features },
        Test { name: "of_the_log", requires: ROOT, run: of_the_log },
    ],
    on_runc: &[
        ("of_the_version", OnRunc::CroftOnly("the name is croft-oci's own")),
        ("of_features", OnRunc::Fails("Debian's runc 1.1.5 is older than half of the form")),
    ],
};

/// Words, and who matches on them. How each reads them is in the caller's source file that is named.
struct Words {
    text: &'static str,
    reader: &'static str,
}

const DOES_NOT_EXIST: &[Words] = &[
    Words {
        text: "does not exist",
        reader: "containerd's runc shim, process/utils.go checkKillError: the task is gone, not broken",
    },
    Words {
        text: "does not exist",
        reader: "containerd's runc shim, process/init.go delete: what is gone already is deleted",
    },
    Words {
        text: "does not exist",
        reader: "Podman, libpod/oci_conmon: a container without state has exited",
    },
];
const NOT_RUNNING: &[Words] = &[
    Words {
        text: "container not running",
        reader: "containerd's runc shim, process/utils.go checkKillError: the process has finished",
    },
    Words {
        text: "container not running",
        reader: "CRI-O, internal/oci/runtime_oci.go runtimeCmd: not found",
    },
];
const NOT_FOUND: &[Words] = &[
    Words {
        text: "executable file not found in",
        reader: "Podman, libpod/oci_util.go getOCIRuntimeError: exit status 127",
    },
    Words {
        text: "executable file not found",
        reader: "Docker, daemon/errors.go translateContainerdStartErr: exit status 127",
    },
];
const NO_SUCH_FILE: &[Words] = &[
    Words {
        text: "no such file or directory",
        reader: "Podman, libpod/oci_util.go getOCIRuntimeError: exit status 127",
    },
    Words {
        text: "no such file or directory",
        reader: "Docker, daemon/errors.go translateContainerdStartErr: exit status 127",
    },
];
const DENIED: &[Words] = &[
    Words {
        text: "permission denied",
        reader: "Podman, libpod/oci_util.go getOCIRuntimeError: exit status 126",
    },
    Words {
        text: "permission denied",
        reader: "Docker, daemon/errors.go translateContainerdStartErr: exit status 126",
    },
];

fn has_all(message: &str, words: &[Words]) -> Result<()> {
    words.iter().try_for_each(|Words { text, reader }| {
        ensure!(message.contains(text), "{reader}: {text:?} is not in {message:?}");
        Ok(())
    })
}

fn of_containers_that_are_not_there(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["true"])?;
    for (verb, rest) in
        [("state", [].as_slice()), ("kill", &["TERM"]), ("delete", &[]), ("start", &[]), ("pause", &[])]
    {
        has_all(&bundle.verb(verb, &[], rest)?.failure()?, DOES_NOT_EXIST).context(verb)?;
    }
    // containerd and Podman delete by force what may be gone already.
    bundle.verb("delete", &["--force"], &[])?.success()?;
    Ok(())
}

fn of_states(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    let pid = bundle.pid()?;
    let message = bundle.delete()?.failure()?;
    has_all(&message, &[Words { text: "that is not stopped", reader: "people who know runc" }])?;
    bundle.kill("KILL")?.success()?;
    bundle.ended(pid, Duration::from_secs(10))?;
    has_all(&bundle.kill("TERM")?.failure()?, NOT_RUNNING)
}

fn of_programs(host: &Host) -> Result<()> {
    let mut bundle = Bundle::new(host, &["true"])?;
    std::fs::write(bundle.rootfs().join("plain"), "")?;
    for (program, words) in [("nosuch", NOT_FOUND), ("/no/such", NO_SUCH_FILE), ("/plain", DENIED)] {
        bundle.config["process"]["args"] = json!([program]);
        let message = bundle.create()?.failure()?;
        has_all(&message, words).context(program)?;
        // Docker looks for the program's name as well.
        ensure!(message.contains(program), "{message}");
        ensure!(message.contains("unable to start container process"), "{message}");
    }
    Ok(())
}

/// Docker (daemon/info_unix.go) and `podman info` read `NAME version X` and `commit: Y` by line; go-runc reads `spec: Z`.
fn of_the_version(host: &Host) -> Result<()> {
    for option in ["--version", "-v"] {
        let out = process::run(Command::new(&host.runtime).arg(option), VERB_LIMIT)?.success()?;
        let lines: Vec<&str> = out.stdout.lines().collect();
        let number = lines[0].strip_prefix("croft-oci version ").context(lines[0].to_owned())?;
        ensure!(number.split('.').count() == 3, "{number}");
        ensure!(lines[1].strip_prefix("commit: ").is_some_and(|c| !c.is_empty()), "{out}");
        ensure!(lines[2] == "spec: 1.3.0" && lines[3].starts_with("libseccomp: 2."), "{out}");
    }
    // containerd gives its options before.
    let args = ["--root", "/nosuch", "--log-format", "json", "--version"];
    process::run(Command::new(&host.runtime).args(args), VERB_LIMIT)?.success()?;
    Ok(())
}

/// Docker (daemon/runtime_unix.go) and containerd (go-runc Features) read runtime-spec features.md's form.
fn of_features(host: &Host) -> Result<()> {
    let out = process::run(Command::new(&host.runtime).arg("features"), VERB_LIMIT)?.success()?;
    let features: Value = serde_json::from_str(&out.stdout)?;
    ensure!(features["ociVersionMin"] == "1.0.0" && features["ociVersionMax"] == "1.3.0", "{features:#}");
    let linux = &features["linux"];
    for (place, item) in [
        ("/hooks", "createRuntime"),
        ("/mountOptions", "rro"),
        ("/mountOptions", "idmap"),
        ("/linux/namespaces", "time"),
        ("/linux/capabilities", "CAP_CHECKPOINT_RESTORE"),
        ("/linux/seccomp/actions", "SCMP_ACT_NOTIFY"),
        ("/linux/seccomp/operators", "SCMP_CMP_MASKED_EQ"),
        ("/linux/seccomp/archs", "SCMP_ARCH_X86_64"),
        ("/linux/seccomp/knownFlags", "SECCOMP_FILTER_FLAG_LOG"),
        ("/linux/seccomp/supportedFlags", "SECCOMP_FILTER_FLAG_LOG"),
        ("/linux/memoryPolicy/modes", "MPOL_INTERLEAVE"),
    ] {
        let list = features.pointer(place).and_then(Value::as_array).with_context(|| place.to_owned())?;
        ensure!(list.iter().any(|i| i == item), "{item} is not in {place}");
    }
    for name in ["apparmor", "selinux", "intelRdt", "seccomp", "netDevices"] {
        ensure!(linux[name]["enabled"].is_boolean(), "{name}: {linux:#}");
    }
    ensure!(
        linux["mountExtensions"]["idmap"]["enabled"] == true && linux["cgroup"]["v2"] == true,
        "{linux:#}"
    );
    ensure!(features["annotations"]["org.croft.version"].is_string(), "{features:#}");
    Ok(())
}

/// containerd (process/utils.go getLastRuntimeError) and Podman (libpod/oci_util.go ociError) read `level`, `msg` and `time` from
/// the log file; conmon takes standard error.
fn of_the_log(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["true"])?;
    let log = bundle.folder().join("log.json");
    let mut command = Command::new(bundle.runtime());
    command.arg("--root").arg(bundle.state_root()).arg("--log").arg(&log).args([
        "--log-format",
        "json",
        "state",
        "nosuch",
    ]);
    let said = process::run(&mut command, VERB_LIMIT)?.failure()?;
    let line: Value = serde_json::from_str(std::fs::read_to_string(&log)?.trim())?;
    ensure!(line["level"] == "error" && line["time"].is_string(), "{line}");
    has_all(line["msg"].as_str().context("msg")?, DOES_NOT_EXIST)?;
    has_all(&said, DOES_NOT_EXIST)
}
