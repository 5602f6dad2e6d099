//! One container: a task owns it, and everybody else sends it commands and looks at what it shows.
//!
//! ```text
//!            Making ──▶ Made ─────────────────────────▶ Removing ──▶ gone
//!                        │ created ─start▶ running ─exit▶ stopped │
//!                        │                    ▲ restart policy  │ │
//!                        └────────────────────┴─────────────────┘─┘
//! ```
//!
//! Each effect comes after the record of its intent, so that a croftd that comes back finishes or takes back what it finds.

mod ends;
mod health;
mod update;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use croft_api::container::{self, Health, Probe, State};
use croft_api::problem::{Kind, Problem};
use croft_shim::client::Stream;
use croft_shim::protocol::{self, Io, IoKind, Log, Reply, Request, WhenFull};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, mpsc, oneshot, watch};

use crate::daemon::{NetworkChange, Prepared, Shared, blocking};
use crate::joins::For;
use crate::records::{Phase, Record, Sync, Wanted};
use crate::supervise::problem;
use crate::{clock, exec, signals};

/// Bytes of output that are kept for who attaches.
const RING: u32 = 64 << 10;

/// How long a start waits for who copies files.
const FILES_LIMIT: Duration = Duration::from_secs(10);

/// What others see of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// What is recorded.
    pub record: Record,
    /// What it does.
    pub state: State,
    /// Its process.
    pub pid: Option<i32>,
    /// What its health check has found.
    pub health: Option<Health>,
}

type Answer<T = ()> = oneshot::Sender<Result<T, Problem>>;

/// What a container's task is told.
#[derive(Debug)]
pub enum Command {
    /// Somebody wants it to run.
    Start(Answer),
    /// Somebody wants it to run and to have its streams from these places on, before it says anything.
    StartAttached([Option<protocol::From>; 2], Answer<(Stream, u64)>),
    /// Somebody wants it to end: its policy does not start it again. The signal is sent besides.
    Stop(i32, Answer),
    /// Sends a signal.
    Kill(i32, Answer),
    /// Freezes it.
    Pause(Answer),
    /// Lets it go on.
    Resume(Answer),
    /// Gives it other limits and another policy.
    Update(container::Update, Answer),
    /// A run of its health check is over; the number says of which watch.
    Probed(u32, Probe),
    /// Gives it another name.
    Rename(String, Answer),
    /// Lets it join a network, or leave one.
    Network(NetworkChange, Answer),
    /// Removes it.
    Remove(Removal, Answer),
    /// Gives back what it has only while it runs, where it does not. The answer: whether it does not.
    GiveBack(Answer<bool>),
    /// Its process has ended.
    Ended(protocol::Exit),
    /// The supervisor has this of it, or nothing.
    Found(Option<protocol::State>),
    /// The pause before its next start is over; the number says which.
    Again(u32),
    /// Answers when all that it was told before is done.
    Settle(Answer),
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removal {
    /// Whether what runs is killed.
    pub force: bool,
    /// Whether its volumes without names go too.
    pub volumes: bool,
}

/// A way to a container.
#[derive(Debug, Clone)]
pub struct Handle {
    mailbox: mpsc::UnboundedSender<Command>,
    view: watch::Receiver<View>,
    files: Files,
}

/// Who uses a container's files from outside holds it for reading where it runs, and alone where it does not: its root can be mounted
/// once only, so that a start has to wait.
type Files = Arc<RwLock<()>>;

/// While this lives, a container that runs is not started again, or one that does not is not started.
#[derive(Debug)]
pub enum FilesHold {
    /// It runs, or ran when this was made.
    Running {
        /// Beside others.
        _hold: OwnedRwLockReadGuard<()>,
    },
    /// It does not.
    Stopped {
        /// Alone.
        _hold: OwnedRwLockWriteGuard<()>,
    },
}

impl Handle {
    /// What it is now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Whether this is its name.
    pub fn is_called(&self, name: &str) -> bool {
        self.view.borrow().record.name == name
    }

    /// Whether it has been removed: nobody is left to be told anything.
    pub fn is_gone(&self) -> bool {
        self.mailbox.is_closed()
    }

    /// To wait for changes.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Tells it something that needs no answer.
    pub fn tell(&self, command: Command) {
        // One that is gone needs to know nothing.
        let _ = self.mailbox.send(command);
    }

