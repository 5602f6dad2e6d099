//! From what a user asks for to the `config.json` of an OCI bundle: croftd's policy. Pure: what the host and the image have comes in as values.

mod cdi;
mod check;
mod resources;
mod security;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use croft_api::container::{Config, Ipc, Mount, NetworkMode, Pid};
use serde_json::{Value, json};

use crate::cdi::Edits;
use crate::devices::Node;
use crate::ids::Range;

pub use check::check;
pub use resources::{given, limits};

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
    /// Namespaces of other containers that it is in, by their kinds in the configuration.
    pub joined: &'a BTreeMap<&'static str, PathBuf>,
    /// Where the files of its /dev/shm are on the host, when it shares them.
    pub shm: Option<&'a Path>,
    /// Its devices beside the usual ones.
    pub devices: &'a [Node],
    /// What its devices need beside their nodes.
    pub edits: &'a Edits,
    /// The version of the kernel.
    pub kernel: (u32, u32),
    /// The program croft-init.
    pub init: &'a Path,
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
    /// Options that exclude each other.
    #[error("{0} and {1} do not go together: {2}")]
    Mix(&'static str, &'static str, &'static str),
    /// A value that an option does not take.
    #[error("{what}: {value:?} is not possible: {why}")]
    Value {
        /// Of what.
        what: &'static str,
        /// What was asked.
        value: String,
        /// What is taken.
        why: String,
    },
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

/// Where croft's own init is in a container that asks for it.
const INIT: &str = "/sbin/croft-init";

/// The PATH of a container whose image has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The configuration of a container.
///
/// # Errors
/// For what no container can have.
pub fn config_json(config: &Config, image: &ImageDefaults, found: &Found<'_>) -> Result<Value, Invalid> {
    let capabilities = security::capabilities(config)?;
    let bounding: Vec<String> = capabilities.iter().map(|name| format!("CAP_{name}")).collect();
    let mut process = json!({
        "terminal": config.terminal,
        "args": args(config, image)?,
        "env": env(config, image, found)?,
        "cwd": workdir(config, image)?,
        "capabilities": {"bounding": bounding},
        "rlimits": resources::rlimits(config)?,
        "oomScoreAdj": resources::oom_score_adj(config)?,
    });
    run_as(&mut process, &found.user);
    let mut linux = json!({
        "cgroupsPath": found.cgroup,
        "namespaces": namespaces(config, found),
        "resources": resources::resources(config, found.devices)?,
        "sysctl": config.sysctls,
    });
    security::confine(config, &capabilities, found.kernel, &mut process, &mut linux)?;
    if let (Some(Range { start, count }), false) = (found.ids, found.joined.contains_key("user")) {
        let map = json!([{"containerID": 0, "hostID": start, "size": count}]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    }
    let mut spec = json!({
        "ociVersion": "1.3.0",
        "root": {"path": found.rootfs, "readonly": config.read_only},
        "hostname": found.hostname,
        "process": process,
        "mounts": mounts(config, found)?,
        "annotations": {"dev.croft.container": found.id},
        "linux": linux,
    });
    cdi::complete(&mut spec, found.edits);
    if let Some(domainname) = &config.domainname {
        spec["domainname"] = json!(domainname);
    }
    Ok(spec)
}

fn args(config: &Config, image: &ImageDefaults) -> Result<Vec<String>, Invalid> {
    let entrypoint = config.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    // As with Docker: whoever names another entry point does not want the image's arguments for its own.
    let command = if config.command.is_empty() && config.entrypoint.is_none() {
        &image.command
    } else {
        &config.command
    };
    let mut args: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if args.is_empty() {
        return Err(Invalid::NoCommand);
    }
    if config.init {
        args.insert(0, INIT.to_owned());
    }
    Ok(args)
}

/// Makes `process` one of `user`: root has all that its bounding set allows, others have nothing.
pub fn run_as(process: &mut Value, user: &User) {
    process["user"] =
        json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.additional, "umask": 0o022});
    let set = if user.uid == 0 { process["capabilities"]["bounding"].clone() } else { json!([]) };
    process["capabilities"]["permitted"] = set.clone();
    process["capabilities"]["effective"] = set;
}

fn env(config: &Config, image: &ImageDefaults, found: &Found<'_>) -> Result<Vec<String>, Invalid> {
    let own = [format!("HOSTNAME={}", found.hostname), PATH.to_owned()];
    let asked = image.env.iter().chain(&config.env).chain(&found.edits.env).cloned();
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

fn namespaces(config: &Config, found: &Found<'_>) -> Vec<Value> {
    let own = |kind: &str| match kind {
        "pid" => config.pid != Pid::Host,
        "ipc" => config.ipc != Ipc::Host,
        "network" => config.network != NetworkMode::Host,
        "user" => found.ids.is_some(),
        _ => true,
    };
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "network", "user"];
    let entry = |kind: &&str| match found.joined.get(kind) {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    };
    kinds.iter().filter(|kind| own(kind)).map(entry).collect()
}

