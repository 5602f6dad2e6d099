//! An ordinary user's containers: with its own id or with sub-ids, with and without a delegated cgroup.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::snapshot::Snapshot;
use croft_harness::{Bundle, Facility, Host, OnRunc, Output, Subject, Test, process};
use serde_json::{Value, json};

use crate::namespaces::set;
use crate::user_namespace::own;

pub const SUBJECT: Subject = Subject {
    name: "rootless",
    on_runc: &[
        (
            "sub_ids_by_newuidmap",
            OnRunc::Fails("runc sets no additional groups for an ordinary user, though its sub-ids allow it"),
        ),
        ("a_signal_to_all", OnRunc::Fails("runc 1.1 finds the processes of a container by its cgroup alone")),
        ("a_delegated_group", OnRunc::Fails("runc 1.1 uses no delegated cgroup2 group on a hybrid host")),
        ("a_limit_without_a_group", OnRunc::CroftOnly("the words are croft's own")),
        (
            "what_a_killed_runtime_leaves",
            OnRunc::Fails("without a cgroup runc 1.1 does not find what it left behind"),
        ),
        (
            "the_users_own_program_is_sealed",
            OnRunc::CroftOnly("runc seals itself another way: a memfd with a name of its own"),
        ),
        ("refusals", OnRunc::CroftOnly("the words are croft's own")),
    ],
    tests: &[
        Test { name: "every_state_in_turn", requires: NEEDS, run: every_state_in_turn },
        Test {
            name: "its_states_are_in_its_runtime_folder",
            requires: NEEDS,
            run: its_states_are_in_its_runtime_folder,
        },
        Test {
            name: "sub_ids_by_newuidmap",
            requires: &[Facility::Root, Facility::UserNamespaces, Facility::Program("newuidmap")],
            run: sub_ids_by_newuidmap,
        },
        Test { name: "a_signal_to_all", requires: NEEDS, run: a_signal_to_all },
        Test { name: "a_delegated_group", requires: NEEDS, run: a_delegated_group },
        Test { name: "a_limit_without_a_group", requires: NEEDS, run: a_limit_without_a_group },
        Test { name: "what_a_killed_runtime_leaves", requires: NEEDS, run: what_a_killed_runtime_leaves },
        Test {
            name: "the_users_own_program_is_sealed",
            requires: NEEDS,
            run: the_users_own_program_is_sealed,
        },
        Test { name: "refusals", requires: NEEDS, run: refusals },
    ],
};

const NEEDS: &[Facility] = &[Facility::Root, Facility::UserNamespaces];

/// An ordinary user without a name.
const USER: u32 = 23_456;
/// The first of its sub-ids.
const SUB: u32 = 300_000;
const LIMIT: Duration = Duration::from_secs(20);

/// What `spec --rootless` changes in a configuration.
fn rootless(config: &mut Value) {
    let linux = config["linux"].as_object_mut().expect("the default has linux");
    linux.remove("resources");
    linux.remove("cgroupsPath");
    linux.insert("uidMappings".into(), json!([{ "containerID": 0, "hostID": USER, "size": 1 }]));
    linux.insert("gidMappings".into(), json!([{ "containerID": 0, "hostID": USER, "size": 1 }]));
    set(config, "network", None);
    set(config, "user", Some(json!({})));
    for mount in config["mounts"].as_array_mut().expect("the default has mounts") {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|o| o != "gid=5");
        }
        if mount["destination"] == "/sys" {
            mount["type"] = "none".into();
            mount["source"] = "/sys".into();
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
    }
    config["root"]["readonly"] = false.into();
}

/// A bundle of the user's.
fn bundle(host: &Host, script: &str) -> Result<Bundle> {
    let bundle = Bundle::shell(host, script)?.edit(rootless);
    own(bundle.folder(), USER)?;
    chown(bundle.state_root(), Some(USER), Some(USER))?;
    Ok(bundle)
}

/// The command, run by the user.
fn by_user(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    let ids = ["--reuid", "--regid"].map(|o| format!("{o}={USER}"));
    wrapped.args(ids).args(["--clear-groups", "--"]).arg(command.get_program()).args(command.get_args());
    wrapped.current_dir("/").env_remove("XDG_RUNTIME_DIR");
    wrapped
}

