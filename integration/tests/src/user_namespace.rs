//! User namespaces: mappings, owners, closed folders, joined ones.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use croft_harness::bundle::VERB_LIMIT;
use croft_harness::snapshot::Snapshot;
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test, process};
use serde_json::{Value, json};

use crate::namespaces::{Holder, set};

pub const SUBJECT: Subject = Subject {
    name: "user_namespace",
    on_runc: &[
        (
            "kernel_mounts_belong_to_its_root",
            OnRunc::Fails("runc 1.1 leaves the cgroup2 hierarchy of a hybrid host out"),
        ),
        (
            "folders_that_it_cannot_enter",
            OnRunc::Fails("runc opens the rootfs as the container's root, who may not be let through to it"),
        ),
        ("joined_with_others", OnRunc::Fails("runc 1.1 wants mappings for a user namespace that it joins")),
        ("is_born_in_the_mount_namespace_given", OnRunc::CroftOnly("it is croft-shim that gives one")),
    ],
    tests: &[
        Test {
            name: "owners_inside_and_outside",
            requires: &[Facility::Root],
            run: owners_inside_and_outside,
        },
        Test {
            name: "kernel_mounts_belong_to_its_root",
            requires: &[Facility::Root],
            run: kernel_mounts_belong_to_its_root,
        },
        Test {
            name: "folders_that_it_cannot_enter",
            requires: &[Facility::Root],
            run: folders_that_it_cannot_enter,
        },
        Test { name: "joined_with_others", requires: &[Facility::Root], run: joined_with_others },
        Test {
            name: "its_capabilities_end_at_its_border",
            requires: &[Facility::Root],
            run: its_capabilities_end_at_its_border,
        },
        Test {
            name: "is_born_in_the_mount_namespace_given",
            requires: &[Facility::Root],
            run: is_born_in_the_mount_namespace_given,
        },
    ],
};

/// The first id on the host of a container's root.
pub const BASE: u32 = 100_000;

/// Gives the container a user namespace with two ranges of ids, and its root filesystem to its root.
pub fn mapped(bundle: Bundle) -> Result<Bundle> {
    own(&bundle.rootfs(), BASE)?;
    Ok(bundle.edit(|config| {
        set(config, "user", Some(json!({})));
        let ranges = json!([
            { "containerID": 0, "hostID": BASE, "size": 1000 },
            { "containerID": 1000, "hostID": 200_000, "size": 500 },
        ]);
        config["linux"]["uidMappings"] = ranges.clone();
        config["linux"]["gidMappings"] = ranges;
        config["root"]["readonly"] = false.into();
    }))
}

/// Gives a tree to one user and group.
pub fn own(path: &Path, id: u32) -> Result<()> {
    lchown(path, Some(id), Some(id))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), id)?;
        }
    }
    Ok(())
}

fn owners_inside_and_outside(host: &Host) -> Result<()> {
    let script = "cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /root /dev/null; touch /root/new; \
                  chown 1001:1002 /root/new; echo x >/dev/null && head -c 1 /dev/zero | wc -c";
    let bundle = mapped(Bundle::shell(host, script)?)?.edit(|config| {
        let all = json!(["CAP_CHOWN", "CAP_FOWNER"]);
        config["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
    });
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let out = bundle.stdout()?;
    let words: Vec<&str> = out.split_whitespace().collect();
    let map = ["0", "100000", "1000", "1000", "200000", "500"];
    ensure!(words[..6] == map && words[6..12] == map, "{out}");
    // The host's node, whose owner has no name inside.
    ensure!(words[12..] == ["0:0", "65534:65534", "1"], "{out}");
    let new = fs::metadata(bundle.rootfs().join("root/new"))?;
    ensure!((new.uid(), new.gid()) == (200_001, 200_002), "{}:{}", new.uid(), new.gid());
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn kernel_mounts_belong_to_its_root(host: &Host) -> Result<()> {
    let paths = ["/dev/mqueue", "/dev/pts", "/dev/shm", "/sys/fs/cgroup"];
    let args: Vec<&str> = paths.iter().flat_map(|p| ["--path", p]).collect();
    let bundle = mapped(Bundle::probe(host, &args)?)?.edit(|config| {
        set(config, "cgroup", Some(json!({})));
        let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                            "options": ["nosuid", "noexec", "nodev", "ro"] });
        config["mounts"].as_array_mut().expect("the default has mounts").push(mount);
    });
    let seen = bundle.probed()?;
    for path in &paths[..3] {
        ensure!(seen["paths"][path]["uid"] == 0, "{path}: {:#}", seen["paths"]);
    }
    let at = |path: &str| -> Option<Value> {
        seen["mounts"].as_array()?.iter().find(|m| m["point"] == path).map(|m| m["type"].clone())
    };
    let unified = if host.is_unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
    ensure!(at(unified) == Some(json!("cgroup2")), "{:#}", seen["mounts"]);
    ensure!(seen["cgroup"].as_array().is_some_and(|all| all.iter().any(|g| g == "0::/")), "{seen:#}");
    Ok(())
}

