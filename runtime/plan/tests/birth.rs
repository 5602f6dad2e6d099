//! Where the container's process is born: in the mount namespace that the runtime was given, unless it may need the host's mounts.

mod common;

use std::path::{Path, PathBuf};

use croft_plan::build::{Driver, Keyring, Plan, Request, RootSwitch, build};
use croft_plan::facts::Facts;
use croft_plan::spec::{NamespaceKind, Spec};
use croft_plan::step::Step;
use serde_json::{Value, json};

/// CAP_SYS_CHROOT.
const SYS_CHROOT: u32 = 18;

fn config() -> Value {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["sh"] },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/mnt", "source": "/srv", "options": ["rbind", "rslave"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" },
        ],
        "hooks": { "startContainer": [{ "path": "/x" }], "poststart": [{ "path": "/x" }] },
        "linux": {
            "namespaces": [{ "type": "user" }, { "type": "mount" }, { "type": "pid" }],
            "uidMappings": map,
            "gidMappings": map,
        },
    })
}

fn request() -> Request {
    Request {
        id: "c".to_owned(),
        bundle: PathBuf::from("/bundle"),
        rootfs: PathBuf::from("/bundle/rootfs"),
        mount_point: PathBuf::from("/run/c"),
        keyring: Keyring::New,
        root_switch: RootSwitch::Pivot,
        driver: Driver::Cgroupfs,
        mount_base: Some(PathBuf::from("/proc/7/fd/5")),
    }
}

fn plan(config: &Value, facts: &Facts, request: &Request) -> Plan {
    let spec = Spec::parse(config.to_string().as_bytes()).expect("a valid configuration");
    build(&spec, facts, request).expect("nothing that this host cannot do")
}

fn is_born_in_base(plan: &Plan) -> bool {
    let base = Path::new("/proc/7/fd/5");
    let opens = |step: &Step| matches!(step, Step::OpenNamespace { path, .. } if path == base);
    let joins = plan.spawn.around.iter().any(|(_, kind)| *kind == NamespaceKind::Mount);
    assert_eq!(joins, plan.host.iter().any(opens));
    joins
}

#[test]
fn a_container_is_born_among_few_mounts_after_all_other_namespaces_were_joined() {
    let mut config = config();
    let network = json!({ "type": "network", "path": "/proc/8/ns/net" });
    config["linux"]["namespaces"].as_array_mut().unwrap().push(network);
    let plan = plan(&config, &common::facts(), &request());
    assert!(is_born_in_base(&plan));
    let kinds: Vec<_> = plan.spawn.around.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [NamespaceKind::Network, NamespaceKind::Mount]);
}

#[test]
fn what_may_need_the_mounts_of_the_host_is_born_among_them() {
    let hook = json!([{ "path": "/x" }]);
    let overlay = json!({ "destination": "/o", "type": "overlay", "options": ["lowerdir=/a:/b"] });
    let mount_of_another = json!([{ "type": "user" }, { "type": "mount", "path": "/proc/8/ns/mnt" }]);
    let changes: [(&str, Value); 8] = [
        ("/hooks/prestart", hook.clone()),
        ("/hooks/createRuntime", hook.clone()),
        ("/hooks/createContainer", hook),
        ("/mounts", json!([overlay])),
        ("/linux/rootfsPropagation", "rshared".into()),
        ("/linux/rootfsPropagation", "rslave".into()),
        ("/linux/namespaces", mount_of_another),
        ("/linux", json!({ "namespaces": [{ "type": "mount" }] })),
    ];
    for (pointer, value) in changes {
        let mut config = config();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value;
        assert!(!is_born_in_base(&plan(&config, &common::facts(), &request())), "{config:#}");
    }
}

#[test]
fn nobody_joins_who_may_not_or_was_given_no_namespace() {
    let lacking = Facts { capabilities: !(1 << SYS_CHROOT), ..common::facts() };
    assert!(!is_born_in_base(&plan(&config(), &lacking, &request())));
    let chroot = Request { root_switch: RootSwitch::Chroot, ..request() };
    assert!(!is_born_in_base(&plan(&config(), &common::facts(), &chroot)));
    let none = Request { mount_base: None, ..request() };
    assert!(!is_born_in_base(&plan(&config(), &common::facts(), &none)));
}
