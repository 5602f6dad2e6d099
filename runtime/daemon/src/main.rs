//! `croftd`: the daemon. It makes containers from images and looks after them; croft-shim supervises them and croft-oci runs them, and both
//! go on when croftd does not.

mod access;
mod args;
mod changes;
mod clock;
mod container;
mod daemon;
mod devices;
mod exec;
mod files;
mod health;
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
mod shm;
mod signals;
mod spec;
mod stats;
mod supervise;
mod users;
mod volumes;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use clap::Parser;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use args::Args;
use daemon::Daemon;

fn main() -> ExitCode {
    // What answers for names and published ports while croftd is away is this program too.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == NETWORK_SERVICE) {
        return serve_networks(words.next());
    }
    let args = Args::parse();
    log_to_stderr(args.log_json);
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("croftd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The word with which croftd starts itself as the networks' service.
pub const NETWORK_SERVICE: &str = "network-service";

fn serve_networks(state: Option<std::ffi::OsString>) -> ExitCode {
    let Some(state) = state else {
        eprintln!("croftd {NETWORK_SERVICE}: is for croftd itself, with a folder");
        return ExitCode::FAILURE;
    };
    match croftd_network::service::run(Path::new(&state)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("croftd {NETWORK_SERVICE}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CROFT_LOG");
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()));
    if json { log.json().init() } else { log.init() }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run(args: &Args) -> Result<()> {
    let daemon = Daemon::begin(args).await?;
    let path = args.socket();
    let listener = listen(&path).await?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let administrators = access::Administrators {
        uid: rustix::process::geteuid().as_raw(),
        group: access::group_croft(&groups),
    };
    if let Some(group) = administrators.group {
        std::os::unix::fs::chown(&path, None, Some(group))
            .with_context(|| format!("chown {}", path.display()))?;
    }
    let supervisor = daemon.shared().shim.clone();
    let router = server::router(daemon, administrators);
    let service: IntoMakeServiceWithConnectInfo<_, server::Peer> =
        router.into_make_service_with_connect_info();
    tracing::info!(socket = %path.display(), version = env!("CARGO_PKG_VERSION"), "croftd listens");
    // systemd(1), or whoever started it, need not guess.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    tokio::select! {
        served = async { axum::serve(listener, service).await } => served?,
        () = ended => tracing::info!("croftd ends; containers go on"),
    }
    supervisor.end_if_idle().await;
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// Listens at `path`, in the place of a croftd that was killed, but not of one that answers.
async fn listen(path: &Path) -> Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        anyhow::bail!(
            "{}: another croftd listens there; give this one its own --root, --state and --socket",
            path.display()
        );
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660))
        .with_context(|| format!("chmod {}", path.display()))?;
    Ok(listener)
}
