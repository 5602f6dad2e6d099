//! The last part of init: who the process is and what it may do.

use super::{Builder, Exec};
use crate::facts::Facts;
use crate::spec::{Capabilities, Process, Terminal, capability_name};
use crate::step::{Filter, Groups, IdMapper, Missing, Step};

pub(super) fn add(b: &mut Builder<'_>) {
    let spec = b.spec;
    let linux = &spec.linux;
    // Root in a new user namespace could not raise its own limits. Without one init does what the runtime can, and need not
    // wait for it.
    let limits = if linux.has_user_namespace() { &mut b.plan.limits } else { &mut b.plan.root };
    limits.extend(spec.process.rlimits.iter().map(|limit| Step::SetRlimit { limit: limit.clone() }));
    if let Some(policy) = &linux.memory_policy {
        b.plan.process.push(Step::SetMemoryPolicy { policy: policy.clone() });
    }
    if let Some(personality) = &linux.personality {
        b.plan.process.push(Step::SetPersonality { personality: personality.clone() });
    }
    let filter = linux.seccomp.as_ref().map(|profile| Filter { profile: Box::new(profile.clone()) });
    b.plan.listener = filter.as_ref().and_then(Filter::listener);
    let denied = b.plan.parent.iter().any(|s| matches!(s, Step::WriteIdMaps { by: IdMapper::OwnId, .. }));
    let groups = if denied { Groups::Denied } else { Groups::Set };
    let (steps, warnings) = steps(&spec.process, filter, groups, b.facts, linux.has_user_namespace());
    b.plan.process.extend(steps);
    b.plan.warnings.extend(warnings);
    b.plan.exec = exec(&spec.process);
}

/// What runs at the end of `process`.
pub(super) fn exec(process: &Process) -> Exec {
    Exec { args: process.args.clone(), env: process.env.clone(), uid: process.user.uid }
}

/// The steps that turn the runtime's process into `process`, for create and exec alike.
///
/// A filter goes in as late as can be. Without no_new_privs the kernel takes it only from a process that still has
/// CAP_SYS_ADMIN, so then it comes before the change of user.
pub(super) fn steps(
    process: &Process,
    filter: Option<Filter>,
    groups: Groups,
    facts: &Facts,
    in_user_namespace: bool,
) -> (Vec<Step>, Vec<String>) {
    let mut steps = Vec::new();
    let (capabilities, warnings) = possible(process.capabilities, facts, in_user_namespace);
    if let Some(scheduler) = &process.scheduler {
        steps.push(Step::SetScheduler { scheduler: scheduler.clone() });
    }
    if let Some(priority) = &process.io_priority {
        steps.push(Step::SetIoPriority { priority: *priority });
    }
    // Without AppArmor everything is unconfined, and there is nobody to tell; any other profile was refused.
    if let Some(profile) = process.apparmor_profile.as_ref().filter(|_| facts.lsm.apparmor) {
        steps.push(Step::SetApparmorProfile { profile: profile.clone() });
    }
    if let Some(label) = &process.selinux_label {
        steps.push(Step::SetSelinuxLabel { label: label.clone() });
    }
    if process.terminal == Terminal::None && process.user.uid != 0 {
        steps.push(Step::OwnStreams { uid: process.user.uid });
    }
    let filter = filter.map(|filter| Step::LoadFilter { filter });
    let (early, late) = if process.no_new_privileges { (None, filter) } else { (filter, None) };
    if process.no_new_privileges {
        steps.push(Step::SetNoNewPrivileges);
    }
    steps.extend(early);
    steps.push(Step::LimitBounding { keep: capabilities.bounding });
    steps.push(Step::SetUser { user: process.user.clone(), groups });
    steps.push(Step::ChangeDirectory { path: process.cwd.clone(), missing: Missing::Make });
    steps.push(Step::SetCapabilities { capabilities });
    steps.extend(process.args.first().map(|program| Step::FindProgram { program: program.clone() }));
    steps.extend(late);
    (steps, warnings)
}

/// The sets less what this kernel does not know and, without a user namespace, less what the runtime itself lacks:
/// runc ignores unavailable capabilities with a warning.
fn possible(asked: Capabilities, facts: &Facts, in_user_namespace: bool) -> (Capabilities, Vec<String>) {
    let known = u64::MAX >> (63 - facts.last_capability.min(63));
    let available = if in_user_namespace { known } else { known & facts.capabilities };
    let all = asked.bounding | asked.effective | asked.inheritable | asked.permitted | asked.ambient;
    let missing: Vec<&str> =
        (0..64).filter(|n| (all & !available) >> n & 1 == 1).filter_map(capability_name).collect();
    let warnings = if missing.is_empty() {
        Vec::new()
    } else {
        vec![format!("ignored capabilities that this host does not give: {}", missing.join(" "))]
    };
    let sets = Capabilities {
        bounding: asked.bounding & available,
        effective: asked.effective & available,
        inheritable: asked.inheritable & available,
        permitted: asked.permitted & available,
        // The kernel takes only what is permitted and inheritable as well; runc spec's own default asks for more.
        ambient: asked.ambient & asked.permitted & asked.inheritable & available,
    };
    (sets, warnings)
}
