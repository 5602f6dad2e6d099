//! The configurations that come of what is asked for.

use std::collections::BTreeSet;

use croft_api::container::{Host, Restart, Seccomp, SystemPaths, Ulimit, Userns};
use croft_api::network::{Protocol, Publish};

use super::*;
use crate::devices::Kind;

/// What no device needs.
static NOTHING: Edits = Edits {
    env: Vec::new(),
    device_nodes: Vec::new(),
    mounts: Vec::new(),
    hooks: Vec::new(),
    additional_gids: Vec::new(),
    net_devices: Vec::new(),
    intel_rdt: None,
};

fn found<'a>(files: &'a BTreeMap<String, PathBuf>, joined: &'a BTreeMap<&'static str, PathBuf>) -> Found<'a> {
    Found {
        id: "c1",
        hostname: "web",
        rootfs: Path::new("/roots/c1"),
        ids: Some(Range { start: 1_000_000, count: 65_536 }),
        user: User::default(),
        cgroup: "/croft/c1",
        joined,
        shm: None,
        devices: &[],
        edits: &NOTHING,
        kernel: (6, 12),
        init: Path::new("/usr/bin/croft-init"),
        files,
        volumes: &|name| Path::new("/volumes").join(name),
        unified: true,
    }
}

fn made(config: &Config, image: &ImageDefaults) -> Result<Value, Invalid> {
    made_with(config, image, |_| {})
}

fn made_with(
    config: &Config,
    image: &ImageDefaults,
    change: impl FnOnce(&mut Found<'_>),
) -> Result<Value, Invalid> {
    let (files, joined) = (BTreeMap::new(), BTreeMap::new());
    let mut found = found(&files, &joined);
    change(&mut found);
    config_json(config, image, &found)
}

/// The configuration of `sh` with a change to what is asked.
fn with(change: impl FnOnce(&mut Config)) -> Value {
    let mut config = asked(&["sh"]);
    change(&mut config);
    made(&config, &ImageDefaults::default()).unwrap()
}

fn mount<'a>(spec: &'a Value, target: &str) -> &'a Value {
    let mounts = spec["mounts"].as_array().unwrap();
    mounts.iter().find(|mount| mount["destination"] == target).unwrap_or(&Value::Null)
}

fn kinds(spec: &Value) -> Vec<&str> {
    let list = spec["linux"]["namespaces"].as_array().unwrap();
    list.iter().map(|n| n["type"].as_str().unwrap()).collect()
}

fn asked(command: &[&str]) -> Config {
    Config { command: command.iter().map(|s| (*s).to_owned()).collect(), ..Config::default() }
}

#[test]
fn a_plain_container_has_its_own_ids_and_no_more_rights_than_the_usual() {
    let spec = made(&asked(&["sh"]), &ImageDefaults::default()).unwrap();
    assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 1_000_000);
    assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert_eq!(spec["linux"]["resources"]["pids"]["limit"], resources::DEFAULT_PIDS);
    assert_eq!(kinds(&spec), ["pid", "ipc", "uts", "mount", "cgroup", "network", "user"]);
}

#[test]
fn the_request_goes_before_the_image() {
    let image = ImageDefaults {
        entrypoint: vec!["/entry".into()],
        command: vec!["serve".into()],
        env: vec!["A=image".into(), "PATH=/bin".into()],
        workdir: Some("/srv".into()),
    };
    let plain = made(&Config::default(), &image).unwrap();
    assert_eq!(plain["process"]["args"], json!(["/entry", "serve"]));
    assert_eq!(plain["process"]["cwd"], "/srv");
    assert_eq!(plain["process"]["env"], json!(["HOSTNAME=web", "A=image", "PATH=/bin"]));
    let mut config = asked(&["other"]);
    config.env = vec!["A=mine".into()];
    let other = made(&config, &image).unwrap();
    assert_eq!(other["process"]["args"], json!(["/entry", "other"]));
    assert_eq!(other["process"]["env"], json!(["HOSTNAME=web", "PATH=/bin", "A=mine"]));
    config.entrypoint = Some(vec![]);
    assert_eq!(made(&config, &image).unwrap()["process"]["args"], json!(["other"]));
}

#[test]
fn what_no_container_can_have_is_refused() {
    let image = ImageDefaults::default();
    assert_eq!(made(&Config::default(), &image), Err(Invalid::NoCommand));
    let refused = |change: fn(&mut Config)| {
        let mut config = asked(&["sh"]);
        change(&mut config);
        made(&config, &image).unwrap_err().to_string()
    };
    assert!(refused(|c| c.cap_add = vec!["FLY".into()]).contains("FLY"));
    assert!(refused(|c| c.workdir = Some("srv".into())).contains("srv"));
    assert!(refused(|c| c.env = vec!["=x".into()]).contains("=x"));
    assert!(refused(|c| c.limits.memory = Some(1)).contains("memory"));
    assert!(refused(|c| c.limits.cpus = Some(0.0)).contains("cpus"));
}

