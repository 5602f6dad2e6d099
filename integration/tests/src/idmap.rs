//! Mounts whose ids are mapped: who owns what, inside and outside.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use anyhow::{Result, ensure};
use croft_harness::{Bundle, Facility, Host, OnRunc, Subject, Test};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::user_namespace::mapped;

pub const SUBJECT: Subject = Subject {
    name: "idmap",
    on_runc: &[
        (
            "mappings_of_the_mount",
            OnRunc::Fails("runc 1.1 takes mappings of a mount and the option idmap for nothing"),
        ),
        (
            "mappings_of_the_container",
            OnRunc::Fails("runc 1.1 takes mappings of a mount and the option idmap for nothing"),
        ),
        (
            "all_below_or_the_top_alone",
            OnRunc::Fails("runc 1.1 takes mappings of a mount and the option idmap for nothing"),
        ),
        (
            "a_file_system_that_cannot",
            OnRunc::Fails("runc 1.1 takes mappings of a mount and the option idmap for nothing"),
        ),
    ],
    tests: &[
        Test { name: "mappings_of_the_mount", requires: &[Facility::Root], run: mappings_of_the_mount },
        Test {
            name: "mappings_of_the_container",
            requires: &[Facility::Root],
            run: mappings_of_the_container,
        },
        Test {
            name: "all_below_or_the_top_alone",
            requires: &[Facility::Root, Facility::IdmappedTmpfs],
            run: all_below_or_the_top_alone,
        },
        Test {
            name: "a_file_system_that_cannot",
            requires: &[Facility::Root],
            run: a_file_system_that_cannot,
        },
    ],
};

/// A folder with a file of root's and one of user 1000's.
fn source() -> Result<TempDir> {
    let source = tempfile::tempdir()?;
    for (name, id) in [("of-root", 0), ("of-user", 1000)] {
        fs::write(source.path().join(name), "")?;
        chown(source.path().join(name), Some(id), Some(id))?;
    }
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o777))?;
    Ok(source)
}

fn bind(bundle: Bundle, source: &TempDir, options: &[&str], mappings: Option<Value>) -> Bundle {
    bundle.edit(|config| {
        let mut mount =
            json!({ "destination": "/mnt", "type": "bind", "source": source.path(), "options": options });
        if let Some(mappings) = mappings {
            mount["uidMappings"] = mappings.clone();
            mount["gidMappings"] = mappings;
        }
        config["mounts"].as_array_mut().expect("the default has mounts").push(mount);
    })
}

const OWNERS: &str = "stat -c %u:%g /mnt/of-root /mnt/of-user";

fn mappings_of_the_mount(host: &Host) -> Result<()> {
    let source = source()?;
    // The process's own ids are mapped too: it can make a file, which is root's on the host.
    let ranges = json!([{ "containerID": 0, "hostID": 5000, "size": 2000 }]);
    let script = format!("{OWNERS}; touch /mnt/new && stat -c %u:%g /mnt/new");
    let bundle = bind(Bundle::shell(host, &script)?, &source, &["bind", "idmap"], Some(ranges))
        .edit(|config| config["process"]["user"] = json!({ "uid": 5000, "gid": 5000 }));
    let out = bundle.stdout()?;
    ensure!(out == "5000:5000\n6000:6000\n5000:5000\n", "{out}");
    let new = fs::metadata(source.path().join("new"))?;
    ensure!((new.uid(), new.gid()) == (0, 0), "{}:{}", new.uid(), new.gid());
    ensure!(fs::metadata(source.path().join("of-user"))?.uid() == 1000);
    Ok(())
}

fn mappings_of_the_container(host: &Host) -> Result<()> {
    let source = source()?;
    let script = format!("{OWNERS}; touch /mnt/new && stat -c %u:%g /mnt/new");
    for (options, owners) in
        [(&["bind"][..], "65534:65534\n65534:65534\n0:0\n"), (&["bind", "idmap"], "0:0\n1000:1000\n0:0\n")]
    {
        let out = bind(mapped(Bundle::shell(host, &script)?)?, &source, options, None).stdout()?;
        ensure!(out == owners, "{options:?}: {out}");
        let new = fs::metadata(source.path().join("new"))?;
        ensure!(new.uid() == if options.len() == 1 { 100_000 } else { 0 }, "{options:?}: {}", new.uid());
        fs::remove_file(source.path().join("new"))?;
    }
    Ok(())
}

fn all_below_or_the_top_alone(host: &Host) -> Result<()> {
    let source = source()?;
    let below = source.path().join("below");
    fs::create_dir(&below)?;
    rustix::mount::mount("tmpfs", &below, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=755")?;
    let checked = (|| {
        for (options, owner) in [(["rbind", "idmap"], "65534"), (["rbind", "ridmap"], "0")] {
            let script = "stat -c %u /mnt/of-root /mnt/below";
            let out = bind(mapped(Bundle::shell(host, script)?)?, &source, &options, None).stdout()?;
            ensure!(out == format!("0\n{owner}\n"), "{options:?}: {out}");
        }
        Ok(())
    })();
    rustix::mount::unmount(&below, rustix::mount::UnmountFlags::DETACH)?;
    checked
}

fn a_file_system_that_cannot(host: &Host) -> Result<()> {
    let bundle = mapped(Bundle::shell(host, "true")?)?.edit(|config| {
        let mount = json!({ "destination": "/mnt", "type": "bind", "source": "/proc/sys",
                            "options": ["bind", "idmap"] });
        config["mounts"].as_array_mut().expect("the default has mounts").push(mount);
    });
    let error = bundle.run()?.failure()?;
    if host.kind == croft_harness::RuntimeKind::CroftOci {
        ensure!(error.contains("the file system of /proc/sys cannot be id-mapped"), "{error}");
    }
    Ok(())
}
