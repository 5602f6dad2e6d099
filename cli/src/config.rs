//! From options to what croftd is asked for.

pub mod options;

use std::collections::BTreeMap;
use std::path::Path;

use croft_api::container::{Config, Mount, Restart, Userns};

use croft_api::network::{Protocol, Publish};

use crate::args::CreateArgs;
use options::Named;

/// Bytes, given as a number with `b`, `k`, `m`, `g` or `t` behind it, in steps of 1024.
///
/// # Errors
/// In words.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, factor) = match lower.chars().last() {
        Some(unit) if "kmgt".contains(unit) => {
            let power = "kmgt".find(unit).unwrap_or_default() + 1;
            (&lower[..lower.len() - 1], 1024_f64.powi(i32::try_from(power).unwrap_or_default()))
        }
        _ => (lower, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no number of bytes: 512m, 2g"))?;
    let bytes = number * factor;
    if bytes.is_finite() && bytes >= 0.0 && bytes < u64::MAX as f64 {
        Ok(bytes as u64)
    } else {
        Err(format!("{text:?} is not possible"))
    }
}

/// How many lines of a log are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Every one.
    All,
    /// The last.
    Last(u64),
}

/// A number of lines, or `all`.
///
/// # Errors
/// In words.
pub fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => {
            number.parse().map(Tail::Last).map_err(|_| format!("{text:?} is no number of lines: 10, all"))
        }
    }
}

/// A time: RFC 3339, a date, seconds since 1970, or how long ago.
///
/// # Errors
/// In words.
pub fn time(text: &str) -> Result<jiff::Timestamp, String> {
    let wrong = || format!("{text:?} is no time: 2026-11-21T10:00:00Z, 2026-11-21, 1795258800, 10m");
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse() {
        return jiff::Timestamp::from_second(seconds).map_err(|_| wrong());
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>() {
        return date.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| wrong());
    }
    let ago: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    jiff::Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}

/// Ports of the host that lead into a container: `[ADDRESS:]HOST[-HOST]:CONTAINER[-CONTAINER][/tcp|/udp]`.
///
/// # Errors
/// In words.
pub fn publish(text: &str) -> Result<Vec<Publish>, String> {
    let wrong =
        || format!("{text:?} is no port: 8080:80, 8000-8010:9000-9010, 127.0.0.1:8080:80, [::1]:53:53/udp");
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong()),
    };
    let (rest, container) = ports.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((address, host)) => {
            let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            (Some(address.parse().map_err(|_| wrong())?), host)
        }
    };
    let (host, container) = (range(host).ok_or_else(wrong)?, range(container).ok_or_else(wrong)?);
    if host.len() != container.len() {
        let [host, container] = [host.len(), container.len()];
        return Err(format!(
            "{text:?}: {host} ports of the host cannot lead to {container} of the container"
        ));
    }
    Ok(host.zip(container).map(|(host, container)| Publish { address, host, container, protocol }).collect())
}

/// A port, or several: `80`, `8000-8010`.
fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// A restart policy.
///
/// # Errors
/// In words.
pub fn restart(text: &str) -> Result<Restart, String> {
    match text.split_once(':').unwrap_or((text, "0")) {
        ("no", "0") => Ok(Restart::No),
        ("always", "0") => Ok(Restart::Always),
        ("unless-stopped", "0") => Ok(Restart::UnlessStopped),
        ("on-failure", times) => times
            .parse()
            .map(Restart::OnFailure)
            .map_err(|_| format!("{times:?} is no number of times: on-failure:3")),
        _ => Err(format!("{text:?} is no policy: no, on-failure[:N], always, unless-stopped")),
    }
}

