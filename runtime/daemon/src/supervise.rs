//! croftd's end of the supervisor: starts croft-shim where none runs, asks it, and hears from it.
//!
//! The supervisor outlives croftd. One task owns the connection; when that breaks it makes another one, to a new supervisor if the old one is
//! gone, and takes the events up where they were. What was asked and not answered fails then: whether it was done is seen in the list.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use croft_api::problem::{Kind, Problem};
use croft_shim::client::Client;
use croft_shim::protocol::{Event, Failure, FailureKind, Packet, Reply, Request, State};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// How long a supervisor may take to listen.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// The pause between two attempts to connect to a supervisor that was just started.
const ATTEMPT: Duration = Duration::from_millis(5);

/// The pause after a first attempt that failed; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where the supervisor is and what it runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The program croft-shim.
    pub program: PathBuf,
    /// The program croft-oci.
    pub runtime: PathBuf,
    /// The folder for croft-oci's records.
    pub runtime_root: PathBuf,
    /// The supervisor's own folder.
    pub root: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
    /// What it prints, appended.
    pub log: PathBuf,
    /// How long a croft-oci may take.
    pub limit: Duration,
}

type Answer = oneshot::Sender<Result<(Reply, Vec<OwnedFd>), Failure>>;

/// Asks the supervisor. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Shim {
    calls: mpsc::Sender<Call>,
    limit: Duration,
}

/// What the supervisor says of itself.
#[derive(Debug)]
pub enum News {
    /// A connection to it is there: all that it has, as of now.
    Connected(Vec<State>),
    /// Something happened.
    Happened(Event),
}

impl Shim {
    /// Starts the task that owns the connection. What it hears goes to `news`.
    pub fn start(place: Place, news: mpsc::Sender<News>) -> Self {
        let (calls, asked) = mpsc::channel(64);
        let limit = 3 * place.limit + BEGIN_LIMIT;
        tokio::spawn(keep_connected(place, asked, news));
        Shim { calls, limit }
    }

    /// Asks.
    ///
    /// # Errors
    /// When the supervisor says no, or cannot be asked.
    pub async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        self.ask_with(request, Vec::new()).await.map(|(reply, _)| reply)
    }

    /// Ends the supervisor unless it has a container to look after.
    pub async fn end_if_idle(&self) {
        match tokio::time::timeout(BEGIN_LIMIT, self.ask(Request::Stop)).await {
            Ok(Ok(_)) => tracing::info!("the supervisor has nothing to look after and ends too"),
            Ok(Err(failure)) => tracing::debug!(%failure, "the supervisor stays"),
            Err(_) => tracing::warn!("the supervisor does not answer"),
        }
    }

    /// Asks, with descriptors beside it in both directions.
    ///
    /// The supervisor kills a croft-oci that takes too long. What even that does not end (it may wait for a disk that does not answer) holds
    /// up nobody here: after three such limits, for one that runs and two before it in the queue, the answer is no more waited for.
    ///
    /// # Errors
    /// As [`Shim::ask`].
    pub async fn ask_with(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        let (answer, answered) = oneshot::channel();
        let lost = || failure("the supervisor is not connected");
        // How long a container runs is its own affair.
        let is_limited = !matches!(request, Request::Wait { .. });
        let asked = async {
            self.calls.send((request, fds, answer)).await.map_err(|_| lost())?;
            answered.await.map_err(|_| lost())?
        };
        if !is_limited {
            return asked.await;
        }
        let late = |_| failure(format!("the supervisor has not answered within {:?}", self.limit));
        tokio::time::timeout(self.limit, asked).await.map_err(late)?
    }
}

fn failure(why: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Supervisor, what: "ask the supervisor".into(), why: why.into() }
}

/// What a failure of the supervisor is to whoever asked croftd for `title`.
pub fn problem(title: &str, failure: &Failure) -> Problem {
    let kind = match failure.kind {
        FailureKind::NotFound => Kind::NotFound,
        FailureKind::Exists => Kind::Conflict,
        FailureKind::State => Kind::WrongState,
        FailureKind::Runtime => Kind::CannotRun,
        FailureKind::Request | FailureKind::Version | FailureKind::Supervisor => Kind::Internal,
    };
    let problem = Problem::new(kind, title, failure.why.clone());
    if failure.why.contains(croft_engine::NO_IDMAP) {
        return problem.hint("SOURCE:TARGET:nomap mounts it with its owners as the host has them, who are nobody in the container");
    }
    problem
}

type Call = (Request, Vec<OwnedFd>, Answer);
type Asked = mpsc::Receiver<Call>;

