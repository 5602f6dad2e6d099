//! The less common options of `run` and `create`, from their texts.

use croft_api::container::{
    Device, HealthCheck, Host, Ipc, Limits, Log, LogMode, Mount, Pid, Seccomp, Security, SystemPaths, Ulimit,
};
use jiff::SignedDuration;

use super::{absolute, bytes};
use crate::args::{HealthArgs, LimitArgs};

/// `--log-opt`, each of them, and `--log-mode`.
///
/// # Errors
/// In words.
pub fn log(texts: &[String], mode: &str) -> Result<Log, String> {
    let mode = if mode == "block" { LogMode::Block } else { LogMode::Drop };
    let mut log = Log { mode, ..Log::default() };
    for text in texts {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("--log-opt {text}: NAME=VALUE"))?;
        let wrong = |why: String| format!("--log-opt {text}: {why}");
        match name {
            "max-size" => log.max_size = Some(bytes(value).map_err(wrong)?),
            "max-file" => log.max_files = Some(value.parse().map_err(|_| wrong("it is no number".into()))?),
            "compress" => log.compress = Some(truth(name, Some(value)).map_err(wrong)?),
            "rate" => log.rate = Some(bytes(value).map_err(wrong)?),
            _ => return Err(wrong("it is none of max-size, max-file, compress, rate".into())),
        }
    }
    Ok(log)
}

/// `--mount`: comma-separated keys and values.
///
/// # Errors
/// In words.
pub fn mount(text: &str) -> Result<Mount, String> {
    let (mut kind, mut source, mut target, mut size, mut mode) = ("volume", None, None, None, None);
    let (mut read_only, mut unmapped, mut no_copy) = (false, false, false);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        let given = || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("{key} has no value"));
        match key {
            "type" => kind = given()?,
            "source" | "src" => source = Some(given()?.to_owned()),
            "target" | "dst" | "destination" => target = Some(given()?.to_owned()),
            "readonly" | "ro" => read_only = truth(key, value)?,
            "nomap" => unmapped = truth(key, value)?,
            "volume-nocopy" => no_copy = truth(key, value)?,
            "tmpfs-size" => size = Some(bytes(given()?)?),
            "tmpfs-mode" => mode = Some(given()?),
            other => {
                return Err(format!(
                    "{other:?} is none of type, source, target, readonly, nomap, volume-nocopy, tmpfs-size, tmpfs-mode"
                ));
            }
        }
    }
    let target = target.ok_or("target= is missing: where in the container")?;
    let only = |is: bool, key: &str, of: &str| {
        if is { Err(format!("{key} is for type={of}, and this is type={kind}")) } else { Ok(()) }
    };
    only(size.is_some() && kind != "tmpfs", "tmpfs-size", "tmpfs")?;
    only(mode.is_some() && kind != "tmpfs", "tmpfs-mode", "tmpfs")?;
    only(unmapped && kind != "bind", "nomap", "bind")?;
    only(no_copy && kind != "volume", "volume-nocopy", "volume")?;
    match kind {
        "bind" => {
            let source = source.ok_or("source= is missing: what of the host")?;
            Ok(Mount::Bind { source: absolute(&source)?, target, read_only, unmapped, make: false })
        }
        "tmpfs" => {
            only(source.is_some(), "source", "bind")?;
            let mut options: Vec<String> = mode.into_iter().map(|mode| format!("mode={mode}")).collect();
            options.extend(read_only.then(|| "ro".to_owned()));
            Ok(Mount::Tmpfs { target, size, options })
        }
        // Without a name it is one of its own.
        "volume" => {
            let name = source.unwrap_or_default();
            if name.contains('/') {
                return Err(format!("source={name}: is no name of a volume; type=bind for a folder"));
            }
            Ok(Mount::Volume { name, target, read_only, no_copy })
        }
        other => Err(format!("type={other} is none of bind, tmpfs, volume")),
    }
}

/// The value of a key that may stand alone.
fn truth(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("{key}={other}: true or false")),
    }
}

/// What `--device` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A path.
    Path(Device),
    /// A name in a CDI specification.
    Cdi(String),
}

/// `--device`: `SOURCE[:TARGET][:ACCESS]`, as Docker has it, or a name in a CDI specification, which is no absolute path.
///
/// # Errors
/// In words.
pub fn named(text: &str) -> Result<Named, String> {
    let is_cdi = !text.starts_with('/') && text.split_once('=').is_some_and(|(kind, _)| kind.contains('/'));
    if is_cdi { Ok(Named::Cdi(text.to_owned())) } else { device(text).map(Named::Path) }
}

