//! The one line that each step prints.

use std::fmt::{Display, Formatter, Result};

use super::{Base, Depth, IdMapper, MountChange, Step, Target, Undo};
use crate::spec::{Attributes, DeviceKind, IdMapping, NamespaceKind, capability_name};

/// Attribute words: bit, word when set, word when cleared.
const WORDS: &[(u64, &str, &str)] = &[
    (0x01, "ro", "rw"),
    (0x02, "nosuid", "suid"),
    (0x04, "nodev", "dev"),
    (0x08, "noexec", "exec"),
    (0x10, "noatime", ""),
    (0x20, "strictatime", ""),
    (0x80, "nodiratime", "diratime"),
    (0x20_0000, "nosymfollow", "symfollow"),
];

fn attribute_words(attributes: Attributes, prefix: &str, words: &mut Vec<String>) {
    for (bit, set, clear) in WORDS {
        if attributes.set & bit != 0 {
            words.push(format!("{prefix}{set}"));
        } else if attributes.clear & bit != 0 && !clear.is_empty() {
            words.push(format!("{prefix}{clear}"));
        }
    }
}

fn change(c: &MountChange) -> String {
    let mut words = Vec::new();
    attribute_words(c.attributes, "", &mut words);
    attribute_words(c.recursive, "r", &mut words);
    for (propagation, depth) in &c.propagation {
        let prefix = if *depth == Depth::Recursive { "r" } else { "" };
        words.push(format!("{prefix}{}", propagation.word()));
    }
    words.join(",")
}

fn mappings(list: &[IdMapping]) -> String {
    list.iter().map(|m| format!("{}:{}:{}", m.container, m.host, m.size)).collect::<Vec<_>>().join(",")
}

fn kinds(list: &[NamespaceKind]) -> String {
    list.iter().map(|k| k.name()).collect::<Vec<_>>().join(" ")
}

