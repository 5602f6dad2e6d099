//! What croftd does for the networks while nobody asks.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use croft_api::problem::Problem;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Shared, blocking};

/// How often croft's own rules and bridges are looked at: a firewall that is reloaded takes them away.
const LOOK: Duration = Duration::from_secs(30);

/// How long the kernel is given to end the cables of a container that has gone.
const CABLES_GO: Duration = Duration::from_secs(1);

/// How long nobody has to join a network before those that did get their shortcut: that would hold up who comes.
const QUIET: Duration = Duration::from_secs(1);

/// Something to do.
enum Task {
    /// Put back what somebody took away.
    Mend,
    /// Remove cables of containers that have gone.
    Sweep,
    /// Let these containers' packets take the shortcut.
    Shorten(Vec<String>),
}

impl Task {
    fn run(self, shared: &Shared) -> Result<(), Problem> {
        match self {
            Task::Mend => shared.networks.mend(),
            Task::Sweep => shared.networks.sweep(),
            Task::Shorten(containers) => shared.networks.shorten_all(&containers),
        }
    }
}

/// Keeps the networks as they should be, for ever. Each of `newcomers` has joined one.
pub(super) async fn of_networks(shared: Arc<Shared>, mut newcomers: UnboundedReceiver<String>) {
    let mut next = tokio::time::interval(LOOK);
    let mut waiting = Vec::new();
    loop {
        let task = tokio::select! {
            _ = next.tick() => {
                // It does that, too.
                waiting.clear();
                Task::Mend
            }
            () = shared.left.notified() => {
                tokio::time::sleep(CABLES_GO).await;
                Task::Sweep
            }
            Some(container) = newcomers.recv() => {
                waiting.push(container);
                continue;
            }
            // From the last that came.
            () = tokio::time::sleep(QUIET), if !waiting.is_empty() => Task::Shorten(mem::take(&mut waiting)),
        };
        let shared = Arc::clone(&shared);
        if let Err(problem) = blocking(move || task.run(&shared)).await {
            tracing::warn!(%problem, "the networks are not as they should be");
        }
    }
}
