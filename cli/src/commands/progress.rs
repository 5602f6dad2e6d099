//! How far something is: bars where somebody looks, lines where nobody does.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use croft_api::client::{Client, Error};
use croft_api::image::{Image, Progress};
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Failed;
use crate::output;

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Not at all.
    Nothing,
    /// A line for each thing that is done.
    Lines,
    /// Bars.
    Bars,
}

impl Show {
    /// What this process's standard error is for.
    pub fn of(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Bars,
            (false, false) => Show::Lines,
        }
    }
}

/// Asks for a transfer, and shows how far it is until its end.
///
/// # Errors
/// When it fails.
pub async fn follow(
    client: &Client,
    path: &str,
    asked: &impl Serialize,
    title: &str,
    show: Show,
) -> Result<Image, Failed> {
    let mut lines = client.lines(Method::POST, path, Some(asked)).await?;
    let mut shown = Shown { show, all: MultiProgress::new(), bars: HashMap::new() };
    while let Some(progress) = lines.next::<Progress>().await? {
        match progress {
            Progress::Done { image } => {
                let _ = shown.all.clear();
                return Ok(image);
            }
            Progress::Failed { problem } => {
                let _ = shown.all.clear();
                return Err(Error::Refused(problem).into());
            }
            step => shown.step(&step),
        }
    }
    Err(Failed::from(format!("{title}: croftd ended before it was done")))
}

struct Shown {
    show: Show,
    all: MultiProgress,
    bars: HashMap<String, ProgressBar>,
}

impl Shown {
    fn step(&mut self, step: &Progress) {
        match self.show {
            Show::Nothing => {}
            Show::Lines => {
                if let Some(line) = line(step) {
                    eprintln!("{line}");
                }
            }
            Show::Bars => self.bar(step),
        }
    }

    fn bar(&mut self, step: &Progress) {
        match step {
            Progress::Layer { digest, done, total } => {
                let all = &self.all;
                let bar = self.bars.entry(digest.clone()).or_insert_with(|| {
                    let bar = all.add(ProgressBar::new(*total)).with_prefix(output::short(digest));
                    let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes} {msg}");
                    style.into_iter().for_each(|style| bar.set_style(style));
                    bar
                });
                bar.set_position(*done);
            }
            Progress::Retry { digest, .. } => {
                self.bars.get(digest).into_iter().for_each(|bar| bar.set_message("again"));
            }
            Progress::Unpacked { digest } => {
                self.bars.get(digest).into_iter().for_each(|bar| bar.finish_with_message("unpacked"));
            }
            _ => {}
        }
    }
}

/// A step as a line; none for one that more will follow.
fn line(step: &Progress) -> Option<String> {
    match step {
        Progress::Layer { digest, done, total } if done == total => {
            Some(format!("{}: {} transferred", output::short(digest), output::size(*total)))
        }
        Progress::Present { digest } => Some(format!("{}: is there already", output::short(digest))),
        Progress::Unpacked { digest } => Some(format!("{}: unpacked", output::short(digest))),
        Progress::Retry { digest, from, why } => {
            Some(format!("{}: again from byte {from}: {why}", output::short(digest)))
        }
        _ => None,
    }
}

/// Waits for `work` with something that moves, where somebody looks.
///
/// # Errors
/// What it says.
pub async fn wait<T>(what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let done = work.await;
    spinner.finish_and_clear();
    Ok(done?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_what_is_done() {
        let digest = "sha256:0123456789abcdef".to_owned();
        let layer = |done| Progress::Layer { digest: digest.clone(), done, total: 2_000_000 };
        assert_eq!(line(&layer(1)), None);
        assert_eq!(line(&layer(2_000_000)).unwrap(), "0123456789ab: 2.0 MB transferred");
        assert_eq!(line(&Progress::Present { digest }).unwrap(), "0123456789ab: is there already");
    }
}
