//! Containers from create to delete: what is answered, told, logged, recorded and left.
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use croft_harness::{Facility, Host, Subject, Test, process};
use croft_shim::client::Error;
use croft_shim::protocol::{EventKind, FailureKind, Io, Packet, Reply, Request, Status};

use crate::fixture::{LIMIT, Shim, events_until, is_exit, list, run, text, wait};
use crate::streams::exec;

const ROOT: &[Facility] = &[Facility::Root];
const MEMORY: &[Facility] = &[Facility::Root, Facility::Controller("memory")];

pub const SUBJECT: Subject = Subject {
    name: "supervision",
    on_runc: &[],
    tests: &[
        Test { name: "a_container_from_create_to_delete", requires: ROOT, run: from_create_to_delete },
        Test { name: "refusals_leave_nothing", requires: ROOT, run: refusals_leave_nothing },
        Test { name: "signals_and_forced_deletion", requires: ROOT, run: signals_and_forced_deletion },
        Test { name: "events_are_sent_again", requires: ROOT, run: events_are_sent_again },
        Test { name: "a_signal_for_all_reaches_all", requires: ROOT, run: a_signal_for_all },
        Test { name: "a_create_that_hangs_is_broken_off", requires: ROOT, run: a_create_that_hangs },
        Test { name: "a_start_takes_no_croft_oci_but_for_hooks", requires: ROOT, run: a_start_by_the_gate },
        Test { name: "a_start_that_hangs_is_given_up", requires: ROOT, run: a_start_that_hangs },
        Test { name: "a_lack_of_memory_is_told", requires: MEMORY, run: a_lack_of_memory },
        Test { name: "a_full_log_of_its_own_ends_nothing", requires: ROOT, run: a_full_log },
        Test { name: "a_client_need_not_wait", requires: ROOT, run: a_client_need_not_wait },
        Test { name: "containers_are_born_among_few_mounts", requires: ROOT, run: born_among_few_mounts },
    ],
};

fn from_create_to_delete(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    client.call(Request::Events { since: 0 }, &[])?;
    let id = shim.name("a");
    let pid = run(&mut client, shim.create("a", "echo one; echo two >&2; exit 7", Io::PIPES)?)?;
    ensure!(pid > 0);
    let exit = wait(&mut client, &id, None)?;
    ensure!(exit.status == Some(7) && !exit.oom, "{exit:?}");
    // All that it wrote is there as soon as its end is known.
    let mut logged = shim.logged("a")?;
    logged.sort();
    ensure!(logged == [("stderr".into(), "two\n".into()), ("stdout".into(), "one\n".into())], "{logged:?}");
    match client.call(Request::State { id: id.clone(), exec: None }, &[])?.0 {
        Reply::State(state) => {
            ensure!(
                state.status == Status::Stopped && state.exit == Some(exit) && state.pid.is_none(),
                "{state:?}"
            );
        }
        other => anyhow::bail!("{other:?}"),
    }
    client.done(Request::Delete { id, exec: None, force: false })?;
    let events = events_until(&mut client, |event| event.kind == EventKind::Deleted)?;
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    let wanted = [EventKind::Created, EventKind::Started, EventKind::Exited(exit), EventKind::Deleted];
    ensure!(kinds == wanted && events.iter().map(|e| e.sequence).eq(1..=4), "{events:?}");
    ensure!(list(&mut client)?.is_empty());
    shim.stop()
}

fn a_full_log(host: &Host) -> Result<()> {
    // Every write to it fails as on a full file system.
    let full = std::fs::File::options().write(true).open("/dev/full")?;
    let shim = Shim::start_telling(host, 6 * LIMIT, full.into())?;
    let mut client = shim.client()?;
    run(&mut client, shim.create("a", "sleep 1000", Io::PIPES)?)?;
    // It complains of this, in vain.
    let other = croft_sys::socket::connect_packet(&shim.socket())?;
    ensure!(rustix::io::write(&other, b"no call")? == 7);
    ensure!(rustix::io::read(&other, &mut [0; 64]).is_ok_and(|count| count == 0), "it hangs up on that");
    let state = list(&mut client)?;
    ensure!(state.len() == 1 && state[0].status == Status::Running, "{state:?}");
    client.done(Request::Delete { id: shim.name("a"), exec: None, force: true })?;
    shim.stop()
}

