//! Hooks: when they run, where, with which state, and what their failure does.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};
use croft_harness::snapshot::Snapshot;
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use serde_json::{Value, json};

pub const SUBJECT: Subject = Subject {
    name: "hooks",
    on_runc: &[
        (
            "all_run_in_order",
            OnRunc::Fails(
                "runc tells prestart hooks 'creating': by the spec `start` was called; and runc 1.1 tells poststart hooks \
                 'created': by the spec the program runs then",
            ),
        ),
        (
            "a_failing_late_hook_stops_nothing",
            OnRunc::Fails(
                "runc 1.1 fails for a poststart hook; by the spec it is a warning, and the rest goes on",
            ),
        ),
    ],
    tests: &[
        Test { name: "all_run_in_order", requires: &[Facility::Root], run: all_run_in_order },
        Test { name: "a_failing_late_hook_stops_nothing", requires: &[Facility::Root], run: failing_late },
        Test { name: "a_failing_hook_stops_creation", requires: &[Facility::Root], run: failing },
        Test { name: "a_slow_hook_is_killed", requires: &[Facility::Root], run: slow },
        Test { name: "annotations_are_in_the_state", requires: &[Facility::Root], run: annotations },
        Test { name: "hooks_see_the_right_namespaces", requires: &[Facility::Root], run: namespaces },
    ],
};

/// A script in `folder`, outside and inside of the container by the same path is not needed: hooks of the runtime see the host.
fn script(folder: &Path, name: &str, body: &str) -> Result<String> {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

fn hook(path: &str) -> Value {
    json!([{ "path": path, "args": ["hook", "argument"], "env": ["A=b", "PATH=/usr/bin:/bin"] }])
}

fn all_run_in_order(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "echo program")?;
    let folder = bundle.folder().to_owned();
    let log = folder.join("log");
    let mut hooks = json!({});
    for point in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let body = format!(
            "state=$(cat); echo {point} $1 $A $(echo \"$state\" | tr -d ' \\n' | grep -o '\"status\":\"[a-z]*\"') >> {}",
            log.display()
        );
        hooks[point] = hook(&script(&folder, point, &body)?);
    }
    // This one runs in the container's own root, which is read-only but for what it prints.
    let inside = bundle.rootfs().join("inside");
    fs::write(&inside, "#!/bin/sh\ncat > /dev/null\necho startContainer > /log/inside\n")?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    hooks["startContainer"] = hook("/inside");
    let shared = tempfile::tempdir()?;
    let bundle = bundle.edit(|c| {
        c["hooks"] = hooks;
        if let Some(mounts) = c["mounts"].as_array_mut() {
            mounts.push(json!({"destination": "/log", "source": shared.path(), "options": ["rbind", "rw"]}));
        }
    });
    let out = bundle.run()?;
    ensure!(out.code() == 0 && out.stdout == "program\n", "{out}");
    let log = fs::read_to_string(&log)?;
    let names: Vec<&str> = log.lines().filter_map(|l| l.split(' ').next()).collect();
    ensure!(names == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"], "{log}");
    ensure!(log.lines().all(|l| l.contains(" argument b ")), "{log}");
    for (line, status) in log.lines().zip(["created", "creating", "creating", "running", "stopped"]) {
        ensure!(line.contains(&format!("\"status\":\"{status}\"")), "{line} should be {status}");
    }
    ensure!(fs::read_to_string(shared.path().join("inside"))? == "startContainer\n");
    Ok(())
}

fn failing(host: &Host) -> Result<()> {
    for point in ["prestart", "createRuntime", "createContainer"] {
        let bundle = Bundle::shell(host, "echo program")?;
        let path = script(bundle.folder(), "bad", "cat >/dev/null; echo because >&2; exit 5")?;
        let bundle = bundle.edit(|c| c["hooks"] = json!({ point: hook(&path) }));
        bundle.save()?;
        let before = Snapshot::take(host, &[bundle.state_root()])?;
        let out = bundle.run()?;
        ensure!(out.code() != 0 && out.stdout.is_empty(), "{point}: {out}");
        ensure!(out.stderr.contains("because"), "{point}: {out}");
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    }
    Ok(())
}

fn failing_late(host: &Host) -> Result<()> {
    for point in ["poststart", "poststop"] {
        let bundle = Bundle::shell(host, "echo program")?;
        let bad = script(bundle.folder(), "bad", "cat >/dev/null; echo because >&2; exit 5")?;
        let ran = bundle.folder().join("ran");
        let good = script(bundle.folder(), "good", &format!("cat > {}", ran.display()))?;
        let bundle = bundle.edit(|c| c["hooks"] = json!({ point: [{"path": bad}, {"path": good}] }));
        let out = bundle.run()?;
        ensure!(out.code() == 0 && out.stdout == "program\n", "{point}: {out}");
        ensure!(out.stderr.contains("because"), "{point} does not warn: {out}");
        ensure!(ran.exists(), "the hook after the failed one of {point} did not run");
    }
    Ok(())
}

fn slow(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "echo program")?;
    let path = script(bundle.folder(), "slow", "exec sleep 1000")?;
    let bundle = bundle.edit(|c| c["hooks"] = json!({"createRuntime": [{"path": path, "timeout": 1}]}));
    bundle.save()?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let out = bundle.run()?;
    ensure!(out.code() != 0 && out.stdout.is_empty(), "{out}");
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn annotations(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "exec sleep 1000")?;
    let seen = bundle.folder().join("seen");
    let path = script(bundle.folder(), "hook.sh", &format!("exec cat > {}", seen.display()))?;
    let bundle = bundle.edit(|c| {
        c["annotations"] = json!({"org.example.key": "a value", "empty": ""});
        c["hooks"] = json!({"createRuntime": hook(&path)});
    });
    bundle.create()?.success()?;
    let want = json!({"org.example.key": "a value", "empty": ""});
    let told: Value = serde_json::from_str(&fs::read_to_string(&seen)?)?;
    ensure!(told["annotations"] == want, "{told:#}");
    ensure!(bundle.state()?["annotations"] == want, "{:#}", bundle.state()?);
    Ok(())
}

fn namespaces(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "true")?;
    let folder = bundle.folder().to_owned();
    let body =
        |name: &str| format!("cat >/dev/null; readlink /proc/self/ns/uts > {}", folder.join(name).display());
    let runtime = script(&folder, "runtime.sh", &body("runtime"))?;
    let container = script(&folder, "container.sh", &body("container"))?;
    let bundle = bundle.edit(|c| {
        c["hooks"] = json!({"createRuntime": hook(&runtime), "createContainer": hook(&container)});
    });
    bundle.run()?.success()?;
    let own = fs::read_link("/proc/self/ns/uts")?.display().to_string();
    let (runtime, container) =
        (fs::read_to_string(folder.join("runtime"))?, fs::read_to_string(folder.join("container"))?);
    ensure!(runtime.trim() == own && container.trim() != own, "{own} {runtime} {container}");
    Ok(())
}
