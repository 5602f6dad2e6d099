//! Scheduling, I/O priority, CPUs, memory policy and personality: the spec's words become the kernel's numbers.

use croft_sys::sched::{self, by_name};
use oci_spec::runtime as oci;

use crate::apply::{Cause, Outcome};

fn number<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T, Cause> {
    by_name(table, name).ok_or_else(|| Cause::because(format!("{name} is not known")))
}

/// Sets the scheduling policy.
pub fn set_scheduler(scheduler: &oci::Scheduler) -> Outcome {
    let flags = scheduler.flags().iter().flatten().map(|flag| number(&sched::FLAGS, flag_name(*flag)));
    let priority = u32::try_from(scheduler.priority().unwrap_or(0));
    let attributes = sched::Attributes {
        policy: number(&sched::POLICIES, &scheduler.policy().to_string())?,
        flags: flags.sum::<Result<u64, Cause>>()?,
        nice: scheduler.nice().unwrap_or(0),
        priority: priority.map_err(|_| Cause::because("the priority is negative"))?,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    };
    Ok(sched::set_attributes(attributes)?)
}

/// The kernel's name of a flag. Not the one that oci-spec prints, which is wrong for two of them.
fn flag_name(flag: oci::LinuxSchedulerFlag) -> &'static str {
    use oci::LinuxSchedulerFlag as F;
    match flag {
        F::SchedResetOnFork => "SCHED_FLAG_RESET_ON_FORK",
        F::SchedFlagReclaim => "SCHED_FLAG_RECLAIM",
        F::SchedFlagDLOverrun => "SCHED_FLAG_DL_OVERRUN",
        F::SchedFlagKeepPolicy => "SCHED_FLAG_KEEP_POLICY",
        F::SchedFlagKeepParams => "SCHED_FLAG_KEEP_PARAMS",
        F::SchedFlagUtilClampMin => "SCHED_FLAG_UTIL_CLAMP_MIN",
        F::SchedFlagUtilClampMax => "SCHED_FLAG_UTIL_CLAMP_MAX",
    }
}

/// Sets the I/O priority.
pub fn set_io_priority(priority: &oci::LinuxIOPriority) -> Outcome {
    let class = number(&sched::IO_CLASSES, &priority.class().to_string())?;
    let level = u32::try_from(priority.priority()).map_err(|_| Cause::because("the priority is negative"))?;
    Ok(sched::set_io_priority(class, level)?)
}

/// Binds to CPUs, a list such as `0-3,7`.
pub fn set_affinity(cpus: &str) -> Outcome {
    Ok(sched::set_affinity(&list(cpus)?)?)
}

/// Sets the NUMA memory policy.
pub fn set_memory_policy(policy: &oci::LinuxMemoryPolicy) -> Outcome {
    let mode = number(&sched::MEMORY_MODES, &policy.mode().to_string())?;
    let flags = policy.flags().iter().flatten().map(|flag| number(&sched::MEMORY_FLAGS, &flag.to_string()));
    let flags = flags.sum::<Result<u32, Cause>>()?;
    Ok(sched::set_memory_policy(mode, flags, &list(policy.nodes().as_deref().unwrap_or_default())?)?)
}

/// Sets the execution domain. The spec knows no flag yet.
pub fn set_personality(personality: &oci::LinuxPersonality) -> Outcome {
    if let Some(flag) = personality.flags().iter().flatten().next() {
        return Err(Cause::because(format!("flag {flag} is not known")));
    }
    let domain = match personality.domain() {
        oci::LinuxPersonalityDomain::PerLinux => "LINUX",
        oci::LinuxPersonalityDomain::PerLinux32 => "LINUX32",
    };
    sched::set_personality(number(&sched::PERSONALITIES, domain)?)?;
    Ok(())
}

/// The numbers of a list such as `0-3,7` (cpuset(7), List format).
fn list(text: &str) -> Result<Vec<u32>, Cause> {
    const MOST: u32 = 1 << 16;
    let bad = || Cause::because(format!("{text:?} is not a list such as 0-3,7"));
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u32 = first.trim().parse().map_err(|_| bad())?;
        let last: u32 = last.trim().parse().map_err(|_| bad())?;
        if first > last || last >= MOST {
            return Err(bad());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list("0-2, 7").unwrap(), [0, 1, 2, 7]);
        assert_eq!(list("").unwrap(), [0; 0]);
        for bad in ["x", "3-1", "1-", "0-999999"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }
}
