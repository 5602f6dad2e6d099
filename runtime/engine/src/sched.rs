//! Scheduling, I/O priority, CPUs, memory policy and personality in the spec's words.

use oci_spec::runtime as oci;

use crate::apply::{Cause, Outcome};

/// Not filled in yet.
fn later(what: &str) -> Outcome {
    Err(Cause::because(format!("{what} is not supported by this build yet")))
}

/// Sets the scheduling policy.
pub fn set_scheduler(_scheduler: &oci::Scheduler) -> Outcome {
    later("process.scheduler")
}

/// Sets the I/O priority.
pub fn set_io_priority(_priority: &oci::LinuxIOPriority) -> Outcome {
    later("process.ioPriority")
}

/// Binds to CPUs.
pub fn set_affinity(_cpus: &str) -> Outcome {
    later("process.execCPUAffinity")
}

/// Sets the NUMA memory policy.
pub fn set_memory_policy(_policy: &oci::LinuxMemoryPolicy) -> Outcome {
    later("linux.memoryPolicy")
}

/// Sets the execution domain.
pub fn set_personality(_personality: &oci::LinuxPersonality) -> Outcome {
    later("linux.personality")
}
