//! The plan for a further process in a running container: the same steps, but for what is there already.

use super::{Driver, Keyring, Plan, PlanError, Spawn, groups::Groups, process};
use crate::facts::Facts;
use crate::spec::{NamespaceKind, Process, Terminal};
use crate::step::{Filter, Groups as Supplementary, Slot, Step};

/// What `exec` needs to know beside the process.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// The container's id.
    pub id: String,
    /// The container's namespaces that differ from the runtime's: slot of the open file, and kind.
    pub namespaces: Vec<(Slot, NamespaceKind)>,
    /// The container's groups.
    pub groups: Groups,
    /// The group below the container's own to run in, where asked for.
    pub group: Option<std::path::PathBuf>,
    /// The container's filter.
    pub filter: Option<Filter>,
    /// As for the container.
    pub keyring: Keyring,
    /// As for the container.
    pub driver: Driver,
    /// Whether setgroups(2) may be called.
    pub supplementary: Supplementary,
}

/// Makes the plan for `exec`.
///
/// # Errors
/// When this host cannot do what the process asks.
pub fn build_exec(wanted: &Process, facts: &Facts, request: &ExecRequest) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let in_user_namespace = request.namespaces.iter().any(|(_, kind)| *kind == NamespaceKind::User);
    let (around, between): (Vec<_>, Vec<_>) = if facts.is_rootless() {
        (Vec::new(), request.namespaces.clone())
    } else {
        let inside = |kind: NamespaceKind| matches!(kind, NamespaceKind::User | NamespaceKind::Mount);
        request.namespaces.iter().partition(|(_, kind)| !inside(*kind))
    };
    let group = request.group.clone().or_else(|| request.groups.v2.as_ref().map(|g| g.dir.clone()));
    plan.spawn = Spawn { group, around, between: Vec::new(), new: Vec::new() };
    if facts.is_rootless() {
        plan.spawn.between = between;
    } else {
        // The runtime has joined what it can come back from, so its child can take the last two by itself.
        plan.mounts.extend(between.into_iter().map(|(slot, kind)| Step::Join { slot, kind }));
    }
    if in_user_namespace {
        plan.mounts.push(Step::BecomeRoot);
    }
    for (at, v1) in request.groups.v1.iter().enumerate() {
        let slot = Slot(1000 + at as u16);
        plan.host.push(Step::OpenGroup { slot, dir: v1.dir.clone() });
        plan.mounts.insert(at, Step::JoinGroup { slot });
    }
    if request.keyring == Keyring::New {
        let label = wanted.selinux_label.clone();
        plan.mounts.push(Step::NewKeyring { name: format!("_ses.{}", request.id), label });
    }
    if let Terminal::New(size) = wanted.terminal {
        plan.terminal = true;
        plan.root.push(Step::NewTerminal { devpts: None, size, console: false });
    }
    if let Some(value) = wanted.oom_score_adj {
        plan.parent.push(Step::SetOomScoreAdj { value });
    }
    plan.limits.extend(wanted.rlimits.iter().map(|limit| Step::SetRlimit { limit: limit.clone() }));
    let filter = request.filter.clone();
    let (steps, warnings) = process::steps(wanted, filter, request.supplementary, facts, in_user_namespace);
    plan.process = steps;
    plan.warnings = warnings;
    plan.exec = process::exec(wanted);
    Ok(plan)
}
