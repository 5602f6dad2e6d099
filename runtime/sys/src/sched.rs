//! How the kernel schedules this thread: sched_setattr(2), ioprio_set(2), CPU affinity, NUMA memory policy, personality.
//!
//! All act on the calling thread and are inherited by what it executes and forks.

use crate::{Error, Result};
use rustix::io::Errno;

/// Scheduling policies by the names of sched(7).
pub const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4), // reserved; Linux has never had it and says EINVAL
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// Scheduling flags by the names of sched_setattr(2).
pub const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// Classes of I/O priority by the names of ioprio_set(2).
pub const IO_CLASSES: [(&str, u32); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// Memory policies by the names of set_mempolicy(2).
pub const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// Flags of memory policies by the names of set_mempolicy(2).
pub const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// Execution domains by the names of personality(2), without their "PER_".
pub const PERSONALITIES: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];

/// The number that one of the tables above gives for `name`.
pub fn by_name<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Scheduling attributes (`struct sched_attr`); the times are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// One of [`POLICIES`].
    pub policy: u32,
    /// An or of [`FLAGS`].
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH: from -20 to 19.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR: from 1 to 99.
    pub priority: u32,
    /// For SCHED_DEADLINE: how long it runs in each period.
    pub runtime: u64,
    /// For SCHED_DEADLINE: by when it must have run.
    pub deadline: u64,
    /// For SCHED_DEADLINE: the period.
    pub period: u64,
}

/// `struct sched_attr`, first version: what there is to say without utilisation clamps.
#[repr(C)]
#[derive(Default)]
struct RawAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Schedules this thread as told. EPERM: a limit (RLIMIT_RTPRIO, RLIMIT_NICE) or CAP_SYS_NICE is wanting, or a thread under
/// SCHED_DEADLINE may not run on all CPUs of its root domain.
pub fn set_attributes(attributes: Attributes) -> Result<()> {
    let raw = RawAttributes {
        size: size_of::<RawAttributes>() as u32,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    };
    // SAFETY: sched_setattr reads as many bytes as the struct's first field says, which is the size of the struct; pid 0 is the
    // calling thread, and the last argument, flags, must be 0.
    let returned = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) };
    Error::check("sched_setattr", returned)?;
    Ok(())
}

/// How this thread is scheduled.
pub fn attributes() -> Result<Attributes> {
    let mut raw = RawAttributes::default();
    let size = size_of::<RawAttributes>();
    // SAFETY: sched_getattr writes at most `size` bytes to the struct, which has that many.
    let returned = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut raw, size, 0) };
    Error::check("sched_getattr", returned)?;
    Ok(Attributes {
        policy: raw.policy,
        flags: raw.flags,
        nice: raw.nice,
        priority: raw.priority,
        runtime: raw.runtime,
        deadline: raw.deadline,
        period: raw.period,
    })
}

const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// Gives this thread an I/O priority: a class of [`IO_CLASSES`], and within it a level from 0 (first) to 7.
pub fn set_io_priority(class: u32, level: u32) -> Result<()> {
    if class > 7 || level > 7 {
        return Err(Error::new("ioprio_set", Errno::INVAL));
    }
    // SAFETY: ioprio_set takes numbers only; 0 is the calling thread.
    let returned = unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, class << IOPRIO_CLASS_SHIFT | level)
    };
    Error::check("ioprio_set", returned)?;
    Ok(())
}

/// The I/O priority of this thread: class and level. Class 0: none was set, the kernel derives one from nice.
pub fn io_priority() -> Result<(u32, u32)> {
    // SAFETY: ioprio_get takes numbers only; 0 is the calling thread.
    let returned = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
    let value = Error::check("ioprio_get", returned)? as u32;
    Ok((value >> IOPRIO_CLASS_SHIFT, value & 7))
}

/// Lets this thread run on these CPUs only. The kernel leaves out those that its cpuset does not have; EINVAL if none remains.
pub fn set_affinity(cpus: &[u32]) -> Result<()> {
    let mask = bit_mask(cpus, "sched_setaffinity")?;
    // SAFETY: sched_setaffinity reads that many bytes at the pointer, which are the mask's; 0 is the calling thread.
    let returned =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask.as_slice()), mask.as_ptr()) };
    Error::check("sched_setaffinity", returned)?;
    Ok(())
}

/// Takes this thread's memory from `nodes` by the rule `mode` ([`MEMORY_MODES`]), with `flags` ([`MEMORY_FLAGS`]) or 0.
pub fn set_memory_policy(mode: u32, flags: u32, nodes: &[u32]) -> Result<()> {
    let mask = bit_mask(nodes, "set_mempolicy")?;
    // The kernel looks at one bit fewer than it is told; no node at all must be told as no mask.
    let (pointer, bits) =
        if nodes.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), mask.len() * 64 + 1) };
    // SAFETY: set_mempolicy reads `bits` - 1 bits at the pointer, rounded up to whole words: those of the mask, or none.
    let returned = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode | flags, pointer, bits) };
    Error::check("set_mempolicy", returned)?;
    Ok(())
}

/// The bits of `numbers`, in as many words as they take.
fn bit_mask(numbers: &[u32], call: &'static str) -> Result<Vec<u64>> {
    // Far above what any kernel is built for (8192 CPUs, 1024 nodes), and small enough to allocate at a stranger's word.
    const LIMIT: u32 = 1 << 16;
    let last = numbers.iter().copied().max().unwrap_or(0);
    if last >= LIMIT {
        return Err(Error::new(call, Errno::INVAL));
    }
    let mut mask = vec![0u64; last as usize / 64 + 1];
    for number in numbers {
        mask[*number as usize / 64] |= 1 << (number % 64);
    }
    Ok(mask)
}

