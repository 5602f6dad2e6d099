//! Specifications in folders, and what is made of them.

use serde_json::{Value, json};

use super::*;

/// A specification of devices called so, each with a variable that says which file has it.
fn specification(kind: &str, from: &str, devices: &[&str]) -> Value {
    let device = |name: &&str| json!({"name": name, "containerEdits": {"env": [format!("{from}={name}")]}});
    let devices: Vec<Value> = devices.iter().map(device).collect();
    json!({"cdiVersion": "0.6.0", "kind": kind, "devices": devices, "containerEdits": {"env": [format!("ALL={from}")]}})
}

/// Two folders with these files.
fn folders(files: &[(&str, String)]) -> (tempfile::TempDir, Cdi) {
    let root = tempfile::tempdir().unwrap();
    let folders = ["etc", "run"].map(|name| root.path().join(name));
    folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    files.iter().for_each(|(path, text)| std::fs::write(root.path().join(path), text).unwrap());
    (root, Cdi::new(folders.into()))
}

fn edits(cdi: &Cdi, names: &[&str]) -> Result<Edits, String> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    cdi.edits(&names).map_err(|error| error.to_string())
}

#[test]
fn devices_are_found_by_name_and_what_all_need_comes_once() {
    let files = [
        ("etc/a.json", specification("example.com/a", "A", &["0", "1", "all"]).to_string()),
        ("etc/b.yaml", "cdiVersion: 0.3.0\nkind: example.com/b\ndevices:\n- name: x:1\n".to_owned()),
        ("etc/README", "not one".to_owned()),
    ];
    let (_root, cdi) = folders(&files);
    let found = edits(&cdi, &["example.com/a=1", "example.com/b=x:1", "example.com/a=0", "example.com/a=1"]);
    assert_eq!(found.unwrap().env, ["ALL=A", "A=1", "A=0"]);
    let names = ["example.com/a=0", "example.com/a=1", "example.com/a=all", "example.com/b=x:1"];
    assert_eq!(cdi.names(), names);
    assert_eq!(edits(&cdi, &[]), Ok(Edits::default()));
    assert_eq!(Cdi::new(vec!["/none/such".into()]).edits(&[]).unwrap(), Edits::default());
}

#[test]
fn a_later_folder_goes_before_and_two_files_of_one_do_not_agree() {
    let of = |from: &str| specification("example.com/a", from, &["0"]).to_string();
    let (root, cdi) = folders(&[("etc/a.json", of("A")), ("run/b.json", of("B"))]);
    assert_eq!(edits(&cdi, &["example.com/a=0"]).unwrap().env, ["ALL=B", "B=0"]);
    std::fs::write(root.path().join("etc/c.json"), of("C")).unwrap();
    assert_eq!(edits(&cdi, &["example.com/a=0"]).unwrap().env, ["ALL=B", "B=0"], "neither of them counts");
    std::fs::write(root.path().join("run/d.json"), of("D")).unwrap();
    let error = edits(&cdi, &["example.com/a=0"]).unwrap_err();
    assert!(error.contains("run/b.json and in") && error.contains("run/d.json"), "{error}");
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let (root, cdi) = folders(&[
        ("etc/a.json", specification("example.com/a", "A", &["zero"]).to_string()),
        ("run/broken.json", "{".to_owned()),
    ]);
    let error = edits(&cdi, &["example.com/a=zeroo"]).unwrap_err();
    let folder = root.path().display();
    for part in [
        "the device example.com/a=zeroo".to_owned(),
        "there is example.com/a=zero;".to_owned(),
        format!("looked in {folder}/etc and {folder}/run;"),
        format!("{folder}/run/broken.json is left out: EOF"),
    ] {
        assert!(error.contains(&part), "{part}: {error}");
    }
    let none = Cdi::new(vec!["/none/such".into()]);
    let error = edits(&none, &["example.com/a=zero"]).unwrap_err();
    assert!(error.contains("none at all") && error.contains("/none/such"), "{error}");
    for name in
        ["", "a", "example.com/a", "example.com=a", "/a=b", "example.com/=b", "example.com/a=", "x/a=-b"]
    {
        assert!(edits(&cdi, &[name]).unwrap_err().contains("VENDOR/CLASS=NAME"), "{name}");
    }
}

