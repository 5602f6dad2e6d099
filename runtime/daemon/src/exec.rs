//! Further processes in a container, and the streams of all of them.

use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use croft_api::container::{Exec, Exit};
use croft_api::problem::{Kind, Problem};
use croft_shim::client::Stream;
use croft_shim::frames::Frame;
use croft_shim::protocol::{From, Io, IoKind, Reply, Request, WhenFull};
use serde_json::{Value, json};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::daemon::Shared;
use crate::records::Record;
use crate::supervise::problem;
use crate::{clock, names, spec, users};

/// Bytes of output that a process may be ahead of who is attached.
const RING: u32 = 64 << 10;

/// Runs a further process in a running container. Gives its id.
///
/// # Errors
/// When what is asked makes no sense, or the program cannot be run.
pub async fn start(shared: &Shared, record: &Record, title: &str, asked: &Exec) -> Result<String, Problem> {
    let exec = names::id()[..16].to_owned();
    let kind = match (asked.terminal, asked.detach) {
        (true, _) => IoKind::Terminal,
        (false, true) => IoKind::Null,
        (false, false) => IoKind::Pipes { stdin: asked.stdin },
    };
    // Whoever asked attaches next, and misses nothing.
    let when_full = WhenFull::WaitForClient { promised: !asked.detach };
    run(shared, record, title, asked, &exec, Io { kind, ring: RING, when_full }).await?;
    Ok(exec)
}

/// Runs a further process with this id and these streams.
///
/// # Errors
/// As [`start`]; [`Kind::Conflict`] when there is one with the id.
pub async fn run(
    shared: &Shared,
    record: &Record,
    title: &str,
    asked: &Exec,
    exec: &str,
    io: Io,
) -> Result<(), Problem> {
    let bundle = shared.run_folder(&record.id);
    let process = process(&bundle, &record.config.groups, asked);
    let process = process.map_err(|why| Problem::new(Kind::Invalid, title, why))?;
    let file = memory_file(&process).map_err(|e| Problem::new(Kind::Internal, title, e.to_string()))?;
    let request = Request::Exec { id: record.id.clone(), exec: exec.to_owned(), io, log: None };
    let done = shared.shim.ask_with(request, vec![file]).await;
    done.map(drop).map_err(|failure| problem(title, &failure))
}

/// `process` of the container's own configuration, changed to what is asked. As with Docker, the groups that were added to the
/// container's process are those of any other user too.
fn process(bundle: &Path, groups: &[String], asked: &Exec) -> Result<Value, String> {
    if asked.command.is_empty() {
        return Err("no command".to_owned());
    }
    let text = std::fs::read(bundle.join("config.json")).map_err(|e| format!("its configuration: {e}"))?;
    let config: Value = serde_json::from_slice(&text).map_err(|e| format!("its configuration: {e}"))?;
    let mut process = config["process"].clone();
    process["args"] = json!(asked.command);
    process["terminal"] = json!(asked.terminal);
    if let Some(workdir) = &asked.workdir {
        process["cwd"] = json!(workdir);
    }
    if let Some(user) = &asked.user {
        let rootfs = Path::new(config["root"]["path"].as_str().unwrap_or_default());
        let mut user = users::find(rootfs, user)?;
        user.additional.extend(users::groups(rootfs, groups)?);
        spec::run_as(&mut process, &user);
    }
    let env: Vec<String> = serde_json::from_value(process["env"].clone()).map_err(|e| e.to_string())?;
    let variables = spec::terminal_type(asked.terminal).into_iter().chain(asked.env.iter().cloned());
    process["env"] = json!(spec::set_variables(env, variables).map_err(|e| e.to_string())?);
    Ok(process)
}

