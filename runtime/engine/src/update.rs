//! `update`: new limits for a container that is there. Its device rules stay as they are.

use std::os::fd::AsFd;
use std::path::PathBuf;

use croft_plan::build::{Groups, build_update};
use croft_plan::cgroup::{Current, Source, Version};
use croft_plan::facts::Facts;
use croft_plan::lifecycle::Verb;
use croft_plan::spec::Spec;
use croft_plan::step::Step;
use croft_sys::{Errno, cgroup};
use oci_spec::runtime::LinuxResources;

use crate::apply::apply_undoably;
use crate::error::{Context, Error, Result};
use crate::state::{Container, StateRoot};
use crate::undo::UndoStack;
use crate::world::World;

/// What `update` is asked. What is not named stays as it is.
#[derive(Debug, Clone, Default)]
pub struct UpdateOptions {
    /// The new limits.
    pub resources: LinuxResources,
    /// The line `L3:...` of resctrl's schemata.
    pub l3_cache_schema: Option<String>,
    /// The line `MB:...` of resctrl's schemata.
    pub mem_bw_schema: Option<String>,
}

/// Changes a container's limits: all of them, or, when one fails, none. Returns what was ignored.
///
/// # Errors
/// When the container has ended, or this host cannot give what is asked.
pub fn update(root: &StateRoot, id: &str, mut options: UpdateOptions) -> Result<Vec<String>> {
    let mut world = World::new().on(|| "open /proc".into())?;
    let container = root.open_for(id, Verb::Update, &world.proc)?;
    let facts = crate::facts::gather(&world.proc)?;
    // The rules are attached as a program that may have been added to since: only create sets it.
    options.resources.set_devices(None);
    unlimited_memory_is_unlimited_swap(&mut options.resources);
    check_rdt(&options, &facts)?;
    let swap = last_swap(&container);
    let groups = container.record.groups.clone();
    let mut files = |source: Source<'_>| read(&groups, source);
    let current = Current::read(&options.resources, &facts.cgroups, &mut files)
        .on(|| format!("read the limits of container {id:?}"))?
        .with_swap(swap);
    let plan = build_update(&options.resources, &facts, &groups, &current)?;
    let mut record = container.record.clone();
    record.groups.v1.extend(plan.new_groups.iter().cloned());
    record.undo.extend(plan.steps.iter().filter_map(Step::undo));
    record.swap = options.resources.memory().as_ref().and_then(|m| m.swap()).or(swap);
    // The intent first, as in create: what a crash leaves behind, delete finds.
    container.dir.save(&record)?;
    let before = Before::of(&plan.steps);
    let mut undo = UndoStack::default();
    let done = apply_undoably(&plan.steps, &mut world, &mut undo)
        .map_err(Error::Step)
        .and_then(|()| write_rdt(&options, &facts, &container));
    if let Err(error) = done {
        before.restore();
        drop(undo);
        container.dir.save(&container.record)?;
        return Err(error);
    }
    undo.keep();
    Ok(plan.warnings)
}

/// As runc, and as v1 has it: whoever lifts the limit on memory means swap too, unless he says otherwise.
fn unlimited_memory_is_unlimited_swap(resources: &mut LinuxResources) {
    let Some(mut memory) = *resources.memory() else { return };
    if memory.limit() == Some(-1) && memory.swap().is_none() {
        memory.set_swap(Some(-1));
        resources.set_memory(Some(memory));
    }
}

/// The `memory.swap` that the container was last given.
fn last_swap(container: &Container) -> Option<i64> {
    container.record.swap.or_else(|| {
        let spec = container.dir.config().ok().and_then(|bytes| Spec::parse(&bytes).ok())?;
        spec.linux.resources.memory().as_ref()?.swap()
    })
}

/// The text of a file of the container's group; none where there is no such file or group.
pub(crate) fn read(groups: &Groups, source: Source<'_>) -> croft_sys::Result<Option<String>> {
    let dir = match source.version {
        Version::V2 => groups.v2.as_ref().map(|g| g.dir.as_path()),
        Version::V1 => groups.dir(source.controller, Version::V1),
    };
    let Some(dir) = dir else { return Ok(None) };
    let text = cgroup::open(dir).and_then(|group| cgroup::read(group.as_fd(), source.file));
    match text {
        Ok(text) => Ok(Some(text)),
        // A controller that is off for the group gives ENOENT; a file of one that the kernel was started without, EOPNOTSUPP.
        Err(e) if matches!(e.errno(), Errno::NOENT | Errno::OPNOTSUPP | Errno::NODEV) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the files held before the update wrote to them.
struct Before {
    files: Vec<(PathBuf, String, String)>,
}

impl Before {
    fn of(steps: &[Step]) -> Self {
        let old = |step: &Step| {
            let Step::WriteGroup { dir, write } = step else { return None };
            let group = cgroup::open(dir).ok()?;
            let text = cgroup::read(group.as_fd(), &write.file).ok()?;
            Some((dir.clone(), write.file.clone(), text))
        };
        Self { files: steps.iter().filter_map(old).collect() }
    }

    /// Writes it back, the last first: each step back is valid where the step there was. Best effort, as every undo.
    fn restore(self) {
        for (dir, file, text) in self.files.into_iter().rev() {
            let Ok(group) = cgroup::open(&dir) else { continue };
            for line in text.lines().filter(|line| !line.is_empty()) {
                let _ = cgroup::write(group.as_fd(), &file, line);
            }
        }
    }
}

/// Refuses a schema before anything is changed, in runc's words.
fn check_rdt(options: &UpdateOptions, facts: &Facts) -> Result<()> {
    if facts.resctrl.is_some() {
        return Ok(());
    }
    let why = "is not enabled: the resctrl file system is not mounted, or this CPU has no resource control";
    if options.l3_cache_schema.is_some() {
        return Err(Error::refused("Intel RDT/CAT: l3 cache schema", why));
    }
    if options.mem_bw_schema.is_some() {
        return Err(Error::refused("Intel RDT/MBA: memory bandwidth schema", why));
    }
    Ok(())
}

fn write_rdt(options: &UpdateOptions, facts: &Facts, container: &Container) -> Result<()> {
    let lines: Vec<&String> = options.l3_cache_schema.iter().chain(options.mem_bw_schema.iter()).collect();
    let (Some(resctrl), false) = (&facts.resctrl, lines.is_empty()) else { return Ok(()) };
    let spec = Spec::parse(&container.dir.config()?)?;
    let Some(rdt) = &spec.linux.intel_rdt else {
        let why = "the container has no resctrl group: its configuration has no linux.intelRdt";
        return Err(Error::refused("update of the schemata", why));
    };
    let name = rdt.clos_id().clone().unwrap_or_else(|| container.record.id.clone());
    let file = resctrl.join(name).join("schemata");
    lines
        .into_iter()
        .try_for_each(|line| std::fs::write(&file, format!("{line}\n")))
        .map_err(|e| Error::file("write", &file, e))
}