fn refused(outcome: croft_shim::client::Result<()>, kind: FailureKind, word: &str) -> Result<()> {
    match outcome {
        Err(Error::Failed(failure)) if failure.kind == kind && failure.to_string().contains(word) => Ok(()),
        other => anyhow::bail!("expected {kind:?} with {word:?}: {other:?}"),
    }
}

fn refusals_leave_nothing(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let create = |id: &str, bundle: &str| Request::Create {
        id: id.into(),
        bundle: bundle.into(),
        io: Io::PIPES,
        log: None,
    };
    let mut call = |request: Request| client.call(request, &[]).map(drop);
    refused(call(create("../x", "/tmp")), FailureKind::Request, "only letters")?;
    refused(call(create("x", "relative")), FailureKind::Request, "absolute")?;
    refused(call(create("x", "/nowhere")), FailureKind::Runtime, "no such file")?;
    refused(call(Request::Start { id: "x".into() }), FailureKind::NotFound, "container x")?;
    let id = shim.name("a");
    let request = shim.create("a", "sleep 1000", Io::PIPES)?;
    call(request.clone())?;
    refused(call(request), FailureKind::Exists, "delete it first")?;
    call(Request::Start { id: id.clone() })?;
    refused(call(Request::Start { id: id.clone() }), FailureKind::State, "only a created one")?;
    let delete = |force| Request::Delete { id: id.clone(), exec: None, force };
    refused(call(delete(false)), FailureKind::State, "has not ended")?;
    refused(call(Request::Stop), FailureKind::State, "is left")?;
    call(delete(true))?;
    ensure!(list(&mut client)?.is_empty());
    shim.stop()
}

fn signals_and_forced_deletion(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    client.call(Request::Events { since: 0 }, &[])?;
    let script = "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.01; done";
    run(&mut client, shim.create("a", script, Io::PIPES)?)?;
    let ready = std::time::Instant::now();
    while !text(&shim.logged("a")?).contains("ready") {
        ensure!(ready.elapsed() < LIMIT, "it does not get ready");
    }
    let id = shim.name("a");
    client.done(Request::Kill { id: id.clone(), exec: None, signal: 10, all: false })?;
    ensure!(wait(&mut client, &id, None)?.status == Some(9));
    ensure!(text(&shim.logged("a")?) == "ready\ngot it\n");
    client.done(Request::Delete { id, exec: None, force: false })?;
    let id = shim.name("b");
    run(&mut client, shim.create("b", "sleep 1000", Io::NULL)?)?;
    client.done(Request::Delete { id: id.clone(), exec: None, force: true })?;
    let events = events_until(&mut client, |event| event.id == id && event.kind == EventKind::Deleted)?;
    let exit = events.iter().find(|event| event.id == id && is_exit(event)).map(|event| event.kind);
    ensure!(matches!(exit, Some(EventKind::Exited(exit)) if exit.status == Some(137)), "{events:?}");
    shim.stop()
}

/// A client that was away gets what it missed, once and in order.
fn events_are_sent_again(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    run(&mut client, shim.create("a", "exit 3", Io::NULL)?)?;
    wait(&mut client, &id, None)?;
    drop(client);
    let mut client = shim.client()?;
    ensure!(client.last_event == 3, "{}", client.last_event);
    let reply = client.call(Request::Events { since: 1 }, &[])?.0;
    ensure!(reply == Reply::Subscribed { first: 2 }, "{reply:?}");
    client.done(Request::Delete { id, exec: None, force: false })?;
    let events = events_until(&mut client, |event| event.kind == EventKind::Deleted)?;
    ensure!(events.iter().map(|event| event.sequence).eq(2..=4), "{events:?}");
    shim.stop()
}

fn a_signal_for_all(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    run(&mut client, shim.create("a", "sleep 1000", Io::NULL)?)?;
    exec(&mut client, &id, "x", "sleep 1000", Io::NULL)?;
    let mut kill = |exec: Option<&str>, all| {
        client.done(Request::Kill { id: id.clone(), exec: exec.map(str::to_owned), signal: 9, all })
    };
    refused(kill(Some("y"), false), FailureKind::NotFound, "process y")?;
    kill(None, true)?;
    for exec in [None, Some("x")] {
        ensure!(wait(&mut client, &id, exec)?.status == Some(137));
    }
    client.done(Request::Delete { id, exec: None, force: false })?;
    shim.stop()
}

