//! croftd as a whole: what it has, and what is asked of all of it.

mod bundle;
mod check;
mod networks;
mod upkeep;
mod usage;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use croft_api::container::{Config, Container, Created, State, Userns};
use croft_api::event::Event;
use croft_api::problem::{Kind, Problem};
use croft_api::system::Info;
use tokio::sync::{Notify, mpsc, watch};

use croftd_network::{Networks, Settings};

pub use networks::NetworkChange;

use crate::args::Args;
use crate::cdi::Cdi;
use crate::container::{self, Command, Handle, Removal, View};
use crate::ids::Ids;
use crate::joins::{self, For, Joined};
use crate::records::{Phase, Record, Records, Sync, Wanted};
use crate::roots::Roots;
use crate::supervise::{News, Place, Shim};
use crate::volumes::Volumes;
use crate::{clock, exec, health, names, signals, spec, volumes};

/// What all containers share.
#[derive(Debug)]
pub struct Shared {
    /// The database.
    pub records: Records,
    /// The supervisor.
    pub shim: Shim,
    /// Images and the containers' roots.
    pub roots: Roots,
    /// Volumes.
    pub volumes: Volumes,
    /// Networks.
    pub networks: Networks,
    containers: RwLock<HashMap<String, Handle>>,
    ids: Ids,
    root: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    limit: Duration,
    init: PathBuf,
    cdi: Cdi,
    cgroup: String,
    /// How long the API takes.
    pub latency: crate::metrics::Latency,
    newest_event: watch::Sender<u64>,
    /// Containers that have joined networks.
    joined: mpsc::UnboundedSender<String>,
    /// A container has left its networks.
    left: Notify,
    unified: bool,
    kernel: (u32, u32),
}

/// Digits of an id that people are shown.
const SHORT_ID: usize = 12;

/// How long the supervisor may take to say what it has.
const FIRST_NEWS: Duration = Duration::from_secs(15);

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    shared: Arc<Shared>,
}

/// A container's bundle, ready for croft-oci.
#[derive(Debug)]
pub struct Prepared {
    /// Its folder.
    pub bundle: PathBuf,
    /// What its configuration refers to: kept until the container is there.
    pub joined: Joined,
}

impl Shared {
    /// Where a container's own files are that survive a reboot.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// Where its files are that do not: its bundle, while it runs.
    pub fn run_folder(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }

    /// What is there while it is frozen for a commit: whoever finds it without a commit lets the container go on.
    pub fn frozen_for_commit(&self, id: &str) -> PathBuf {
        self.run_folder(id).join("commit")
    }

    /// Keeps an event of a container and lets those know who follow them.
    pub fn happened(&self, action: &str, name: &str, detail: Option<String>) {
        self.happened_to("container", action, name, detail);
    }

    /// Keeps an event and lets those know who follow them.
    pub fn happened_to(&self, object: &str, action: &str, name: &str, detail: Option<String>) {
        let event = Event {
            id: 0,
            time: clock::now(),
            action: action.to_owned(),
            object: object.to_owned(),
            name: name.to_owned(),
            detail,
        };
        match self.records.event(event) {
            Ok(event) => {
                tracing::info!(id = event.id, object, name, detail = event.detail, "{action}");
                self.newest_event.send_replace(event.id);
            }
            Err(problem) => tracing::error!(%problem, object, name, "{action}: the event is lost"),
        }
    }

    /// A reader of the containers' numbers.
    ///
    /// # Errors
    /// When the host's control groups cannot be looked at.
    pub fn counters(&self) -> Result<croft_engine::counters::Reader, Problem> {
        let root = croft_engine::state::StateRoot::new(self.state.join("oci"));
        croft_engine::counters::Reader::new(root)
            .map_err(|e| Problem::new(Kind::Internal, "read the control groups", error_chain(&e)))
    }

    /// The group that all containers' groups are in, in every hierarchy.
    pub fn group(&self) -> &str {
        &self.cgroup
    }