#[test]
fn capabilities_are_added_and_dropped_in_docker_s_words() {
    let set = |add: &[&str], drop: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect();
        let config = Config { cap_add: list(add), cap_drop: list(drop), ..asked(&["sh"]) };
        security::capabilities(&config).unwrap()
    };
    assert_eq!(set(&[], &["ALL"]).len(), 0);
    assert_eq!(set(&["net_admin"], &["ALL"]), BTreeSet::from(["NET_ADMIN".to_owned()]));
    assert_eq!(set(&["ALL"], &["CAP_SYS_ADMIN"]).len(), crate::profile::ALL_CAPABILITIES.len() - 1);
    assert!(!set(&[], &["chown"]).contains("CHOWN"));
}

#[test]
fn namespaces_of_the_host_are_shown_as_the_host_sees_them() {
    let spec = with(|c| c.pid = Pid::Host);
    assert!(!kinds(&spec).contains(&"pid"));
    assert_eq!(mount(&spec, "/proc")["source"], "/proc");
    let spec = with(|c| c.ipc = Ipc::Host);
    assert!(!kinds(&spec).contains(&"ipc") && mount(&spec, "/dev/mqueue").is_null());
    assert_eq!(mount(&spec, "/dev/shm")["source"], "/dev/shm");
    let config = Config { pid: Pid::Host, ipc: Ipc::Host, ..asked(&["sh"]) };
    let root = made_with(&config, &ImageDefaults::default(), |found| found.ids = None).unwrap();
    assert_eq!(mount(&root, "/proc")["type"], "proc", "its own is as good where root is root");
    assert_eq!(mount(&root, "/dev/mqueue")["type"], "mqueue");
}

#[test]
fn namespaces_of_another_container_come_with_its_user_namespace() {
    let config = Config { network: NetworkMode::Container("other".into()), ..asked(&["sh"]) };
    let joined = BTreeMap::from([("network", PathBuf::from("/n")), ("user", PathBuf::from("/u"))]);
    let files = BTreeMap::new();
    let found = Found { joined: &joined, ..found(&files, &joined) };
    let spec = config_json(&config, &ImageDefaults::default(), &found).unwrap();
    let list = spec["linux"]["namespaces"].as_array().unwrap();
    let path = |kind: &str| list.iter().find(|n| n["type"] == kind).unwrap()["path"].clone();
    assert_eq!((path("network"), path("user"), path("pid")), (json!("/n"), json!("/u"), Value::Null));
    assert!(spec["linux"]["uidMappings"].is_null(), "it has a map already");
}

#[test]
fn shared_memory_has_a_size_or_is_another_s() {
    let spec = with(|c| c.shm_size = Some(1 << 20));
    assert!(mount(&spec, "/dev/shm")["options"].as_array().unwrap().contains(&json!("size=1048576")));
    let config = Config { ipc: Ipc::Shareable, ..asked(&["sh"]) };
    let image = ImageDefaults::default();
    let spec = made_with(&config, &image, |found| found.shm = Some(Path::new("/run/shm"))).unwrap();
    let shm = mount(&spec, "/dev/shm");
    assert_eq!((&shm["source"], &shm["uidMappings"][0]["hostID"]), (&json!("/run/shm"), &json!(1_000_000)));
}

#[test]
fn devices_are_bound_and_allowed() {
    let nodes = [Node {
        node: "/run/devices/0".into(),
        target: "/dev/fuse".into(),
        kind: Kind::Char,
        major: 10,
        minor: 229,
        access: "rw".into(),
    }];
    let (files, joined) = (BTreeMap::new(), BTreeMap::new());
    let found = Found { devices: &nodes, ..found(&files, &joined) };
    let spec = config_json(&asked(&["sh"]), &ImageDefaults::default(), &found).unwrap();
    assert_eq!(mount(&spec, "/dev/fuse")["source"], "/run/devices/0");
    let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
    assert_eq!(
        spec["linux"]["resources"]["devices"],
        json!([{"allow": false, "access": "rwm"}, rule]),
        "everything else stays forbidden"
    );
}

