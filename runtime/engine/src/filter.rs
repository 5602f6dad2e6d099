//! The system call filter: compiled by the host before the clone, loaded by init.

use std::os::fd::{AsRawFd, IntoRawFd};

use croft_plan::step::{Filter, Step};

use crate::apply::{Cause, Outcome};
use crate::seccomp::{self, Call, Compiled};
use crate::world::World;

/// Compiles the filter that the steps will load, while the cache's folder is still there.
///
/// # Errors
/// When the profile cannot be compiled.
pub fn prepare(steps: &[Step], world: &mut World) -> Result<Vec<String>, Cause> {
    let filter =
        steps.iter().find_map(|s| if let Step::LoadFilter { filter } = s { Some(filter) } else { None });
    let Some(filter) = filter else { return Ok(Vec::new()) };
    let compiled = compile(filter)?;
    check(&compiled)?;
    let warnings = compiled.warnings.clone();
    world.filter = Some(compiled);
    Ok(warnings)
}

fn compile(filter: &Filter) -> Result<Compiled, Cause> {
    let cache = crate::cache::place("croft-oci.seccomp");
    seccomp::program(&filter.profile, cache.as_deref()).map_err(|e| Cause::because(chain(&e)))
}

/// Refuses a filter under which init could neither wait at its gate, nor let go of the host, nor execute the program.
fn check(compiled: &Compiled) -> Result<(), Cause> {
    let mut needed = vec![Call::Read, Call::Close, Call::Execve];
    if compiled.listener {
        // It tells the host the listener's number.
        needed.push(Call::Write);
    }
    let refusals: Vec<String> =
        seccomp::refused(&compiled.program, &needed).iter().map(ToString::to_string).collect();
    if refusals.is_empty() {
        return Ok(());
    }
    Err(Cause::because(format!(
        "seccomp: the container could not start under this profile: {}",
        refusals.join(", ")
    )))
}

/// An error with all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<String>>().join(": ")
}

/// Loads what was prepared. With a listener the host is told its number and fetches it, since after this the filter may
/// forbid to send it.
pub fn load(world: &mut World, _filter: &Filter) -> Outcome {
    let compiled = world.filter.take().ok_or_else(|| Cause::because("the filter was not compiled"))?;
    let listener = croft_sys::seccomp::load(&compiled.program, compiled.flags)?;
    if let Some(listener) = listener {
        let number = listener.as_raw_fd();
        world.listener = Some(number);
        // Kept open until the host has it; it is closed on exec.
        let _ = listener.into_raw_fd();
    }
    Ok(())
}

/// Whether loading gives a listener.
pub fn wants_listener(compiled: &Compiled) -> bool {
    compiled.flags.contains(croft_sys::seccomp::FilterFlags::NEW_LISTENER)
}
