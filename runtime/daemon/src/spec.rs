//! From what a user asks for to the `config.json` of an OCI bundle: croftd's policy. Pure: what the host and the image have comes in as values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use croft_api::container::{Config, Mount, NetworkMode};
use serde_json::{Value, json};

use crate::ids::Range;
use crate::profile;

/// What the image says of containers made from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// What runs before the command.
    pub entrypoint: Vec<String>,
    /// The command.
    pub command: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// The working folder.
    pub workdir: Option<String>,
}

/// What croftd has decided and found for one container.
#[derive(Clone)]
pub struct Found<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its host name.
    pub hostname: &'a str,
    /// Its mounted root.
    pub rootfs: &'a Path,
    /// Its own ids.
    pub ids: Option<Range>,
    /// Who its process is.
    pub user: User,
    /// Its group, below the hierarchy's top.
    pub cgroup: &'a str,
    /// Its network namespace, when it was made before it.
    pub network: Option<&'a Path>,
    /// Files that are croftd's, by where they are in the container: hosts, resolv.conf.
    pub files: &'a BTreeMap<String, PathBuf>,
    /// Where the folder of a volume is.
    pub volumes: &'a dyn Fn(&str) -> PathBuf,
    /// Whether control groups can be mounted without making groups in v1 hierarchies.
    pub unified: bool,
}

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its further groups.
    pub additional: Vec<u32>,
}

/// What cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is nothing to run.
    #[error("no command: neither the request nor the image has one")]
    NoCommand,
    /// A capability that Linux does not have.
    #[error("no capability is called {0:?}")]
    Capability(String),
    /// A path that is not absolute.
    #[error("{0:?} is no absolute path")]
    Relative(String),
    /// An environment variable without a name.
    #[error("{0:?} is no environment variable: NAME=VALUE")]
    Variable(String),
    /// A number that makes no sense.
    #[error("{what}: {value} is not possible: {why}")]
    Number {
        /// Of what.
        what: &'static str,
        /// What was asked.
        value: String,
        /// Why not.
        why: &'static str,
    },
}

/// Bytes below which no program runs.
const LEAST_MEMORY: u64 = 4 << 20;

/// The period of `cpu.max`, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// Processes that a container may have when nobody says how many.
pub const DEFAULT_PIDS: i64 = 4096;

/// The PATH of a container whose image has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The configuration of a container.
///
/// # Errors
/// For what no container can have.
pub fn config_json(config: &Config, image: &ImageDefaults, found: &Found<'_>) -> Result<Value, Invalid> {
    let capabilities = capabilities(config)?;
    let bounding: Vec<String> = capabilities.iter().map(|name| format!("CAP_{name}")).collect();
    let host_network = config.network == NetworkMode::Host;
    let mut process = json!({
        "terminal": config.terminal,
        "args": args(config, image)?,
        "env": env(config, image, found.hostname)?,
        "cwd": workdir(config, image)?,
        "capabilities": {"bounding": bounding},
        "noNewPrivileges": false,
        "oomScoreAdj": 0,
    });
    run_as(&mut process, &found.user);
    let mut linux = json!({
        "cgroupsPath": found.cgroup,
        "namespaces": namespaces(host_network, found),
        "resources": resources(config)?,
        "seccomp": profile::seccomp(&capabilities),
        "maskedPaths": profile::MASKED,
        "readonlyPaths": profile::READ_ONLY,
        "sysctl": config.sysctls,
    });
    if let Some(Range { start, count }) = found.ids {
        let map = json!([{"containerID": 0, "hostID": start, "size": count}]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    }
    Ok(json!({
        "ociVersion": "1.3.0",
        "root": {"path": found.rootfs, "readonly": config.read_only},
        "hostname": found.hostname,
        "process": process,
        "mounts": mounts(config, host_network, found)?,
        "annotations": {"dev.croft.container": found.id},
        "linux": linux,
    }))
}

fn args(config: &Config, image: &ImageDefaults) -> Result<Vec<String>, Invalid> {
    let entrypoint = config.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    // As with Docker: whoever names another entry point does not want the image's arguments for its own.
    let command = if config.command.is_empty() && config.entrypoint.is_none() {
        &image.command
    } else {
        &config.command
    };
    let args: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if args.is_empty() { Err(Invalid::NoCommand) } else { Ok(args) }
}

/// Makes `process` one of `user`: root has all that its bounding set allows, others have nothing.
pub fn run_as(process: &mut Value, user: &User) {
    process["user"] =
        json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.additional, "umask": 0o022});
    let set = if user.uid == 0 { process["capabilities"]["bounding"].clone() } else { json!([]) };
    process["capabilities"]["permitted"] = set.clone();
    process["capabilities"]["effective"] = set;
}