/// The kind of the devices that `--gpus` means.
const GPU: &str = "nvidia.com/gpu";

/// `--gpus`: the CDI devices that it means. `all`; a number: the first so many; `device=`: those, by their numbers or UUIDs. Docker's own form
/// has the quotes of a CSV field around it.
///
/// # Errors
/// In words.
pub fn gpus(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{text:?} is none of all, a number of GPUs, device=0,1");
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let count = bare.strip_prefix("count=").unwrap_or(bare);
    let names: Vec<String> = match (bare.strip_prefix("device="), count) {
        (Some(list), _) => list.split(',').map(str::to_owned).collect(),
        (None, "all" | "-1") => vec!["all".to_owned()],
        (None, count) => (0..count.parse::<u8>().map_err(|_| wrong())?).map(|n| n.to_string()).collect(),
    };
    if names.is_empty() || names.iter().any(|name| name.is_empty() || name.contains('=')) {
        return Err(wrong());
    }
    Ok(names.into_iter().map(|name| format!("{GPU}={name}")).collect())
}

fn device(text: &str) -> Result<Device, String> {
    let is_access = |text: &str| !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, access) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, "rwm"),
        [source, target, access] if is_access(access) => (source, target, access),
        _ => {
            return Err(format!(
                "{text:?} is no device: /dev/fuse, /dev/sda:/dev/xvda:r, vendor.com/class=name"
            ));
        }
    };
    if target.is_empty() || !source.starts_with('/') {
        return Err(format!("{text:?}: a device has an absolute path, or a name as vendor.com/class=name"));
    }
    Ok(Device { source: source.to_owned(), target: target.to_owned(), access: access.to_owned() })
}

/// `--ulimit`.
///
/// # Errors
/// In words.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    let wrong = || format!("{text:?} is no limit: nofile=1024, nofile=1024:2048, core=-1");
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        text => text.parse().map_err(|_| wrong()),
    };
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

/// `--add-host`: a name and an address, which may have colons itself.
///
/// # Errors
/// In words.
pub fn host(text: &str) -> Result<Host, String> {
    let wrong = || format!("{text:?} is no name and address: db:10.0.0.5, db=fd00::5");
    let (name, address) = text.split_once(['=', ':']).ok_or_else(wrong)?;
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    Ok(Host { name: name.to_owned(), address: address.parse().map_err(|_| wrong())? })
}

/// The name in `container:NAME`.
///
/// # Errors
/// In words, when there is none.
pub fn other(option: &str, text: &str) -> Result<String, String> {
    match text.strip_prefix("container:") {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(format!("{option} {text}: container:NAME")),
    }
}

/// `--pid`.
///
/// # Errors
/// In words.
pub fn pid(text: &str) -> Result<Pid, String> {
    match text {
        "private" => Ok(Pid::Private),
        "host" => Ok(Pid::Host),
        text => Ok(Pid::Container(other("--pid", text).map_err(|_| "private, host or container:NAME")?)),
    }
}

/// `--ipc`.
///
/// # Errors
/// In words.
pub fn ipc(text: &str) -> Result<Ipc, String> {
    match text {
        "private" => Ok(Ipc::Private),
        "shareable" => Ok(Ipc::Shareable),
        "host" => Ok(Ipc::Host),
        text => Ok(Ipc::Container(
            other("--ipc", text).map_err(|_| "private, shareable, host or container:NAME")?,
        )),
    }
}

/// `--memory-swap`.
///
/// # Errors
/// In words.
pub fn swap(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    i64::try_from(bytes(text)?).map_err(|_| format!("{text:?} is not possible"))
}

/// A time in milliseconds, given as Docker's users do.
///
/// # Errors
/// In words.
pub fn time(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: 30s, 1m30s, 500ms");
    let time: SignedDuration = text.parse().map_err(|_| wrong())?;
    u64::try_from(time.as_millis()).map_err(|_| wrong())
}

/// A number of processors. JSON has no words for `inf` and `nan`, which would be no limit.
///
/// # Errors
/// In words.
pub fn cpus(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| format!("{text:?} is no number of processors: 1.5"))
}

