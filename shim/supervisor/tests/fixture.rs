//! What the tests share: a supervisor with a root of its own, its clients, and bundles on one root filesystem.
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use croft_harness::config::default_config;
use croft_harness::{Host, Subject, build, process, rootfs};
use croft_shim::client::Client;
use croft_shim::protocol::{Event, EventKind, Exit, Io, IoKind, Log, Reply, Request, State};
use serde_json::Value;
use tempfile::TempDir;

/// What may take long on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// This file has no tests; the suite wants every file listed.
pub const SUBJECT: Subject = Subject { name: "fixture", tests: &[], on_runc: &[] };

/// A supervisor under test.
pub struct Shim {
    folder: TempDir,
    limit: Duration,
    child: Child,
}

impl Shim {
    /// Starts one with an empty root.
    pub fn start(host: &Host) -> Result<Self> {
        Shim::start_with(host, 6 * LIMIT)
    }

    /// Starts one that gives croft-oci, and a start, so much time.
    pub fn start_with(host: &Host, limit: Duration) -> Result<Self> {
        Shim::start_telling(host, limit, Stdio::inherit())
    }

    /// Starts one that has its standard error there.
    pub fn start_telling(host: &Host, limit: Duration, stderr: Stdio) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("{}-", host.marker)).tempdir()?;
        rootfs::busybox(&folder.path().join("rootfs"))?;
        fs::create_dir(folder.path().join("logs"))?;
        symlink(&host.runtime, folder.path().join("croft-oci"))?;
        let child = spawn(folder.path(), limit, stderr)?;
        Ok(Self { folder, limit, child })
    }

    /// Starts another one on the same root, after the end of the first.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(self.folder.path(), self.limit, Stdio::inherit())?;
        Ok(())
    }

    /// Kills it, as a fault would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        ensure!(status.signal() == Some(9), "it had ended by itself: {status}");
        Ok(())
    }

    /// Tells it to end by SIGTERM, as a service manager does, and waits for that.
    pub fn end(&mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = process::wait(&mut self.child, LIMIT)?.context("it goes on after SIGTERM")?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    /// The name by which it runs croft-oci: a link.
    pub fn runtime(&self) -> PathBuf {
        self.folder.path().join("croft-oci")
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("shim.sock")
    }

    /// A folder for a test's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new connection.
    pub fn client(&self) -> Result<Client> {
        connect(&self.socket())
    }

    /// Writes a bundle whose container `id` runs a shell script on the shared root filesystem.
    pub fn bundle(&self, id: &str, script: &str, edit: impl FnOnce(&mut Value)) -> Result<PathBuf> {
        let bundle = self.folder.path().join("bundles").join(id);
        fs::create_dir_all(&bundle)?;
        let mut config = default_config(&["/bin/sh", "-c", script]);
        config["root"]["path"] = self.folder.path().join("rootfs").to_string_lossy().into_owned().into();
        config["linux"]["cgroupsPath"] = format!("/{}", self.name(id)).into();
        edit(&mut config);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(bundle)
    }

    /// A container's id on the host: it carries the run's marker, so that what is left can be found.
    pub fn name(&self, id: &str) -> String {
        let folder = self.folder.path().file_name().unwrap_or_default().to_string_lossy();
        format!("{folder}-{id}")
    }

    /// The request that makes container `id`, with pipes or a terminal and a log.
    pub fn create(&self, id: &str, script: &str, io: Io) -> Result<Request> {
        let terminal = io.kind == IoKind::Terminal;
        let bundle = self.bundle(id, script, |config| config["process"]["terminal"] = terminal.into())?;
        Ok(Request::Create { id: self.name(id), bundle, io, log: Some(Log::at(self.log(id))) })
    }

    /// The log of container `id`.
    pub fn log(&self, id: &str) -> PathBuf {
        self.folder.path().join("logs").join(id)
    }

    /// What was logged of container `id`: stream and text, as far as the file goes.
    pub fn logged(&self, id: &str) -> Result<Vec<(String, String)>> {
        entries(&self.log(id))
    }

    /// Stops it, which nothing may hinder.
    pub fn stop(self) -> Result<()> {
        self.client()?.done(Request::Stop)?;
        self.ended()
    }

    /// Looks that it, told to stop, ends with 0 and leaves nothing.
    pub fn ended(mut self) -> Result<()> {
        let status = process::wait(&mut self.child, LIMIT)?.context("it goes on after Stop")?;
        ensure!(status.success(), "{status}");
        ensure!(!self.socket().exists(), "its socket is left");
        let left: Vec<_> = fs::read_dir(self.folder.path().join("root/containers"))?.flatten().collect();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    }
}

