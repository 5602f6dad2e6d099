//! Signals that are sent to this program and meant for the container's process, as with Docker: who ends `croft run` ends what it runs.
//!
//! Not where the process has a terminal: it gets the keys themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use croft_api::client::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Failed;

/// Those that are passed on. Docker does so with more, which end or stop nobody who did not ask for it.
const PASSED_ON: [(SignalKind, &str); 6] = [
    (SignalKind::hangup(), "HUP"),
    (SignalKind::interrupt(), "INT"),
    (SignalKind::quit(), "QUIT"),
    (SignalKind::terminate(), "TERM"),
    (SignalKind::user_defined1(), "USR1"),
    (SignalKind::user_defined2(), "USR2"),
];

/// Who sends so many of [`INSISTING`] means this program: the first process of a container need not heed them.
const INSISTS: u8 = 3;

const INSISTING: [&str; 2] = ["INT", "TERM"];

/// Waits until it is; false when it never will be.
async fn is_true(watched: &mut watch::Receiver<bool>) -> bool {
    watched.wait_for(|value| *value).await.is_ok()
}

/// Signals that are kept for a container.
pub struct Caught(Vec<(Signal, SignalKind, &'static str)>);

impl Caught {
    /// Keeps what comes from now on.
    ///
    /// # Errors
    /// When the kernel does not want to.
    pub fn new() -> Result<Self, Failed> {
        let caught = PASSED_ON.into_iter().map(|(kind, name)| Ok((signal(kind)?, kind, name)));
        let caught: std::io::Result<Vec<_>> = caught.collect();
        caught.map(Caught).map_err(|e| Failed::from(format!("catch signals: {e}")))
    }

    /// Passes on what has come and what comes to the container at `path`, once it is started, until what this gives is dropped.
    pub fn pass_on(self, client: &Client, path: &str, started: &watch::Receiver<bool>) -> JoinSet<()> {
        let told = Arc::new(AtomicU8::new(0));
        let pass = |(mut signals, kind, name): (Signal, SignalKind, &'static str)| {
            let (client, told, mut started) = (client.clone(), Arc::clone(&told), started.clone());
            let path = format!("{path}/kill?signal={name}");
            async move {
                let mut waits = false;
                loop {
                    tokio::select! {
                        came = signals.recv() => {
                            if came.is_none() {
                                return;
                            }
                            if INSISTING.contains(&name) && told.fetch_add(1, Ordering::Relaxed) + 1 == INSISTS {
                                eprintln!("croft: {INSISTS} times told to end: the container goes on without this");
                                std::process::exit(128 + kind.as_raw_value());
                            }
                            waits = true;
                        }
                        true = is_true(&mut started), if waits => {
                            waits = false;
                            // One that has ended gets none, and this ends too.
                            let _ = client.post::<(), ()>(&path, &()).await;
                        }
                        else => return,
                    }
                }
            }
        };
        self.0.into_iter().map(pass).collect()
    }
}
