//! Decides what `update` does: new limits for the groups of a container that is there.

use oci_spec::runtime as oci;

use super::groups::resource_steps;
use super::{Group, Groups, PlanError};
use crate::cgroup::{self, Current, Version};
use crate::facts::Facts;
use crate::step::Step;

/// What will be done to a container's groups.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The v1 groups that are made, for the record: delete removes them.
    pub new_groups: Vec<Group>,
    /// What was ignored, in words for the user.
    pub warnings: Vec<String>,
}

impl std::fmt::Display for Update {
    /// One line a step.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Makes the plan for `update`. A limit of a v1 controller whose hierarchy the container has no group in gets one there:
/// made, limited, and only then entered by the container's processes, so that a limit that fails moves nobody.
///
/// # Errors
/// When this host, or the container's groups, cannot give what is asked.
pub fn build_update(
    resources: &oci::LinuxResources,
    facts: &Facts,
    groups: &Groups,
    current: &Current,
) -> Result<Update, PlanError> {
    let writes = cgroup::update(resources, &facts.cgroups, current)?;
    let mut update = Update { warnings: writes.warnings.clone(), ..Update::default() };
    let Some(first) = writes.writes.first() else { return Ok(update) };
    let Some(v2) = &groups.v2 else {
        let why = "the container has no control group: it was created where its user may make none";
        return Err(PlanError::refused(format!("linux.resources.{}", first.property), why));
    };
    let required: Vec<String> = writes.controllers(Version::V2).into_iter().map(str::to_owned).collect();
    if !required.is_empty() {
        update.steps.push(Step::EnableControllers {
            hierarchy: v2.hierarchy.clone(),
            dir: v2.dir.clone(),
            controllers: required.clone(),
            required,
        });
    }
    let mut all = groups.clone();
    let needed = writes.controllers(Version::V1);
    for (hierarchy, controllers) in &facts.v1_hierarchies {
        let has = all.v1.iter().any(|g| g.hierarchy == *hierarchy);
        if has || !controllers.iter().any(|c| needed.contains(c.as_str())) {
            continue;
        }
        let dir = match v2.dir.strip_prefix(&v2.hierarchy) {
            Ok(below) => hierarchy.join(below),
            Err(_) => {
                return Err(PlanError::refused("linux.resources", "the group is outside its hierarchy"));
            }
        };
        let fill = controllers.iter().flat_map(|c| cgroup::filled_from_parent(c, Version::V1));
        let fill = fill.map(|f| (*f).to_owned()).collect();
        update.steps.push(Step::MakeGroup { hierarchy: hierarchy.clone(), dir: dir.clone(), fill });
        let group = Group { hierarchy: hierarchy.clone(), dir, controllers: controllers.clone(), slot: None };
        update.new_groups.push(group.clone());
        all.v1.push(group);
    }
    let properties = super::scope::limits(&writes);
    if let (Some(unit), false) = (groups.unit.clone(), properties.is_empty()) {
        update.steps.push(Step::ChangeScope { unit, properties });
    }
    update.steps.extend(resource_steps(&all, &writes));
    let from = v2.dir.clone();
    let moves =
        update.new_groups.iter().map(|g| Step::MoveProcesses { from: from.clone(), to: g.dir.clone() });
    let moves: Vec<Step> = moves.collect();
    update.steps.extend(moves);
    Ok(update)
}
