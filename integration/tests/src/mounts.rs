//! `mounts`, masked and read-only paths, devices: as seen inside.
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use serde_json::{Value, json};

pub const SUBJECT: Subject = Subject {
    name: "mounts",
    on_runc: &[
        ("recursive_attributes", OnRunc::CroftOnly("Debian bookworm's runc 1.1.5 has only some of them")),
        (
            "propagation_of_the_root",
            OnRunc::Fails(
                "1.1.5 cannot make an unbindable root, nor a shared one where the host's is private",
            ),
        ),
    ],
    tests: &[
        Test { name: "binds_of_files_and_folders", requires: &[Facility::Root], run: binds },
        Test { name: "recursive_attributes", requires: &[Facility::Root], run: recursive_attributes },
        Test { name: "a_tmpfs_starts_with_a_copy", requires: &[Facility::Root], run: copy_up },
        Test { name: "a_tmpfs_has_its_options", requires: &[Facility::Root], run: tmpfs_options },
        Test { name: "links_stay_inside_the_root", requires: &[Facility::Root], run: links_stay_inside },
        Test { name: "masked_and_read_only_paths", requires: &[Facility::Root], run: masked },
        Test { name: "device_nodes", requires: &[Facility::Root], run: device_nodes },
        Test { name: "devices_are_filtered", requires: &[Facility::Root], run: devices_are_filtered },
        Test { name: "a_read_only_root", requires: &[Facility::Root], run: read_only_root },
        Test { name: "the_host_sees_no_mount", requires: &[Facility::Root], run: host_sees_no_mount },
        Test { name: "propagation_of_a_bind", requires: &[Facility::Root], run: propagation },
        Test {
            name: "the_mount_table_is_in_the_order_of_the_spec",
            requires: &[Facility::Root],
            run: in_order,
        },
        Test { name: "propagation_of_the_root", requires: &[Facility::Root], run: root_propagation },
    ],
};

fn add_mount(config: &mut Value, mount: Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(mount);
    }
}

fn binds(host: &Host) -> Result<()> {
    let outside = tempfile::tempdir()?;
    fs::write(outside.path().join("file"), "from the host\n")?;
    let file = outside.path().join("file");
    let bundle = Bundle::shell(
        host,
        "cat /made/here /folder/file; echo x > /folder/file || echo refused; echo y > /rw/new",
    )?
    .edit(|c| {
        add_mount(
            c,
            json!({"destination": "/made/here", "source": file, "type": "bind", "options": ["bind", "ro"]}),
        );
        add_mount(c, json!({"destination": "/folder", "source": outside.path(), "options": ["rbind", "ro"]}));
        add_mount(
            c,
            json!({"destination": "/rw", "source": outside.path(), "options": ["rbind", "rw", "nosuid"]}),
        );
    });
    let out = bundle.stdout()?;
    ensure!(out == "from the host\nfrom the host\nrefused\n", "{out}");
    ensure!(fs::read_to_string(outside.path().join("new"))? == "y\n");
    ensure!(fs::read_to_string(&file)? == "from the host\n");
    Ok(())
}

fn recursive_attributes(host: &Host) -> Result<()> {
    // A tmpfs below the bind source, made in the suite's own mount namespace.
    let outside = tempfile::tempdir()?;
    fs::create_dir(outside.path().join("below"))?;
    let below = outside.path().join("below");
    let _mounted = TmpfsMount::on(&below)?;
    for (option, refused) in [("ro", "top\n"), ("rro", "top\nbelow\n")] {
        let script = "touch /b/x 2>/dev/null || echo top; touch /b/below/x 2>/dev/null || echo below";
        let bundle = Bundle::shell(host, script)?.edit(|c| {
            add_mount(
                c,
                json!({"destination": "/b", "source": outside.path(), "options": ["rbind", option]}),
            );
        });
        let out = bundle.stdout()?;
        ensure!(out == refused, "{option}: {out}");
    }
    Ok(())
}

