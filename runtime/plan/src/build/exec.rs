//! The plan for a further process in a container: the same steps, but for what is there already.

use std::path::PathBuf;

use super::{Keyring, Plan, PlanError, Spawn, process};
use crate::facts::Facts;
use crate::spec::{NamespaceKind, Process, Terminal};
use crate::step::{Filter, Groups as Supplementary, Missing, Slot, Step};

/// What `exec` needs to know beside the process.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// The container's id.
    pub id: String,
    /// The container's namespaces that differ from the runtime's: slot of the open file, and kind.
    pub namespaces: Vec<(Slot, NamespaceKind)>,
    /// The cgroup2 group to be born in.
    pub group: Option<PathBuf>,
    /// The v1 groups to move into.
    pub v1: Vec<PathBuf>,
    /// The container's filter.
    pub filter: Option<Filter>,
    /// As for the container.
    pub keyring: Keyring,
    /// Whether setgroups(2) may be called.
    pub supplementary: Supplementary,
}

/// The first slot of the v1 groups; those of the namespaces are below it.
const FIRST_GROUP: u16 = 1000;

/// Namespaces that the new process joins by itself, in this order: the runtime could not come back from the mount and
/// the user namespace, and in the container's cgroup namespace the kernel would see neither the runtime's group nor allow
/// a move out of it. The user namespace is the last, since only there the rights over the others end.
const BY_ITSELF: [NamespaceKind; 3] = [NamespaceKind::Cgroup, NamespaceKind::Mount, NamespaceKind::User];

/// Makes the plan for `exec`.
///
/// # Errors
/// When this host cannot do what the process asks.
pub fn build_exec(wanted: &Process, facts: &Facts, request: &ExecRequest) -> Result<Plan, PlanError> {
    let spawn = Spawn { group: request.group.clone(), ..Spawn::default() };
    let mut plan = Plan { spawn, ..Plan::default() };
    let affinity = wanted.exec_cpu_affinity.as_ref();
    let cpus = |list: &Option<String>| list.clone().filter(|l| !l.is_empty());
    // The clone is born in the group, so the CPUs before the move into it are the runtime's own.
    let initial = affinity.and_then(|a| cpus(a.initial()));
    plan.host.extend(initial.map(|cpus| Step::SetAffinity { cpus }));
    for (at, dir) in (FIRST_GROUP..).zip(&request.v1) {
        let slot = Slot(at);
        plan.host.push(Step::OpenGroup { slot, dir: dir.clone() });
        plan.mounts.push(Step::JoinGroup { slot });
    }
    let last = affinity.and_then(|a| cpus(a.cpu_affinity_final()));
    plan.mounts.extend(last.map(|cpus| Step::SetAffinity { cpus }));
    namespaces(&mut plan, facts, request);
    let in_user_namespace = request.namespaces.iter().any(|(_, kind)| *kind == NamespaceKind::User);
    if in_user_namespace {
        plan.mounts.push(Step::BecomeRoot);
    }
    if request.keyring == Keyring::New {
        let label = wanted.selinux_label.clone();
        plan.mounts.push(Step::NewKeyring { name: format!("_ses.{}", request.id), label });
    }
    if let Terminal::New(size) = wanted.terminal {
        plan.terminal = true;
        plan.root.push(Step::NewTerminal { devpts: None, size, console: false, owner: wanted.user.uid });
    }
    // An ordinary user's runtime cannot write to the files of a process that no other may look at.
    if let (Some(value), false) = (wanted.oom_score_adj, facts.is_rootless()) {
        plan.parent.push(Step::SetOomScoreAdj { value });
    }
    plan.limits.extend(wanted.rlimits.iter().map(|limit| Step::SetRlimit { limit: limit.clone() }));
    let filter = request.filter.clone();
    plan.listener = filter.as_ref().and_then(Filter::listener);
    let (steps, warnings) = process::steps(wanted, filter, request.supplementary, facts, in_user_namespace);
    plan.process = steps;
    for step in &mut plan.process {
        if let Step::ChangeDirectory { missing, .. } = step {
            // The working folder is made with the container or not at all, as with runc.
            *missing = Missing::Fail;
        }
    }
    plan.warnings = warnings;
    plan.exec = process::exec(wanted);
    Ok(plan)
}

fn namespaces(plan: &mut Plan, facts: &Facts, request: &ExecRequest) {
    if facts.is_rootless() {
        // Rights over the others come with the user namespace only, so a process between joins it first of all.
        plan.spawn.between = request.namespaces.clone();
        plan.spawn.between.sort_by_key(|(_, kind)| *kind != NamespaceKind::User);
        return;
    }
    let by_itself = |kind: &NamespaceKind| BY_ITSELF.contains(kind);
    plan.spawn.around = request.namespaces.iter().filter(|(_, kind)| !by_itself(kind)).copied().collect();
    for kind in BY_ITSELF {
        let slots = request.namespaces.iter().filter(|(_, have)| *have == kind);
        plan.mounts.extend(slots.map(|(slot, kind)| Step::Join { slot: *slot, kind: *kind }));
    }
}