/// Forced deletion does not wait for a hook that never ends, and its create is answered too.
fn a_create_that_hangs(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    let mark = shim.folder().join("mark");
    let hook = format!("grep ^SigBlk /proc/self/status > {}; exec sleep 1000", mark.display());
    let bundle = shim.bundle("a", "true", |config| {
        let hook = serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", hook] }]);
        config["hooks"] = serde_json::json!({ "createRuntime": hook });
    })?;
    let create = client.send(Request::Create { id: id.clone(), bundle, io: Io::PIPES, log: None }, &[])?;
    let begun = std::time::Instant::now();
    while !mark.exists() {
        ensure!(begun.elapsed() < LIMIT, "the hook does not run");
    }
    // A hook is born with no signal blocked, whatever the supervisor does with its own.
    let mut blocked = String::new();
    while !blocked.ends_with('\n') {
        blocked = std::fs::read_to_string(&mark)?;
        ensure!(begun.elapsed() < LIMIT, "the hook says nothing");
    }
    ensure!(blocked.trim().ends_with("\t0000000000000000"), "{blocked:?}");
    let mut other = shim.client()?;
    refused(other.done(Request::Start { id: id.clone() }), FailureKind::State, "under way")?;
    other.done(Request::Delete { id: id.clone(), exec: None, force: true })?;
    refused(client.reply(create).map(drop), FailureKind::Runtime, "signal 9")?;
    ensure!(list(&mut client)?.is_empty() && !shim.folder().join("oci").join(&id).exists());
    shim.stop()
}

fn a_start_by_the_gate(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    client.call(shim.create("a", "echo here", Io::PIPES)?, &[])?;
    let bundle = shim.bundle("b", "true", |config| {
        config["hooks"] = serde_json::json!({ "poststart": [{ "path": "/bin/true" }] });
    })?;
    client.call(Request::Create { id: shim.name("b"), bundle, io: Io::PIPES, log: None }, &[])?;
    let program = shim.folder().join("rootfs/no-program");
    std::fs::write(&program, "no program\n")?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let bundle =
        shim.bundle("c", "true", |config| config["process"]["args"] = serde_json::json!(["/no-program"]))?;
    client.call(Request::Create { id: shim.name("c"), bundle, io: Io::PIPES, log: None }, &[])?;
    std::fs::remove_file(shim.runtime())?;
    client.done(Request::Start { id: shim.name("a") })?;
    ensure!(wait(&mut client, &shim.name("a"), None)?.status == Some(0));
    ensure!(shim.logged("a")? == [("stdout".into(), "here\n".into())]);
    refused(client.done(Request::Start { id: shim.name("b") }), FailureKind::Supervisor, "run ")?;
    refused(client.done(Request::Start { id: shim.name("c") }), FailureKind::Runtime, "exec format error")?;
    std::os::unix::fs::symlink(&host.runtime, shim.runtime())?;
    client.done(Request::Start { id: shim.name("b") })?;
    for id in ["a", "b", "c"] {
        client.done(Request::Delete { id: shim.name(id), exec: None, force: true })?;
    }
    shim.stop()
}

/// It is answered, and others were not held up.
fn a_start_that_hangs(host: &Host) -> Result<()> {
    // Long enough for the creates on a busy machine.
    let shim = Shim::start_with(host, std::time::Duration::from_secs(3))?;
    let mut client = shim.client()?;
    let Reply::Running { pid } = client.call(shim.create("a", "exec sleep 1000", Io::PIPES)?, &[])?.0 else {
        anyhow::bail!("it is not created");
    };
    let pid = rustix::process::Pid::from_raw(pid).context("a pid is above 0")?;
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    let start = client.send(Request::Start { id: shim.name("a") }, &[])?;
    run(&mut shim.client()?, shim.create("b", "true", Io::PIPES)?)?;
    refused(client.reply(start).map(drop), FailureKind::Runtime, "did not begin within 3s")?;
    // It begins after all, and nobody sees it: whoever starts it is told that it runs.
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    let begun = std::time::Instant::now();
    let line = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    while !std::fs::read_to_string(&line)?.starts_with("sleep") {
        ensure!(begun.elapsed() < LIMIT, "it does not go on");
    }
    client.done(Request::Start { id: shim.name("a") })?;
    for id in ["a", "b"] {
        client.done(Request::Delete { id: shim.name(id), exec: None, force: true })?;
    }
    shim.stop()
}

