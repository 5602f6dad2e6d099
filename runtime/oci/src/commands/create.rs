//! `create`.

use std::process::ExitCode;

use anyhow::Result;
use croft_engine::create::{Attach, CreateOptions, Driver, Keyring, RootSwitch, Starter, create};
use croft_engine::state::StateRoot;

use crate::args::{CreateArgs, Global};

/// Creates a container.
pub fn run(global: &Global, root: &StateRoot, args: &CreateArgs) -> Result<ExitCode> {
    let created = create(root, &options(global, args, Starter::Another, Attach::Detached))?;
    for warning in &created.warnings {
        super::log(global, "warning", warning);
    }
    Ok(ExitCode::SUCCESS)
}

/// The engine's options of these arguments.
pub fn options(global: &Global, args: &CreateArgs, starter: Starter, attach: Attach) -> CreateOptions {
    CreateOptions {
        id: args.id.clone(),
        bundle: args.bundle.clone(),
        console_socket: args.console_socket.clone(),
        pidfd_socket: args.pidfd_socket.clone(),
        pid_file: args.pid_file.clone(),
        root_switch: if args.no_pivot { RootSwitch::Chroot } else { RootSwitch::Pivot },
        keyring: if args.no_new_keyring { Keyring::Inherited } else { Keyring::New },
        preserve_fds: args.preserve_fds.saturating_add(croft_engine::handover::listen_fds()),
        driver: if global.systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs },
        starter,
        attach,
        mount_base: args.mount_base.clone(),
    }
}