#[test]
fn what_devices_need_is_in_the_configuration() {
    let hook =
        |args: Value| json!({"hookName": "createContainer", "path": "/bin/hook", "args": args, "timeout": 5});
    let edits = json!({
        "env": ["A=device"],
        "mounts": [
            {"hostPath": "/usr/lib/driver", "containerPath": "/usr/lib/driver", "options": ["ro", "nosuid"]},
            {"hostPath": "/run/socket", "containerPath": "/run/socket", "options": ["bind"]},
            {"hostPath": "tmpfs", "containerPath": "/scratch", "type": "tmpfs", "options": ["size=1m"]},
        ],
        "hooks": [hook(json!(["hook", "a"])), hook(json!([]))],
        "intelRdt": {"closID": "gold"},
    });
    let edits: Edits = serde_json::from_value(edits).unwrap();
    let config = Config { env: vec!["A=user".into(), "B=user".into()], ..asked(&["sh"]) };
    let (files, joined) = (BTreeMap::new(), BTreeMap::new());
    let found = Found { edits: &edits, ..found(&files, &joined) };
    let spec = config_json(&config, &ImageDefaults::default(), &found).unwrap();
    let env = spec["process"]["env"].as_array().unwrap();
    assert!(
        env.contains(&json!("A=device")) && env.contains(&json!("B=user")) && !env.contains(&json!("A=user"))
    );
    let driver = mount(&spec, "/usr/lib/driver");
    assert_eq!((&driver["type"], &driver["options"]), (&json!("none"), &json!(["ro", "nosuid", "rbind"])));
    assert!(driver["uidMappings"].is_null(), "the driver's files are nobody's in a container");
    assert_eq!(mount(&spec, "/run/socket")["options"], json!(["bind"]));
    assert_eq!(mount(&spec, "/scratch")["type"], "tmpfs");
    let hooks = &spec["hooks"]["createContainer"];
    assert_eq!(hooks[0], json!({"path": "/bin/hook", "args": ["hook", "a"], "env": [], "timeout": 5}));
    assert_eq!(hooks[1]["args"], json!(["/bin/hook"]));
    assert_eq!(spec["linux"]["intelRdt"]["closID"], "gold");
    assert!(with(|_| {})["hooks"].is_null());
}

#[test]
fn a_privileged_container_has_everything_but_the_host_s_ids() {
    let spec = with(|c| c.privileged = true);
    assert_eq!(
        spec["process"]["capabilities"]["effective"].as_array().unwrap().len(),
        crate::profile::ALL_CAPABILITIES.len()
    );
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    let linux = &spec["linux"];
    assert!(linux["seccomp"].is_null() && linux["maskedPaths"].is_null() && linux["readonlyPaths"].is_null());
    assert!(mount(&spec, "/sys")["options"].as_array().unwrap().contains(&json!("rw")));
    assert!(kinds(&spec).contains(&"user"));
}

#[test]
fn security_options_change_what_they_name_and_nothing_else() {
    let usual = with(|_| {});
    assert_eq!(usual["process"]["noNewPrivileges"], false);
    let spec = with(|c| c.security.no_new_privileges = true);
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert_eq!(spec["linux"], usual["linux"]);
    let spec = with(|c| c.security.seccomp = Seccomp::Unconfined);
    assert!(spec["linux"]["seccomp"].is_null() && spec["linux"]["maskedPaths"].is_array());
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []});
    let spec = with(|c| c.security.seccomp = Seccomp::Profile(profile.clone()));
    assert_eq!(spec["linux"]["seccomp"], profile);
    let spec = with(|c| c.security.system_paths = SystemPaths::Unconfined);
    assert!(spec["linux"]["maskedPaths"].is_null() && spec["linux"]["seccomp"].is_object());
    let spec = with(|c| c.security.apparmor = Some("unconfined".into()));
    assert_eq!(spec["process"]["apparmorProfile"], "unconfined");
    let spec = with(|c| c.security.label = vec!["type:spc_t".into(), "level:s0:c1".into()]);
    assert_eq!(spec["process"]["selinuxLabel"], "system_u:system_r:spc_t:s0:c1");
    assert!(usual["process"]["selinuxLabel"].is_null());
}