impl Drop for Shim {
    /// Best effort: a test that failed has said what went wrong. The suite kills what is left.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.remove_all();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Shim {
    /// Removes every container by force, then stops the supervisor.
    fn remove_all(&mut self) -> Result<()> {
        let mut client = self.client()?;
        for state in list(&mut client)? {
            if state.exec.is_none() {
                client.done(Request::Delete { id: state.id, exec: None, force: true })?;
            }
        }
        client.done(Request::Stop)?;
        process::wait(&mut self.child, LIMIT)?;
        Ok(())
    }
}

fn spawn(folder: &Path, limit: Duration, stderr: Stdio) -> Result<Child> {
    let mut command = Command::new(build::croft_shim_path()?);
    command.arg("--root").arg(folder.join("root")).arg("--socket").arg(folder.join("shim.sock"));
    command.arg("--runtime").arg(folder.join("croft-oci")).arg("--runtime-root").arg(folder.join("oci"));
    command.arg("--limit").arg(limit.as_secs().to_string());
    Ok(command.stdin(Stdio::null()).stderr(stderr).spawn()?)
}

/// Connects, as soon as the supervisor listens.
pub fn connect(socket: &Path) -> Result<Client> {
    let end = Instant::now() + LIMIT;
    loop {
        match Client::connect(socket) {
            Ok(mut client) => {
                // A supervisor that never answers fails the test, and does not hold it up.
                client.set_limit(3 * LIMIT);
                return Ok(client);
            }
            Err(error) if Instant::now() > end => return Err(error).context("connect to the supervisor"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Everything that the supervisor looks after.
pub fn list(client: &mut Client) -> Result<Vec<State>> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        match client.call(Request::List { after }, &[])?.0 {
            Reply::List { processes, more } => {
                all.extend(processes);
                let last = all.last().map(|state: &State| (state.id.clone(), state.exec.clone()));
                if !more {
                    return Ok(all);
                }
                after = last;
            }
            other => bail!("{other:?}"),
        }
    }
}

/// Creates and starts a container.
pub fn run(client: &mut Client, create: Request) -> Result<i32> {
    let id = match &create {
        Request::Create { id, .. } => id.clone(),
        other => bail!("{other:?}"),
    };
    let pid = match client.call(create, &[])?.0 {
        Reply::Running { pid } => pid,
        other => bail!("{other:?}"),
    };
    client.done(Request::Start { id })?;
    Ok(pid)
}

/// Waits for the end of a process.
pub fn wait(client: &mut Client, id: &str, exec: Option<&str>) -> Result<Exit> {
    match client.call(Request::Wait { id: id.into(), exec: exec.map(str::to_owned) }, &[])?.0 {
        Reply::Exited(exit) => Ok(exit),
        other => bail!("{other:?}"),
    }
}

/// The events up to the one that `last` recognises.
pub fn events_until(client: &mut Client, last: impl Fn(&Event) -> bool) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    loop {
        let event = client.next_event(LIMIT)?;
        let event = event.with_context(|| format!("the event does not come; so far: {events:?}"))?;
        let is_last = last(&event);
        events.push(event);
        if is_last {
            return Ok(events);
        }
    }
}

/// Whether an event is the end of a process.
pub fn is_exit(event: &Event) -> bool {
    matches!(event.kind, EventKind::Exited(_))
}

/// The entries of a log: stream and text.
pub fn entries(path: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let entries = text.lines().map(|line| {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("log line {line:?}"))?;
        let field =
            |name: &str| entry[name].as_str().map(str::to_owned).with_context(|| format!("{name}: {line}"));
        Ok((field("stream")?, field("log")?))
    });
    entries.collect()
}

/// What stands in a log, of both streams.
pub fn text(entries: &[(String, String)]) -> String {
    entries.iter().map(|(_, text)| text.as_str()).collect()
}