fn memory_file(process: &Value) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(c"process", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(process.to_string().as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// Attaches to the streams of a process, from where they are wanted. Gives the number of the next byte of input, too.
///
/// # Errors
/// When it is not there.
pub async fn attach(
    shared: &Shared,
    title: &str,
    container: &str,
    exec: Option<String>,
    [stdout, stderr]: [Option<From>; 2],
) -> Result<(Stream, u64), Problem> {
    let request = Request::Attach { id: container.to_owned(), exec, stdout, stderr };
    match shared.shim.ask_with(request, Vec::new()).await {
        Ok((Reply::Attached { input }, fds)) => fds
            .into_iter()
            .next()
            .map(|fd| (Stream::new(fd), input))
            .ok_or_else(|| Problem::new(Kind::Internal, title, "the supervisor sent no descriptor")),
        Ok((other, _)) => {
            Err(Problem::new(Kind::Internal, title, format!("the supervisor answers {other:?}")))
        }
        Err(failure) => Err(problem(title, &failure)),
    }
}

/// From where a stream is wanted: `oldest`, `now` or a number.
///
/// # Errors
/// [`Kind::Invalid`].
pub fn from(title: &str, text: Option<String>) -> Result<Option<From>, Problem> {
    text.map(|text| match text.as_str() {
        "oldest" => Ok(From::Oldest),
        "now" => Ok(From::Now),
        number => number.parse().map(From::At).map_err(|_| {
            Problem::new(
                Kind::Invalid,
                title,
                format!("{number:?} is none of oldest, now and a byte's number"),
            )
        }),
    })
    .transpose()
}

/// How long it is known how a further process ended: who waits for that may have been cut off.
const REMEMBERED: Duration = croft_shim::protocol::PATIENCE;

/// Has the supervisor forget a further process that has ended, after a while.
pub fn forget_later(shared: Arc<Shared>, id: String, exec: String) {
    tokio::spawn(async move {
        tokio::time::sleep(REMEMBERED).await;
        // It may have gone with its container.
        let _ = shared.shim.ask(Request::Delete { id, exec: Some(exec), force: false }).await;
    });
}

/// Waits for the end of a further process.
///
/// # Errors
/// When it is not there.
pub async fn wait(shared: &Shared, container: &str, exec: String) -> Result<Exit, Problem> {
    let title = format!("wait for {exec}");
    let request = Request::Wait { id: container.to_owned(), exec: Some(exec) };
    let exit = match shared.shim.ask(request).await {
        Ok(Reply::Exited(exit)) => exit,
        Ok(other) => {
            return Err(Problem::new(Kind::Internal, title, format!("the supervisor answers {other:?}")));
        }
        Err(failure) => return Err(problem(&title, &failure)),
    };
    Ok(Exit { status: exit.status, at: clock::at(exit.at), oom: exit.oom })
}

/// Reads what a process has printed, on both its streams, until their ends.
///
/// # Errors
/// When the connection breaks.
pub async fn output(stream: Stream, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let mut stream = asynchronous(stream)?;
    let mut open = 2;
    while open > 0 {
        let mut ready = stream.readable_mut().await?;
        let received = ready.try_io(|stream| {
            match stream.get_mut().receive()? {
                Some(Frame::Data { bytes: more, .. }) => bytes.extend_from_slice(&more),
                Some(Frame::End { .. }) => open -= 1,
                Some(_) => {}
                None => open = 0,
            }
            Ok(())
        });
        // Not ready after all is no end.
        received.unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// A stream that waits in the runtime.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe, and a stream keeps its descriptor for as long as it lives"
)]
fn asynchronous(stream: Stream) -> std::io::Result<AsyncFd<Stream>> {
    stream.set_non_blocking()?;
    AsyncFd::new(stream)
}

/// Passes frames on between the supervisor and a client until one of them has gone. The client is told first that its input begins at `input`.
///
/// Each way is passed on by itself: with one after the other, a client that sends much before it reads would hold up what it waits for.
///
/// # Errors
/// When a connection breaks.
pub async fn relay(
    stream: Stream,
    input: u64,
    client: impl AsyncRead + AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let (own, other) = (asynchronous(stream.try_clone()?)?, asynchronous(stream)?);
    let (from, mut to) = tokio::io::split(client);
    croft_api::stream::write(&mut to, &croft_api::stream::Frame::InputTaken(input).encode()).await?;
    tokio::select! {
        done = pass_input(from, own) => done,
        done = pass_output(other, to) => done,
    }
}

/// From a client to the supervisor, until the client has gone.
async fn pass_input(
    mut client: impl AsyncRead + Unpin,
    mut supervisor: AsyncFd<Stream>,
) -> std::io::Result<()> {
    while let Some(packet) = croft_api::stream::read(&mut client).await? {
        let frame = Frame::decode(&packet).map_err(std::io::Error::other)?;
        loop {
            match supervisor.get_mut().send(&frame) {
                Ok(()) => break,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    supervisor.writable().await?.clear_ready();
                }
                // It has gone, but what it sent last may still be there to be read.
                Err(_) => std::future::pending().await,
            }
        }
    }
    // It was not cut off: the process need not wait for it. A full socket only means that the supervisor sees it go later.
    let _ = supervisor.get_mut().send(&Frame::Leave);
    Ok(())
}

/// From the supervisor to a client, until the supervisor has gone.
async fn pass_output(
    mut supervisor: AsyncFd<Stream>,
    mut client: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut packet = Vec::new();
    loop {
        let mut ready = supervisor.readable_mut().await?;
        packet.clear();
        let Ok(received) = ready.try_io(|stream| {
            let frame = stream.get_mut().receive()?;
            frame.iter().for_each(|frame| frame.encode(&mut packet));
            Ok(frame.is_some())
        }) else {
            continue;
        };
        if !received? {
            return Ok(());
        }
        croft_api::stream::write(&mut client, &packet).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_process_is_like_the_first_but_for_what_is_asked() {
        let bundle = tempfile::tempdir().unwrap();
        let config = json!({"root": {"path": "/none"}, "process": {
            "args": ["web"], "cwd": "/srv", "env": ["A=1", "PATH=/bin"], "user": {"uid": 7, "gid": 7},
            "capabilities": {"bounding": ["CAP_CHOWN"], "effective": [], "permitted": []}}});
        std::fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        let asked = Exec {
            command: vec!["sh".into()],
            env: vec!["A=2".into()],
            user: Some("5:6".into()),
            terminal: true,
            ..Exec::default()
        };
        let process = |asked: &Exec| process(bundle.path(), &["4321".to_owned()], asked);
        let made = process(&asked).unwrap();
        assert_eq!(made["args"], json!(["sh"]));
        assert_eq!(made["env"], json!(["PATH=/bin", "TERM=xterm", "A=2"]));
        assert_eq!((&made["cwd"], &made["user"]["uid"]), (&json!("/srv"), &json!(5)));
        assert_eq!(made["user"]["additionalGids"], json!([4321]));
        assert_eq!(made["capabilities"]["effective"], json!([]));
        let root = process(&Exec { user: Some("0".into()), ..asked }).unwrap();
        assert_eq!(
            root["capabilities"]["effective"],
            json!(["CAP_CHOWN"]),
            "also where the container's is not root"
        );
        assert!(process(&Exec::default()).is_err());
    }

    /// croftd passes frames on as they are: both sides have to mean the same by them.
    #[test]
    fn the_supervisor_and_the_client_speak_of_the_same_frames() {
        use croft_api::stream::{Frame as Ours, Output as Which};
        use croft_shim::frames::Output;
        let pairs = [
            (
                Ours::Data { output: Which::Stderr, offset: 3, bytes: b"x".to_vec() },
                Frame::Data { output: Output::Stderr, offset: 3, bytes: b"x".into() },
            ),
            (
                Ours::Gap { output: Which::Stdout, offset: 3, lost: 9 },
                Frame::Gap { output: Output::Stdout, offset: 3, lost: 9 },
            ),
            (
                Ours::End { output: Which::Stdout, offset: 3 },
                Frame::End { output: Output::Stdout, offset: 3 },
            ),
            (Ours::Input { offset: 1, bytes: b"y".to_vec() }, Frame::Input { offset: 1, bytes: b"y".into() }),
            (Ours::EndInput(4), Frame::EndInput { offset: 4 }),
            (Ours::Leave, Frame::Leave),
            (
                Ours::Seen { output: Which::Stderr, offset: 5 },
                Frame::Seen { output: Output::Stderr, offset: 5 },
            ),
            (
                Ours::Resize { rows: 3, columns: 4 },
                Frame::Resize(croft_shim::protocol::Size { rows: 3, columns: 4 }),
            ),
        ];
        for (ours, theirs) in pairs {
            let mut packet = Vec::new();
            theirs.encode(&mut packet);
            assert_eq!(ours.encode(), packet);
        }
        assert_eq!(croft_api::stream::PAYLOAD_LIMIT, croft_shim::frames::PAYLOAD_LIMIT);
    }
}