/// What `args` ask for.
///
/// # Errors
/// In words, for what makes no sense.
pub fn of(args: &CreateArgs) -> Result<Config, String> {
    let mut env = Vec::new();
    for file in &args.env_file {
        let text =
            std::fs::read_to_string(file).map_err(|e| format!("--env-file {}: {e}", file.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        env.extend(lines.filter_map(variable));
    }
    env.extend(variables(&args.env));
    let mut mounts: Vec<Mount> = args.volume.iter().map(|text| volume(text)).collect::<Result<_, _>>()?;
    for text in &args.tmpfs {
        mounts.push(tmpfs(text)?);
    }
    let options = &args.options;
    mounts.extend(options.mount.iter().cloned());
    let (mut devices, mut cdi) = (Vec::new(), Vec::new());
    for named in options.device.iter().cloned() {
        match named {
            Named::Path(device) => devices.push(device),
            Named::Cdi(name) => cdi.push(name),
        }
    }
    cdi.extend(options.gpus.iter().flatten().cloned());
    let (image, command) = args.words();
    Ok(Config {
        image: image.to_owned(),
        name: args.name.clone(),
        entrypoint: args.entrypoint.as_ref().map(|e| if e.is_empty() { Vec::new() } else { vec![e.clone()] }),
        command: command.to_vec(),
        env,
        terminal: args.tty,
        stdin: args.interactive,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        mounts,
        publish: args.publish.concat(),
        read_only: args.read_only,
        network: crate::network::mode(&args.network)?,
        limits: options::limits(&args.limits),
        health: options::health(&options.health),
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        sysctls: pairs("--sysctl", &args.sysctl)?,
        userns: match args.userns.as_str() {
            "own" | "private" => Userns::Own,
            "host" => Userns::Host,
            other => return Err(format!("--userns {other}: own or host")),
        },
        labels: pairs("--label", &args.label)?,
        restart: args.restart,
        auto_remove: args.rm,
        stop_signal: args.stop_signal.clone(),
        stop_timeout: args.stop_timeout,
        domainname: options.domainname.clone(),
        platform: options.platform.clone(),
        hosts: options.add_host.clone(),
        dns: options.dns.clone(),
        dns_search: options.dns_search.clone(),
        pid: options.pid.clone(),
        ipc: options.ipc.clone(),
        shm_size: options.shm_size,
        devices,
        cdi,
        privileged: options.privileged,
        init: options.init,
        security: options::security(&options.security_opt)?,
        groups: options.group_add.clone(),
        ulimits: options.ulimit.clone(),
        oom_score_adj: options.oom_score_adj,
        log: options::log(&options.log_opt, &options.log_mode)?,
    })
}

/// The variables that `texts` mean.
pub fn variables(texts: &[String]) -> impl Iterator<Item = String> {
    texts.iter().filter_map(|text| variable(text))
}

/// `NAME=VALUE`, or `NAME` for the value that this process has; none where it has none.
fn variable(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    std::env::var(text).ok().map(|value| format!("{text}={value}"))
}

/// `NAME=VALUE`, each name once.
///
/// # Errors
/// In words, for one without a name.
pub fn pairs(option: &str, texts: &[String]) -> Result<BTreeMap<String, String>, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            Err(format!("{option} {text}: NAME=VALUE"))
        } else {
            Ok((name.to_owned(), value.to_owned()))
        }
    };
    texts.iter().map(pair).collect()
}

fn volume(text: &str) -> Result<Mount, String> {
    let mut parts = text.split(':');
    let (source, target) = match (parts.next().unwrap_or_default(), parts.next()) {
        (target, None) if target.starts_with('/') => ("", target),
        (_, None) => {
            return Err(format!("--volume {text}: NAME:TARGET, /SOURCE:TARGET, or an absolute TARGET alone"));
        }
        ("", Some(_)) => return Err(format!("--volume {text}: there is nothing before the first colon")),
        (source, Some(target)) => (source, target),
    };
    let is_path = source.starts_with(['/', '.']);
    let (mut read_only, mut unmapped, mut no_copy) = (false, false, false);
    for option in parts.flat_map(|part| part.split(',')) {
        match option {
            "ro" => read_only = true,
            "rw" => {}
            "nomap" if is_path => unmapped = true,
            "nocopy" if !is_path => no_copy = true,
            other => {
                let own = if is_path { "nomap" } else { "nocopy" };
                return Err(format!("--volume {text}: {other:?} is none of ro, rw, {own}"));
            }
        }
    }
    let target = target.to_owned();
    if !is_path {
        if source.contains('/') {
            return Err(format!(
                "--volume {text}: {source:?} is no name of a volume; ./{source} for a folder"
            ));
        }
        return Ok(Mount::Volume { name: source.to_owned(), target, read_only, no_copy });
    }
    let source = absolute(source).map_err(|why| format!("--volume {text}: {why}"))?;
    // As with Docker: what `--mount` refuses is made for this shorter form.
    Ok(Mount::Bind { source, target, read_only, unmapped, make: true })
}