fn verb(bundle: &Bundle, verb: &str, rest: &[&str]) -> Result<Output> {
    let mut command = bundle.command(verb);
    if ["create", "run"].contains(&verb) {
        bundle.save()?;
        command.arg("--bundle").arg(bundle.folder());
    }
    if rest.first().is_some_and(|word| word.starts_with('-')) {
        command.args(rest).arg(bundle.id());
    } else {
        command.arg(bundle.id()).args(rest);
    }
    process::run(&mut by_user(&command), LIMIT)
}

fn status(bundle: &Bundle) -> Result<(String, i32)> {
    let state: Value = serde_json::from_str(&verb(bundle, "state", &[])?.success()?.stdout)?;
    let pid = state["pid"].as_i64().context("state has no pid")?;
    Ok((state["status"].as_str().unwrap_or_default().to_owned(), i32::try_from(pid)?))
}

fn every_state_in_turn(host: &Host) -> Result<()> {
    let bundle = bundle(host, "id -u; cat /proc/self/setgroups; touch /root/new; exec sleep 1000")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    verb(&bundle, "create", &[])?.success()?;
    let (word, pid) = status(&bundle)?;
    ensure!(word == "created", "{word}");
    let process = fs::metadata(format!("/proc/{pid}"))?;
    ensure!([0, USER].contains(&process.uid()), "{}", process.uid());
    verb(&bundle, "start", &[])?.success()?;
    ensure!(status(&bundle)?.0 == "running");
    verb(&bundle, "delete", &[])?.failure()?;
    verb(&bundle, "kill", &["KILL"])?.success()?;
    bundle.ended(pid, LIMIT)?;
    ensure!(status(&bundle)?.0 == "stopped");
    verb(&bundle, "delete", &[])?.success()?;
    ensure!(fs::metadata(bundle.rootfs().join("root/new"))?.uid() == USER);
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    let out = verb(&self::bundle(host, "id -u; cat /proc/self/setgroups; exit 7")?, "run", &[])?;
    ensure!(out.code() == 7 && out.stdout == "0\ndeny\n", "{out}");
    Ok(())
}

fn its_states_are_in_its_runtime_folder(host: &Host) -> Result<()> {
    let bundle = bundle(host, "true")?;
    bundle.save()?;
    let folder = bundle.state_root().join("runtime");
    fs::create_dir(&folder)?;
    chown(&folder, Some(USER), Some(USER))?;
    let name = bundle.id().to_owned();
    let run = |verb: &str| {
        let mut command = Command::new(&host.runtime);
        command.arg(verb);
        if verb == "create" {
            command.arg("--bundle").arg(bundle.folder());
        }
        process::run(by_user(command.arg(&name)).env("XDG_RUNTIME_DIR", &folder), LIMIT)
    };
    run("create")?.success()?;
    let found: Vec<PathBuf> = fs::read_dir(&folder)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    ensure!(found.len() == 1 && found[0].join(&name).is_dir(), "{found:?}");
    run("start")?.success()?;
    let mut command = Command::new(&host.runtime);
    command.args(["delete", "--force"]).arg(&name);
    process::run(by_user(&command).env("XDG_RUNTIME_DIR", &folder), LIMIT)?.success()?;
    ensure!(!found[0].join(&name).exists());
    Ok(())
}

/// Gives the user a name and sub-ids, in copies of the host's files in a mount namespace of the command's own.
fn with_sub_ids(command: &Command) -> Command {
    let script = format!(
        "set -e; mount -t tmpfs -o mode=755 tmpfs /mnt
        for file in passwd subuid subgid; do touch /etc/$file; cp /etc/$file /mnt; done
        echo croft-test:x:{USER}:{USER}::/:/bin/sh >>/mnt/passwd
        echo {USER}:{SUB}:65536 >/mnt/subuid; cp /mnt/subuid /mnt/subgid
        for file in passwd subuid subgid; do mount --bind /mnt/$file /etc/$file; done
        exec \"$@\""
    );
    let inner = by_user(command);
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "--propagation=private", "sh", "-c", &script, "sh"]);
    wrapped.arg(inner.get_program()).args(inner.get_args());
    wrapped
}

