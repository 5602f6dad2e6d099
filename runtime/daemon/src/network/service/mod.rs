//! The process that answers for names and holds published ports. It is not croftd's: containers talk to each other while croftd is away
//! or another version of it takes over. It reads what croftd has recorded of the containers that are attached, and is told on a socket
//! when that changes. It ends when nobody is attached and no croftd is connected.

pub(super) mod client;
mod dns;
mod relay;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;

use croft_api::problem::{Kind, Problem};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::record::{Attached, Definition, Folder, Life};

/// The folder, in the state folder, of the containers that are attached.
pub(super) const ATTACHED: &str = "attached";

/// The socket, in the state folder.
const SOCKET: &str = "service.sock";

/// The line that says that it listens.
const READY: &str = "ready";

/// What croftd tells it, one line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// A container is attached, and has a record.
    Add(String),
    /// It is no longer, and has none.
    Remove(String),
    /// Is anybody there?
    Hello,
}

/// What it answers to each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// It is done.
    Done,
    /// It is not.
    Refused(Problem),
}

/// A task that goes on until it is ended.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Task {
    /// Ends it, and with it the socket that it has.
    async fn end(self) {
        self.0.abort();
        // That it was cancelled is no news.
        let _ = self.0.await;
    }
}

/// A container, with what listens for it.
struct Served {
    attached: Attached,
    ports: Vec<Task>,
}

/// What is served.
struct Service {
    folder: Folder,
    served: RefCell<BTreeMap<String, Served>>,
    /// By network: who answers for names there.
    names: RefCell<BTreeMap<String, Vec<Task>>>,
    clients: Cell<usize>,
    changed: Notify,
}

/// Serves the containers recorded in the state folder `state`, until nobody needs it.
///
/// # Errors
/// When it cannot listen, or another serves the same folder.
pub fn run(state: &Path) -> io::Result<()> {
    // Signals for croftd's terminal and group are not for this.
    let _ = rustix::process::setsid();
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limits.maximum, maximum: limits.maximum };
    // A socket for each port; without them all it still serves some.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, all);
    let lock = File::create(state.join("service.lock"))?;
    lock.try_lock().map_err(|_| io::Error::other(format!("another service has {}", state.display())))?;
    let socket = state.join(SOCKET);
    match fs::remove_file(&socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = LocalSet::new().block_on(&runtime, serve(state, &socket));
    let _ = fs::remove_file(&socket);
    drop(lock);
    served
}

async fn serve(state: &Path, socket: &Path) -> io::Result<()> {
    let folder = Folder::open(state.join(ATTACHED), Life::Boot).map_err(io::Error::other)?;
    let service = Rc::new(Service {
        folder,
        served: RefCell::default(),
        names: RefCell::default(),
        clients: Cell::new(0),
        changed: Notify::new(),
    });
    let listener = UnixListener::bind(socket)?;
    for (container, attached) in service.folder.all::<Attached>().map_err(io::Error::other)? {
        if let Err(problem) = service.take(attached, None) {
            tracing::error!(container, %problem, "a container is served in part only");
        }
    }
    let mut output = io::stdout();
    writeln!(output, "{READY}").and_then(|()| output.flush())?;
    let mut came = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                came = true;
                service.clients.set(service.clients.get() + 1);
                let service = Rc::clone(&service);
                spawn_local(async move {
                    if let Err(error) = service.hear(client).await {
                        tracing::warn!(%error, "a client is lost");
                    }
                    service.clients.set(service.clients.get() - 1);
                    service.changed.notify_one();
                });
            }
            () = service.changed.notified() => {
                if came && service.clients.get() == 0 && service.served.borrow().is_empty() {
                    return Ok(());
                }
            }
        }
    }
}

impl Service {
    async fn hear(self: &Rc<Self>, mut client: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = client.split();
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await? {
            let answer = match self.obey(&serde_json::from_str(&line)?).await {
                Ok(()) => Answer::Done,
                Err(problem) => Answer::Refused(problem),
            };
            writer.write_all((serde_json::to_string(&answer)? + "\n").as_bytes()).await?;
        }
        Ok(())
    }

    async fn obey(self: &Rc<Self>, order: &Order) -> Result<(), Problem> {
        match order {
            Order::Hello => Ok(()),
            Order::Add(container) => {
                let no_record =
                    || Problem::new(Kind::Internal, format!("serve {container}"), "it has no record");
                let attached = self.folder.read(container)?.ok_or_else(no_record)?;
                let kept = self.keep_ports(container, &attached);
                self.forget(container).await;
                let taken = self.take(attached, kept);
                if taken.is_err() {
                    self.forget(container).await;
                }
                taken
            }
            Order::Remove(container) => {
                self.forget(container).await;
                Ok(())
            }
        }
    }

    /// The ports of a container that still lead where they should: nobody who is connected notices that it joined another network.
    fn keep_ports(&self, container: &str, attached: &Attached) -> Option<Vec<Task>> {
        let leads = |of: &Attached| {
            (of.lease.publish.clone(), of.lease.endpoints.first().map(|endpoint| endpoint.ipv4))
        };
        let mut served = self.served.borrow_mut();
        let before = served.get_mut(container)?;
        (leads(&before.attached) == leads(attached)).then(|| std::mem::take(&mut before.ports))
    }

    /// Serves a container, as far as that is possible; `kept` are its ports, when they are served already.
    fn take(self: &Rc<Self>, attached: Attached, kept: Option<Vec<Task>>) -> Result<(), Problem> {
        let mut problem = None;
        let publishes = kept.is_none();
        let mut ports = kept.unwrap_or_default();
        if let Some(endpoint) = attached.lease.endpoints.first().filter(|_| publishes) {
            for publish in &attached.lease.publish {
                match relay::publish(publish, endpoint.ipv4) {
                    Ok(task) => ports.push(task),
                    Err(refused) => problem = problem.or(Some(refused)),
                }
            }
        }
        for of in &attached.networks {
            if let Err(refused) = self.answer_in(of) {
                problem = problem.or(Some(refused));
            }
        }
        self.served.borrow_mut().insert(attached.lease.container.clone(), Served { attached, ports });
        problem.map_or(Ok(()), Err)
    }

    fn answer_in(self: &Rc<Self>, of: &Definition) -> Result<(), Problem> {
        let mut names = self.names.borrow_mut();
        if !names.contains_key(&of.name) {
            names.insert(of.name.clone(), dns::listen(self, of)?);
        }
        Ok(())
    }

    /// Serves a container no longer: when this is over its ports are free.
    async fn forget(&self, container: &str) {
        let mut tasks =
            self.served.borrow_mut().remove(container).map(|served| served.ports).unwrap_or_default();
        {
            let served = self.served.borrow();
            let is_used = |network: &String| {
                served.values().any(|s| s.attached.networks.iter().any(|of| of.name == *network))
            };
            let unused =
                self.names.borrow_mut().extract_if(.., |network, _| !is_used(network)).collect::<Vec<_>>();
            tasks.extend(unused.into_iter().flat_map(|(_, tasks)| tasks));
        }
        for task in tasks {
            task.end().await;
        }
        self.changed.notify_one();
    }
}