#[test]
fn every_field_is_read_from_json_and_from_yaml() {
    let edits = json!({
        "env": ["A=1"],
        "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/y", "type": "b", "major": 7, "minor": 0, "fileMode": 438,
            "permissions": "rw", "uid": 1, "gid": 2}],
        "mounts": [{"hostPath": "/usr/lib", "containerPath": "/lib/x", "type": "none", "options": ["ro", "rbind"]}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "a"], "env": ["B=2"], "timeout": 3}],
        "netDevices": [{"hostInterfaceName": "ib0", "name": "fast"}],
        "additionalGids": [0, 44],
        "intelRdt": {"closID": "gold", "enableCMT": true},
    });
    let whole = json!({"cdiVersion": "1.1.0", "kind": "example.com/test", "annotations": {"a": "b"},
        "devices": [{"name": "x", "annotations": {"c": "d"}, "containerEdits": edits}]});
    let json = file::parse(&whole.to_string(), true).unwrap();
    let yaml = file::parse(&yaml_serde::to_string(&whole).unwrap(), false).unwrap();
    assert_eq!(json.devices[0].container_edits, yaml.devices[0].container_edits);
    let mut made = Edits::default();
    assert!(made.add(&json.devices[0].container_edits));
    assert_eq!(made.additional_gids, [44], "a group of 0 is none");
    assert_eq!(made.device_nodes[0].file_mode, Some(0o666));
    assert_eq!((made.hooks[0].timeout, made.mounts[0].options.len()), (Some(3), 2));
    assert!(made.add(&yaml.devices[0].container_edits), "the same class of service");
    assert_eq!((made.net_devices.len(), made.net_devices[0].name.as_str()), (1, "fast"), "it is there once");
    let other = Edits { intel_rdt: Some(serde_json::Map::new()), ..Edits::default() };
    assert!(!made.add(&other), "another one");
}

#[test]
fn what_no_container_could_be_made_with_is_refused() {
    let fine = || specification("example.com/test", "A", &["x"]);
    assert!(file::parse(&fine().to_string(), true).is_ok());
    for (pointer, value, word) in [
        ("/cdiVersion", json!("0.2.0"), "cdiVersion"),
        ("/cdiVersion", json!("1.2.0"), "0.3 to 1.1"),
        ("/cdiVersion", json!("new"), "cdiVersion"),
        ("/kind", json!("example.com"), "VENDOR/CLASS"),
        ("/kind", json!("1.com/test"), "VENDOR/CLASS"),
        ("/devices", json!([]), "devices"),
        ("/devices/0/name", json!("x="), "name"),
        ("/devices/0/name", json!("-x"), "name"),
        ("/devices", json!([{"name": "x"}, {"name": "x"}]), "two devices"),
        ("/containerEdits", json!({"netDevices": [{"hostInterfaceName": "ib0"}]}), "name"),
        (
            "/containerEdits",
            json!({"netDevices": [{"hostInterfaceName": "ib0", "name": "a/b"}]}),
            "netDevices.name",
        ),
        (
            "/containerEdits",
            json!({"netDevices": [{"hostInterfaceName": "", "name": "a"}]}),
            "hostInterfaceName",
        ),
        ("/containerEdits", json!({"env": ["A"]}), "NAME=VALUE"),
        ("/containerEdits", json!({"deviceNodes": [{"path": "dev/x"}]}), "absolute"),
        ("/containerEdits", json!({"deviceNodes": [{"path": "/dev/x", "type": "p"}]}), "b, c or u"),
        ("/containerEdits", json!({"deviceNodes": [{"path": "/dev/x", "permissions": "rx"}]}), "rx"),
        ("/containerEdits", json!({"mounts": [{"hostPath": "/a", "containerPath": "b"}]}), "containerPath"),
        ("/containerEdits", json!({"hooks": [{"hookName": "never", "path": "/a"}]}), "never"),
        ("/containerEdits", json!({"hooks": [{"hookName": "poststop", "path": "a"}]}), "hooks.path"),
        (
            "/containerEdits",
            json!({"hooks": [{"hookName": "poststop", "path": "/a", "timeout": 0}]}),
            "timeout",
        ),
    ] {
        let mut changed = fine();
        *changed.pointer_mut(pointer).unwrap() = value;
        let error = file::parse(&changed.to_string(), true).unwrap_err().to_string();
        assert!(error.contains(word), "{pointer}: {error}");
    }
}