fn mounts(config: &Config, found: &Found<'_>) -> Result<Vec<Value>, Invalid> {
    let plain = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    // What shows a namespace is only given to who owns that: the host's own view of it is bound otherwise.
    let foreign = |is_host: bool| is_host && found.ids.is_some();
    let mut list = vec![
        if foreign(config.pid == Pid::Host) {
            plain("/proc", "none", "/proc", &["rbind", "nosuid", "noexec", "nodev"])
        } else {
            plain("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])
        },
        plain("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"]),
        plain(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        shm(config, found)?,
    ];
    if !foreign(config.ipc == Ipc::Host) {
        list.push(plain("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    }
    let writable = if config.privileged { "rw" } else { "ro" };
    if foreign(config.network == NetworkMode::Host) {
        list.push(plain("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]));
    } else {
        list.push(plain("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", writable]));
        if found.unified {
            let options = ["nosuid", "noexec", "nodev", "relatime", writable];
            list.push(plain("/sys/fs/cgroup", "cgroup", "cgroup", &options));
        }
    }
    for device in found.devices {
        list.push(json!({"destination": absolute(&device.target)?, "type": "bind", "source": device.node,
            "options": ["bind", "nosuid", "noexec", "dev"]}));
    }
    for (target, source) in found.files {
        list.push(json!({"destination": target, "type": "bind", "source": source,
            "options": ["bind", "nosuid", "nodev", "noexec", "ro"]}));
    }
    if config.init {
        // Read-only, and locked so in a user namespace: the program is every container's.
        list.push(json!({"destination": INIT, "type": "bind", "source": found.init,
            "options": ["bind", "ro", "nosuid", "nodev"]}));
    }
    let access = |read_only| if read_only { Access::ReadOnly } else { Access::ReadWrite };
    for mount in &config.mounts {
        list.push(match mount {
            Mount::Bind { source, target, read_only, unmapped, .. } => {
                let ids = found.ids.filter(|_| !unmapped);
                bind(Path::new(absolute(source)?), absolute(target)?, access(*read_only), ids)
            }
            Mount::Volume { name, target, read_only, .. } => {
                let source = (found.volumes)(name);
                bind(&source, absolute(target)?, access(*read_only), found.ids)
            }
            Mount::Tmpfs { target, size, options: asked } => {
                // As with Docker: nothing in memory is run unless that is asked for. The last of two that contradict each other counts.
                let mut options = ["noexec", "nosuid", "nodev", "mode=1777"].map(str::to_owned).to_vec();
                options.extend(size.map(|size| format!("size={size}")));
                options.extend(asked.iter().map(|option| tmpfs_option(option)).collect::<Result<Vec<_>, _>>()?);
                json!({"destination": absolute(target)?, "type": "tmpfs", "source": "tmpfs", "options": options})
            }
        });
    }
    // Last: a driver's files are to be seen, whatever the user has mounted above them.
    list.extend(found.edits.mounts.iter().map(cdi::mount));
    Ok(list)
}

/// Words that a file system in memory takes, and names of numbers that it takes.
const TMPFS_WORDS: [&str; 14] = [
    "rw",
    "ro",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "strictatime",
];
const TMPFS_NUMBERS: [&str; 4] = ["mode", "uid", "gid", "nr_inodes"];

fn tmpfs_option(option: &str) -> Result<String, Invalid> {
    let is_number = |value: &str| !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let fits = match option.split_once('=') {
        None => TMPFS_WORDS.contains(&option),
        Some(("mode", mode)) => u16::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o7777),
        Some((name, value)) => TMPFS_NUMBERS.contains(&name) && is_number(value),
    };
    if fits {
        return Ok(option.to_owned());
    }
    let why = format!(
        "{}; {} with a number",
        TMPFS_WORDS.join(", "),
        TMPFS_NUMBERS.map(|n| format!("{n}=")).join(", ")
    );
    Err(Invalid::Value { what: "tmpfs option", value: option.to_owned(), why })
}

/// Shared memory: its own, or a folder of the host's.
fn shm(config: &Config, found: &Found<'_>) -> Result<Value, Invalid> {
    let own = 64 << 20;
    let host = Path::new("/dev/shm");
    let shared = match (&config.ipc, found.shm) {
        // New files there are the container's, and nobody's on the host who is somebody there.
        (Ipc::Host, _) => bind(host, "/dev/shm", Access::ReadWrite, None),
        (_, Some(shared)) => bind(shared, "/dev/shm", Access::ReadWrite, found.ids),
        (_, None) => {
            let size = format!("size={}", config.shm_size.unwrap_or(own));
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", size]})
        }
    };
    Ok(shared)
}

/// What may be done with the files of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

/// A bind mount whose files keep their owners' numbers in the container.
fn bind(source: &Path, target: &str, access: Access, ids: Option<Range>) -> Value {
    let mut options = vec!["rbind", if access == Access::ReadOnly { "ro" } else { "rw" }];
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
mod tests;
