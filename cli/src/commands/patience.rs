//! What goes on over a restart of croftd.

use std::time::{Duration, Instant};

use croft_api::client::Error;

/// How long croftd may be away before a command gives up.
const AWAY: Duration = Duration::from_secs(60);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether croftd has answered this command before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It has: it is restarted when it does not answer.
    Had,
    /// It has not: it does not run when it does not answer.
    None,
}

/// Asks again as long as croftd is away. For what may be asked twice.
///
/// # Errors
/// What croftd answers; that it is away, after a while.
pub async fn patiently<T, F>(contact: Contact, ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let (mut had, begun) = (contact == Contact::Had, Instant::now());
    loop {
        match ask().await {
            Err(Error::Broken(_)) if begun.elapsed() < AWAY => had = true,
            Err(Error::Unreachable { .. }) if had && begun.elapsed() < AWAY => {}
            other => return other,
        }
        tokio::time::sleep(PAUSE).await;
    }
}
