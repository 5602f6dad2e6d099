//! `top`: a screen with all containers, or the processes of one.

mod screen;

use std::io::{IsTerminal, stdin, stdout};

use croft_api::client::Client;
use croft_api::stats::{Process, Stats};
use http::Method;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Failed, part};
use crate::args::TopArgs;
use crate::output::{self, Shown};
use screen::{Screen, Then};

/// Does what is asked.
///
/// # Errors
/// When the container does not run, or this is no terminal.
pub async fn run(client: &Client, args: &TopArgs, shown: Shown) -> Result<u8, Failed> {
    match &args.name {
        Some(name) => processes(client, name, shown).await,
        None => watch(client, args).await,
    }
}

async fn processes(client: &Client, name: &str, shown: Shown) -> Result<u8, Failed> {
    let processes: Vec<Process> = client.get(&format!("/containers/{}/top", part(name))).await?;
    if shown.quiet {
        processes.iter().for_each(|process| output::line(process.pid));
        return Ok(0);
    }
    let head = ["UID", "PID", "PPID", "INSIDE", "S", "RSS", "AGE", "TIME", "CMD"];
    output::list(shown.format, &processes, &head, |process| {
        vec![
            process.uid_inside.to_string(),
            process.pid.to_string(),
            process.parent.to_string(),
            process.pid_inside.to_string(),
            process.state.clone(),
            output::binary(process.memory),
            clock(process.age),
            clock(process.cpu_ms / 1000),
            process.command.clone(),
        ]
    });
    Ok(0)
}

/// Seconds as hours, minutes and seconds.
fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The terminal as it was before, whichever way this ends; a panic restores it too, by the hook of [`ratatui::init()`].
struct Restored(ratatui::DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn watch(client: &Client, args: &TopArgs) -> Result<u8, Failed> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return Err(Failed {
            hint: Some("croft stats --no-stream".into()),
            ..Failed::from("top: this is no terminal".to_owned())
        });
    }
    let path = format!("/stats?stream=true&interval={}", args.interval.as_millis());
    // Asked before the screen is taken: what is refused is seen where it was typed.
    let mut lines = client.lines(Method::GET, &path, None::<&()>).await?;
    let failed = |e: std::io::Error| Failed::from(format!("top: {e}"));
    let mut signals = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()] {
        signals.push(signal(kind).map_err(failed)?);
    }
    let [mut terminate, mut hangup, mut interrupt]: [_; 3] =
        signals.try_into().map_err(|_| Failed::from("top: no signals".to_owned()))?;
    let mut terminal = Restored(ratatui::try_init().map_err(failed)?);
    let mut keys = keys();
    let mut screen = Screen::default();
    loop {
        terminal.0.draw(|frame| screen.draw(frame)).map_err(failed)?;
        let then = tokio::select! {
            all = lines.next::<Vec<Stats>>() => match all? {
                Some(all) => screen.look(all),
                None => return Err(Failed::from("top: croftd has ended".to_owned())),
            },
            key = keys.recv() => match key {
                Some(Event::Key(key)) => screen.key(key),
                Some(_) => Then::GoOn,
                // The terminal has gone.
                None => Then::End,
            },
            _ = terminate.recv() => Then::End,
            _ = hangup.recv() => Then::End,
            _ = interrupt.recv() => Then::End,
        };
        if then == Then::End {
            return Ok(0);
        }
    }
}

/// What is typed, and that the size changes. Reading waits, so it has a thread of its own, which ends with this process.
fn keys() -> mpsc::Receiver<Event> {
    let (send, receive) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if send.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_clocks() {
        assert_eq!(super::clock(3_661), "01:01:01");
    }
}
