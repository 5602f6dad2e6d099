//! `run`: what a caller does that stays with its container.

use std::os::fd::AsFd;

use croft_sys::wait::{self, Exit};

use crate::create::Created;
use crate::error::{Context, Error, Result};
use crate::state::Container;

/// Opens the gate of a container that the caller created for itself. Returns the failure of a poststart hook.
///
/// # Errors
/// When the program cannot be run; the container is removed then.
pub fn start(created: &mut Created) -> Result<Option<Error>> {
    let opener =
        created.opener.take().ok_or_else(|| Error::refused("start", "the gate was opened already"))?;
    if let Err(why) = opener.let_go() {
        wait::kill_and_reap(created.child.pidfd.as_fd());
        crate::delete::delete_unlocked(&created.record, created.dir.path());
        return Err(Error::refused("unable to start container process", why));
    }
    Ok(crate::start::after_start(&created.record, &created.spec))
}

/// Waits for the container's end.
///
/// # Errors
/// When its process cannot be waited for.
pub fn wait(created: &mut Created) -> Result<Exit> {
    wait::wait(created.child.pidfd.as_fd()).on(|| "wait for the container's process".into())
}

/// Deletes a container after its end. Returns the failure of a poststop hook.
///
/// # Errors
/// When something of it cannot be removed.
pub fn delete(created: Created) -> Result<Option<Error>> {
    let Created { dir, record, .. } = created;
    let status = croft_plan::lifecycle::Status::Stopped;
    crate::delete::remove(Container { dir, record, pidfd: None, status })
}
