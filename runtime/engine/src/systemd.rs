//! Scopes of systemd (`--systemd-cgroup`).

use crate::apply::{Cause, Outcome};
use crate::world::World;

/// Starts a scope that holds the container's process.
pub fn start_scope(_world: &World, unit: &str, _slice: &str, _properties: &[(String, String)]) -> Outcome {
    Err(Cause::because(format!("cannot start {unit}: --systemd-cgroup is not supported by this build yet")))
}

/// Stops a scope.
pub fn stop_scope(_unit: &str) -> Result<(), String> {
    Ok(())
}
