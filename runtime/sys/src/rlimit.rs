//! Resource limits of a process: prlimit(2).

use crate::{Call, Result};
pub use rustix::process::Resource;
use rustix::process::{Pid, Rlimit};

/// The names of runtime-spec (those of getrlimit(2)) and what they stand for.
pub const NAMES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// No limit at all, as a value of [`Limit`] (`RLIM_INFINITY`).
pub const UNLIMITED: u64 = u64::MAX;

/// A soft limit, which is enforced, and the hard one up to which the process may raise it. Units are the resource's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// The ceiling of `soft`.
    pub hard: u64,
}

/// The resource called `name` ("RLIMIT_NOFILE"), if Linux has it.
pub fn by_name(name: &str) -> Option<Resource> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource)
}

/// The limit on `resource` of this process.
pub fn get(resource: Resource) -> Limit {
    from_kernel(rustix::process::getrlimit(resource))
}

/// Limits `resource` of process `pid`, of this one if `None`, and says what it was before. Raising a hard limit needs
/// CAP_SYS_RESOURCE in the initial user namespace (EPERM); a soft limit above the hard one is EINVAL.
pub fn set(pid: Option<Pid>, resource: Resource, limit: Limit) -> Result<Limit> {
    rustix::process::prlimit(pid, resource, to_kernel(limit)).map(from_kernel).call("prlimit")
}

fn to_kernel(limit: Limit) -> Rlimit {
    let value = |number| if number == UNLIMITED { None } else { Some(number) };
    Rlimit { current: value(limit.soft), maximum: value(limit.hard) }
}

fn from_kernel(limit: Rlimit) -> Limit {
    Limit { soft: limit.current.unwrap_or(UNLIMITED), hard: limit.maximum.unwrap_or(UNLIMITED) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_child, skipped};
    use rustix::io::Errno;

    #[test]
    fn names_are_all_of_linux_and_no_other() {
        let mut numbers: Vec<u32> = NAMES.iter().map(|(_, resource)| *resource as u32).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..16).collect::<Vec<u32>>());
        assert!(by_name("RLIMIT_NOFILE").is_some());
        assert!(by_name("NOFILE").is_none() && by_name("RLIMIT_NLIMITS").is_none());
    }

    #[test]
    fn a_limit_is_set_on_oneself_and_read_back() {
        in_child(|| {
            let before = get(Resource::Core);
            let limit = Limit { soft: 0, hard: before.hard };
            assert_eq!(set(None, Resource::Core, limit).unwrap(), before);
            assert_eq!(get(Resource::Core), limit);
        });
    }

    #[test]
    fn a_limit_is_set_on_another_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let before = get(Resource::Nofile);
        let limit = Limit { soft: 17, hard: before.hard };
        let was = set(Some(Pid::from_child(&child)), Resource::Nofile, limit);
        let text = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(was.unwrap(), before);
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(line.split_whitespace().nth(3), Some("17"));
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused() {
        let error = set(None, Resource::Core, Limit { soft: 2, hard: 1 }).unwrap_err();
        assert_eq!((error.call(), error.errno()), ("prlimit", Errno::INVAL));
    }

    #[test]
    fn raising_a_hard_limit_takes_cap_sys_resource() {
        in_child(|| {
            set(None, Resource::Core, Limit { soft: 0, hard: 0 }).unwrap();
            let raised = set(None, Resource::Core, Limit { soft: 0, hard: UNLIMITED });
            if caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap() {
                raised.unwrap();
                assert_eq!(get(Resource::Core).hard, UNLIMITED);
            } else {
                assert_eq!(raised.unwrap_err().errno(), Errno::PERM);
                skipped("rlimit: raising a hard limit", "no CAP_SYS_RESOURCE (its refusal was seen)");
            }
        });
    }
}