/// The names of the capabilities in `bits`, short and in order of number.
fn capabilities(bits: u64) -> String {
    let names = (0..64).filter(|n| bits >> n & 1 == 1).map(|n| {
        capability_name(n).map_or_else(|| n.to_string(), |name| name["CAP_".len()..].to_lowercase())
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

fn parameters(list: &[(String, Option<String>)]) -> String {
    let words: Vec<String> =
        list.iter().map(|(k, v)| v.as_ref().map_or_else(|| k.clone(), |v| format!("{k}={v}"))).collect();
    words.join(",")
}

/// Words after a space, or nothing.
fn and(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Step::MakeGroup { dir, fill, .. } => {
                write!(f, "make cgroup {}", dir.display())?;
                if fill.is_empty() { Ok(()) } else { write!(f, ", fill {} from its parent", fill.join(" ")) }
            }
            Step::EnableControllers { dir, controllers, required, .. } => {
                write!(f, "enable {} down to {}", controllers.join(" "), dir.display())?;
                if required.is_empty() { Ok(()) } else { write!(f, ", {} required", required.join(" ")) }
            }
            Step::WriteGroup { dir, write } => write!(f, "{write} in {}", dir.display()),
            Step::MoveProcesses { from, to } => {
                write!(f, "move the processes of cgroup {} into {}", from.display(), to.display())
            }
            Step::FilterDevices { dir, program } => {
                write!(f, "filter devices of {} by eBPF, {} instructions", dir.display(), program.len())
            }
            Step::OpenGroup { slot, dir } => write!(f, "open cgroup {} as {slot}", dir.display()),
            Step::JoinGroup { slot } => write!(f, "join cgroup {slot}"),
            Step::StartScope { unit, slice, properties, .. } => {
                write!(f, "start systemd scope {unit} in {slice}")?;
                properties.iter().try_for_each(|(k, v)| write!(f, " {k}={v}"))
            }
            Step::ChangeScope { unit, properties } => {
                write!(f, "change systemd scope {unit}")?;
                properties.iter().try_for_each(|(k, v)| write!(f, " {k}={v}"))
            }
            Step::MakeResctrlGroup { dir, schemata, .. } => {
                write!(f, "make resctrl group {}", dir.display())?;
                schemata.iter().try_for_each(|line| write!(f, " {line:?}"))
            }
            Step::JoinResctrlGroup { dir } => write!(f, "join resctrl group {}", dir.display()),
            Step::OpenNamespace { slot, kind, path } => {
                write!(f, "open {} namespace {} as {slot}", kind.name(), path.display())
            }
            Step::Join { slot, kind } => write!(f, "join {} namespace {slot}", kind.name()),
            Step::Unshare { kinds: list } => write!(f, "unshare {}", kinds(list)),
            Step::NewTimeNamespace { offsets } => {
                f.write_str("new time namespace")?;
                offsets.iter().try_for_each(|(c, o)| write!(f, " {c}={}.{:09}", o.seconds, o.nanoseconds))
            }
            Step::WriteIdMaps { uids, gids, by } => {
                let by = match by {
                    IdMapper::Runtime => "",
                    IdMapper::OwnId => " without setgroups",
                    IdMapper::Programs { .. } => " by newuidmap and newgidmap",
                };
                write!(f, "map uids {} gids {}{by}", mappings(uids), mappings(gids))
            }
            Step::SetOomScoreAdj { value } => write!(f, "set oom_score_adj {value}"),
            Step::NewIdmap { slot, uids, gids } => {
                write!(f, "new id map {slot} uids {} gids {}", mappings(uids), mappings(gids))
            }
            Step::OpenTree { slot, path, depth, change: c, idmap } => {
                let tree = if *depth == Depth::Recursive { "tree" } else { "mount" };
                write!(f, "clone {tree} {} as {slot}{}", path.display(), and(&change(c)))?;
                idmap.map_or(Ok(()), |(slot, _)| write!(f, " mapped by {slot}"))
            }
            Step::MoveNetDevice { name, inside } => write!(f, "move network device {name} in as {inside}"),
            other => init_step(f, other),
        }
    }
}

fn init_step(f: &mut Formatter<'_>, step: &Step) -> Result {
    match step {
        Step::BecomeRoot => f.write_str("become root of the user namespace"),
        Step::NewKeyring { name, .. } => write!(f, "new session keyring {name}"),
        Step::LoopbackUp => f.write_str("bring lo up"),
        Step::PropagateAll { propagation } => write!(f, "make all mounts {}", propagation.word()),
        Step::AttachRoot { slot } => write!(f, "attach {slot} as the root"),
        Step::AttachRootAt { slot, dir } => write!(f, "attach {slot} as the root on {}", dir.display()),
        Step::Mount { slot, fstype, parameters: p, target, kind, change: c, copy_up, .. } => {
            write!(
                f,
                "mount {fstype} on {} as {slot}{}{}",
                target.display(),
                and(&change(c)),
                and(&parameters(p))
            )?;
            if *kind == Target::PlainDirectory {
                f.write_str(" through no link")?;
            }
            if *copy_up { f.write_str(" with a copy of what is there") } else { Ok(()) }
        }
        Step::Attach { slot, target } => write!(f, "attach {slot} on {}", target.display()),
        Step::ChangeMount { target, change: c } => {
            write!(f, "change mount {}{}", target.display(), and(&change(c)))
        }
        Step::MakeNode { device: d } => {
            let kind = match d.kind {
                DeviceKind::Char => 'c',
                DeviceKind::Block => 'b',
                DeviceKind::Fifo => 'p',
            };
            write!(
                f,
                "make node {} {kind} {}:{} {:04o} {}:{}",
                d.path.display(),
                d.major,
                d.minor,
                d.mode,
                d.uid,
                d.gid
            )
        }
        Step::MakeLink { to, path } => write!(f, "make link {} to {to}", path.display()),
        Step::NewTerminal { devpts, size, console, owner } => {
            f.write_str("new terminal")?;
            devpts.map_or(Ok(()), |slot| write!(f, " in {slot}"))?;
            size.map_or(Ok(()), |s| write!(f, " {}x{}", s.width, s.height))?;
            if *owner != 0 {
                write!(f, " of {owner}")?;
            }
            if *console { f.write_str(" on /dev/console") } else { Ok(()) }
        }
        Step::PivotRoot => f.write_str("pivot to the root"),
        Step::Chroot => f.write_str("chroot to the root"),
        Step::SetHostname { name } => write!(f, "set hostname {name}"),
        Step::SetDomainname { name } => write!(f, "set domainname {name}"),
        Step::WriteSysctl { path, value } => write!(f, "sysctl {} = {value}", path.replace('/', ".")),
        Step::Mask { base, path } => write!(f, "mask {}{base}", path.display()),
        Step::Protect { base, path } => write!(f, "make read-only {}{base}", path.display()),
        other => process_step(f, other),
    }
}

fn process_step(f: &mut Formatter<'_>, step: &Step) -> Result {
    match step {
        Step::SetRlimit { limit } => write!(f, "limit {} {}:{}", limit.name, limit.soft, limit.hard),
        Step::SetScheduler { scheduler } => write!(f, "set scheduler {}", json(scheduler)),
        Step::SetIoPriority { priority } => write!(f, "set I/O priority {}", json(priority)),
        Step::SetAffinity { cpus } => write!(f, "bind to CPUs {cpus}"),
        Step::SetMemoryPolicy { policy } => write!(f, "set memory policy {}", json(policy)),
        Step::SetPersonality { personality } => write!(f, "set personality {}", json(personality)),
        Step::SetNoNewPrivileges => f.write_str("never gain privileges"),
        Step::SetApparmorProfile { profile } => write!(f, "exec under AppArmor profile {profile}"),
        Step::SetSelinuxLabel { label } => write!(f, "exec under SELinux label {label}"),
        Step::FindProgram { program } => write!(f, "find program {program}"),
        Step::LoadFilter { filter } => {
            let rules = filter.profile.syscalls().iter().flatten().count();
            write!(f, "load system call filter, {rules} rules")
        }
        Step::LimitBounding { keep } => write!(f, "limit bounding set to {}", capabilities(*keep)),
        Step::OwnStreams { uid } => write!(f, "give the standard streams to {uid}"),
        Step::SetUser { user, .. } => {
            write!(f, "become {}:{}", user.uid, user.gid)?;
            for gid in &user.additional_gids {
                write!(f, " +{gid}")?;
            }
            user.umask.map_or(Ok(()), |mask| write!(f, " umask {mask:04o}"))
        }
        Step::ChangeDirectory { path, .. } => write!(f, "enter {}", path.display()),
        Step::SetCapabilities { capabilities: c } => {
            write!(
                f,
                "set capabilities effective {} permitted {} inheritable {} ambient {}",
                capabilities(c.effective),
                capabilities(c.permitted),
                capabilities(c.inheritable),
                capabilities(c.ambient)
            )
        }
        _ => Ok(()),
    }
}

/// A value of the spec in its own words.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Display for super::Slot {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "#{}", self.0)
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Base::Root => Ok(()),
            Base::Mount(slot) => write!(f, " in {slot}"),
        }
    }
}

impl Display for Undo {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Undo::RemoveGroup { dir, .. } => write!(f, "kill and remove cgroup {}", dir.display()),
            Undo::StopScope { unit, .. } => write!(f, "stop systemd scope {unit}"),
            Undo::Unmount { dir } => write!(f, "unmount {}", dir.display()),
            Undo::RemoveResctrlGroup { dir } => write!(f, "remove resctrl group {}", dir.display()),
        }
    }
}

impl Display for super::Property {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Text(text) if text.contains(' ') => write!(f, "{text:?}"),
            Self::Text(text) => f.write_str(text),
            Self::Flag(yes) => f.write_str(if *yes { "yes" } else { "no" }),
            Self::Number(u64::MAX) => f.write_str("infinity"),
            Self::Number(n) => write!(f, "{n}"),
            Self::Set(bytes) => {
                let numbers = (0..bytes.len() * 8).filter(|n| bytes[n / 8] >> (n % 8) & 1 == 1);
                f.write_str(&numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(","))
            }
        }
    }
}
