//! croftd's end of the line to the service.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use croft_api::problem::{Kind, Problem};

use super::{Answer, Order, READY, SOCKET};

/// It answers at once, or something is wrong with it.
const LIMIT: Duration = Duration::from_secs(10);

/// The service, which is started when it does not run.
#[derive(Debug)]
pub struct Client {
    command: Vec<OsString>,
    state: PathBuf,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    stream: Option<BufReader<UnixStream>>,
    /// The one that was started from here, to be waited for when it ends.
    child: Option<Child>,
}

impl Client {
    /// The service of the state folder `state`, which `command` starts.
    pub fn new(command: Vec<OsString>, state: &Path) -> Self {
        Client { command, state: state.to_owned(), line: Mutex::default() }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a container served.
    ///
    /// # Errors
    /// When one of its ports is taken, or the service cannot be started.
    pub fn add(&self, title: &str, container: &str) -> Result<(), Problem> {
        self.start(title)?;
        self.order(title, &Order::Add(container.to_owned()))
    }

    /// Has a container no longer served. A service that does not run serves none.
    ///
    /// # Errors
    /// When the service does not answer.
    pub fn remove(&self, title: &str, container: &str) -> Result<(), Problem> {
        let order = Order::Remove(container.to_owned());
        let mut line = self.line();
        // The line may be one to a service that has ended, or may break now: what is asked for twice is done once.
        if line.stream.is_some()
            && let Ok(answer) = line.ask(&order)
        {
            return told(title, Ok(answer));
        }
        match self.connect(&mut line) {
            Err(e) if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&e.kind()) => {
                Ok(())
            }
            connected => told(title, connected.and_then(|()| line.ask(&order))),
        }
    }

    /// Whether it runs and answers.
    pub fn answers(&self) -> bool {
        let mut line = self.line();
        line.stream.is_some() && line.ask(&Order::Hello).is_ok() || {
            line.stream = None;
            self.connect(&mut line).and_then(|()| line.ask(&Order::Hello)).is_ok()
        }
    }

    fn connect(&self, line: &mut Line) -> io::Result<()> {
        let stream = UnixStream::connect(self.state.join(SOCKET))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        line.stream = Some(BufReader::new(stream));
        Ok(())
    }

    /// Starts it, if it does not answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, title: &str) -> Result<(), Problem> {
        if self.answers() {
            return Ok(());
        }
        let failed = |why: String| {
            Problem::new(Kind::Internal, title, format!("start the service of networks: {why}"))
        };
        let Some((program, args)) = self.command.split_first() else {
            return Err(failed("no command is set".to_owned()));
        };
        let mut line = self.line();
        let mut command = Command::new(program);
        command.args(args).arg(&self.state).stdin(Stdio::null()).stdout(Stdio::piped()).current_dir("/");
        let mut child = command.spawn().map_err(|e| failed(format!("{}: {e}", program.display())))?;
        let mut said = String::new();
        let output = child.stdout.take().map(|output| BufReader::new(output).read_line(&mut said));
        if said.trim_end() != READY {
            let status = child.wait().map(|status| status.to_string());
            return Err(failed(format!("{} did not come up: {output:?}, {status:?}", program.display())));
        }
        if let Some(mut old) = line.child.replace(child) {
            let _ = old.wait();
        }
        self.connect(&mut line).map_err(|e| failed(e.to_string()))
    }

    fn order(&self, title: &str, order: &Order) -> Result<(), Problem> {
        told(title, self.line().ask(order))
    }
}

/// What the service's answer is to whoever asked croftd for `title`.
fn told(title: &str, answer: io::Result<Answer>) -> Result<(), Problem> {
    match answer {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Refused(problem)) => Err(Problem { title: title.to_owned(), ..problem }),
        Err(e) => Err(Problem::new(Kind::Internal, title, format!("ask the service of networks: {e}"))),
    }
}

impl Line {
    fn ask(&mut self, order: &Order) -> io::Result<Answer> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let asked =
            stream.get_mut().write_all((serde_json::to_string(order)? + "\n").as_bytes()).and_then(|()| {
                let mut line = String::new();
                match stream.read_line(&mut line)? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(serde_json::from_str(&line)?),
                }
            });
        if asked.is_err() {
            // Whatever it says later would be taken for the answer to something else.
            self.stream = None;
        }
        asked
    }
}