/// The trees are opened by the runtime, so the way to them need not be open to the container's root.
fn folders_that_it_cannot_enter(host: &Host) -> Result<()> {
    let source = tempfile::tempdir()?;
    let inner = source.path().join("inner");
    fs::create_dir(&inner)?;
    fs::write(inner.join("file"), "from behind\n")?;
    let bundle = mapped(Bundle::shell(host, "cat /mnt/file; stat -c %u /root")?)?.edit(|config| {
        let mount =
            json!({ "destination": "/mnt", "type": "bind", "source": inner, "options": ["bind", "ro"] });
        config["mounts"].as_array_mut().expect("the default has mounts").push(mount);
    });
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o700))?;
    fs::set_permissions(bundle.folder(), fs::Permissions::from_mode(0o700))?;
    let out = bundle.stdout()?;
    ensure!(out == "from behind\n0\n", "{out}");
    Ok(())
}

fn joined_with_others(host: &Host) -> Result<()> {
    let holder = Holder::new(&["--user", "--net"])?;
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", holder.pid), format!("0 {BASE} 65536"))?;
    }
    for kinds in [&[("user", "user")][..], &[("user", "user"), ("network", "net"), ("pid", "pid")]] {
        let bundle = Bundle::probe(host, &["--path", "/root"])?.edit(|config| {
            for (kind, file) in kinds {
                set(config, kind, Some(json!({ "path": holder.path(file) })));
            }
        });
        own(&bundle.rootfs(), BASE)?;
        let before = Snapshot::take(host, &[bundle.state_root()])?;
        let seen = bundle.probed()?;
        for (_, file) in kinds {
            ensure!(seen["namespaces"][file] == holder.name(file)?, "{file}: {seen:#}");
        }
        ensure!(seen["uid_map"] == json!([format!("0 {BASE} 65536")]), "{seen:#}");
        ensure!(seen["paths"]["/root"]["uid"] == 0 && seen["process"]["uid"] != 65534, "{seen:#}");
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    }
    Ok(())
}

fn its_capabilities_end_at_its_border(host: &Host) -> Result<()> {
    // With every capability inside, the container's root still is a stranger to what the host's root owns.
    let all: Vec<String> = ["SYS_ADMIN", "DAC_OVERRIDE", "CHOWN", "MKNOD", "FOWNER"]
        .iter()
        .map(|c| format!("CAP_{c}"))
        .collect();
    let script = "cat /mnt/secret; mknod /tmp/null c 1 3; chmod 777 /mnt/secret; echo end";
    let source = tempfile::tempdir()?;
    fs::write(source.path().join("secret"), "secret\n")?;
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(source.path().join("secret"), fs::Permissions::from_mode(0o600))?;
    let bundle = mapped(Bundle::shell(host, script)?)?.edit(|config| {
        config["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
        let mount =
            json!({ "destination": "/mnt", "type": "bind", "source": source.path(), "options": ["bind"] });
        config["mounts"].as_array_mut().expect("the default has mounts").push(mount);
    });
    let out = bundle.run()?;
    ensure!(out.stdout == "end\n", "{out}");
    let refused =
        out.stderr.lines().filter(|l| l.contains("ermission denied") || l.contains("not permitted"));
    ensure!(refused.count() == 3, "{out}");
    Ok(())
}

/// The container's process is born in a mount namespace whose procfs is then partly hidden, where the kernel lets no new user
/// namespace have its own (user_namespaces(7)): so it is seen from outside where the process was born.
fn is_born_in_the_mount_namespace_given(host: &Host) -> Result<()> {
    let holder = Holder::new(&["--mount"])?;
    let base = holder.path("mnt");
    let options = ["--mount-base", &base];
    let bundle = mapped(Bundle::shell(host, "cat /proc/self/uid_map; cat /mnt/file; pwd")?)?;
    let bundle = bundle.edit(|config| {
        let mount = json!({ "destination": "/mnt", "source": "shared", "options": ["rbind", "ro"] });
        config["mounts"].as_array_mut().expect("the default has mounts").push(mount);
    });
    fs::create_dir(bundle.folder().join("shared"))?;
    fs::write(bundle.folder().join("shared/file"), "from the host\n")?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let whole = |out: String| {
        ensure!(out.contains("100000") && out.ends_with("from the host\n/\n"), "{out}");
        Ok(())
    };
    whole(bundle.run_with(&options)?.success()?.stdout)?;
    // The runtime is in its own working folder again.
    let mut create = bundle.command("create");
    create.args(options).args(["--pid-file", "pid", bundle.id()]).current_dir(bundle.folder());
    process::run_into(&mut create, &["out", "err"].map(|name| bundle.folder().join(name)), VERB_LIMIT)?
        .success()?;
    ensure!(fs::read_to_string(bundle.folder().join("pid"))? == bundle.pid()?.to_string());
    bundle.verb("delete", &["--force"], &[])?.success()?;

    let mut hide = Command::new("nsenter");
    hide.arg(format!("--mount={base}")).args(["mount", "-t", "tmpfs", "tmpfs", "/proc/sys"]);
    process::run(&mut hide, VERB_LIMIT)?.success()?;
    let why = bundle.run_with(&options)?.failure()?;
    ensure!(why.contains("/proc") && why.contains("not permitted"), "{why}");
    whole(bundle.run()?.success()?.stdout)?;
    // A hook may look for the host's mounts.
    let bundle =
        bundle.edit(|config| config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] }));
    whole(bundle.run_with(&options)?.success()?.stdout)?;
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}
