//! `exec`: a further process in a container.

use std::process::ExitCode;

use anyhow::{Context, Result};
use croft_engine::exec::{Changes, ExecOptions, Paused, Tty, Wanted, capability_bits, exec};
use croft_engine::foreground::{Foreground, Orphans};
use croft_engine::handover::Attach;
use croft_engine::state::StateRoot;

use crate::args::{ExecArgs, Global};

/// The exit status when there was no process that could have given one, as with runc.
const FAILED: u8 = 255;

/// Runs a further process in a container.
pub fn run(global: &Global, root: &StateRoot, args: &ExecArgs) -> ExitCode {
    match try_run(global, root, args) {
        Ok(status) => status,
        Err(error) => {
            crate::log::report(global, &error.context("exec failed"));
            ExitCode::from(FAILED)
        }
    }
}

fn try_run(global: &Global, root: &StateRoot, args: &ExecArgs) -> Result<ExitCode> {
    let attach = if args.detach { Attach::Detached } else { Attach::Foreground };
    let options = options(global, args, attach)?;
    let foreground = if args.detach { None } else { Some(Foreground::begin(Orphans::Others)?) };
    let mut executed = exec(root, &options)?;
    for warning in &executed.warnings {
        super::log(global, "warning", warning);
    }
    let Some(foreground) = foreground else { return Ok(ExitCode::SUCCESS) };
    let exit = foreground.attend(&executed.child, executed.terminal.take())?;
    Ok(ExitCode::from(exit.status() as u8))
}

fn options(global: &Global, args: &ExecArgs, attach: Attach) -> Result<ExecOptions> {
    let tty = if args.tty { Tty::Asked } else { Tty::NotAsked };
    let process = match &args.process {
        Some(path) => Wanted::File(path.clone(), tty),
        None => Wanted::Like(Box::new(changes(global, args, tty)?)),
    };
    Ok(ExecOptions {
        id: args.id.clone(),
        process,
        attach,
        console_socket: args.console_socket.clone(),
        pidfd_socket: args.pidfd_socket.clone(),
        pid_file: args.pid_file.clone(),
        preserve_fds: args.preserve_fds,
        groups: args.cgroup.clone(),
        paused: if args.ignore_paused { Paused::Allow } else { Paused::Refuse },
    })
}

fn changes(global: &Global, args: &ExecArgs, tty: Tty) -> Result<Changes> {
    let (capabilities, unknown) = capability_bits(&args.cap);
    if !unknown.is_empty() {
        let text = format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "));
        super::log(global, "warning", &text);
    }
    Ok(Changes {
        args: args.command.clone(),
        tty,
        cwd: args.cwd.clone(),
        env: args.env.clone(),
        user: args.user.as_deref().map(user).transpose()?,
        additional_gids: args.additional_gids.clone(),
        capabilities,
        no_new_privileges: args.no_new_privs,
        apparmor_profile: args.apparmor.clone(),
        selinux_label: args.process_label.clone(),
    })
}

/// `UID` or `UID:GID`.
fn user(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |text: &str, what: &str| {
        text.parse::<u32>().with_context(|| format!("parsing {text} as int for {what} failed"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid, "uid")?, Some(number(gid, "gid")?))),
        None => Ok((number(text, "uid")?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(user("7").unwrap(), (7, None));
        assert_eq!(user("7:8").unwrap(), (7, Some(8)));
        for bad in ["bob", "", "1:", ":1", "1:2:3", "-1"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }
}
