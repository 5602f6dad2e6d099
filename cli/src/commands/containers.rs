//! `run`, `create`, `ps` and the other verbs of containers.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use croft_api::client::{Client, Error};
use croft_api::container::{Container, Created, Exec, Execed, Exit, State};
use croft_api::network::{Protocol, Publish};
use croft_api::problem::Kind;
use tokio::sync::watch;

use super::attached::signals::Caught;
use super::attached::{self, Wanted};
use super::patience::{Contact, patiently};
use super::{Failed, part, report};
use crate::args::{AttachArgs, CreateArgs, ExecArgs, PsArgs, PullWhen, RmArgs, RunArgs};
use crate::config;
use crate::filter::{self, Filter};
use crate::output::{self, Shown};

/// The status of a container whose end nobody saw.
const UNSEEN: u8 = 255;

/// `run`: pulls the image if it is not there, and stays until the end unless it is detached.
///
/// # Errors
/// When the container cannot be made or started.
pub async fn run(client: &Client, args: &RunArgs, shown: Shown) -> Result<u8, Failed> {
    let created = make(client, &args.create, shown).await?;
    let name = part(&created.id);
    // Asked before the start: one that is removed at its end is not missed.
    let waiting = tokio::spawn({
        let (client, name) = (client.clone(), name.clone());
        async move { end_of(&client, &format!("/containers/{name}/wait"), Contact::Had).await }
    });
    let wanted = Wanted { terminal: args.create.tty, stdin: args.create.interactive, from: "oldest" };
    // From before the start: who is told to end in the middle of it leaves no container behind that runs.
    let (has_started, starts) = watch::channel(false);
    let passes_on = args.signals.sig_proxy && !args.detach && !args.create.tty;
    let caught = passes_on.then(Caught::new).transpose()?;
    let _passing = caught.map(|caught| caught.pass_on(client, &format!("/containers/{name}"), &starts));
    let started = match args.detach {
        true => {
            let started = client.post::<(), ()>(&format!("/containers/{name}/start"), &()).await;
            started.map(|()| None).map_err(Failed::from)
        }
        false => attached::start(client, &format!("/containers/{name}/attach?"), wanted).await.map(Some),
    };
    let attached = match started {
        Ok(attached) => attached,
        Err(failed) => {
            waiting.abort();
            // What could not be started is of no use to who asked for it to run.
            let _ = client.delete(&format!("/containers/{name}?force=true&volumes=true")).await;
            if let Some(file) = &args.create.options.cidfile {
                let _ = std::fs::remove_file(file);
            }
            return Err(failed);
        }
    };
    let Some(attached) = attached else {
        shown.done(&created, &created.id);
        return Ok(0);
    };
    has_started.send_replace(true);
    if !attached.stay(client).await?.with_process()? {
        return Ok(0);
    }
    let exit = waiting.await.map_err(|e| Failed::from(e.to_string()))??;
    Ok(status_of(&exit))
}

/// How a process ends, asked for at `path`, once it does, also when croftd is restarted meanwhile.
async fn end_of(client: &Client, path: &str, contact: Contact) -> Result<Exit, Error> {
    patiently(contact, || client.post::<(), Exit>(path, &())).await
}

/// The status to exit with.
fn status_of(exit: &Exit) -> u8 {
    exit.status.map_or(UNSEEN, |status| u8::try_from(status).unwrap_or(UNSEEN))
}

async fn make(client: &Client, args: &CreateArgs, shown: Shown) -> Result<Created, Failed> {
    let config = config::of(args)?;
    // Before anything is made: another container's id is not written over.
    let cidfile = args.options.cidfile.as_deref().map(CidFile::open).transpose()?;
    if args.options.pull == PullWhen::Always {
        super::images::pull(client, &config.image, config.platform.as_deref(), shown.quiet).await?;
    }
    let created = client.post::<_, Created>("/containers", &config).await;
    // An image that is there and cannot be used, for want of room on the disk say, does not become better by a pull.
    let missing = |error: &Error| matches!(error, Error::Refused(problem) if problem.kind == Kind::NotFound && problem.title.starts_with("image "));
    let created = match created {
        Err(error) if missing(&error) && args.options.pull == PullWhen::Missing => {
            super::images::pull(client, &config.image, config.platform.as_deref(), shown.quiet).await?;
            client.post("/containers", &config).await
        }
        other => other,
    }?;
    for warning in &created.warnings {
        eprintln!("croft: warning: {warning}");
    }
    if let Some(file) = cidfile
        && let Err(failed) = file.keep(&created.id)
    {
        let _ = client.delete(&format!("/containers/{}?force=true", part(&created.id))).await;
        return Err(failed);
    }
    Ok(created)
}

