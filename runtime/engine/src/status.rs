//! `state` and `list`.

use croft_plan::lifecycle::Status;
use croft_plan::spec::{OCI_VERSION, Spec};
use croft_sys::proc::Proc;

use crate::error::{Context, Error, Result};
use crate::report::{ContainerState, rfc3339};
use crate::state::{Container, StateRoot};

/// The state of one container.
///
/// # Errors
/// When there is none.
pub fn state(root: &StateRoot, id: &str) -> Result<ContainerState> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    Ok(report(&root.peek(id, &proc)?))
}

/// The state of all containers, by id, and why others could not be read. One that is deleted meanwhile is left out.
///
/// # Errors
/// When the state folder cannot be read.
pub fn list(root: &StateRoot) -> Result<(Vec<ContainerState>, Vec<Error>)> {
    let proc = Proc::open().on(|| "open /proc".into())?;
    let (mut all, mut unreadable) = (Vec::new(), Vec::new());
    for id in root.ids()? {
        match root.peek(&id, &proc) {
            Ok(container) => all.push(report(&container)),
            Err(Error::NotFound(_)) => {}
            Err(error) => unreadable.push(error),
        }
    }
    Ok((all, unreadable))
}

fn report(container: &Container) -> ContainerState {
    let record = &container.record;
    let spec = container.dir.config().ok().and_then(|bytes| Spec::parse(&bytes).ok());
    let pid = match (&container.pidfd, record.process, container.status) {
        (Some(_), Some(process), status) if status != Status::Stopped => process.pid,
        _ => 0,
    };
    ContainerState {
        oci_version: OCI_VERSION.to_owned(),
        id: record.id.clone(),
        pid,
        status: container.status,
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        created: rfc3339(record.created.0, record.created.1),
        annotations: spec.map(|s| s.annotations).unwrap_or_default(),
        owner: owner(record.owner),
    }
}

fn owner(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}
