//! `linux.intelRdt` as a plan: no test host has the hardware.

mod common;

use croft_plan::build::{Driver, Keyring, PlanError, Request, RootSwitch, build};
use croft_plan::facts::Facts;
use croft_plan::spec::Spec;
use serde_json::{Value, json};

fn facts() -> Facts {
    Facts { resctrl: Some("/sys/fs/resctrl".into()), ..common::facts() }
}

/// The steps about resctrl of a container with this `intelRdt`, and what undoes them.
fn planned(rdt: Value, facts: &Facts) -> Result<Vec<String>, PlanError> {
    let config = json!({
        "ociVersion": "1.3.0", "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "intelRdt": rdt},
    });
    let spec = Spec::parse(config.to_string().as_bytes()).expect("a valid configuration");
    let request = Request {
        id: "box".into(),
        bundle: "/bundle".into(),
        rootfs: "/bundle/rootfs".into(),
        mount_point: "/run/box".into(),
        keyring: Keyring::New,
        root_switch: RootSwitch::Pivot,
        driver: Driver::Cgroupfs,
        mount_base: None,
    };
    let plan = build(&spec, facts, &request)?;
    let steps = plan.host.iter().chain(&plan.parent);
    let undo = plan.host.iter().filter_map(|step| step.undo()).map(|undo| undo.to_string());
    let lines = steps.map(ToString::to_string).chain(undo);
    Ok(lines.filter(|line| line.contains("resctrl")).collect())
}

#[test]
fn a_resctrl_group() {
    let own = json!({"l3CacheSchema": "L3:0=f;1=f0", "memBwSchema": "MB:0=20;1=70",
        "schemata": ["L2:0=3"], "enableMonitoring": true});
    assert_eq!(
        planned(own, &facts()).unwrap(),
        [
            r#"make resctrl group /sys/fs/resctrl/box "L2:0=3" "L3:0=f;1=f0" "MB:0=20;1=70""#,
            "make resctrl group /sys/fs/resctrl/box/mon_groups/box",
            "join resctrl group /sys/fs/resctrl/box",
            "join resctrl group /sys/fs/resctrl/box/mon_groups/box",
            "remove resctrl group /sys/fs/resctrl/box",
            "remove resctrl group /sys/fs/resctrl/box/mon_groups/box",
        ]
    );
    // A class that is there already, and not ours to remove.
    assert_eq!(
        planned(json!({"closID": "gold"}), &facts()).unwrap(),
        ["join resctrl group /sys/fs/resctrl/gold"]
    );
}

#[test]
fn without_the_hardware_it_is_refused() {
    let bare = Facts { resctrl: None, ..facts() };
    assert!(planned(json!({"closID": "gold"}), &bare).unwrap_err().to_string().contains("linux.intelRdt"));
    assert!(planned(json!({"closID": "../x"}), &facts()).unwrap_err().to_string().contains("closID"));
}