    /// Asks it and waits.
    ///
    /// # Errors
    /// What it answers; [`Kind::NotFound`] when it is gone.
    pub async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Problem> {
        let gone = || Problem::new(Kind::NotFound, "the container", "it has been removed");
        let (answer, answered) = oneshot::channel();
        self.mailbox.send(command(answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Keeps its root as it is mounted now, or not mounted.
    pub async fn hold_files(&self) -> FilesHold {
        let runs = || matches!(self.view.borrow().state, State::Running | State::Paused);
        loop {
            if runs() {
                let hold = Arc::clone(&self.files).read_owned().await;
                if runs() {
                    return FilesHold::Running { _hold: hold };
                }
            } else {
                let hold = Arc::clone(&self.files).write_owned().await;
                if !runs() {
                    return FilesHold::Stopped { _hold: hold };
                }
            }
        }
    }

    /// Waits until it does not run; until it is gone, if it goes by itself then.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it is removed meanwhile and nobody saw its end.
    pub async fn ended(&self) -> Result<View, Problem> {
        let mut view = self.view.clone();
        let is_over = |view: &View| {
            let runs = matches!(view.state, State::Running | State::Paused);
            let removing = view.record.phase == Phase::Removing && !view.record.config.auto_remove;
            // One that runs is killed first: its end is about to be there.
            view.state == State::Stopped || (removing && (!runs || view.record.exit.is_some()))
        };
        let ended = view.wait_for(is_over).await;
        let last = ended.map(|view| view.clone()).ok();
        last.or_else(|| Some(self.view.borrow().clone()))
            .filter(|view| view.record.exit.is_some())
            .ok_or_else(|| Problem::new(Kind::NotFound, "wait", "the container was removed before it ran"))
    }
}

/// Where somebody wants the streams of a container from that is started, if anybody does.
type Audience = Option<[Option<protocol::From>; 2]>;

/// The task's own.
struct Container {
    shared: Arc<Shared>,
    view: watch::Sender<View>,
    mailbox: mpsc::UnboundedSender<Command>,
    files: Files,
    /// Which start is waited for, counted.
    pause: u32,
    /// How often it was started again in a row.
    in_a_row: u32,
    /// Which watch of its health is going on, counted.
    health_turn: u32,
    /// Ends that watch.
    health_watch: Option<tokio::task::AbortHandle>,
}

/// Starts the task of a container that is recorded. `state` is what it is taken for until the supervisor tells.
pub fn own(shared: Arc<Shared>, record: Record, state: State) -> Handle {
    let (mailbox, commands) = mpsc::unbounded_channel();
    let (view, seen) = watch::channel(View { record, state, pid: None, health: None });
    let files = Files::default();
    let container = Container {
        shared,
        view,
        mailbox: mailbox.clone(),
        files: Arc::clone(&files),
        pause: 0,
        in_a_row: 0,
        health_turn: 0,
        health_watch: None,
    };
    tokio::spawn(container.serve(commands));
    Handle { mailbox, view: seen, files }
}

impl Container {
    async fn serve(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Start(answer) => {
                    self.in_a_row = 0;
                    let _ = answer.send(self.start(None).await.map(drop));
                }
                Command::StartAttached(from, answer) => {
                    self.in_a_row = 0;
                    let started = self.start(Some(from)).await;
                    let none =
                        || Problem::new(Kind::Internal, self.title("start"), "its streams were not kept");
                    let _ = answer.send(started.and_then(|streams| streams.ok_or_else(none)));
                }
                Command::Stop(signal, answer) => {
                    let _ = answer.send(self.stop(signal).await);
                }
                Command::Kill(signal, answer) => {
                    let _ = answer.send(self.kill(signal).await);
                }
                Command::Pause(answer) => {
                    let _ = answer.send(self.freeze(State::Running, "pause", State::Paused).await);
                }
                Command::Resume(answer) => {
                    let _ = answer.send(self.freeze(State::Paused, "resume", State::Running).await);
                }
                Command::Update(asked, answer) => {
                    let _ = answer.send(self.update(asked).await);
                }
                Command::Probed(turn, probe) => self.probed(turn, probe),
                Command::Rename(name, answer) => {
                    let _ = answer.send(self.rename(name).await);
                }
                Command::Network(change, answer) => {
                    let _ = answer.send(self.change_networks(change).await);
                }
                Command::Remove(removal, answer) => {
                    let done = self.remove(removal).await;
                    let gone = done.is_ok();
                    let _ = answer.send(done);
                    if gone {
                        return;
                    }
                }
                Command::GiveBack(answer) => {
                    let _ = answer.send(self.give_back().await);
                }
                Command::Ended(exit) => {
                    if self.ended(exit).await {
                        return;
                    }
                }
                Command::Found(state) => {
                    if self.found(state).await {
                        return;
                    }
                }
                Command::Again(pause) => self.again(pause).await,
                Command::Settle(answer) => drop(answer.send(Ok(()))),
            }
        }
    }

    fn record(&self) -> Record {
        self.view.borrow().record.clone()
    }

    fn state(&self) -> State {
        self.view.borrow().state
    }

    fn title(&self, verb: &str) -> String {
        format!("{verb} {}", self.view.borrow().record.name)
    }

    /// Records a change before anybody sees it.
    fn change(&self, sync: Sync, change: impl FnOnce(&mut Record)) -> Result<(), Problem> {
        let mut record = self.record();
        change(&mut record);
        self.shared.records.update(&record, sync)?;
        self.view.send_modify(|view| view.record = record);
        Ok(())
    }

    fn show(&self, state: State, pid: Option<i32>) {
        self.view.send_modify(|view| (view.state, view.pid) = (state, pid));
    }

    async fn start(&mut self, audience: Audience) -> Result<Option<(Stream, u64)>, Problem> {
        let title = self.title("start");
        if matches!(self.state(), State::Running | State::Paused) {
            let hint = format!("croft restart {}", self.record().name);
            return Err(Problem::new(Kind::WrongState, title, "it runs already").hint(hint));
        }
        self.pause += 1;
        self.change(self.record().policy(), |record| record.wanted = Wanted::Running)?;
        let started = self.run(&title, audience).await;
        if started.is_err() {
            self.change(self.record().policy(), |record| record.wanted = Wanted::Stopped)?;
        }
        started
    }

    /// Its files, with nobody else at them.
    async fn files_alone(&self, title: &str) -> Result<OwnedRwLockWriteGuard<()>, Problem> {
        let files = tokio::time::timeout(FILES_LIMIT, Arc::clone(&self.files).write_owned()).await;
        let copied = |_| Problem::new(Kind::Conflict, title, "its files are being copied").hint("try again");
        files.map_err(copied)
    }

    async fn run(&mut self, title: &str, audience: Audience) -> Result<Option<(Stream, u64)>, Problem> {
        let record = self.record();
        let _files = self.files_alone(title).await?;
        let Prepared { bundle, joined } = match self.shared.prepare(&record, For::Start).await {
            Ok(prepared) => prepared,
            Err(problem) => {
                self.shared.release(&record).await;
                return Err(problem);
            }
        };
        let shim = &self.shared.shim;
        let when_full = WhenFull::WaitForClient { promised: audience.is_some() };
        let create = || Request::Create {
            id: record.id.clone(),
            bundle: bundle.clone(),
            io: Io { kind: io(&record.config), ring: RING, when_full },
            log: Some(log(&record.config.log, self.shared.folder(&record.id).join("log.json"))),
        };
        let delete = || Request::Delete { id: record.id.clone(), exec: None, force: true };
        let mut made = shim.ask(create()).await;
        if made.as_ref().is_err_and(|failure| failure.kind == protocol::FailureKind::Exists) {
            // Left by a croftd that was killed between the two.
            let _ = shim.ask(delete()).await;
            made = shim.ask(create()).await;
        }
        let started = match made {
            Ok(Reply::Running { pid }) => {
                let streams = match self.before_the_start(&record, pid, audience).await {
                    Ok(streams) => streams,
                    Err(problem) => {
                        let _ = shim.ask(delete()).await;
                        self.shared.release(&record).await;
                        return Err(problem);
                    }
                };
                let started = shim.ask(Request::Start { id: record.id.clone() }).await;
                started.map(|_| (pid, streams))
            }
            Ok(other) => Err(protocol::Failure {
                kind: protocol::FailureKind::Supervisor,
                what: title.to_owned(),
                why: format!("the supervisor answers {other:?}"),
            }),
            Err(failure) => Err(failure),
        };
        // It is in the namespaces that it shares by now, or never will be.
        drop(joined);
        match started {
            Ok((pid, streams)) => {
                self.change(Sync::Later, |record| {
                    record.started = Some(clock::now());
                    record.exit = None;
                    // Its configuration was written with the new ones.
                    record.limits_before = None;
                })?;
                self.show(State::Running, Some(pid));
                self.watch_health(Health::default());
                self.shared.happened("start", &record.name, None);
                Ok(streams)
            }
            Err(failure) => {
                let _ = shim.ask(delete()).await;
                self.shared.release(&record).await;
                Err(problem(title, &failure))
            }
        }
    }

    /// What is done when it is made, and says nothing yet.
    async fn before_the_start(
        &self,
        record: &Record,
        pid: i32,
        audience: Audience,
    ) -> Result<Option<(Stream, u64)>, Problem> {
        self.shared.attach(record, pid).await?;
        match audience {
            Some(from) => {
                exec::attach(&self.shared, &self.title("start"), &record.id, None, from).await.map(Some)
            }
            None => Ok(None),
        }
    }

    async fn stop(&mut self, signal: i32) -> Result<(), Problem> {
        self.pause += 1;
        self.change(self.record().policy(), |record| record.wanted = Wanted::Stopped)?;
        if self.state() == State::Paused {
            self.freeze(State::Paused, "resume", State::Running).await?;
        }
        match self.state() {
            State::Running => self.signal(signal).await,
            _ => Ok(()),
        }
    }

    /// Sends a signal for somebody. As with Docker: whoever ends it so does not want it started again.
    async fn kill(&mut self, signal: i32) -> Result<(), Problem> {
        let record = self.record();
        let ends = signal == signals::KILL || signal == self.shared.stop_signal(&record);
        if ends && matches!(self.state(), State::Running | State::Paused) {
            self.change(record.policy(), |record| record.wanted = Wanted::Stopped)?;
        }
        self.signal(signal).await
    }

    async fn signal(&self, signal: i32) -> Result<(), Problem> {
        let title = self.title("signal");
        if !matches!(self.state(), State::Running | State::Paused) {
            return Err(Problem::new(Kind::WrongState, title, "it does not run"));
        }
        let id = self.record().id;
        let sent = self.shared.shim.ask(Request::Kill { id, exec: None, signal, all: false }).await;
        sent.map(drop).map_err(|failure| problem(&title, &failure))
    }

    async fn freeze(&mut self, from: State, verb: &str, to: State) -> Result<(), Problem> {
        let title = self.title(verb);
        let (state, pid) = (self.state(), self.view.borrow().pid);
        if state != from {
            let why = format!("it is {}", word(state));
            return Err(Problem::new(Kind::WrongState, title, why));
        }
        self.shared
            .runtime(&[verb, &self.record().id])
            .await
            .map_err(|why| Problem::new(Kind::Internal, title, why))?;
        self.show(to, pid);
        match to {
            State::Running => self.watch_health_again(),
            _ => self.forget_health_watch(),
        }
        self.shared.happened(verb, &self.record().name, None);
        Ok(())
    }

    async fn change_networks(&self, change: NetworkChange) -> Result<(), Problem> {
        let (record, pid) = (self.record(), self.view.borrow().pid);
        let (action, network) = match &change {
            NetworkChange::Join(join) => ("connect", join.network.clone()),
            NetworkChange::Leave(network) => ("disconnect", network.clone()),
            NetworkChange::Limit(network, _) => ("limit", network.clone()),
        };
        let pid = pid.filter(|_| matches!(self.state(), State::Running | State::Paused));
        self.shared.change_networks(&record, pid, change).await?;
        self.shared.happened(action, &record.name, Some(network));
        Ok(())
    }

    async fn rename(&self, name: String) -> Result<(), Problem> {
        let Record { name: before, id, .. } = self.record();
        self.change(Sync::Now, |record| record.name.clone_from(&name))
            .map_err(|problem| Problem { title: format!("rename to {name}"), ..problem })?;
        let (shared, old, new) = (Arc::clone(&self.shared), before.clone(), name.clone());
        blocking(move || shared.networks.rename(&id, &old, &new)).await?;
        self.shared.happened("rename", &name, Some(before));
        Ok(())
    }

    async fn remove(&mut self, Removal { force, volumes }: Removal) -> Result<(), Problem> {
        let title = self.title("remove");
        if matches!(self.state(), State::Running | State::Paused) && !force {
            let hint = format!("croft stop {0}, or croft rm --force {0}", self.record().name);
            return Err(Problem::new(Kind::WrongState, title, "it runs").hint(hint));
        }
        self.change(self.record().told(), |record| {
            (record.phase, record.wanted, record.volumes_go) = (Phase::Removing, Wanted::Stopped, volumes);
        })?;
        self.forget_health_watch();
        self.end_for_removal().await?;
        self.shared.unmake(&self.record()).await
    }
}

fn io(config: &container::Config) -> IoKind {
    if config.terminal { IoKind::Terminal } else { IoKind::Pipes { stdin: config.stdin } }
}

/// Where and how a container's output is logged.
fn log(asked: &container::Log, path: PathBuf) -> Log {
    let usual = Log::at(path);
    Log {
        max_bytes: asked.max_size.unwrap_or(usual.max_bytes),
        // With the one that is written.
        max_files: asked.max_files.map_or(usual.max_files, |files| files.saturating_sub(1)),
        compress: asked.compress.unwrap_or(true),
        rate: asked.rate,
        mode: match asked.mode {
            container::LogMode::Drop => protocol::LogMode::Drop,
            container::LogMode::Block => protocol::LogMode::Block,
        },
        ..usual
    }
}

/// A state in the words of a message.
pub fn word(state: State) -> &'static str {
    match state {
        State::Created => "created and not started",
        State::Running => "running",
        State::Paused => "paused",
        State::Stopped => "stopped",
    }
}