/// What is meant is a path of this process's working folder, not of croftd's.
fn absolute(path: &str) -> Result<String, String> {
    let path = std::path::absolute(Path::new(path)).map_err(|e| e.to_string())?;
    Ok(path.to_str().ok_or("is no UTF-8")?.to_owned())
}

fn tmpfs(text: &str) -> Result<Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut size, mut others) = (None, Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => {
                size = Some(bytes(value).map_err(|why| format!("--tmpfs {text}: {why}"))?)
            }
            // Which there are is croftd's to say.
            _ => others.push(option.to_owned()),
        }
    }
    Ok(Mount::Tmpfs { target: target.to_owned(), size, options: others })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("512m"), Ok(512 << 20));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        assert_eq!(bytes("2KiB"), Ok(2048));
        assert_eq!(bytes("17"), Ok(17));
        assert!(["", "m", "-1", "1x", "inf"].iter().all(|text| bytes(text).is_err()));
    }

    #[test]
    fn ports_have_addresses_and_protocols() {
        let one = |text: &str| match publish(text).unwrap().as_slice() {
            [one] => (one.address, one.host, one.container, one.protocol),
            several => panic!("{several:?}"),
        };
        assert_eq!(one("8080:80"), (None, 8080, 80, Protocol::Tcp));
        assert_eq!(one("[::1]:53:5353/udp"), (Some("::1".parse().unwrap()), 53, 5353, Protocol::Udp));
        assert_eq!(one("127.0.0.1:1:2/TCP"), (Some("127.0.0.1".parse().unwrap()), 1, 2, Protocol::Tcp));
        let several = publish("127.0.0.1:65534-65535:80-81/udp").unwrap();
        let ports: Vec<_> = several.iter().map(|one| (one.host, one.container)).collect();
        assert_eq!(ports, [(65534, 80), (65535, 81)]);
        assert!(several.iter().all(|one| one.address.is_some() && one.protocol == Protocol::Udp));
        for wrong in
            ["80", "0:80", "a:80", "80:80/icmp", "x:1:2", "70000:1", "1-2:1", "2-1:2-1", "1-:1-2", "0-1:0-1"]
        {
            assert!(publish(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn policies_are_docker_s() {
        assert_eq!(restart("on-failure:3"), Ok(Restart::OnFailure(3)));
        assert_eq!(restart("on-failure"), Ok(Restart::OnFailure(0)));
        assert!(restart("always:3").is_err() && restart("sometimes").is_err());
    }

    #[test]
    fn volumes_are_paths_with_options() {
        let bind = volume("/a:/b:ro,nomap").unwrap();
        let (source, target) = ("/a".into(), "/b".into());
        let want = Mount::Bind { source, target, read_only: true, unmapped: true, make: true };
        assert_eq!(bind, want);
        let of = |name: &str, read_only, no_copy| Mount::Volume {
            name: name.into(),
            target: "/b".into(),
            read_only,
            no_copy,
        };
        assert_eq!(volume("data:/b"), Ok(of("data", false, false)));
        assert_eq!(volume("data:/b:ro,nocopy"), Ok(of("data", true, true)));
        assert_eq!(volume("/b"), Ok(of("", false, false)));
        let here = std::env::current_dir().unwrap().join("sub").to_string_lossy().into_owned();
        assert!(matches!(volume("./sub:/b"), Ok(Mount::Bind { source, .. }) if source == here));
        for text in ["b", ":/b", "a/b:/c", "/a:/b:z", "data:/b:nomap", "/a:/b:nocopy"] {
            assert!(volume(text).is_err(), "{text}");
        }
        let options = ["ro", "mode=1770"].map(str::to_owned).to_vec();
        let made = Mount::Tmpfs { target: "/t".into(), size: Some(1 << 20), options };
        assert_eq!(tmpfs("/t:ro,size=1m,mode=1770").unwrap(), made);
    }
}