async fn keep_connected(place: Place, mut asked: Asked, news: mpsc::Sender<News>) {
    let mut since = None;
    let mut pause = FIRST_PAUSE;
    // What was asked while there was no supervisor, and is not passed on yet.
    let mut first: Option<Call> = None;
    loop {
        match connect(&place).await {
            Ok(client) => {
                pause = FIRST_PAUSE;
                match serve(client, &mut first, &mut asked, &news, &mut since).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "the connection to the supervisor broke"),
                }
            }
            Err(why) => {
                tracing::error!(%why, again_in = ?pause, "no supervisor: containers go on, and nothing can be asked of them");
                if let Some((_, _, answer)) = first.take() {
                    drop(answer.send(Err(failure(why))));
                }
                // Who asks has it tried at once, and gets its answer from that. Nobody has to ask: whatever was in the way may be gone, and
                // the ends of containers are to be heard of.
                if let Ok(asked) = tokio::time::timeout(pause, asked.recv()).await {
                    let Some(call) = asked else { return };
                    first = Some(call);
                }
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}

/// What is asked next: what waited for the connection before what came after it.
async fn next(first: &mut Option<Call>, asked: &mut Asked) -> Option<Call> {
    match first.take() {
        Some(call) => Some(call),
        None => asked.recv().await,
    }
}

/// Connects, to a supervisor started for that if none listens.
async fn connect(place: &Place) -> Result<Client, String> {
    if let Ok(client) = Client::connect(&place.socket) {
        return Ok(client);
    }
    let mut over = begin(place).map_err(|e| format!("start {}: {e}", place.program.display()))?;
    let end = Instant::now() + BEGIN_LIMIT;
    loop {
        // Before the attempt: what it did before its end counts.
        let status = over.try_recv().ok();
        match (Client::connect(&place.socket), status) {
            (Ok(client), _) => return Ok(client),
            (Err(_), Some(status)) => {
                let program = place.program.display();
                return Err(format!("{program} ended at once ({status}); see {}", place.log.display()));
            }
            (Err(error), None) if Instant::now() > end => {
                return Err(format!("{}: {error}; see {}", place.socket.display(), place.log.display()));
            }
            (Err(_), None) => tokio::time::sleep(ATTEMPT).await,
        }
    }
}

/// Starts a supervisor. What it gives tells of its end.
fn begin(place: &Place) -> std::io::Result<oneshot::Receiver<ExitStatus>> {
    let log = std::fs::File::options().create(true).append(true).open(&place.log)?;
    let mut command = Command::new(&place.program);
    command.arg("--root").arg(&place.root).arg("--socket").arg(&place.socket);
    command.arg("--runtime").arg(&place.runtime).arg("--runtime-root").arg(&place.runtime_root);
    command.arg("--limit").arg(place.limit.as_secs().to_string());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A signal from croftd's terminal is not for it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    tracing::info!(pid = child.id(), "a supervisor was started");
    let (ended, over) = oneshot::channel();
    // Once it listens its end is noticed by the connection; this leaves no zombie either way.
    std::thread::spawn(move || child.wait().map(|status| ended.send(status)));
    Ok(over)
}

/// Serves one connection until it breaks. `Ok`: nobody can ask any more.
async fn serve(
    client: Client,
    first: &mut Option<Call>,
    asked: &mut Asked,
    news: &mpsc::Sender<News>,
    since: &mut Option<u64>,
) -> std::io::Result<()> {
    let mut client = client;
    // Events first: what happens while the list is read comes twice rather than never.
    let known = since.unwrap_or(client.last_event);
    call(&mut client, Request::Events { since: known })?;
    let states = list(&mut client)?;
    let mut early = Vec::new();
    while let Some(event) = client.next_event(Duration::ZERO).map_err(std::io::Error::other)? {
        early.push(event);
    }
    client.set_non_blocking()?;
    let news_so_far = std::iter::once(News::Connected(states)).chain(early.into_iter().map(News::Happened));
    for item in news_so_far {
        if news.send(item).await.is_err() {
            return Ok(());
        }
    }
    let mut waiting: HashMap<u64, Answer> = HashMap::new();
    let mut stop = None;
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, and a client keeps its descriptor for as long as it lives"
    )]
    let mut client = AsyncFd::new(client)?;
    loop {
        tokio::select! {
            call = next(first, asked) => {
                let Some((request, fds, answer)) = call else { return Ok(()) };
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                loop {
                    match client.get_mut().send(request.clone(), &fds) {
                        Ok(number) => {
                            if request == Request::Stop {
                                stop = Some(number);
                            }
                            break drop(waiting.insert(number, answer));
                        }
                        Err(e) if e.kind() == ErrorKind::WouldBlock => client.writable().await?.clear_ready(),
                        Err(e) if e.kind() == ErrorKind::InvalidInput => {
                            break drop(answer.send(Err(failure(e.to_string()))));
                        }
                        Err(e) => return Err(e),
                    }
                }
            }
            ready = client.readable_mut() => {
                let mut ready = ready?;
                let Ok(received) = ready.try_io(|client| client.get_mut().receive()) else { continue };
                let (packet, fds) = received?;
                match packet {
                    Packet::Reply { number, reply } => {
                        // It is meant to be gone: no other one takes its place.
                        let over = stop == Some(number) && reply == Reply::Done;
                        if let Some(answer) = waiting.remove(&number) {
                            let reply = match reply {
                                Reply::Failed(failure) => Err(failure),
                                reply => Ok((reply, fds)),
                            };
                            // Who asked may have gone.
                            let _ = answer.send(reply);
                        }
                        if over {
                            return Ok(());
                        }
                    }
                    Packet::Event(event) => {
                        *since = Some(event.sequence);
                        if news.send(News::Happened(event)).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

fn call(client: &mut Client, request: Request) -> std::io::Result<Reply> {
    client.call(request, &[]).map(|(reply, _)| reply).map_err(std::io::Error::other)
}

/// All that the supervisor has. A few local packets: short enough to wait for.
fn list(client: &mut Client) -> std::io::Result<Vec<State>> {
    let mut all: Vec<State> = Vec::new();
    loop {
        let after = all.last().map(|last| (last.id.clone(), last.exec.clone()));
        match call(client, Request::List { after })? {
            Reply::List { processes, more } => {
                all.extend(processes);
                if !more {
                    return Ok(all);
                }
            }
            other => return Err(std::io::Error::other(format!("the list of processes: {other:?}"))),
        }
    }
}