/// Sets the execution domain of this thread (one of [`PERSONALITIES`], with flags) and says which it was.
pub fn set_personality(persona: u32) -> Result<u32> {
    // SAFETY: personality takes one number.
    let returned = unsafe { libc::personality(persona.into()) };
    Ok(Error::check("personality", returned.into())? as u32)
}

/// The execution domain of this thread.
pub fn personality() -> Result<u32> {
    set_personality(u32::MAX) // the value that only asks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_child, skipped};

    fn policy(name: &str) -> u32 {
        by_name(&POLICIES, name).unwrap()
    }

    fn status(field: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line[field.len()..].trim().to_owned()
    }

    #[test]
    fn every_policy_is_set_and_read_back() {
        in_child(|| {
            let wanted = [
                Attributes { policy: policy("SCHED_BATCH"), nice: 5, ..Attributes::default() },
                Attributes { policy: policy("SCHED_OTHER"), nice: -3, ..Attributes::default() },
                Attributes { policy: policy("SCHED_IDLE"), ..Attributes::default() },
                Attributes { policy: policy("SCHED_FIFO"), priority: 7, flags: 1, ..Attributes::default() },
                Attributes { policy: policy("SCHED_RR"), priority: 8, flags: 1, ..Attributes::default() },
            ];
            for attributes in wanted {
                match set_attributes(attributes) {
                    Ok(()) => {
                        // Since Linux 6.12 this field tells the time slice of those without a deadline.
                        let mut got = Attributes { runtime: 0, ..super::attributes().unwrap() };
                        if attributes.policy == policy("SCHED_IDLE") {
                            got.nice = 0; // an idle thread keeps the value it had
                        }
                        assert_eq!(got, attributes);
                    }
                    Err(error) if error.errno() == Errno::PERM && attributes.priority > 0 => {
                        skipped(
                            "sched: real-time policies",
                            "the host gives no real-time runtime to this cgroup",
                        );
                    }
                    Err(error) => panic!("{attributes:?}: {error}"),
                }
            }
        });
    }

    #[test]
    fn a_deadline_is_set_and_read_back() {
        in_child(|| {
            let attributes = Attributes {
                policy: policy("SCHED_DEADLINE"),
                flags: by_name(&FLAGS, "SCHED_FLAG_RECLAIM").unwrap(),
                runtime: 1_000_000,
                deadline: 10_000_000,
                period: 100_000_000,
                ..Attributes::default()
            };
            match set_attributes(attributes) {
                Ok(()) => assert_eq!(super::attributes().unwrap(), attributes),
                Err(error) if matches!(error.errno(), Errno::PERM | Errno::BUSY) => {
                    skipped("sched: deadline", &error.to_string());
                }
                Err(error) => panic!("{error}"),
            }
        });
    }

    #[test]
    fn what_linux_lacks_is_refused() {
        let iso = Attributes { policy: policy("SCHED_ISO"), ..Attributes::default() };
        assert_eq!(set_attributes(iso).unwrap_err().errno(), Errno::INVAL);
        assert_eq!(by_name(&POLICIES, "SCHED_NOPE"), None);
    }

    #[test]
    fn an_io_priority_is_set() {
        in_child(|| {
            set_io_priority(by_name(&IO_CLASSES, "IOPRIO_CLASS_BE").unwrap(), 6).unwrap();
            assert_eq!(io_priority().unwrap(), (2, 6));
            assert_eq!(set_io_priority(2, 8).unwrap_err().errno(), Errno::INVAL);
        });
    }

    #[test]
    fn affinity_is_set() {
        in_child(|| {
            let before = status("Cpus_allowed_list:");
            let digits: String = before.chars().take_while(char::is_ascii_digit).collect();
            let first: u32 = digits.parse().unwrap();
            set_affinity(&[first]).unwrap();
            assert_eq!(status("Cpus_allowed_list:"), digits);
            assert_eq!(set_affinity(&[8000]).unwrap_err().errno(), Errno::INVAL);
            assert_eq!(set_affinity(&[u32::MAX]).unwrap_err().errno(), Errno::INVAL);
            assert_eq!(set_affinity(&[]).unwrap_err().errno(), Errno::INVAL);
        });
    }

    #[test]
    fn a_memory_policy_is_set() {
        in_child(|| {
            let bind = by_name(&MEMORY_MODES, "MPOL_BIND").unwrap();
            let fixed = by_name(&MEMORY_FLAGS, "MPOL_F_STATIC_NODES").unwrap();
            match set_memory_policy(bind, fixed, &[0]) {
                Err(error) if error.errno() == Errno::NOSYS => {
                    return skipped("sched: memory policy", "the kernel has no NUMA");
                }
                result => result.unwrap(),
            }
            let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
            assert!(maps.contains("bind=static:0"), "{}", maps.lines().next().unwrap());
            assert_eq!(set_memory_policy(bind, 0, &[]).unwrap_err().errno(), Errno::INVAL);
            assert_eq!(set_memory_policy(bind, 0, &[900]).unwrap_err().errno(), Errno::INVAL);
            set_memory_policy(0, 0, &[]).unwrap();
        });
    }

    #[test]
    fn a_personality_is_set() {
        in_child(|| {
            let linux32 = by_name(&PERSONALITIES, "LINUX32").unwrap();
            assert_eq!(set_personality(linux32).unwrap(), 0);
            assert_eq!(personality().unwrap(), linux32);
            let machine = rustix::system::uname().machine().to_owned();
            assert_ne!(machine.to_str().unwrap(), "x86_64");
        });
    }
}
