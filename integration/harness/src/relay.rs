//! A relay of TCP connections: from one network namespace into another, and to the middle of a transfer and no further.
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::patience;

/// A transfer comes to its middle within this.
const LIMIT: Duration = Duration::from_secs(120);

/// Listens, and passes on what comes until it is dropped: then nobody listens there, and who is connected is cut off.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Where it leads: a name is looked up there.
    target: (File, String),
}

#[derive(Debug)]
struct State {
    /// Bytes of answers that were passed on.
    passed: u64,
    /// How many may be.
    most: u64,
    /// Whether somebody waits to pass more.
    held: bool,
    over: bool,
    streams: Vec<TcpStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network namespace, of a process by its number: `self`, `1`.
pub fn network_of(process: &str) -> Result<File> {
    let path = format!("/proc/{process}/ns/net");
    File::open(&path).with_context(|| format!("open {path}"))
}

/// Does something in a network namespace, on a thread of its own.
fn inside<T: Send>(network: &File, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .context("enter a network namespace")?;
            act()
        });
        acting.join().expect("it does not panic")
    })
}

impl Relay {
    /// Listens at an address in the network namespace `here`, for `target` (`HOST:PORT`) as it is found from the namespace `there`.
    /// Only `most` bytes of answers are passed on.
    pub fn start(here: &File, address: SocketAddr, there: File, target: &str, most: u64) -> Result<Self> {
        let listener =
            inside(here, || TcpListener::bind(address).with_context(|| format!("listen on {address}")))?;
        let state = State { passed: 0, most, held: false, over: false, streams: Vec::new() };
        let target = (there, target.to_owned());
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), target });
        let (of_thread, from) = (shared.clone(), listener.try_clone()?);
        let accepting = thread::spawn(move || {
            // It ends with an error when it is shut down.
            while let Ok((client, _)) = from.accept() {
                let shared = of_thread.clone();
                // What cannot be reached, the client sees as a connection that is cut off.
                thread::spawn(move || drop(shared.connect(client)));
            }
        });
        Ok(Self { shared, listener, accepting: Some(accepting) })
    }

    /// How many bytes of answers were passed on.
    pub fn passed(&self) -> u64 {
        self.shared.lock().passed
    }

    /// Waits until as much as may be was passed on, and there is more.
    pub fn held(&self) -> Result<()> {
        let deadline = Instant::now() + patience(LIMIT);
        let mut state = self.shared.lock();
        while !state.held {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "after {} bytes, no more came", state.passed);
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.over = true;
        state.streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        drop(state);
        self.shared.changed.notify_all();
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn connect(self: Arc<Self>, client: TcpStream) -> Result<()> {
        let (there, target) = &self.target;
        let server = inside(there, || Ok(TcpStream::connect(target)?))?;
        {
            let mut state = self.lock();
            if state.over {
                bail!("it is over");
            }
            state.streams.extend([client.try_clone()?, server.try_clone()?]);
        }
        let (mut question, mut to) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || {
            let _ = std::io::copy(&mut question, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let answered = self.answer(&server, &client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        answered
    }

    fn answer(&self, mut from: &TcpStream, mut to: &TcpStream) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let mut state = self.lock();
            while state.passed + count as u64 > state.most && !state.over {
                state.held = true;
                self.changed.notify_all();
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.over {
                return Ok(());
            }
            state.passed += count as u64;
            drop(state);
            to.write_all(&buffer[..count])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_as_may_be_is_passed_on_and_then_it_is_cut() {
        let own = || network_of("thread-self").unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap().to_string();
        let answers = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut question = [0; 2];
            stream.read_exact(&mut question).unwrap();
            let _ = stream.write_all(&vec![7; 1 << 20]);
            question
        });
        // A port that is free is told by the listener alone.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let relay = Relay::start(&own(), port, own(), &target, 100_000).unwrap();
        let mut client = TcpStream::connect(port).unwrap();
        client.write_all(b"hi").unwrap();
        relay.held().unwrap();
        let passed = relay.passed();
        assert!(passed > 0 && passed <= 100_000);
        drop(relay);
        let mut all = Vec::new();
        let _ = client.read_to_end(&mut all);
        assert!(all.len() as u64 <= passed);
        assert_eq!(&answers.join().unwrap(), b"hi");
        assert!(TcpStream::connect(port).is_err());
    }
}
