//! `unified`: files of cgroup2 by name, passed on as they are.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxResources;

use super::{CORE, OnMissing, Refusal, Table, Version, Write};

/// Core files that move, stop or kill processes, or change what the group is. They are no resources, and a pid
/// in `cgroup.procs` would be the host's.
const NOT_RESOURCES: &[&str] =
    &["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type"];

pub(super) fn write(resources: &LinuxResources, table: &mut Table<'_>) -> Result<(), Refusal> {
    let files: BTreeMap<_, _> = resources.unified().iter().flatten().collect();
    for (file, value) in files {
        let controller = controller(file, table)?;
        // The kernel takes one line at a time from files with a line per device.
        for line in value.lines() {
            table.push_write(Write {
                property: format!("unified.{file}"),
                controller: controller.to_owned(),
                version: Version::V2,
                file: file.clone(),
                value: line.to_owned(),
                on_missing: OnMissing::Refuse { needs: format!("a kernel whose cgroup2 has {file}") },
            });
        }
    }
    Ok(())
}

/// The controller that a file of cgroup2 belongs to, which must be on cgroup2 here.
fn controller<'a>(file: &'a str, table: &Table<'_>) -> Result<&'a str, Refusal> {
    let refuse = |why: String| Refusal::value("unified", format!("{file:?}"), why);
    if file.contains('/') {
        return Err(refuse("must be a file name (no slashes)".to_owned()));
    }
    let Some((controller, rest)) = file.split_once('.').filter(|(c, rest)| !c.is_empty() && !rest.is_empty())
    else {
        return Err(refuse("must be in the form CONTROLLER.PARAMETER".to_owned()));
    };
    if controller == CORE && (NOT_RESOURCES.contains(&file) || rest.contains("subtree_control")) {
        return Err(refuse("not a resource".to_owned()));
    }
    if !table.host.has(controller, Version::V2) {
        let needs = match table.host.v1.get(controller) {
            Some(mount) => format!(
                "the {controller} controller on cgroup2 (this host has it on v1, at {})",
                mount.display()
            ),
            None => format!("the {controller} controller on cgroup2"),
        };
        return Err(Refusal::Nowhere { property: format!("unified.{file}"), file: file.to_owned(), needs });
    }
    Ok(controller)
}