/// The file that a container's id goes into; it goes away when there is none.
struct CidFile<'a> {
    path: &'a Path,
    file: Option<File>,
}

impl<'a> CidFile<'a> {
    fn open(path: &'a Path) -> Result<Self, Failed> {
        let file = File::create_new(path).map_err(|e| format!("--cidfile {}: {e}", path.display()))?;
        Ok(CidFile { path, file: Some(file) })
    }

    fn keep(mut self, id: &str) -> Result<(), Failed> {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(id.as_bytes()));
        written.map_err(|e| format!("--cidfile {}: {e}", self.path.display()))?;
        self.file = None;
        Ok(())
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// `create`.
///
/// # Errors
/// When the container cannot be made.
pub async fn create(client: &Client, args: &CreateArgs, shown: Shown) -> Result<u8, Failed> {
    let created = make(client, args, shown).await?;
    shown.done(&created, &created.id);
    Ok(0)
}

/// A verb on each of several containers, whose names are printed when it is done.
///
/// # Errors
/// For the last that failed; the others are done.
pub async fn each(client: &Client, names: &[String], verb: &str, shown: Shown) -> Result<u8, Failed> {
    let mut failed = None;
    for name in names {
        let path = format!("/containers/{}/{verb}", part(name));
        report(client.post::<(), ()>(&path, &()).await, name, shown, &mut failed);
    }
    failed.map_or(Ok(0), Err)
}

/// `rm`.
///
/// # Errors
/// As [`each`].
pub async fn remove(client: &Client, args: &RmArgs, shown: Shown) -> Result<u8, Failed> {
    let mut failed = None;
    for name in &args.names {
        let path = format!("/containers/{}?force={}&volumes={}", part(name), args.force, args.volumes);
        report(client.delete(&path).await, name, shown, &mut failed);
    }
    failed.map_or(Ok(0), Err)
}

/// `rename`.
///
/// # Errors
/// When the new name is taken or is none.
pub async fn rename(client: &Client, name: &str, new: &str) -> Result<u8, Failed> {
    client.post::<(), ()>(&format!("/containers/{}/rename?name={}", part(name), part(new)), &()).await?;
    Ok(0)
}

/// `exec`: the status is the process's.
///
/// # Errors
/// When it cannot be run.
pub async fn exec(client: &Client, args: &ExecArgs) -> Result<u8, Failed> {
    let (name, command) = args.words();
    let asked = Exec {
        command: command.to_vec(),
        env: config::variables(&args.env).collect(),
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        terminal: args.tty,
        stdin: args.interactive,
        detach: args.detach,
    };
    let name = part(name);
    let Execed { exec } = client.post(&format!("/containers/{name}/exec"), &asked).await?;
    if args.detach {
        return Ok(0);
    }
    let wanted = Wanted { terminal: args.tty, stdin: args.interactive, from: "oldest" };
    if !attached::attach(client, &format!("/containers/{name}/attach?exec={exec}&"), wanted)
        .await?
        .stay(client)
        .await?
        .with_process()?
    {
        return Ok(0);
    }
    let exit = end_of(client, &format!("/containers/{name}/exec/{exec}/wait"), Contact::Had).await?;
    Ok(status_of(&exit))
}

/// `attach`.
///
/// # Errors
/// When it is not there, or does not run.
pub async fn attach(client: &Client, args: &AttachArgs) -> Result<u8, Failed> {
    let name = part(&args.name);
    let container: Container = client.get(&format!("/containers/{name}")).await?;
    if !runs(&container) {
        return Err(Failed::from(format!("attach to {}: it does not run", args.name)));
    }
    let config = &container.config;
    let wanted = Wanted {
        terminal: config.terminal,
        stdin: !args.no_stdin && (config.stdin || config.terminal),
        from: "now",
    };
    let caught = (args.signals.sig_proxy && !config.terminal).then(Caught::new).transpose()?;
    let attached = attached::attach(client, &format!("/containers/{name}/attach?"), wanted).await?;
    let (_, runs) = watch::channel(true);
    let _passing =
        caught.map(|caught| caught.pass_on(client, &format!("/containers/{}", container.id), &runs));
    if !attached.stay(client).await?.with_process()? {
        return Ok(0);
    }
    let exit = end_of(client, &format!("/containers/{}/wait", container.id), Contact::Had).await?;
    Ok(status_of(&exit))
}

pub(super) fn runs(container: &Container) -> bool {
    matches!(container.state, State::Running | State::Paused)
}

/// How often a container that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// `console`: a container's terminal with what it has shown so far; waited for until it runs.
///
/// # Errors
/// When it is not there or has no terminal, or the connection breaks for long.
pub async fn console(client: &Client, name: &str) -> Result<u8, Failed> {
    let path = format!("/containers/{}", part(name));
    let mut container: Container = client.get(&path).await?;
    if !container.config.terminal {
        return Err(Failed {
            hint: Some(format!("croft attach {name}, or croft logs {name}")),
            ..Failed::from(format!("console of {name}: it has no terminal"))
        });
    }
    // It may be renamed meanwhile.
    let path = format!("/containers/{}", container.id);
    if !runs(&container) {
        eprintln!("croft: {name} does not run; its console is here when it starts, and control-c leaves");
    }
    while !runs(&container) {
        tokio::time::sleep(LOOK).await;
        container = patiently(Contact::Had, || client.get(&path)).await?;
    }
    let wanted = Wanted { terminal: true, stdin: true, from: "oldest" };
    let attached = attached::attach(client, &format!("{path}/attach?"), wanted).await?;
    attached.stay(client).await?.with_process()?;
    Ok(0)
}

/// `wait`: prints the statuses.
///
/// # Errors
/// When one is not there.
pub async fn wait(client: &Client, names: &[String], shown: Shown) -> Result<u8, Failed> {
    for name in names {
        let exit = end_of(client, &format!("/containers/{}/wait", part(name)), Contact::None).await?;
        let text = exit.status.map_or("unknown".to_owned(), |status| status.to_string());
        shown.each(&serde_json::json!({ "name": name, "exit": exit }), &text);
    }
    Ok(0)
}

/// `ps`.
///
/// # Errors
/// When croftd does not answer.
pub async fn list(client: &Client, args: &PsArgs, shown: Shown) -> Result<u8, Failed> {
    // Who asks for a state, or for the newest, means those too that do not run.
    let by_state = args.filter.iter().any(|filter| matches!(filter, Filter::Status(_)));
    let all = args.all || args.last.is_some() || by_state;
    let mut containers: Vec<Container> = client.get(&format!("/containers?all={all}")).await?;
    filter::keep(&mut containers, &args.filter);
    if let Some(last) = args.last {
        containers.drain(..containers.len().saturating_sub(last));
    }
    if shown.quiet {
        containers.iter().for_each(|container| output::line(&container.id));
        return Ok(0);
    }
    let head = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "ADDRESSES", "PORTS", "NAME"];
    output::list(shown.format, &containers, &head, |container| {
        vec![
            if args.no_trunc { container.id.clone() } else { output::short(&container.id) },
            container.config.image.clone(),
            command(container, args.no_trunc),
            container.created.chars().take(19).collect(),
            status(container),
            addresses(container),
            ports(&container.config.publish),
            container.name.clone(),
        ]
    });
    Ok(0)
}

