//! Devices by their names in CDI specifications, seen from inside.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::json;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const NEEDS: &[Facility] = &[Facility::Root];
const NETWORK: &[Facility] = &[Facility::Root, Facility::Packages(&["iproute2"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_cdi",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "a_named_device_brings_what_it_needs", requires: NEEDS, run: named },
        Test {
            name: "a_network_device_is_the_containers_while_it_runs",
            requires: NETWORK,
            run: network_device,
        },
        Test { name: "gpus_are_named_devices", requires: NEEDS, run: gpus },
        Test { name: "a_device_that_is_not_there_leaves_nothing", requires: NEEDS, run: unknown },
    ],
};

/// Run in the container's namespaces, before its root is the root: leaves a file where the container finds it, as a driver's hook does
/// that updates the cache of the linker.
const HOOK: &str = "#!/bin/sh
set -e
bundle=$(sed -n 's/.*\"bundle\": *\"\\([^\"]*\\)\".*/\\1/p')
root=$(sed -n 's/.*\"root\":{\"path\":\"\\([^\"]*\\)\".*/\\1/p' \"$bundle/config.json\")
echo \"$1 $HOOK_SAYS\" > \"$root/hooked\"
";

/// croftd with two folders of specifications, `etc` and `run` on the stage.
fn with_folders(host: &Host) -> Result<Croft> {
    let mut croft = Croft::new(host)?;
    for folder in ["cdi/etc", "cdi/run"] {
        std::fs::create_dir_all(croft.stage.path(folder))?;
    }
    croft.terminate()?;
    let folders = ["cdi/etc", "cdi/run"].map(|folder| croft.path(folder));
    croft.start_as(&[], &["--cdi-dir", &folders[0], "--cdi-dir", &folders[1]])?;
    Ok(croft)
}

fn named(host: &Host) -> Result<()> {
    let croft = with_folders(host)?;
    let hook = croft.stage.path("cdi/hook");
    std::fs::write(&hook, HOOK)?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    std::fs::create_dir(croft.stage.path("cdi/driver"))?;
    std::fs::write(croft.stage.path("cdi/driver/library"), "of the driver")?;
    let specification = json!({
        "cdiVersion": "0.7.0",
        "kind": "example.com/test",
        "devices": [
            {"name": "zero", "containerEdits": {
                "env": ["DEVICE=zero"],
                "deviceNodes": [{"path": "/dev/croft-cdi0", "hostPath": "/dev/zero", "fileMode": 0o600}],
            }},
            // No node of the host's, and no driver either.
            {"name": "none", "containerEdits": {
                "deviceNodes": [{"path": "/dev/croft-cdi1", "type": "c", "major": 1, "minor": 99, "permissions": "r", "uid": 7, "gid": 8}],
            }},
        ],
        "containerEdits": {
            "env": ["DRIVER=here", "ASKED=by the driver"],
            "mounts": [{"hostPath": croft.path("cdi/driver"), "containerPath": "/usr/driver", "options": ["ro", "nosuid", "nodev", "bind"]}],
            "hooks": [{"hookName": "createContainer", "path": hook, "args": ["hook", "first"],
                       "env": ["HOOK_SAYS=second", "PATH=/usr/bin:/bin"]}],
            "additionalGids": [44],
        },
    });
    std::fs::write(croft.stage.path("cdi/etc/test.json"), specification.to_string())?;
    let script = "stat -c '%F %a %u' /dev/croft-cdi0; head -c 3 /dev/croft-cdi0 | wc -c; \
                  echo $DEVICE $DRIVER $ASKED; cat /usr/driver/library; echo; (: >> /usr/driver/library) 2>/dev/null && exit 9; cat /hooked; id -G";
    let zero = ["run", "--rm", "--device", "example.com/test=zero", "--env", "ASKED=by the user"];
    let seen = croft.ok(&[&zero[..], &["box", "sh", "-c", script]].concat())?;
    let wanted = "character special file 600 0\n3\nzero here by the driver\nof the driver\nfirst second\n";
    let (beginning, groups) = seen.split_at(wanted.len().min(seen.len()));
    ensure!(beginning == wanted && groups.split_whitespace().any(|gid| gid == "44"), "{seen}");
    // Beside another device of the kind, and one that is a path; the filter lets the driver be asked, and there is none.
    let script = "stat -c '%u %g %t %T' /dev/croft-cdi1; (: < /dev/croft-cdi1) 2>&1 | grep -o 'No such device'; (: >> /dev/croft-cdi1) 2>&1 | grep -o 'not permitted'; ls /dev/croft-cdi0 /dev/mine";
    let both = ["run", "--rm", "--device", "example.com/test=zero", "--device", "example.com/test=none"];
    let path = ["--device", "/dev/zero:/dev/mine", "--user", "0:0", "box", "sh", "-c", script];
    let seen = croft.ok(&[&both[..], &path].concat())?;
    ensure!(seen == "7 8 1 63\nNo such device\nnot permitted\n/dev/croft-cdi0\n/dev/mine\n", "{seen}");
    let without = croft.ok(&["run", "--rm", "box", "sh", "-c", "ls /dev /usr; env; test ! -e /hooked"])?;
    ensure!(
        !without.contains("croft-cdi") && !without.contains("driver") && !without.contains("DEVICE"),
        "{without}"
    );
    // A device can go away between a container's making and its start.
    croft.ok(&["create", "--name", "later", "--device", "example.com/test=zero", "box", "cat", "/hooked"])?;
    std::fs::remove_file(croft.stage.path("cdi/etc/test.json"))?;
    let (_, error) = croft.fails(&["start", "later"])?;
    ensure!(error.contains("example.com/test=zero") && error.contains("start later"), "{error}");
    std::fs::write(croft.stage.path("cdi/run/test.json"), specification.to_string())?;
    croft.ok(&["start", "later"])?;
    croft.ok(&["wait", "later"])?;
    ensure!(croft.ok(&["logs", "later"])? == "first second\n");
    croft.ok(&["rm", "later"])?;
    croft.nothing_is_left()
}

fn network_device(host: &Host) -> Result<()> {
    let croft = with_folders(host)?;
    let specification = json!({
        "cdiVersion": "1.1.0",
        "kind": "example.com/net",
        "devices": [{"name": "fast", "containerEdits": {"netDevices": [{"hostInterfaceName": "cdi0", "name": "fast0"}]}}],
    });
    std::fs::write(croft.stage.path("cdi/etc/net.json"), specification.to_string())?;
    let args = ["run", "--network", "none", "--device", "example.com/net=fast", "--name", "one"];
    let (_, refused) = croft.fails(&[&args[..], &["box", "true"]].concat())?;
    ensure!(refused.contains("cdi0"), "{refused}");
    croft.nothing_is_left()?;
    croft.stage.run("ip", &["link", "add", "cdi0", "type", "veth", "peer", "name", "cdi1"])?.success()?;
    croft.stage.run("ip", &["address", "add", "192.0.2.7/24", "dev", "cdi0"])?.success()?;
    croft.ok(&[&args[..], &["--detach", "box", "sleep", "1000"]].concat())?;
    let seen = croft.ok(&["exec", "one", "ip", "address", "show", "fast0"])?;
    ensure!(seen.contains("192.0.2.7/24"), "{seen}");
    ensure!(croft.stage.run("ip", &["link", "show", "cdi0"])?.code() != 0, "the host has it no longer");
    croft.ok(&["rm", "--force", "one"])?;
    croft.nothing_is_left()
}

fn gpus(host: &Host) -> Result<()> {
    let croft = with_folders(host)?;
    let of = |folder: &str, says: &str| {
        let device =
            |name: &str| format!("- name: \"{name}\"\n  containerEdits:\n    env: [\"GPU_{name}={says}\"]\n");
        let devices: String = ["0", "1", "2", "all"].into_iter().map(device).collect();
        let text = format!("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n{devices}");
        std::fs::write(croft.stage.path(folder).join("nvidia.yaml"), text)
    };
    of("cdi/etc", "etc")?;
    let info: serde_json::Value = serde_json::from_str(&croft.ok(&["system", "info"])?)?;
    ensure!(info["cdi"][3] == "nvidia.com/gpu=all", "{info:#}");
    // As the script of bash asks.
    let croft_itself = croft.program.display();
    let ask = format!(
        "export COMPLETE=bash _CLAP_COMPLETE_INDEX=3 _CLAP_COMPLETE_COMP_TYPE=9 _CLAP_IFS=' '; \
         {croft_itself} -- croft run --device nvidia; {croft_itself} -- croft run --device /dev/nul"
    );
    let offered = croft.stage.run("sh", &["-c", &ask])?.success()?.stdout;
    ensure!(offered.contains("nvidia.com/gpu=2") && offered.contains("/dev/null"), "{offered}");
    let seen =
        |gpus: &str| croft.ok(&["run", "--rm", "--gpus", gpus, "box", "sh", "-c", "env | grep ^GPU_ | sort"]);
    ensure!(seen("all")? == "GPU_all=etc\n");
    // What the driver's service writes at boot goes before what an installer left.
    of("cdi/run", "run")?;
    ensure!(seen("2")? == "GPU_0=run\nGPU_1=run\n");
    ensure!(seen("\"device=0,2\"")? == "GPU_0=run\nGPU_2=run\n");
    let (code, error) = croft.fails(&["run", "--rm", "--gpus", "4", "box", "true"])?;
    ensure!(code == 125 && error.contains("nvidia.com/gpu=3"), "{code}: {error}");
    croft.nothing_is_left()
}

fn unknown(host: &Host) -> Result<()> {
    let croft = with_folders(host)?;
    let run = |device: &str| croft.fails(&["run", "--rm", "--device", device, "box", "true"]);
    let none = run("example.com/test=zero")?;
    let folders = ["cdi/etc", "cdi/run"].map(|folder| croft.path(folder));
    ensure!(none.0 == 125 && folders.iter().all(|folder| none.1.contains(folder.as_str())), "{none:?}");
    let specification = json!({"cdiVersion": "0.6.0", "kind": "example.com/test", "devices": [
        {"name": "zero", "containerEdits": {"deviceNodes": [{"path": "/dev/zero0", "hostPath": "/dev/zero"}]}},
        {"name": "gone", "containerEdits": {"deviceNodes": [{"path": "/dev/gone", "hostPath": "/dev/none/such"}]}},
        {"name": "hook", "containerEdits": {"hooks": [{"hookName": "createRuntime", "path": "/bin/false"}]}},
        {"name": "file", "containerEdits": {"mounts": [{"hostPath": "/none/such", "containerPath": "/x", "options": ["bind"]}]}},
    ]});
    let write = |name: &str, text: &str| std::fs::write(croft.stage.path("cdi").join(name), text);
    write("etc/test.json", &specification.to_string())?;
    write("etc/broken.yaml", "kind: [")?;
    for (device, words) in [
        ("example.com/test=zer0", &["there is example.com/test=zero", "broken.yaml"][..]),
        ("example.com/test=gone", &["/dev/none/such"]),
        ("example.com/test=file", &["/none/such"]),
        ("example.com/test=hook", &["/bin/false"]),
        ("example.com/=x", &["VENDOR/CLASS=NAME"]),
    ] {
        let (code, error) = run(device)?;
        // A file that is not there is not told from a program that is not.
        ensure!(
            matches!(code, 125 | 127) && words.iter().all(|word| error.contains(word)),
            "{device}: {code}: {error}"
        );
        croft.nothing_is_left()?;
    }
    write("etc/other.json", &specification.to_string())?;
    let (_, error) = run("example.com/test=zero")?;
    ensure!(error.contains("etc/other.json") && error.contains("etc/test.json"), "{error}");
    croft.ok(&["run", "--rm", "box", "true"])?;
    croft.nothing_is_left()
}
