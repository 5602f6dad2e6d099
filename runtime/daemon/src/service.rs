//! croftd as a service: its socket, its signals, and its end, after which containers go on.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::serve::Listener;
use croft_api::keys::Keys;
use croft_api::tls;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::access::{self, Administrators};
use crate::args::Args;
use crate::daemon::Daemon;
use crate::server::peers::Hosts;
use crate::{config, server};

/// Changes what is logged.
pub type SetLog = Box<dyn Fn(&str) -> Result<()> + Send + Sync>;

/// How long answers may go on when croftd ends. Who waits for a container or follows a log waits for longer than anybody has.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// A socket to serve on.
struct Socket {
    listener: UnixListener,
    /// The file that is croftd's own to keep; none when systemd made the socket.
    own: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the daemon cannot begin.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub async fn run(args: &Args, set_log: SetLog) -> Result<()> {
    // Refused before anything is begun.
    let listener = match args.listen {
        Some(address) => {
            Some(TcpListener::bind(address).await.with_context(|| format!("--listen {address}"))?)
        }
        None => None,
    };
    let daemon = Daemon::begin(args).await?;
    let socket = match inherited()? {
        Some(listener) => Socket { listener, own: None },
        None => Socket { listener: listen(&args.socket()).await?, own: Some(args.socket()) },
    };
    let (administrators, admitted) = watch::channel(administrators(args));
    admit_group(&socket.own, &administrators.borrow())?;
    let hosts = listener.map(|listener| hosts(listener, Keys::new(args.keys()))).transpose()?;
    let supervisor = daemon.shared().shim.clone();
    let router = server::router(daemon, admitted);
    let activated = socket.own.is_none();
    let path = args.socket();
    tracing::info!(socket = %path.display(), activated, version = env!("CARGO_PKG_VERSION"), "croftd listens");
    // systemd(1), or whoever started it, need not guess.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let (end, ended) = watch::channel(false);
    let own = socket.own.clone();
    let signals = tokio::spawn(async move { obey_signals(&own, &administrators, &set_log, &end).await });
    let here = server::serve(socket.listener, router.clone(), is_true(ended.clone()));
    let end = is_true(ended.clone());
    let afar = async {
        if let Some(hosts) = hosts {
            server::serve(hosts, router, end).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(here, afar) } => {}
        () = async { is_true(ended).await; tokio::time::sleep(LAST_ANSWERS).await } => {
            tracing::info!("who still waits for an answer gets none");
        }
    }
    signals.abort();
    supervisor.end_if_idle().await;
    if let Some(path) = socket.own {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

async fn is_true(mut value: watch::Receiver<bool>) {
    // Whoever would say so has gone: that is an end too.
    let _ = value.wait_for(|value| *value).await;
}

/// Reads the options again at SIGHUP, and says when it is time to end.
async fn obey_signals(
    own: &Option<PathBuf>,
    administrators: &watch::Sender<Administrators>,
    set_log: &SetLog,
    end: &watch::Sender<bool>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                let began = NotifyState::monotonic_usec_now();
                let _ = sd_notify::notify(&[NotifyState::Reloading, began?]);
                if let Err(error) = reload(own, administrators, set_log) {
                    tracing::error!("the options stay as they were: {error:#}");
                }
                let _ = sd_notify::notify(&[NotifyState::Ready]);
            }
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tracing::info!("croftd ends; containers go on");
    end.send_replace(true);
    Ok(())
}

/// What may change while croftd runs: what is logged, and who administers it.
fn reload(
    own: &Option<PathBuf>,
    administrators: &watch::Sender<Administrators>,
    set_log: &SetLog,
) -> Result<()> {
    let args = config::read()?;
    set_log(&args.log).with_context(|| format!("--log {}", args.log))?;
    let new = self::administrators(&args);
    admit_group(own, &new)?;
    administrators.send_replace(new);
    tracing::info!(log = args.log, group = args.group, "the options are read again");
    Ok(())
}

fn administrators(args: &Args) -> Administrators {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let group = access::group(&args.group, &groups);
    Administrators { uid: rustix::process::geteuid().as_raw(), group }
}

/// Lets the group connect, or nobody but root's.
fn admit_group(own: &Option<PathBuf>, administrators: &Administrators) -> Result<()> {
    let Some(path) = own else { return Ok(()) };
    std::os::unix::fs::chown(path, None, Some(administrators.group.unwrap_or(0)))
        .with_context(|| format!("chown {}", path.display()))
}

/// The socket that systemd, or who does as it does, has made: sd_listen_fds(3). It stays theirs.
fn inherited() -> Result<Option<UnixListener>> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let numbers: Vec<i32> = sd_notify::listen_fds().context("LISTEN_FDS")?.collect();
    let number = match numbers.as_slice() {
        [] => return Ok(None),
        [number] => *number,
        several => bail!("{} sockets were handed to croftd: it listens on one", several.len()),
    };
    let own = pidfd_open(getpid(), PidfdFlags::empty()).context("pidfd of croftd itself")?;
    let fd: OwnedFd = pidfd_getfd(&own, number, PidfdGetfdFlags::empty())
        .with_context(|| format!("take descriptor {number}"))?;
    let is_unix =
        rustix::net::sockopt::socket_domain(&fd).is_ok_and(|d| d == rustix::net::AddressFamily::UNIX);
    let listens = rustix::net::sockopt::socket_acceptconn(&fd).unwrap_or(false);
    ensure!(
        is_unix && listens,
        "descriptor {number} is no Unix socket that listens: ListenStream=/run/croft/croft.sock"
    );
    let listener = std::os::unix::net::UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(Some(UnixListener::from_std(listener)?))
}

/// Serves other hosts, with this host's key, which is made where there is none.
fn hosts(listener: TcpListener, keys: Keys) -> Result<Hosts> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if keys.make(&name)? {
        tracing::info!(folder = %keys.folder().display(), "this host has a key now");
    }
    let config = tls::server(&keys, keys.host()?).context("this host's key")?;
    let hosts = Hosts::new(listener, config, keys)?;
    tracing::info!(address = %hosts.local_addr()?, "croftd listens for the hosts that it trusts");
    Ok(hosts)
}

/// Listens at `path`, in the place of a croftd that was killed, but not of one that answers.
async fn listen(path: &Path) -> Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        bail!(
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