/// Limits, as they are asked for.
pub fn limits(args: &LimitArgs) -> Limits {
    Limits {
        memory: args.memory,
        cpus: args.cpus,
        cpu_shares: args.cpu_shares,
        cpuset: args.cpuset_cpus.clone(),
        memory_swap: args.memory_swap,
        memory_reservation: args.memory_reservation,
        blkio_weight: args.blkio_weight,
        pids: args.pids_limit,
    }
}

/// The health check; none where nothing of it is asked for.
pub fn health(args: &HealthArgs) -> Option<HealthCheck> {
    let test = match &args.health_cmd {
        _ if args.no_healthcheck => vec!["NONE".to_owned()],
        Some(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        None => Vec::new(),
    };
    let check = HealthCheck {
        test,
        interval_ms: args.health_interval,
        timeout_ms: args.health_timeout,
        retries: args.health_retries,
        start_period_ms: args.health_start_period,
    };
    Some(check).filter(|check| *check != HealthCheck::default())
}

/// `--security-opt`, all of them.
///
/// # Errors
/// In words.
pub fn security(texts: &[String]) -> Result<Security, String> {
    let mut security = Security::default();
    for text in texts {
        let wrong = |why: &str| format!("--security-opt {text}: {why}");
        // Docker took a colon too, long ago, and people still write it.
        let (key, value) =
            text.split_once(['=', ':']).map_or((text.as_str(), None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("no-new-privileges", value) => {
                security.no_new_privileges = truth(key, value).map_err(|why| wrong(&why))?;
            }
            ("seccomp", Some("unconfined")) => security.seccomp = Seccomp::Unconfined,
            ("seccomp", Some(file)) => {
                let text = std::fs::read(file).map_err(|e| wrong(&e.to_string()))?;
                let profile = serde_json::from_slice(&text).map_err(|e| wrong(&e.to_string()))?;
                security.seccomp = Seccomp::Profile(profile);
            }
            ("apparmor", Some(profile)) if !profile.is_empty() => {
                security.apparmor = Some(profile.to_owned());
            }
            ("label", Some(part)) if !part.is_empty() => security.label.push(part.to_owned()),
            ("systempaths", Some("unconfined")) => security.system_paths = SystemPaths::Unconfined,
            _ => {
                return Err(wrong(
                    "is none of no-new-privileges, seccomp=unconfined, seccomp=FILE, apparmor=PROFILE, label=..., systempaths=unconfined",
                ));
            }
        }
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_a_number() {
        assert_eq!(cpus("1.5"), Ok(1.5));
        assert!(["nan", "inf", "-1", "", "2x"].iter().all(|text| cpus(text).is_err()));
    }

    #[test]
    fn mounts_have_keys() {
        let (source, target) = ("/a".into(), "/b".into());
        let bind = Mount::Bind { source, target, read_only: true, unmapped: false, make: false };
        assert_eq!(mount("type=bind,source=/a,target=/b,readonly").unwrap(), bind);
        assert_eq!(mount("type=bind,src=/a,dst=/b,ro=true").unwrap(), bind);
        let options = ["mode=1770", "ro"].map(str::to_owned).to_vec();
        let tmpfs = Mount::Tmpfs { target: "/t".into(), size: Some(1 << 20), options };
        assert_eq!(mount("type=tmpfs,target=/t,tmpfs-size=1m,readonly,tmpfs-mode=1770").unwrap(), tmpfs);
        let volume =
            Mount::Volume { name: "data".into(), target: "/v".into(), read_only: false, no_copy: true };
        assert_eq!(mount("source=data,target=/v,volume-nocopy").unwrap(), volume);
        for (text, why) in [
            ("source=/a,target=/v", "type=bind"),
            ("type=bind,source=/a,target=/v,volume-nocopy", "volume-nocopy"),
            ("type=bind,source=/a", "target="),
            ("type=bind,target=/a", "source="),
            ("type=nfs,target=/a", "nfs"),
            ("type=bind,source=/a,target=/b,color=red", "color"),
            ("type=bind,source=/a,target=/b,readonly=perhaps", "perhaps"),
            ("type=bind,source=/a,target=/b,tmpfs-size=1m", "tmpfs-size"),
            ("type=tmpfs,source=/a,target=/b", "source"),
        ] {
            assert!(mount(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn devices_have_targets_and_accesses() {
        let made = |text: &str| device(text).map(|d| (d.source, d.target, d.access));
        let want = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(made("/dev/a"), want("/dev/a", "/dev/a", "rwm"));
        assert_eq!(made("/dev/a:r"), want("/dev/a", "/dev/a", "r"));
        assert_eq!(made("/dev/a:/dev/b"), want("/dev/a", "/dev/b", "rwm"));
        assert_eq!(made("/dev/a:/dev/b:rw"), want("/dev/a", "/dev/b", "rw"));
        assert!(["a", "/dev/a:/dev/b:x", "/dev/a:", "/a:/b:r:w"].iter().all(|text| device(text).is_err()));
    }

    #[test]
    fn devices_have_names_and_gpus_are_devices() {
        let cdi = |name: &str| Ok(Named::Cdi(name.to_owned()));
        for name in ["vendor.com/class=name", "nvidia.com/gpu=mig0:1", "vendor.com/class="] {
            assert_eq!(named(name), cdi(name));
        }
        assert!(matches!(named("/dev/disk/by-id/a=b"), Ok(Named::Path(device)) if device.access == "rwm"));
        assert!(["vendor.com/class", "a=b", "a=b/c"].iter().all(|text| named(text).is_err()));
        let all = Ok(vec!["nvidia.com/gpu=all".to_owned()]);
        assert!(["all", "\"all\"", "-1", "count=all"].iter().all(|text| gpus(text) == all));
        let two = Ok(vec!["nvidia.com/gpu=0".to_owned(), "nvidia.com/gpu=1".to_owned()]);
        assert!(["2", "count=2", "device=0,1", "\"device=0,1\""].iter().all(|text| gpus(text) == two));
        assert_eq!(gpus("device=GPU-3a"), Ok(vec!["nvidia.com/gpu=GPU-3a".to_owned()]));
        for text in
            ["", "0", "none", "device=", "device=0,,1", "driver=nvidia", "all,capabilities=gpu", "\"2", "300"]
        {
            assert!(gpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_and_hosts_are_docker_s() {
        let made = |text: &str| ulimit(text).map(|u| (u.name, u.soft, u.hard));
        assert_eq!(made("nofile=1024:2048"), Ok(("nofile".to_owned(), 1024, 2048)));
        assert_eq!(made("core=-1"), Ok(("core".to_owned(), -1, -1)));
        assert!(["nofile", "nofile=x", "nofile=1:2:3"].iter().all(|text| ulimit(text).is_err()));
        let made = |text: &str| host(text).map(|h| (h.name, h.address.to_string()));
        assert_eq!(made("db:10.0.0.5"), Ok(("db".to_owned(), "10.0.0.5".to_owned())));
        assert_eq!(made("db:fd00::5"), Ok(("db".to_owned(), "fd00::5".to_owned())));
        assert_eq!(made("db=[fd00::5]"), Ok(("db".to_owned(), "fd00::5".to_owned())));
        assert!(["db", "db:x"].iter().all(|text| host(text).is_err()));
    }

    #[test]
    fn security_options_add_up() {
        let texts = |list: &[&str]| security(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let made = texts(&["no-new-privileges", "seccomp=unconfined", "label=type:spc_t", "label=level:s1"]);
        let made = made.unwrap();
        assert!(made.no_new_privileges && made.seccomp == Seccomp::Unconfined);
        assert_eq!(made.label, ["type:spc_t", "level:s1"]);
        assert!(!texts(&["no-new-privileges:false"]).unwrap().no_new_privileges);
        assert_eq!(texts(&["systempaths=unconfined"]).unwrap().system_paths, SystemPaths::Unconfined);
        for bad in ["fly", "seccomp=/none/such", "seccomp", "systempaths=some", "no-new-privileges=perhaps"] {
            assert!(texts(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!((time("30s"), time("1m30s"), time("500ms")), (Ok(30_000), Ok(90_000), Ok(500)));
        assert!(["", "x", "-3s", "5 apples"].iter().all(|text| time(text).is_err()));
    }

    #[test]
    fn others_are_named() {
        assert_eq!(pid("container:web"), Ok(Pid::Container("web".into())));
        assert_eq!(ipc("shareable"), Ok(Ipc::Shareable));
        assert!(pid("container:").is_err() && ipc("web").is_err() && pid("own").is_err());
        assert_eq!((swap("-1"), swap("1k")), (Ok(-1), Ok(1024)));
    }
}
