//! Running hooks: the container's state on standard input, and a time limit.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use croft_plan::spec::{Hook, HookPoint};
use croft_sys::wait;

use crate::error::{Error, Reason, Result};

fn word(point: HookPoint) -> &'static str {
    match point {
        HookPoint::Prestart => "prestart",
        HookPoint::CreateRuntime => "createRuntime",
        HookPoint::CreateContainer => "createContainer",
        HookPoint::StartContainer => "startContainer",
        HookPoint::Poststart => "poststart",
        HookPoint::Poststop => "poststop",
    }
}

/// Runs `hooks` in order.
///
/// # Errors
/// For the first hook that fails or takes too long.
pub fn run(hooks: &[Hook], point: HookPoint, state: &[u8]) -> Result<()> {
    each(hooks, point, state).collect()
}

/// Runs all `hooks` in order, whatever becomes of each, and returns what went wrong: as the spec has it of hooks that run
/// after the program has started or ended.
pub fn run_all(hooks: &[Hook], point: HookPoint, state: &[u8]) -> Vec<Error> {
    each(hooks, point, state).filter_map(Result::err).collect()
}

fn each(hooks: &[Hook], point: HookPoint, state: &[u8]) -> impl Iterator<Item = Result<()>> {
    hooks.iter().map(move |hook| {
        one(hook, state).map_err(|why| Error::Hook { point: word(point), path: hook.path.clone(), why })
    })
}

fn one(hook: &Hook, state: &[u8]) -> std::result::Result<(), String> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|e| e.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| Reason::from(e).to_string())?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read its state.
        let _ = input.write_all(state);
    }
    let pidfd = wait::pidfd_open(child.id() as i32).map_err(|e| e.to_string())?;
    let ended = wait_until_end(pidfd.as_fd(), hook.timeout)?;
    if !ended {
        let _ = wait::pidfd_signal(pidfd.as_fd(), 9);
        let _ = child.wait();
        return Err(format!("it took longer than {} s", hook.timeout.unwrap_or_default().as_secs()));
    }
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("{}, stderr: {:?}", out.status, said.trim()))
}

/// Whether the process has ended before the limit.
fn wait_until_end(
    pidfd: std::os::fd::BorrowedFd<'_>,
    limit: Option<Duration>,
) -> std::result::Result<bool, String> {
    let end = limit.map(|l| Instant::now() + l);
    loop {
        let left = end.map(|e| e.saturating_duration_since(Instant::now()));
        if croft_sys::wait_readable_for(pidfd, left).map_err(|e| e.to_string())? {
            return Ok(true);
        }
        if left.is_some_and(|l| l.is_zero()) {
            return Ok(false);
        }
    }
}
