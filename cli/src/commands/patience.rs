//! What goes on over a restart of croftd.

use std::time::{Duration, Instant};

use croft_api::client::Error;

/// How long croftd may be away before a command gives up.
const AWAY: Duration = Duration::from_secs(60);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// A request that broke after this long was waited for by a croftd that was there; one that breaks at once may be broken by anything.
const HELD: Duration = Duration::from_millis(100);

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
    let (mut had, mut away) = (contact == Contact::Had, Instant::now());
    loop {
        let asked = Instant::now();
        let answer = ask().await;
        // A wait may be long, and end with a croftd that is killed after minutes: it is away from then on.
        if matches!(answer, Err(Error::Broken(_))) && asked.elapsed() >= HELD {
            away = Instant::now();
        }
        match answer {
            Err(Error::Broken(_)) if away.elapsed() < AWAY => had = true,
            Err(Error::Unreachable { .. }) if had && away.elapsed() < AWAY => {}
            other => return other,
        }
        tokio::time::sleep(PAUSE).await;
    }
}