#[test]
fn limits_of_groups_and_of_processes() {
    let spec = with(|c| {
        c.limits.memory = Some(64 << 20);
        c.limits.memory_swap = Some(-1);
        c.limits.memory_reservation = Some(32 << 20);
        c.limits.cpuset = Some("0-1".into());
        c.limits.blkio_weight = Some(500);
        c.limits.pids = Some(-1);
        c.oom_score_adj = Some(300);
        c.domainname = Some("nis".into());
    });
    let resources = &spec["linux"]["resources"];
    assert_eq!(resources["memory"], json!({"limit": 64 << 20, "swap": -1, "reservation": 32 << 20}));
    assert_eq!((&resources["cpu"]["cpus"], &resources["blockIO"]["weight"]), (&json!("0-1"), &json!(500)));
    assert_eq!(resources["pids"]["limit"], -1);
    assert_eq!((&spec["process"]["oomScoreAdj"], &spec["domainname"]), (&json!(300), &json!("nis")));
    let ulimit = |soft, hard| Ulimit { name: "nofile".into(), soft, hard };
    let spec = with(|c| c.ulimits = vec![ulimit(1, 2), ulimit(1024, -1)]);
    let want = json!([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": u64::MAX}]);
    assert_eq!(spec["process"]["rlimits"], want, "the last one counts");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = asked(&["sh"]);
        change(&mut config);
        made(&config, &ImageDefaults::default()).unwrap_err().to_string()
    };
    for (change, why) in [
        ((|c| c.limits.cpuset = Some("3-1".into())) as fn(&mut Config), "cpuset-cpus"),
        (|c| c.limits.cpuset = Some("a".into()), "cpuset-cpus"),
        (|c| c.limits.cpu_shares = Some(1), "cpu-shares"),
        (|c| c.limits.memory_swap = Some(1 << 30), "needs --memory"),
        (|c| (c.limits.memory, c.limits.memory_swap) = (Some(1 << 30), Some(1 << 20)), "no less"),
        (|c| (c.limits.memory, c.limits.memory_reservation) = (Some(8 << 20), Some(9 << 20)), "more than"),
        (|c| c.limits.blkio_weight = Some(9), "blkio-weight"),
        (|c| c.limits.pids = Some(0), "pids-limit"),
        (|c| c.oom_score_adj = Some(1001), "oom-score-adj"),
        (|c| c.ulimits = vec![Ulimit { name: "files".into(), soft: 1, hard: 1 }], "nofile"),
        (|c| c.ulimits = vec![Ulimit { name: "core".into(), soft: -1, hard: 1 }], "above"),
        (|c| c.security.seccomp = Seccomp::Profile(json!({})), "defaultAction"),
        (|c| c.security.label = vec!["colour:red".into()], "colour"),
    ] {
        let said = refused(change);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_before_anything_is_made() {
    let refused = |change: fn(&mut Config)| {
        let mut config = asked(&["sh"]);
        change(&mut config);
        check(&config).map_err(|e| e.to_string())
    };
    for (change, words) in [
        (
            (|c| (c.auto_remove, c.restart) = (true, Restart::Always)) as fn(&mut Config),
            ["--rm", "--restart"],
        ),
        (
            |c| (c.network, c.publish) = (NetworkMode::Container("x".into()), port()),
            ["container:", "--publish"],
        ),
        (|c| (c.network, c.publish) = (NetworkMode::None, port()), ["none", "--publish"]),
        (|c| (c.network, c.publish) = (NetworkMode::Host, port()), ["host", "--publish"]),
        (
            |c| {
                c.network = NetworkMode::Container("x".into());
                c.hosts = vec![Host { name: "a".into(), address: "::1".parse().unwrap() }];
            },
            ["container:", "--add-host"],
        ),
        (
            |c| (c.network, c.dns) = (NetworkMode::Container("x".into()), vec!["::1".parse().unwrap()]),
            ["container:", "--dns"],
        ),
        (|c| (c.pid, c.userns) = (Pid::Container("x".into()), Userns::Host), ["container:", "--userns host"]),
        (|c| (c.ipc, c.shm_size) = (Ipc::Host, Some(1)), ["--ipc", "--shm-size"]),
        (|c| c.dns_search = vec!["a b".into()], ["dns-search", "a b"]),
        (|c| c.log.max_size = Some(1000), ["max-size", "64 KiB"]),
        (|c| c.log.max_files = Some(0), ["max-file", "one at least"]),
        (|c| c.log.rate = Some(0), ["rate", "nothing"]),
    ] {
        let said = refused(change).unwrap_err();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    assert_eq!(refused(|c| c.auto_remove = true), Ok(()));
    assert_eq!(refused(|c| c.network = NetworkMode::Container("x".into())), Ok(()));
}

fn port() -> Vec<Publish> {
    vec![Publish { address: None, host: 80, container: 80, protocol: Protocol::Tcp }]
}

#[test]
fn an_init_comes_before_the_program_and_cannot_be_written() {
    let spec = with(|c| c.init = true);
    assert_eq!(spec["process"]["args"], json!(["/sbin/croft-init", "sh"]));
    let bound = mount(&spec, "/sbin/croft-init");
    assert_eq!(bound["source"], "/usr/bin/croft-init");
    assert!(bound["options"].as_array().unwrap().contains(&json!("ro")));
    assert!(mount(&with(|_| {}), "/sbin/croft-init").is_null());
}