fn env(config: &Config, image: &ImageDefaults, hostname: &str) -> Result<Vec<String>, Invalid> {
    let own = [format!("HOSTNAME={hostname}"), PATH.to_owned()];
    let asked = image.env.iter().chain(&config.env).cloned();
    set_variables(Vec::new(), own.into_iter().chain(terminal_type(config.terminal)).chain(asked))
}

/// What a process with a terminal has in its environment for it.
pub fn terminal_type(terminal: bool) -> Option<String> {
    terminal.then(|| "TERM=xterm".to_owned())
}

/// `env` with `variables` in place of those of the same names.
///
/// # Errors
/// [`Invalid::Variable`].
pub fn set_variables(
    mut env: Vec<String>,
    variables: impl IntoIterator<Item = String>,
) -> Result<Vec<String>, Invalid> {
    for variable in variables {
        let name = match variable.split_once('=') {
            Some((name, _)) if !name.is_empty() && !variable.contains('\0') => name.to_owned() + "=",
            _ => return Err(Invalid::Variable(variable)),
        };
        env.retain(|other| !other.starts_with(&name));
        env.push(variable);
    }
    Ok(env)
}

fn workdir<'a>(config: &'a Config, image: &'a ImageDefaults) -> Result<&'a str, Invalid> {
    let workdir = config.workdir.as_deref().or(image.workdir.as_deref()).filter(|dir| !dir.is_empty());
    absolute(workdir.unwrap_or("/"))
}

fn absolute(path: &str) -> Result<&str, Invalid> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(path)
    } else {
        Err(Invalid::Relative(path.to_owned()))
    }
}

fn capabilities(config: &Config) -> Result<BTreeSet<String>, Invalid> {
    let known = |name: &String| {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name).to_owned();
        let is_known = name == "ALL" || profile::ALL_CAPABILITIES.contains(&name.as_str());
        if is_known { Ok(name) } else { Err(Invalid::Capability(name)) }
    };
    let add: Vec<String> = config.cap_add.iter().map(known).collect::<Result<_, _>>()?;
    let drop: Vec<String> = config.cap_drop.iter().map(known).collect::<Result<_, _>>()?;
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut set: BTreeSet<String> = match (all(&add), all(&drop)) {
        (true, _) => profile::ALL_CAPABILITIES.map(str::to_owned).into(),
        (false, true) => BTreeSet::new(),
        (false, false) => profile::CAPABILITIES.map(str::to_owned).into(),
    };
    set.retain(|name| !drop.contains(name));
    set.extend(add.into_iter().filter(|name| name != "ALL" && !drop.contains(name)));
    Ok(set)
}

fn namespaces(host_network: bool, found: &Found<'_>) -> Vec<Value> {
    let mut list: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
    match found.network {
        _ if host_network => {}
        Some(path) => list.push(json!({"type": "network", "path": path})),
        None => list.push(json!({"type": "network"})),
    }
    if found.ids.is_some() {
        list.push(json!({"type": "user"}));
    }
    list
}

fn resources(config: &Config) -> Result<Value, Invalid> {
    let limits = &config.limits;
    let pids = limits.pids.unwrap_or(DEFAULT_PIDS);
    let mut resources = json!({
        "devices": [{"allow": false, "access": "rwm"}],
        "pids": {"limit": pids},
    });
    if let Some(memory) = limits.memory {
        if memory < LEAST_MEMORY {
            let why = "no program runs in less than 4 MiB";
            return Err(Invalid::Number { what: "memory", value: memory.to_string(), why });
        }
        resources["memory"] = json!({"limit": memory});
    }
    let mut cpu = serde_json::Map::new();
    if let Some(cpus) = limits.cpus {
        if !cpus.is_finite() || cpus < 0.01 {
            let why = "the kernel divides a processor into hundredths";
            return Err(Invalid::Number { what: "cpus", value: cpus.to_string(), why });
        }
        cpu.insert("quota".into(), json!((cpus * CPU_PERIOD as f64) as i64));
        cpu.insert("period".into(), json!(CPU_PERIOD));
    }
    if let Some(shares) = limits.cpu_shares {
        cpu.insert("shares".into(), json!(shares));
    }
    if !cpu.is_empty() {
        resources["cpu"] = cpu.into();
    }
    Ok(resources)
}