/// A tmpfs of the test's own.
struct TmpfsMount(std::path::PathBuf);

impl TmpfsMount {
    fn on(path: &std::path::Path) -> Result<Self> {
        rustix::mount::mount("tmpfs", path, "tmpfs", rustix::mount::MountFlags::empty(), None)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for TmpfsMount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

fn copy_up(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "cat /data/sub/file; readlink /data/link; stat -c %a:%u /data/sub/file; echo new > /data/new; ls /data")?
        .edit(|c| add_mount(c, json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]})));
    let data = bundle.rootfs().join("data");
    fs::create_dir_all(data.join("sub"))?;
    fs::write(data.join("sub/file"), "hidden\n")?;
    fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o640))?;
    std::os::unix::fs::symlink("sub/file", data.join("link"))?;
    let out = bundle.stdout()?;
    ensure!(out == "hidden\nsub/file\n640:0\nlink\nnew\nsub\n", "{out}");
    ensure!(!data.join("new").exists(), "the root filesystem was written to");
    Ok(())
}

fn tmpfs_options(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &["--path", "/t"])?
        .edit(|c| {
            add_mount(
                c,
                json!({"destination": "/t", "type": "tmpfs", "source": "t",
                "options": ["nosuid", "noexec", "mode=711", "size=64k"]}),
            );
        })
        .probed()?;
    let text = seen["mounts"].to_string();
    ensure!(text.contains("size=64k") && text.contains("noexec"), "{text}");
    Ok(())
}

fn links_stay_inside(host: &Host) -> Result<()> {
    let outside = tempfile::tempdir()?;
    let bundle = Bundle::shell(host, "ls /inside 2>/dev/null | wc -l")?.edit(|c| {
        add_mount(c, json!({"destination": "/link/dir", "type": "tmpfs", "source": "tmpfs"}));
    });
    std::os::unix::fs::symlink(outside.path(), bundle.rootfs().join("link"))?;
    let _ = bundle.run()?;
    ensure!(fs::read_dir(outside.path())?.next().is_none(), "a folder was made outside of the root");
    Ok(())
}

fn masked(host: &Host) -> Result<()> {
    let script =
        "cat /secret; ls /hidden | wc -l; echo x > /fixed/y 2>/dev/null || echo read-only; cat /fixed/x";
    let bundle = Bundle::shell(host, script)?.edit(|c| {
        c["root"]["readonly"] = json!(false);
        c["linux"]["maskedPaths"] = json!(["/secret", "/hidden", "/not/there", "/proc/kcore"]);
        c["linux"]["readonlyPaths"] = json!(["/fixed", "/also/not/there", "/proc/sys"]);
    });
    let root = bundle.rootfs();
    fs::write(root.join("secret"), "seen\n")?;
    for (folder, file) in [("hidden", "hidden/x"), ("fixed", "fixed/x")] {
        fs::create_dir(root.join(folder))?;
        fs::write(root.join(file), "kept\n")?;
    }
    let out = bundle.stdout()?;
    ensure!(out == "0\nread-only\nkept\n", "{out}");
    Ok(())
}

