//! `plan`: prints what create would do, and does nothing.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::create::{Attach, Starter, decide};
use croft_engine::state::StateRoot;
use croft_engine::world::World;

use crate::args::{CreateArgs, Global, PlanArgs};

/// Prints the plan.
pub fn run(global: &Global, root: &StateRoot, args: &PlanArgs) -> Result<ExitCode> {
    let create = CreateArgs {
        id: args.id.clone(),
        bundle: args.bundle.clone(),
        console_socket: None,
        pidfd_socket: None,
        pid_file: None,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        mount_base: args.mount_base.clone(),
    };
    let options = super::create::options(global, &create, Starter::Another, Attach::Detached);
    let (_, _, plan, _) = decide(root, &options, &World::new()?)?;
    super::print(&plan.to_string())?;
    Ok(ExitCode::SUCCESS)
}
