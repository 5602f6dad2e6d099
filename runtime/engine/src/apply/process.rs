//! What a process is and may do: names, limits, labels, ids, capabilities, filter, program.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use croft_plan::spec::{Capabilities, Rlimit, User};
use croft_plan::step::{Filter, Groups, Missing};
use croft_sys::netlink::{self, Namespace};
use croft_sys::{Errno, OFlags, credentials, fs, path, prctl};
use oci_spec::runtime as oci;

use super::{Cause, Outcome};
use crate::world::World;

fn child(world: &World) -> Result<i32, Cause> {
    world.child.ok_or_else(|| Cause::because("there is no process yet"))
}

pub(super) fn set_oom_score_adj(world: &World, value: i32) -> Outcome {
    let pid = child(world)?;
    Ok(world.proc.write(&format!("{pid}/oom_score_adj"), value.to_string().as_bytes())?)
}

pub(super) fn set_rlimit(world: &World, limit: &Rlimit) -> Outcome {
    let resource = croft_sys::rlimit::by_name(&limit.name)
        .ok_or_else(|| Cause::because(format!("{} is not known", limit.name)))?;
    let wanted = croft_sys::rlimit::Limit { soft: limit.soft, hard: limit.hard };
    // In the container's process itself there is no child.
    croft_sys::rlimit::set(world.child.and_then(croft_sys::Pid::from_raw), resource, wanted)?;
    Ok(())
}

pub(super) fn set_hostname(name: &str) -> Outcome {
    Ok(croft_sys::names::set_hostname(name)?)
}

pub(super) fn set_domainname(name: &str) -> Outcome {
    Ok(croft_sys::names::set_domainname(name)?)
}

pub(super) fn write_sysctl(world: &World, path: &str, value: &str) -> Outcome {
    Ok(world.proc.write(&format!("sys/{path}"), value.as_bytes())?)
}

pub(super) fn new_keyring(world: &World, name: &str, label: Option<&str>) -> Outcome {
    crate::keyring::join_new(world, name, label)
}

pub(super) fn loopback_up() -> Outcome {
    Ok(croft_sys::loopback::up()?)
}

pub(super) fn move_net_device(world: &World, name: &str, inside: &str) -> Outcome {
    let netns = world.proc.open_namespace(&child(world)?.to_string(), "net")?;
    let mut from = Namespace::own(&world.proc)?;
    let mut to = Namespace::of(&world.proc, netns)?;
    netlink::transfer(&mut from, &mut to, name, inside)?;
    Ok(())
}

pub(super) fn set_scheduler(scheduler: &oci::Scheduler) -> Outcome {
    crate::sched::set_scheduler(scheduler)
}

pub(super) fn set_io_priority(priority: &oci::LinuxIOPriority) -> Outcome {
    crate::sched::set_io_priority(priority)
}

pub(super) fn set_affinity(cpus: &str) -> Outcome {
    crate::sched::set_affinity(cpus)
}

pub(super) fn set_memory_policy(policy: &oci::LinuxMemoryPolicy) -> Outcome {
    crate::sched::set_memory_policy(policy)
}

pub(super) fn set_personality(personality: &oci::LinuxPersonality) -> Outcome {
    crate::sched::set_personality(personality)
}

pub(super) fn set_apparmor_profile(world: &World, profile: &str) -> Outcome {
    let text = format!("exec {profile}");
    match world.proc.write("self/attr/apparmor/exec", text.as_bytes()) {
        // Before Linux 5.8 all security modules shared one file.
        Err(e) if e.errno() == Errno::NOENT => Ok(world.proc.write("self/attr/exec", text.as_bytes())?),
        other => Ok(other?),
    }
}

pub(super) fn set_selinux_label(world: &World, label: &str) -> Outcome {
    Ok(world.proc.write("self/attr/exec", label.as_bytes())?)
}

pub(super) fn limit_bounding(keep: u64) -> Outcome {
    Ok(credentials::limit_bounding(keep)?)
}

pub(super) fn set_user(user: &User, groups: Groups) -> Outcome {
    credentials::set_umask(fs::Mode::from_raw_mode(user.umask.unwrap_or(0o022) & 0o777));
    // What is permitted stays permitted over the change of user; the next line puts it back in force, so that the
    // working folder can be entered and the final sets taken.
    prctl::set_keep_capabilities(prctl::KeepCapabilities::Yes)?;
    match (groups, user.additional_gids.is_empty()) {
        (Groups::Set, _) => credentials::set_groups(&user.additional_gids)?,
        (Groups::Denied, true) => {}
        (Groups::Denied, false) => {
            return Err(Cause::because("additional groups are denied in this user namespace"));
        }
    }
    credentials::set_gid(user.gid)?;
    credentials::set_uid(user.uid)?;
    prctl::set_keep_capabilities(prctl::KeepCapabilities::No)?;
    let (_, permitted, inheritable) = credentials::capabilities()?;
    Ok(credentials::set_capabilities(permitted, permitted, inheritable)?)
}

/// Makes `uid` the owner of a stream. A file system that is read-only or knows no such user stays as it is.
pub(super) fn give(fd: BorrowedFd<'_>, uid: u32) -> Outcome {
    match fs::fchown(fd, Some(fs::Uid::from_raw(uid)), None) {
        Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => Ok(()),
        Err(e) => Err(croft_sys::Error::new("fchown", e).into()),
    }
}

