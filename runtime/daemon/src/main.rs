//! `croftd`: the daemon. It makes containers from images and looks after them; croft-shim supervises them and croft-oci runs them, and both
//! go on when croftd does not.

mod access;
mod args;
mod cdi;
mod changes;
mod clock;
mod config;
mod container;
mod daemon;
mod devices;
mod exec;
mod files;
mod health;
mod host;
mod ids;
mod joins;
mod logs;
mod metrics;
mod names;
mod profile;
mod records;
mod resolv;
mod roots;
mod server;
mod service;
mod shm;
mod signals;
mod spec;
mod stats;
mod supervise;
mod users;
mod volumes;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use args::{Args, Command};

fn main() -> ExitCode {
    // A hoster's machine has memory for containers.
    croft_engine::use_one_arena();
    // What answers for names and published ports while croftd is away is this program too.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == NETWORK_SERVICE) {
        return serve_networks(words.next());
    }
    match config::read().and_then(|args| obey(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "croftd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The word with which croftd starts itself as the networks' service.
pub const NETWORK_SERVICE: &str = "network-service";

fn serve_networks(state: Option<std::ffi::OsString>) -> ExitCode {
    let Some(state) = state else {
        let _ = writeln!(std::io::stderr(), "croftd {NETWORK_SERVICE}: is for croftd itself, with a folder");
        return ExitCode::FAILURE;
    };
    match croftd_network::service::run(Path::new(&state)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "croftd {NETWORK_SERVICE}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the command line says. Whether all is well.
fn obey(args: &Args) -> Result<bool> {
    if let Some(Command::Check(asked)) = &args.command {
        return host::check(args, asked);
    }
    let log = log_to_stderr(args)?;
    service::run(args, log).map(|()| true)
}

/// Begins to log. What it gives changes what is logged.
fn log_to_stderr(args: &Args) -> Result<service::SetLog> {
    let level = tracing_subscriber::EnvFilter::try_new(&args.log);
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would be told there too, by a panic where that is a file on a full disk.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(level.with_context(|| format!("--log {}", args.log))?);
    // The two formats are two types.
    macro_rules! begin {
        ($log:expr) => {{
            let log = $log.with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            let set: service::SetLog = Box::new(move |level: &str| {
                let level = tracing_subscriber::EnvFilter::try_new(level)?;
                Ok(handle.reload(level)?)
            });
            set
        }};
    }
    Ok(if args.log_json { begin!(log.json()) } else { begin!(log) })
}
