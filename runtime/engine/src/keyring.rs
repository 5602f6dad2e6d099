//! The container's session keyring.

use std::ffi::CString;

use croft_sys::Errno;
use croft_sys::keyring;

use crate::apply::{Cause, Outcome};
use crate::world::World;

/// The possessor may do all, the user may look, read and search: as runc leaves it.
const ANY_MAY_SEARCH: u32 = 0x0008_0000;

/// Joins a new session keyring `name`, with the SELinux label `label`.
pub fn join_new(world: &World, name: &str, label: Option<&str>) -> Outcome {
    if let Some(label) = label {
        world.proc.write("self/attr/keycreate", label.as_bytes())?;
    }
    let name = CString::new(name).map_err(|_| Cause::because("the name has a NUL byte"))?;
    let joined = match keyring::join_session(&name) {
        // A kernel without keyrings has none to share.
        Err(e) if e.errno() == Errno::NOSYS => Ok(()),
        Err(e) => Err(e.into()),
        Ok(key) => {
            let permissions = keyring::permissions(key)?;
            Ok(keyring::set_permissions(key, permissions | ANY_MAY_SEARCH)?)
        }
    };
    if label.is_some() {
        world.proc.write("self/attr/keycreate", b"")?;
    }
    joined
}