    /// Runs a verb of croft-oci that clones nothing and is over at once.
    ///
    /// # Errors
    /// Its words when it fails.
    pub async fn runtime(&self, args: &[&str]) -> Result<(), String> {
        let mut command = tokio::process::Command::new(&self.runtime);
        command.arg("--root").arg(self.state.join("oci")).args(args).stdin(Stdio::null()).kill_on_drop(true);
        let late = |_| format!("croft-oci did not end within {:?} and was killed", self.limit);
        let output = tokio::time::timeout(self.limit, command.output()).await.map_err(late)?;
        let output = output.map_err(|e| format!("{}: {e}", self.runtime.display()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Whether a container is frozen.
    pub fn is_paused(&self, id: &str) -> bool {
        let root = croft_engine::state::StateRoot::new(self.state.join("oci"));
        croft_engine::status::state(&root, id)
            .is_ok_and(|state| state.status == croft_plan::lifecycle::Status::Paused)
    }

    /// What asks a container to end.
    pub fn stop_signal(&self, record: &Record) -> i32 {
        let of_image = || self.roots.image(&record.image_id).ok().and_then(|image| image.stop_signal);
        let asked = record.config.stop_signal.clone().or_else(of_image);
        signals::to_end(asked.as_deref())
    }

    /// The container with this id.
    pub fn container(&self, id: &str) -> Option<Handle> {
        self.containers.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

/// An error with its causes, as one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs what waits for the disk or the kernel where it holds up nothing else.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::new(Kind::Internal, "croftd", error.to_string())),
    }
}

impl Daemon {
    /// Opens everything and takes up what a croftd before has left.
    ///
    /// # Errors
    /// When something of it cannot be opened.
    pub async fn begin(args: &Args) -> anyhow::Result<Arc<Self>> {
        for folder in [&args.root, &args.state] {
            std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o711)
                .create(folder)?;
        }
        let records = Records::open(&args.root.join("croftd.db"))?;
        let (news, heard) = mpsc::channel(256);
        let (joined, newcomers) = mpsc::unbounded_channel();
        let place = Place {
            program: args.program("croft-shim", args.shim.as_deref()),
            runtime: args.program("croft-oci", args.runtime.as_deref()),
            runtime_root: args.state.join("oci"),
            root: args.state.join("shim"),
            socket: args.state.join("shim.sock"),
            log: args.state.join("shim.log"),
            limit: Duration::from_secs(args.runtime_limit),
        };
        let facts = croft_engine::facts::of_this_host()?;
        let shared = Arc::new(Shared {
            newest_event: watch::channel(records.newest_event()?).0,
            joined,
            left: Notify::new(),
            roots: Roots::open(&args.root, &args.state)?,
            volumes: Volumes::open(&args.root)?,
            networks: Networks::open(Settings {
                root: args.root.clone(),
                state: args.state.clone(),
                host_state: args.host_state.clone(),
                prefix: args.bridge_prefix.clone(),
                service: vec![std::env::current_exe()?.into(), crate::NETWORK_SERVICE.into()],
                shortcut: !args.no_shortcut,
            })?,
            ids: Ids::open(&args.host_state.join("ids"), &args.root)?,
            root: args.root.clone(),
            state: args.state.clone(),
            runtime: place.runtime.clone(),
            limit: place.limit,
            init: args.program("croft-init", args.init.as_deref()),
            cdi: Cdi::new(args.cdi_dir.clone()),
            cgroup: args.cgroup.clone(),
            shim: Shim::start(place, news),
            latency: crate::metrics::Latency::default(),
            unified: facts.v1_hierarchies.is_empty(),
            kernel: kernel(),
            containers: RwLock::default(),
            records,
        });
        if let Err(problem) = shared.networks.make_default() {
            tracing::warn!(%problem, "containers have no network but those that are made");
        }
        let daemon = Arc::new(Daemon { shared: Arc::clone(&shared) });
        daemon.take_up().await?;
        // What runs is known before anybody asks.
        let mut heard = heard;
        let first = tokio::time::timeout(FIRST_NEWS, heard.recv()).await;
        match first {
            Ok(Some(news)) => {
                daemon.heard(news);
                let handles: Vec<Handle> = daemon.read().values().cloned().collect();
                for handle in handles {
                    // One that went by itself has nothing to settle.
                    let _ = handle.ask(Command::Settle).await;
                }
            }
            _ => {
                anyhow::bail!("the supervisor does not answer; see {}", args.state.join("shim.log").display())
            }
        }
        tokio::spawn(Arc::clone(&daemon).hear(heard));
        tokio::spawn(upkeep::of_networks(Arc::clone(&daemon.shared), newcomers));
        Ok(daemon)
    }

    /// Finishes or takes back what was half done, and owns the rest.
    async fn take_up(&self) -> Result<(), Problem> {
        let records = self.shared.records.all()?;
        for (range, container) in self.shared.ids.own() {
            if !records.iter().any(|record| record.id == container && record.ids == Some(range.start)) {
                tracing::info!(
                    container,
                    start = range.start,
                    "the ids of a container that is gone are given back"
                );
                self.shared.ids.give_back(range.start)?;
            }
        }
        let ids: HashSet<String> = records.iter().map(|record| record.id.clone()).collect();
        let known = |id: &str| ids.contains(id);
        for container in self.shared.networks.leased() {
            if !known(&container) {
                tracing::info!(container, "the addresses of a container that is gone are given back");
                self.shared.networks.release(&container)?;
            }
        }
        if let Err(problem) = self.shared.roots.delete_untouched_but(known) {
            tracing::error!(%problem, "something of a container that was never made is left");
        }
        self.shared.remove_empty_but(known);
        self.shared.volumes.take_up(&self.shared.records)?;
        for record in records {
            match record.phase {
                Phase::Made => {
                    // A power cut in the seconds after it was made may have taken something.
                    if let Err(problem) = self.shared.make_lasting(&record) {
                        tracing::error!(container = record.name, %problem, "something of it is gone");
                    }
                    let state = if record.started.is_some() { State::Stopped } else { State::Created };
                    let handle = container::own(Arc::clone(&self.shared), record.clone(), state);
                    self.write().insert(record.id, handle);
                }
                Phase::Making | Phase::Removing => {
                    tracing::info!(container = record.name, phase = ?record.phase, "a half-done container is removed");
                    if let Err(problem) = self.shared.unmake(&record).await {
                        tracing::error!(container = record.name, %problem, "it cannot be removed");
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes on what the supervisor says.
    async fn hear(self: Arc<Self>, mut heard: mpsc::Receiver<News>) {
        while let Some(news) = heard.recv().await {
            self.heard(news);
        }
    }

    fn heard(&self, news: News) {
        match news {
            News::Happened(event) => {
                let croft_shim::protocol::EventKind::Exited(exit) = event.kind else { return };
                match event.exec {
                    Some(exec) => exec::forget_later(Arc::clone(&self.shared), event.id, exec),
                    None => {
                        if let Some(handle) = self.read().get(&event.id) {
                            handle.tell(Command::Ended(exit));
                        }
                    }
                }
            }
            News::Connected(states) => {
                for state in &states {
                    if let (Some(exec), Some(_)) = (&state.exec, &state.exit) {
                        exec::forget_later(Arc::clone(&self.shared), state.id.clone(), exec.clone());
                    }
                }
                let mut of: HashMap<String, _> =
                    states.into_iter().filter(|s| s.exec.is_none()).map(|s| (s.id.clone(), s)).collect();
                for (id, handle) in self.read().iter() {
                    handle.tell(Command::Found(of.remove(id)));
                }
                for id in of.into_keys() {
                    tracing::warn!(id, "the supervisor has a container that nobody knows: it is removed");
                    let shared = Arc::clone(&self.shared);
                    tokio::spawn(async move {
                        use croft_shim::protocol::Request;
                        shared.shim.ask(Request::Delete { id, exec: None, force: true }).await
                    });
                }
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Handle>> {
        self.shared.containers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Handle>> {
        self.shared.containers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the containers are that have not been removed.
    pub fn views(&self) -> Vec<View> {
        self.read().values().filter(|handle| !handle.is_gone()).map(Handle::view).collect()
    }

    /// What all containers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// To wait for events.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.shared.newest_event.subscribe()
    }

    /// The container that `name` means: its name, its id, or how its id begins.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, name: &str) -> Result<Handle, Problem> {
        let containers = self.read();
        let there = || containers.iter().filter(|(_, handle)| !handle.is_gone());
        let named = there().find(|(_, handle)| handle.is_called(name));
        if let Some((_, handle)) = named.or_else(|| there().find(|(id, _)| *id == name)) {
            return Ok(handle.clone());
        }
        let mut beginning = there().filter(|(id, _)| !name.is_empty() && id.starts_with(name));
        match (beginning.next(), beginning.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(Problem::new(
                Kind::Conflict,
                format!("find {name}"),
                "the ids of several containers begin so",
            )),
            (None, _) => {
                let known: Vec<String> = there().map(|(_, handle)| handle.view().record.name).collect();
                let problem =
                    Problem::new(Kind::NotFound, format!("find {name}"), "no container is called so");
                Err(match croft_api::names::nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => problem.hint(format!("there is {near}")),
                    None => problem.hint("croft ps --all lists what there is"),
                })
            }
        }
    }

    /// Every container, in the order of their creation.
    pub fn list(&self) -> Vec<Container> {
        let mut all: Vec<Container> = self.views().into_iter().map(|view| self.shared.shown(view)).collect();
        all.sort_by(|a, b| a.created.cmp(&b.created));
        all
    }

    /// Makes a container.
    ///
    /// # Errors
    /// When it cannot be; nothing of it is left then.
    pub async fn create(&self, mut config: Config) -> Result<Created, Problem> {
        let title = format!("create {}", config.name.as_deref().unwrap_or("a container"));
        config.limits = spec::given(config.limits);
        config.shm_size = config.shm_size.filter(|bytes| *bytes != 0);
        config.hostname = config.hostname.filter(|name| !name.is_empty());
        spec::check(&config).map_err(|e| Problem::new(Kind::Invalid, &*title, e.to_string()))?;
        if let Some(signal) = &config.stop_signal {
            signals::number(signal).map_err(|e| Problem { title: format!("{title}: stop signal"), ..e })?;
        }
        let image = self.shared.roots.resolve(&config.image, config.platform.as_deref())?;
        for (_, other) in joins::others(&mut config) {
            // By its id: another one may get its name.
            *other = self.find(other)?.view().record.id;
        }
        let id = names::id();
        let name = config.name.clone().unwrap_or_else(|| names::made_up(&id));
        croft_api::names::check(&name).map_err(|why| Problem::new(Kind::Invalid, &*title, why))?;
        let of_image = self.shared.roots.image(&image)?;
        config.health = health::in_force(config.health, of_image.health.as_ref())
            .map_err(|why| Problem::new(Kind::Invalid, &*title, why))?;
        let anonymous = volumes::name_all(&mut config, &of_image.volumes);
        let mut record = Record {
            id: id.clone(),
            name: name.clone(),
            config,
            image_id: image,
            ids: None,
            created: clock::now(),
            started: None,
            exit: None,
            phase: Phase::Making,
            wanted: Wanted::Stopped,
            restarts: 0,
            volumes_go: false,
            limits_before: None,
        };
        self.shared.records.insert(&record)?;
        let made = self.make(&mut record, anonymous).await;
        if let Err(problem) = made {
            if let Err(left) = self.shared.unmake(&record).await {
                tracing::error!(container = name, problem = %left, "something of a container that failed is left");
            }
            return Err(problem);
        }
        let handle = container::own(Arc::clone(&self.shared), record, State::Created);
        let mut containers = self.write();
        // Those that went by themselves.
        containers.retain(|_, handle| !handle.is_gone());
        containers.insert(id.clone(), handle);
        drop(containers);
        self.shared.happened("create", &name, None);
        Ok(Created { id, name, warnings: Vec::new() })
    }

    async fn make(&self, record: &mut Record, anonymous: Vec<String>) -> Result<(), Problem> {
        if record.config.userns == Userns::Own && !joins::any(&record.config) {
            record.ids = Some(self.shared.ids.take(&record.id)?.start);
            self.shared.records.update(record, Sync::Later)?;
        }
        let (shared, made) = (Arc::clone(&self.shared), record.clone());
        blocking(move || {
            shared.make_lasting(&made)?;
            shared.volumes.prepare(&shared.records, &shared.roots, &made, &anonymous)
        })
        .await?;
        // What no container can have is refused now, and not at the start.
        self.shared.prepare(record, For::Check).await?;
        record.phase = Phase::Made;
        self.shared.records.update(record, record.told())
    }

    /// Removes a container.
    ///
    /// # Errors
    /// When it runs and no force is used, or something of it cannot be removed.
    pub async fn remove(&self, name: &str, removal: Removal) -> Result<(), Problem> {
        let handle = self.find(name)?;
        handle.ask(|answer| Command::Remove(removal, answer)).await?;
        self.write().remove(&handle.view().record.id);
        Ok(())
    }

    /// What croftd says of itself.
    pub fn info(&self) -> Info {
        let containers = self.list();
        Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            api: vec![croft_api::VERSION.to_owned()],
            root: self.shared.root.display().to_string(),
            state: self.shared.state.display().to_string(),
            containers: containers.len(),
            running: containers.iter().filter(|c| c.state == State::Running).count(),
            images: self.shared.roots.list().map(|images| images.len()).unwrap_or_default(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cgroups: if self.shared.unified { "unified" } else { "hybrid" }.to_owned(),
            cdi: self.shared.cdi.names(),
        }
    }
}

/// The first two numbers of the kernel's version.
fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}