fn sub_ids_by_newuidmap(host: &Host) -> Result<()> {
    let script =
        "cat /proc/self/uid_map /proc/self/gid_map; id; touch /tmp/new; stat -c %u:%g /root /tmp/new";
    let bundle = bundle(host, script)?.edit(|config| {
        let ranges = json!([
            { "containerID": 0, "hostID": USER, "size": 1 },
            { "containerID": 1, "hostID": SUB, "size": 65_536 },
        ]);
        config["linux"]["uidMappings"] = ranges.clone();
        config["linux"]["gidMappings"] = ranges;
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [7] });
    });
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    bundle.save()?;
    let mut command = bundle.command("run");
    command.arg("--bundle").arg(bundle.folder()).arg(bundle.id());
    let out = process::run(&mut with_sub_ids(&command), LIMIT)?.success()?.stdout;
    let lines: Vec<String> =
        out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let map = [format!("0 {USER} 1"), format!("1 {SUB} 65536")];
    ensure!(lines[..2] == map && lines[2..4] == map, "{out}");
    ensure!(lines[4].starts_with("uid=1000") && lines[4].ends_with("groups=7"), "{out}");
    ensure!(lines[5..] == ["0:0", "1000:1000"], "{out}");
    let new = fs::metadata(bundle.rootfs().join("tmp/new"))?;
    ensure!(new.uid() == SUB + 999, "{}", new.uid());
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    // Ids that are not the user's are refused, by newuidmap.
    let bundle = bundle.edit(|config| config["linux"]["uidMappings"][1]["hostID"] = (SUB - 1).into());
    bundle.save()?;
    let error = process::run(&mut with_sub_ids(&command), LIMIT)?.failure()?;
    ensure!(error.contains("newuidmap"), "{error}");
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

/// A cgroup2 folder that belongs to the user, with one below for the user's process.
struct Delegated {
    top: PathBuf,
}

impl Delegated {
    fn new(host: &Host, name: &str) -> Result<Self> {
        let root = host.cgroup2.as_ref().context("no cgroup2")?;
        let this = Self { top: root.join(format!("{}-{name}", host.marker)) };
        for dir in [&this.top, &this.top.join("session")] {
            fs::create_dir(dir)?;
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(dir.join(file), Some(USER), Some(USER))?;
            }
        }
        Ok(this)
    }

    /// The command, run by the user in this group.
    fn inside(&self, command: &Command) -> Command {
        let command = by_user(command);
        let mut wrapped = Command::new("sh");
        wrapped.args(["-c", "echo $$ >\"$0\"; exec \"$@\""]).arg(self.top.join("session/cgroup.procs"));
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.top.join("session"));
        let _ = fs::remove_dir(&self.top);
    }
}