fn device_nodes(host: &Host) -> Result<()> {
    let script = "stat -c '%n %t:%T %a %u:%g' /dev/own /dev/null; readlink /dev/fd; readlink /dev/ptmx; echo x > /dev/null && echo ok";
    let bundle = Bundle::shell(host, script)?.edit(|c| {
        c["linux"]["devices"] = json!([{"path": "/dev/own", "type": "c", "major": 1, "minor": 5,
            "fileMode": 0o640, "uid": 7, "gid": 8}]);
        if let Some(rules) = c["linux"]["resources"]["devices"].as_array_mut() {
            rules.push(json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"}));
        }
    });
    let out = bundle.stdout()?;
    ensure!(out == "/dev/own 1:5 640 7:8\n/dev/null 1:3 666 0:0\n/proc/self/fd\npts/ptmx\nok\n", "{out}");
    Ok(())
}

fn devices_are_filtered(host: &Host) -> Result<()> {
    // 1:11 is /dev/kmsg: the node can be made, and not be opened.
    let script = "mknod /dev/kmsg c 1 11 && echo made; head -c1 /dev/kmsg >/dev/null 2>&1 || echo refused; head -c1 /dev/zero | wc -c";
    let bundle = Bundle::shell(host, script)?.edit(|c| {
        for set in ["bounding", "effective", "permitted"] {
            c["process"]["capabilities"][set] = json!(["CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_ADMIN"]);
        }
    });
    let out = bundle.stdout()?;
    ensure!(out == "made\nrefused\n1\n", "{out}");
    Ok(())
}

fn read_only_root(host: &Host) -> Result<()> {
    for (readonly, want) in [(true, "read-only\n"), (false, "")] {
        let bundle = Bundle::shell(host, "touch /x 2>/dev/null || echo read-only")?
            .edit(|c| c["root"]["readonly"] = json!(readonly));
        let out = bundle.stdout()?;
        ensure!(out == want, "{readonly}: {out}");
    }
    Ok(())
}

fn host_sees_no_mount(host: &Host) -> Result<()> {
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.started()?;
    let during = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(before == during, "before:\n{before}\nduring:\n{during}");
    Ok(())
}

fn propagation(host: &Host) -> Result<()> {
    let outside = tempfile::tempdir()?;
    for (option, want) in [("rprivate", ""), ("rshared", "shared"), ("rslave", "")] {
        let seen = Bundle::probe(host, &[])?
            .edit(|c| {
                add_mount(
                    c,
                    json!({"destination": "/b", "source": outside.path(), "options": ["rbind", option]}),
                );
            })
            .probed()?;
        let mounts = seen["mounts"].as_array().cloned().unwrap_or_default();
        let own = mounts.iter().find(|m| m["point"] == "/b").cloned().unwrap_or_default();
        let shared = own["propagation"].as_array().is_some_and(|tags| tags.contains(&json!("shared")));
        ensure!(shared == (want == "shared"), "{option}: {own:#}");
    }
    Ok(())
}

fn root_propagation(host: &Host) -> Result<()> {
    let none: &[&str] = &[];
    for (option, want) in
        [("shared", &["shared"][..]), ("rslave", none), ("private", none), ("unbindable", &["unbindable"])]
    {
        let bundle = Bundle::probe(host, &[])?.edit(|c| c["linux"]["rootfsPropagation"] = option.into());
        let seen = bundle.probed()?;
        let root = seen["mounts"].as_array().and_then(|mounts| mounts.iter().find(|m| m["point"] == "/"));
        ensure!(root.is_some_and(|m| m["propagation"] == json!(want)), "{option}: {root:#?}");
    }
    Ok(())
}

fn in_order(host: &Host) -> Result<()> {
    let outside = tempfile::tempdir()?;
    let bundle = Bundle::probe(host, &[])?.edit(|c| {
        for n in 1..=3 {
            let (tmpfs, bind) = (format!("/m{n}"), format!("/m{n}/bind"));
            add_mount(c, json!({"destination": tmpfs, "type": "tmpfs", "source": "tmpfs"}));
            add_mount(c, json!({"destination": bind, "source": outside.path(), "options": ["bind"]}));
        }
    });
    let wanted: Vec<String> = bundle.config["mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|m| Some(m["destination"].as_str()?.to_owned()))
        .collect();
    let seen = bundle.probed()?;
    let points = seen["mounts"].as_array().into_iter().flatten().filter_map(|m| m["point"].as_str());
    let points: Vec<&str> = points.filter(|point| wanted.iter().any(|w| w == point)).collect();
    ensure!(points == wanted, "{points:?}");
    Ok(())
}