/// Without the lengths of their ranges: what one would type.
fn addresses(container: &Container) -> String {
    let plain = |address: &String| address.split('/').next().unwrap_or_default().to_owned();
    container.addresses.iter().map(plain).collect::<Vec<_>>().join(" ")
}

/// As Docker has it: `0.0.0.0:8080->80/tcp`.
fn ports(publish: &[Publish]) -> String {
    let port = |port: &Publish| {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let to = format!("{}->{}/{protocol}", port.host, port.container);
        match port.address {
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{to}"),
            Some(ip) => format!("{ip}:{to}"),
            None => to,
        }
    };
    publish.iter().map(port).collect::<Vec<_>>().join(", ")
}

/// How much of a command is printed.
const COMMAND_LENGTH: usize = 30;

fn command(container: &Container, full: bool) -> String {
    let text = container.config.command.join(" ");
    if full || text.chars().count() <= COMMAND_LENGTH {
        return text;
    }
    text.chars().take(COMMAND_LENGTH - 1).chain(['…']).collect()
}

fn status(container: &Container) -> String {
    match (container.state, &container.exit) {
        (State::Running, _) => {
            let health = container.health.as_ref().map(|health| format!(" ({})", health.state.word()));
            format!("running{}", health.unwrap_or_default())
        }
        (State::Paused, _) => "paused".to_owned(),
        (State::Created, _) => "created".to_owned(),
        (State::Stopped, Some(exit)) => {
            let status = exit.status.map_or("unknown".to_owned(), |status| status.to_string());
            format!("exited ({status}{})", if exit.oom { ", out of memory" } else { "" })
        }
        (State::Stopped, None) => "stopped".to_owned(),
    }
}

/// `inspect`: shows those that are there.
///
/// # Errors
/// When one is not there.
pub async fn inspect(client: &Client, names: &[String]) -> Result<u8, Failed> {
    let (mut all, mut failed) = (Vec::new(), None);
    for name in names {
        match client.get::<Container>(&format!("/containers/{}", part(name))).await {
            Ok(container) => all.push(container),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    output::json(&all);
    failed.map_or(Ok(0), |error| Err(error.into()))
}