/// Without a group, all of a container are those in its pid namespace.
fn a_signal_to_all(host: &Host) -> Result<()> {
    let script =
        "(trap 'echo child' TERM; echo ready; while :; do sleep 0.1; done) & trap : TERM; wait; wait";
    let bundle = bundle(host, script)?;
    bundle.save()?;
    let mut create = bundle.command("create");
    create.arg("--bundle").arg(bundle.folder()).arg(bundle.id());
    let files = ["out", "err"].map(|name| bundle.state_root().join(name));
    process::run_into(&mut by_user(&create), &files, LIMIT)?.success()?;
    let (_, pid) = status(&bundle)?;
    verb(&bundle, "start", &[])?.success()?;
    let said = |word: &str| -> Result<()> {
        let end = std::time::Instant::now() + LIMIT;
        while !fs::read_to_string(&files[0])?.contains(word) {
            ensure!(std::time::Instant::now() < end, "{word:?} was not said");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    };
    said("ready")?;
    let mut all = bundle.command("kill");
    process::run(&mut by_user(all.arg("--all").arg(bundle.id()).arg("TERM")), LIMIT)?.success()?;
    said("child")?;
    let mut all = bundle.command("kill");
    process::run(&mut by_user(all.arg("--all").arg(bundle.id()).arg("KILL")), LIMIT)?.success()?;
    bundle.ended(pid, LIMIT)?;
    verb(&bundle, "delete", &[])?.success().map(drop)
}

fn a_delegated_group(host: &Host) -> Result<()> {
    let delegated = Delegated::new(host, "delegated")?;
    let bundle = bundle(host, "grep ^0:: /proc/self/cgroup; exec sleep 1000")?;
    bundle.save()?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let mut create = bundle.command("create");
    create.arg("--bundle").arg(bundle.folder()).arg(bundle.id());
    process::run(&mut delegated.inside(&create), LIMIT)?.success()?;
    let (_, pid) = status(&bundle)?;
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let top = delegated.top.file_name().unwrap_or_default().to_string_lossy();
    let want = format!("0::/{top}/croft-{}", bundle.id());
    ensure!(group.lines().any(|l| l == want), "{group}");
    verb(&bundle, "start", &[])?.success()?;
    // From outside of the group: what is recorded counts.
    verb(&bundle, "delete", &["--force"])?.success()?;
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn a_limit_without_a_group(host: &Host) -> Result<()> {
    let bundle = bundle(host, "true")?
        .edit(|config| config["linux"]["resources"] = json!({ "pids": { "limit": 20 } }));
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let error = verb(&bundle, "run", &[])?.failure()?;
    ensure!(error.contains("linux.resources.pids.limit") && error.contains("delegated"), "{error}");
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

/// No group leads to what is left of a container whose runtime was killed half way: its record does.
fn what_a_killed_runtime_leaves(host: &Host) -> Result<()> {
    let bundle = bundle(host, "true")?;
    let fifo = bundle.state_root().join("reached");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o666.into(), 0)?;
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666))?;
    // Runs in the container's namespaces, as a child of its process; the state on its input has no pid yet.
    let script = format!("echo >{}; exec sleep 1000", fifo.display());
    let bundle = bundle.edit(|config| {
        config["hooks"] = json!({ "createContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    let before = Snapshot::take(host, &[])?;
    bundle.save()?;
    let mut create = bundle.command("create");
    create.arg("--bundle").arg(bundle.folder()).arg(bundle.id());
    let mut runtime = by_user(&create).spawn()?;
    fs::read(&fifo)?;
    runtime.kill()?;
    runtime.wait()?;
    verb(&bundle, "delete", &["--force"])?.success()?;
    ensure!(!bundle.state_root().join(bundle.id()).exists());
    before.same_as(&Snapshot::take(host, &[])?)
}

fn the_users_own_program_is_sealed(host: &Host) -> Result<()> {
    let bundle = bundle(host, "true")?;
    let program = bundle.folder().join("croft-oci");
    fs::copy(&host.runtime, &program)?;
    for (owner, sealed) in [(USER, true), (0, false)] {
        chown(&program, Some(owner), Some(owner))?;
        let mut create = Command::new(&program);
        create.arg("--root").arg(bundle.state_root()).args(["create", "--bundle"]);
        bundle.save()?;
        process::run(&mut by_user(create.arg(bundle.folder()).arg(bundle.id())), LIMIT)?.success()?;
        let (_, pid) = status(&bundle)?;
        let runs = fs::read_link(format!("/proc/{pid}/exe"))?.display().to_string();
        ensure!(
            runs.starts_with("/memfd:") == sealed && (sealed || *runs == *program.display().to_string()),
            "{runs}"
        );
        verb(&bundle, "delete", &["--force"])?.success()?;
    }
    Ok(())
}

/// What a case changes in the configuration.
type Change = fn(&mut Value);

fn refusals(host: &Host) -> Result<()> {
    let cases: [(Change, &str); 3] = [
        (
            |c| {
                set(c, "user", None);
                let l = c["linux"].as_object_mut().expect("linux");
                l.remove("uidMappings");
                l.remove("gidMappings");
            },
            "needs a user namespace",
        ),
        (|c| c["process"]["user"]["additionalGids"] = json!([7]), "additional groups are denied"),
        (
            |c| c["mounts"][0] = json!({ "destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"] }),
            "ordinary user cannot map the ids",
        ),
    ];
    for (change, why) in cases {
        let bundle = bundle(host, "true")?.edit(change);
        let before = Snapshot::take(host, &[bundle.state_root()])?;
        let error = verb(&bundle, "run", &[])?.failure()?;
        ensure!(error.contains(why), "{why}: {error}");
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    }
    Ok(())
}