fn a_lack_of_memory(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    for (id, script, oom) in [("a", "head -c 64m /dev/zero | tail -c 60m", true), ("b", "exit 137", false)] {
        let bundle = shim.bundle(id, script, |config| {
            config["linux"]["resources"]["memory"] =
                serde_json::json!({ "limit": 16 << 20, "swap": 16 << 20 });
        })?;
        run(&mut client, Request::Create { id: shim.name(id), bundle, io: Io::PIPES, log: None })?;
        let exit = wait(&mut client, &shim.name(id), None)?;
        ensure!(exit.oom == oom && exit.status == Some(137), "{id}: {exit:?}");
        client.done(Request::Delete { id: shim.name(id), exec: None, force: false })?;
    }
    shim.stop()
}

/// What an event loop does: it asks, goes on, and takes the answer when the descriptor is readable.
fn a_client_need_not_wait(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    client.set_non_blocking()?;
    let error = client.receive().err().map(|error| error.kind());
    ensure!(error == Some(std::io::ErrorKind::WouldBlock), "{error:?}");
    let numbers = [client.send(Request::List { after: None }, &[])?, client.send(Request::Stop, &[])?];
    for number in numbers {
        croft_sys::wait_readable(std::os::fd::AsFd::as_fd(&client))?;
        let (packet, _) = client.receive()?;
        ensure!(matches!(packet, Packet::Reply { number: n, .. } if n == number), "{packet:?}");
    }
    shim.ended()
}

/// A program of the shared root filesystem, run in the mount namespace `base`, where the host's procfs alone leads to it.
fn run_in(base: &Path, shim: &Shim, args: &[&str]) -> Result<String> {
    let busybox = shim.folder().join("rootfs/bin/busybox");
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount={}", base.display()));
    command.arg(format!("/proc/{}/root{}", std::process::id(), busybox.display())).args(args);
    Ok(process::run(&mut command, LIMIT)?.success()?.stdout)
}

/// A mount namespace with four mounts is all that there is to copy, however many the host has. Where its procfs is partly
/// hidden, the kernel lets no new user namespace have its own (user_namespaces(7)): this tells that they are born there.
fn born_among_few_mounts(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    ensure!(list(&mut client)?.is_empty());
    let files = std::fs::read_dir(format!("/proc/{}/fd", shim.pid()))?.flatten().map(|entry| entry.path());
    let is_mounts =
        |file: &PathBuf| file.read_link().is_ok_and(|to| to.to_string_lossy().starts_with("mnt:"));
    let base = files.into_iter().find(is_mounts).context("the supervisor holds no mount namespace")?;
    let table = run_in(&base, &shim, &["cat", "/proc/self/mountinfo"])?;
    let mut points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.sort_unstable();
    ensure!(points == ["/", "/dev/null", "/proc", "/sys"], "{table}");

    let mut create = |id: &str| {
        let bundle = shim.bundle(id, "exec sleep 1000", |config| {
            let map = serde_json::json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("the default has some");
            namespaces.push(serde_json::json!({ "type": "user" }));
        })?;
        let request = Request::Create { id: shim.name(id), bundle, io: Io::PIPES, log: None };
        anyhow::Ok(client.call(request, &[]).map(drop))
    };
    create("a")??;
    run_in(&base, &shim, &["mount", "-t", "tmpfs", "tmpfs", "/proc/sys"])?;
    refused(create("b")?, FailureKind::Runtime, "not permitted")?;
    run_in(&base, &shim, &["umount", "/proc/sys"])?;
    create("b")??;
    for id in ["a", "b"] {
        client.done(Request::Delete { id: shim.name(id), exec: None, force: true })?;
    }
    shim.stop()
}