pub(super) fn own_streams(uid: u32) -> Outcome {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [input.as_fd(), output.as_fd(), error.as_fd()] {
        let Ok(stat) = fs::fstat(stream) else { continue };
        let kind = fs::FileType::from_raw_mode(stat.st_mode);
        // The host's /dev/null, or the caller's own terminal, is not the container's to have.
        let is_device = matches!(kind, fs::FileType::CharacterDevice | fs::FileType::BlockDevice);
        if !is_device && stat.st_uid != uid {
            give(stream, uid)?;
        }
    }
    Ok(())
}

pub(super) fn change_directory(world: &mut World, cwd: &Path, missing: Missing) -> Outcome {
    // The last descriptor that leads out of the root: from here on paths are followed that the container could have laid,
    // and /proc/self/fd/N/1/root is one (CVE-2024-21626).
    world.proc.close();
    let fail = |e: croft_sys::Error| Cause {
        reason: format!("chdir to cwd ({cwd:?}) set in config.json failed: {}", croft_sys::reason(e.errno())),
        errno: Some(e.errno().raw_os_error()),
    };
    let root = path::open_path(fs::CWD, Path::new("/"))?;
    let dir = match missing {
        Missing::Make => path::mkdir_all(root.as_fd(), cwd),
        Missing::Fail => path::open_in_root(root.as_fd(), cwd, OFlags::PATH | OFlags::DIRECTORY),
    };
    let led_below_root = dir.is_ok();
    match dir {
        Ok(dir) => path::enter(dir.as_fd()).map_err(fail)?,
        // The container's own filter, when it is older than openat2(2); what follows finds a way out all the same.
        Err(e) if matches!(e.errno(), Errno::PERM | Errno::NOSYS) => {
            if matches!(missing, Missing::Make) {
                std::fs::create_dir_all(cwd)?;
            }
            path::enter_by_name(cwd).map_err(fail)?;
        }
        Err(e) => return Err(fail(e)),
    }
    // A working folder that is outside of the root all the same has a path that does not begin with a slash, getcwd(2) says.
    let here = match path::current_directory() {
        // The container's own filter refuses to tell. What openat2(2) led to is below the root all the same.
        Err(e) if led_below_root && matches!(e.errno(), Errno::PERM | Errno::NOSYS) => return Ok(()),
        here => here?,
    };
    if here.first() != Some(&b'/') {
        return Err(Cause::because(
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        ));
    }
    Ok(())
}

pub(super) fn set_capabilities(c: &Capabilities) -> Outcome {
    credentials::set_capabilities(c.effective, c.permitted, c.inheritable)?;
    Ok(credentials::set_ambient(c.ambient)?)
}

/// Finds the program as execvp(3) would, and says in runc's words what is wrong with it: its callers match on them.
pub(super) fn find_program(world: &mut World, program: &str) -> Outcome {
    let fail = |why: &str, errno: Errno| Cause {
        reason: format!("exec: {program:?}: {why}"),
        errno: Some(errno.raw_os_error()),
    };
    if program.is_empty() {
        return Err(fail("executable file not found in $PATH", Errno::NOENT));
    }
    if program.contains('/') {
        check_program(Path::new(program)).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => {
                let text =
                    if errno == Errno::NOENT { "no such file or directory" } else { "not a directory" };
                fail(&format!("stat {program}: {text}"), errno)
            }
            Errno::ISDIR => fail("is a directory", errno),
            errno => fail("permission denied", errno),
        })?;
        world.program = Some(PathBuf::from(program));
        return Ok(());
    }
    let mut denied = false;
    for dir in world.search_path.split(':') {
        let path = Path::new(if dir.is_empty() { "." } else { dir }).join(program);
        match check_program(&path) {
            Ok(()) => {
                world.program = Some(path);
                return Ok(());
            }
            Err(errno) => denied |= errno == Errno::ACCESS,
        }
    }
    Err(if denied {
        fail("permission denied", Errno::ACCESS)
    } else {
        fail("executable file not found in $PATH", Errno::NOENT)
    })
}

fn check_program(path: &Path) -> Result<(), Errno> {
    // By stat(2), not std's statx(2): the container's filter may be older than that.
    let stat = fs::stat(path)?;
    if fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(Errno::ISDIR);
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    let access = fs::Access::EXEC_OK;
    match fs::accessat(fs::CWD, path, access, fs::AtFlags::EACCESS) {
        // faccessat2 under an old filter: the exec itself will tell.
        Err(Errno::NOSYS | Errno::PERM) | Ok(()) => Ok(()),
        Err(e) => Err(e),
    }
}

pub(super) fn load_filter(world: &mut World, filter: &Filter) -> Outcome {
    crate::filter::load(world, filter)
}

/// The home folder of `uid` in the container's own /etc/passwd; `/` where it has none.
pub fn home_of(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let home = entry.filter(|f| f.len() >= 6 && f[2].parse() == Ok(uid)).map(|f| f[5].to_owned()).next();
    home.filter(|h| !h.is_empty()).unwrap_or_else(|| "/".to_owned())
}