fn mounts(config: &Config, host_network: bool, found: &Found<'_>) -> Result<Vec<Value>, Invalid> {
    let plain = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let mut list = vec![
        plain("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        plain("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"]),
        plain(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        plain("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
        plain("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    // sysfs shows the devices of a network namespace, and is only given to who owns that.
    if host_network && found.ids.is_some() {
        list.push(plain("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]));
    } else {
        list.push(plain("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]));
        if found.unified {
            let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
            list.push(plain("/sys/fs/cgroup", "cgroup", "cgroup", &options));
        }
    }
    for (target, source) in found.files {
        list.push(json!({"destination": target, "type": "bind", "source": source,
            "options": ["bind", "nosuid", "nodev", "noexec", "ro"]}));
    }
    for mount in &config.mounts {
        list.push(match mount {
            Mount::Bind { source, target, read_only, unmapped } => {
                bind(absolute(source)?, absolute(target)?, *read_only, found.ids.filter(|_| !unmapped))
            }
            Mount::Volume { name, target, read_only, .. } => {
                let source = (found.volumes)(name);
                bind(&source.to_string_lossy(), absolute(target)?, *read_only, found.ids)
            }
            Mount::Tmpfs { target, size } => {
                let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
                options.extend(size.map(|size| format!("size={size}")));
                json!({"destination": absolute(target)?, "type": "tmpfs", "source": "tmpfs", "options": options})
            }
        });
    }
    Ok(list)
}

/// A bind mount whose files keep their owners' numbers in the container.
fn bind(source: &str, target: &str, read_only: bool, ids: Option<Range>) -> Value {
    let mut options = vec!["rbind", if read_only { "ro" } else { "rw" }];
    let mut mount = json!({"destination": target, "type": "none", "source": source});
    if let Some(Range { start, count }) = ids {
        options.push("ridmap");
        let map = json!([{"containerID": 0, "hostID": start, "size": count}]);
        mount["uidMappings"] = map.clone();
        mount["gidMappings"] = map;
    }
    mount["options"] = options.into();
    mount
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &BTreeMap<String, PathBuf>) -> Found<'_> {
        Found {
            id: "c1",
            hostname: "web",
            rootfs: Path::new("/roots/c1"),
            ids: Some(Range { start: 1_000_000, count: 65_536 }),
            user: User::default(),
            cgroup: "/croft/c1",
            network: None,
            files,
            volumes: &|name| Path::new("/volumes").join(name),
            unified: true,
        }
    }

    fn made(config: &Config, image: &ImageDefaults) -> Result<Value, Invalid> {
        config_json(config, image, &found(&BTreeMap::new()))
    }

    fn asked(command: &[&str]) -> Config {
        Config { command: command.iter().map(|s| (*s).to_owned()).collect(), ..Config::default() }
    }

    #[test]
    fn a_plain_container_has_its_own_ids_and_no_more_rights_than_the_usual() {
        let spec = made(&asked(&["sh"]), &ImageDefaults::default()).unwrap();
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 1_000_000);
        assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
        assert_eq!(spec["linux"]["resources"]["pids"]["limit"], DEFAULT_PIDS);
        let kinds: Vec<&str> = spec["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "cgroup", "network", "user"]);
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
            capabilities(&config).unwrap()
        };
        assert_eq!(set(&[], &["ALL"]).len(), 0);
        assert_eq!(set(&["net_admin"], &["ALL"]), BTreeSet::from(["NET_ADMIN".to_owned()]));
        assert_eq!(set(&["ALL"], &["CAP_SYS_ADMIN"]).len(), profile::ALL_CAPABILITIES.len() - 1);
        assert!(!set(&[], &["chown"]).contains("CHOWN"));
    }
}
