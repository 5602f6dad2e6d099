//! Clients that SIGKILL ends at any moment, as it may croftd: no byte is lost or repeated, no container, no status. And strangers.
use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use croft_harness::{Facility, Host, Subject, Test, process};
use croft_shim::client::Client;
use croft_shim::frames::{Frame, Output};
use croft_shim::protocol::{EventKind, From, Io, Reply, Request, Status};

use crate::fixture::{LIMIT, Shim, connect, events_until, list, run, wait};
use crate::streams::{LOSSLESS, attach, byte, bytes, exec};

const ROOT: &[Facility] = &[Facility::Root];

/// The word that makes this program a client.
pub const PART: &str = "--as-client";

pub const SUBJECT: Subject = Subject {
    name: "killed_clients",
    on_runc: &[],
    tests: &[
        Test { name: "no_byte_is_lost_or_repeated", requires: ROOT, run: no_byte_is_lost },
        Test { name: "no_container_and_no_status_is_lost", requires: ROOT, run: no_status_is_lost },
        Test { name: "another_user_is_not_let_in", requires: ROOT, run: another_user },
    ],
};

/// How often clients are killed: `CROFT_SHIM_KILLS`, or fewer in the usual run.
fn kills() -> u64 {
    std::env::var("CROFT_SHIM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// The client's program: what it is told to do, until it is done or killed.
pub fn client(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["echo", socket, id, file, total] => echo(Path::new(socket), id, Path::new(file), total),
        ["churn", socket, folder, prefix, first] => {
            churn(Path::new(socket), Path::new(folder), prefix, first)
        }
        ["knock", socket] => Client::connect(Path::new(socket)).map(drop).map_err(anyhow::Error::from),
        _ => Err(anyhow::anyhow!("{words:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn spawn(words: &[&str]) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    Ok(command.arg(PART).args(words).stdin(Stdio::null()).spawn()?)
}

/// Kills a client, which must not have found anything wrong before.
fn kill(mut child: Child) -> Result<()> {
    child.kill()?;
    let status = child.wait()?;
    ensure!(status.code().is_none(), "the client ended by itself: {status}");
    Ok(())
}

/// Sends numbered bytes and appends what comes back to a file, whose length is all that is known after a kill.
fn echo(socket: &Path, id: &str, file: &Path, total: &str) -> Result<()> {
    let total: u64 = total.parse()?;
    let mut file = OpenOptions::new().append(true).create(true).open(file)?;
    let mut have = file.metadata()?.len();
    let mut client = connect(socket)?;
    let (mut stream, input) = attach(&mut client, id, Some("x"), From::At(have))?;
    let (mut sent, mut taken) = (input, input);
    while have < total {
        while sent < total.min(taken + 8_000) {
            let piece = bytes(sent, 900.min((total - sent) as usize));
            stream.send(&Frame::Input { offset: sent, bytes: Cow::Borrowed(&piece) })?;
            sent += piece.len() as u64;
        }
        let seen = match stream.receive()?.context("the supervisor has gone")? {
            Frame::Data { output: Output::Stdout, offset, bytes } => {
                ensure!(offset == have, "byte {offset} instead of {have}");
                file.write_all(&bytes)?;
                offset + bytes.len() as u64
            }
            Frame::InputTaken { offset } => {
                taken = offset;
                continue;
            }
            other => bail!("{other:?}"),
        };
        have = seen;
        stream.send(&Frame::Seen { output: Output::Stdout, offset: have })?;
    }
    Ok(())
}

fn no_byte_is_lost(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    run(&mut client, shim.create("a", "sleep 1000", Io::NULL)?)?;
    exec(&mut client, &id, "x", "cat", LOSSLESS)?;
    let (socket, file) = (shim.socket(), shim.folder().join("received"));
    let (socket, file) = (socket.to_string_lossy(), file.to_string_lossy());
    for round in 0..kills() {
        let child = spawn(&["echo", &socket, &id, &file, &u64::MAX.to_string()])?;
        // Any moment will do, also the one before it has connected.
        std::thread::sleep(Duration::from_micros(1_000 + round * 977 % 8_000));
        kill(child)?;
    }
    let (_, input) = attach(&mut client, &id, Some("x"), From::Oldest)?;
    let total = input + 100_000;
    let mut last = spawn(&["echo", &socket, &id, &file, &total.to_string()])?;
    let status = process::wait(&mut last, LIMIT)?.context("the last client does not end")?;
    ensure!(status.success(), "{status}");
    let received = fs::read(&*file)?;
    let wrong = (0..).zip(&received).find(|(number, b)| **b != byte(*number));
    ensure!(wrong.is_none() && received.len() as u64 == total, "{wrong:?}, {} of {total}", received.len());
    ensure!(input > kills() * 100, "only {input} bytes went through: the clients were killed too early");
    client.done(Request::Delete { id, exec: None, force: true })?;
    shim.stop()
}

/// Makes and starts containers from number `first` on: each ends with its own number, modulo 200.
fn churn(socket: &Path, folder: &Path, prefix: &str, first: &str) -> Result<()> {
    let mut client = connect(socket)?;
    for number in first.parse::<u32>()?.. {
        let bundle = folder.join("bundles").join(format!("status{}", number % 200));
        let create = Request::Create { id: format!("{prefix}{number}"), bundle, io: Io::PIPES, log: None };
        run(&mut client, create)?;
    }
    Ok(())
}

/// The number of container `id` of [`churn`].
fn number(id: &str) -> Result<u32> {
    Ok(id.rsplit('-').next().unwrap_or_default().parse()?)
}

fn no_status_is_lost(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    for status in 0..200 {
        shim.bundle(&format!("status{status}"), &format!("exit {status}"), |config| {
            // Each container of the many has a group of its own by default.
            if let Some(linux) = config["linux"].as_object_mut() {
                linux.remove("cgroupsPath");
            }
        })?;
    }
    let (socket, folder, prefix) = (shim.socket(), shim.folder().to_owned(), shim.name(""));
    let mut first = 0;
    for round in 0..kills() / 10 {
        let words = [socket.to_string_lossy(), folder.to_string_lossy(), prefix.as_str().into()];
        let child = spawn(&["churn", &words[0], &words[1], &words[2], &first.to_string()])?;
        std::thread::sleep(Duration::from_millis(20 + round * 37 % 80));
        kill(child)?;
        let mut client = shim.client()?;
        let last = list(&mut client)?
            .iter()
            .map(|state| number(&state.id))
            .max_by_key(|n| *n.as_ref().unwrap_or(&0));
        first = last.transpose()?.map_or(0, |last| last + 1);
        remove_ended(&mut client)?;
        // What a client had asked for when it was killed may come into being after this look.
        first += 1;
    }
    let mut client = shim.client()?;
    // A client that was killed between the two calls leaves a container that nobody has started.
    let end = std::time::Instant::now() + LIMIT;
    while !list(&mut client)?.is_empty() {
        for state in list(&mut client)? {
            if state.status == Status::Created {
                match client.done(Request::Start { id: state.id }) {
                    Ok(()) | Err(croft_shim::client::Error::Failed(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        remove_ended(&mut client)?;
        ensure!(std::time::Instant::now() < end, "{:?}", list(&mut client)?);
    }
    let reply = client.call(Request::Events { since: 0 }, &[])?.0;
    let last = client.last_event;
    let Reply::Subscribed { first: from } = reply else { bail!("{reply:?}") };
    // The last event has the highest number, whatever came after this connection was made.
    let events = events_until(&mut client, |event| {
        event.sequence >= last && matches!(event.kind, EventKind::Deleted)
    })?;
    ensure!(events.iter().map(|event| event.sequence).eq(from..from + events.len() as u64), "{events:?}");
    ensure!(first as u64 > kills() / 10, "only {first} containers were made");
    shim.stop()
}

/// Looks at the status of every container that has ended, and removes it.
fn remove_ended(client: &mut Client) -> Result<()> {
    for state in list(client)? {
        if state.status != Status::Running && state.status != Status::Stopped {
            continue;
        }
        let exit = wait(client, &state.id, None)?;
        let wanted = i32::try_from(number(&state.id)? % 200)?;
        ensure!(exit.status == Some(wanted), "{} ended with {exit:?}", state.id);
        match client.done(Request::Delete { id: state.id, exec: None, force: false }) {
            Ok(()) => {}
            // The start that a client had asked for is still under way.
            Err(croft_shim::client::Error::Failed(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn another_user(host: &Host) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let shim = Shim::start(host)?;
    shim.client()?;
    // The mode of the socket alone would keep it out: the supervisor looks itself.
    fs::set_permissions(shim.socket(), fs::Permissions::from_mode(0o666))?;
    fs::set_permissions(shim.folder(), fs::Permissions::from_mode(0o755))?;
    let program = shim.folder().join("client");
    fs::copy("/proc/self/exe", &program)?;
    let mut command = Command::new(&program);
    command.args([PART, "knock"]).arg(shim.socket());
    let root = process::run(&mut command, LIMIT)?;
    ensure!(root.code() == 0, "{root}");
    let stranger = process::run(command.uid(65534).gid(65534), LIMIT)?;
    ensure!(stranger.code() == 3 && stranger.stderr.contains("the connection"), "{stranger}");
    shim.stop()
}
