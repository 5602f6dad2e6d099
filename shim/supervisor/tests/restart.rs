//! The supervisor dies, and the next one takes over: nothing stops, nothing is lost, nothing half made is left.
use std::borrow::Cow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::{Facility, Host, Subject, Test, process};
use croft_shim::frames::Frame;
use croft_shim::protocol::{EventKind, From, Io, IoKind, Request, Status};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::fixture::{LIMIT, Shim, events_until, is_exit, list, run, text, wait};
use crate::streams::{LOSSLESS, attach, bytes, exec};

const ROOT: &[Facility] = &[Facility::Root];

pub const SUBJECT: Subject = Subject {
    name: "restart",
    on_runc: &[],
    tests: &[
        Test { name: "what_runs_goes_on_and_so_does_its_log", requires: ROOT, run: what_runs_goes_on },
        Test { name: "statuses_from_the_time_between", requires: ROOT, run: statuses_from_the_time_between },
        Test { name: "a_terminal_is_not_hung_up", requires: ROOT, run: a_terminal_is_not_hung_up },
        Test { name: "bytes_go_on_at_their_numbers", requires: ROOT, run: bytes_go_on },
        Test { name: "what_was_half_made_is_taken_back", requires: ROOT, run: half_made },
        Test {
            name: "statuses_across_many_deaths_of_the_supervisor",
            requires: ROOT,
            run: statuses_across_deaths,
        },
        Test { name: "the_death_of_the_holder_is_made_good", requires: ROOT, run: holder_dies },
        Test { name: "told_to_end_it_leaves_what_runs", requires: ROOT, run: told_to_end },
    ],
};

/// Counts for ever, one number a line.
const COUNT: &str = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.005; done";

/// Waits until the log of `id` has more than `count` lines.
fn logged_more_than(shim: &Shim, id: &str, count: usize) -> Result<usize> {
    let end = Instant::now() + LIMIT;
    loop {
        let lines = shim.logged(id)?.len();
        if lines > count {
            return Ok(lines);
        }
        ensure!(Instant::now() < end, "the log of {id} stays at {lines} lines");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The numbers in the log follow each other.
fn has_no_gap(shim: &Shim, id: &str) -> Result<()> {
    let text = text(&shim.logged(id)?);
    for (place, line) in text.lines().enumerate() {
        ensure!(line.parse() == Ok(place), "line {place} is {line:?}");
    }
    Ok(())
}

fn what_runs_goes_on(host: &Host) -> Result<()> {
    let mut shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    let pid = run(&mut client, shim.create("a", COUNT, Io::PIPES)?)?;
    for _ in 0..5 {
        let lines = logged_more_than(&shim, "a", 0)?;
        logged_more_than(&shim, "a", lines + 5)?;
        shim.kill()?;
        shim.start_again()?;
        let mut client = shim.client()?;
        let states = list(&mut client)?;
        ensure!(
            states.len() == 1 && states[0].status == Status::Running && states[0].pid == Some(pid),
            "{states:?}"
        );
        let lines = shim.logged("a")?.len();
        logged_more_than(&shim, "a", lines + 5)?;
    }
    has_no_gap(&shim, "a")?;
    let mut client = shim.client()?;
    client.call(Request::Events { since: 0 }, &[])?;
    client.done(Request::Kill { id: id.clone(), exec: None, signal: 9, all: false })?;
    ensure!(wait(&mut client, &id, None)?.status == Some(137));
    let events = events_until(&mut client, is_exit)?;
    ensure!(events.iter().map(|event| event.sequence).eq(1..=3), "{events:?}");
    client.done(Request::Delete { id, exec: None, force: false })?;
    shim.stop()
}

/// Ends while no supervisor runs: one that its new parent has reaped, and one that it has not.
fn statuses_from_the_time_between(host: &Host) -> Result<()> {
    let mut shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let script = "trap 'exit 42' TERM; echo 0; while :; do sleep 0.01; done";
    let mut pids = Vec::new();
    for id in ["reaped", "zombie"] {
        let pid = run(&mut client, shim.create(id, script, Io::PIPES)?)?;
        pids.push(Pid::from_raw(pid).context("pid")?);
        logged_more_than(&shim, id, 0)?;
    }
    shim.kill()?;
    for pid in &pids {
        kill_process(*pid, Signal::TERM)?;
        ensure!(process::ends_within(*pid, LIMIT)?, "{pid:?} does not end");
    }
    let (_, status) = waitpid(Some(pids[0]), WaitOptions::empty())?.context("no status")?;
    ensure!(status.exit_status() == Some(42), "{status:?}");
    shim.start_again()?;
    let mut client = shim.client()?;
    let kernel = process::run(std::process::Command::new("uname").arg("-r"), LIMIT)?.stdout;
    for id in ["zombie", "reaped"] {
        let exit = wait(&mut client, &shim.name(id), None)?;
        // Before 6.15 the kernel does not tell what another has reaped.
        let told = id == "zombie" || Facility::Kernel(6, 15).missing(host).is_none();
        ensure!(exit.status == told.then_some(42), "{id} on {kernel}: {exit:?}");
        client.done(Request::Delete { id: shim.name(id), exec: None, force: false })?;
    }
    shim.stop()
}

fn a_terminal_is_not_hung_up(host: &Host) -> Result<()> {
    let mut shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    let script = "trap 'echo hung up; exit 1' HUP; stty -echo; echo ready; read x; echo got $x; exit 4";
    run(&mut client, shim.create("a", script, Io::TERMINAL)?)?;
    logged_more_than(&shim, "a", 0)?;
    shim.kill()?;
    shim.start_again()?;
    let mut client = shim.client()?;
    let (mut stream, input) = attach(&mut client, &id, None, From::Oldest)?;
    match stream.receive()?.context("gone")? {
        Frame::Data { offset: 0, bytes, .. } => ensure!(bytes.as_ref() == b"ready\r\n", "{bytes:?}"),
        other => anyhow::bail!("{other:?}"),
    }
    stream.send(&Frame::Input { offset: input, bytes: Cow::Borrowed(b"word\r") })?;
    ensure!(wait(&mut client, &id, None)?.status == Some(4));
    ensure!(text(&shim.logged("a")?) == "ready\r\ngot word\r\n", "{:?}", shim.logged("a")?);
    client.done(Request::Delete { id, exec: None, force: false })?;
    shim.stop()
}

/// A further process, its streams and the numbers on them outlive the supervisor.
fn bytes_go_on(host: &Host) -> Result<()> {
    let mut shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    run(&mut client, shim.create("a", "sleep 1000", Io::NULL)?)?;
    let pid = exec(&mut client, &id, "x", "cat; exit 6", LOSSLESS)?;
    let mut have = 0;
    for _ in 0..5 {
        let mut client = shim.client()?;
        let (mut stream, input) = attach(&mut client, &id, Some("x"), From::At(have))?;
        ensure!(input == have, "{input} {have}");
        let sent = bytes(input, 5_000);
        stream.send(&Frame::Input { offset: input, bytes: Cow::Borrowed(&sent) })?;
        let mut back = Vec::new();
        while back.len() < sent.len() {
            if let Frame::Data { offset, bytes, .. } = stream.receive()?.context("gone")? {
                ensure!(offset == have + back.len() as u64, "{offset}");
                back.extend_from_slice(&bytes);
            }
        }
        ensure!(back == sent);
        have += sent.len() as u64;
        shim.kill()?;
        shim.start_again()?;
    }
    let mut client = shim.client()?;
    client.done(Request::CloseStdin { id: id.clone(), exec: Some("x".into()) })?;
    ensure!(wait(&mut client, &id, Some("x"))?.status == Some(6));
    // Since the first supervisor's death it is this process's to reap; until then its pid namespace cannot end.
    waitpid(Pid::from_raw(pid), WaitOptions::empty())?;
    client.done(Request::Delete { id, exec: None, force: true })?;
    shim.stop()
}

/// A create whose hook takes for ever when the supervisor dies.
fn half_made(host: &Host) -> Result<()> {
    let mut shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    let mark = shim.folder().join("mark");
    let hook = format!("echo > {}; sleep 1000", mark.display());
    let bundle = shim.bundle("a", "true", |config| {
        let hook = serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", hook] }]);
        config["hooks"] = serde_json::json!({ "createRuntime": hook });
    })?;
    client.send(Request::Create { id: id.clone(), bundle, io: Io::PIPES, log: None }, &[])?;
    let end = Instant::now() + LIMIT;
    while !mark.exists() {
        ensure!(Instant::now() < end, "the hook does not run");
        std::thread::sleep(Duration::from_millis(5));
    }
    shim.kill()?;
    shim.start_again()?;
    let mut client = shim.client()?;
    client.call(Request::Events { since: 0 }, &[])?;
    let events = events_until(&mut client, |event| event.kind == EventKind::Deleted)?;
    ensure!(events.len() == 1, "{events:?}");
    ensure!(list(&mut client)?.is_empty());
    ensure!(!shim.folder().join("oci").join(&id).exists(), "croft-oci still knows it");
    // The name is free again.
    run(&mut client, shim.create("a", "exit 2", Io::NULL)?)?;
    ensure!(wait(&mut client, &id, None)?.status == Some(2));
    client.done(Request::Delete { id, exec: None, force: false })?;
    shim.stop()
}

/// Processes that end all the time while supervisors are killed one after the other.
fn statuses_across_deaths(host: &Host) -> Result<()> {
    let mut shim = Shim::start(host)?;
    let mut client = shim.client()?;
    for n in 0..40 {
        let script = format!("echo one; read x; sleep 0.{:02}; echo two; exit {n}", n * 2);
        let io = Io { kind: IoKind::Pipes { stdin: true }, ..Io::PIPES };
        run(&mut client, shim.create(&n.to_string(), &script, io)?)?;
    }
    for n in 0..40 {
        client.done(Request::CloseStdin { id: shim.name(&n.to_string()), exec: None })?;
    }
    for _ in 0..8 {
        shim.kill()?;
        shim.start_again()?;
        shim.client()?;
    }
    let mut client = shim.client()?;
    for n in 0..40 {
        let id = shim.name(&n.to_string());
        let exit = wait(&mut client, &id, None)?;
        ensure!(exit.status == Some(n), "{id}: {exit:?}");
        let logged = text(&shim.logged(&n.to_string())?);
        ensure!(logged == "one\ntwo\n", "{id}: {logged:?}");
    }
    client.call(Request::Events { since: 0 }, &[])?;
    let mut exits = 0;
    let events = events_until(&mut client, |event| event.sequence == 120)?;
    for event in &events {
        exits += u32::from(is_exit(event));
    }
    ensure!(exits == 40 && events.len() == 120, "{exits} ends in {} events", events.len());
    for n in 0..40 {
        client.done(Request::Delete { id: shim.name(&n.to_string()), exec: None, force: false })?;
    }
    shim.stop()
}

/// The holder of the supervisor: its child of that name.
fn holder(shim: &Shim, not: Option<Pid>) -> Result<Pid> {
    let end = Instant::now() + LIMIT;
    loop {
        let children = format!("/proc/{0}/task/{0}/children", shim.pid());
        for pid in std::fs::read_to_string(children)?.split_whitespace() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let pid = pid.parse().ok().and_then(Pid::from_raw);
            if name.trim() == "croft-holder" && pid != not {
                return pid.context("a pid");
            }
        }
        ensure!(Instant::now() < end, "it has no holder");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn holder_dies(host: &Host) -> Result<()> {
    let mut shim = Shim::start(host)?;
    let mut client = shim.client()?;
    run(&mut client, shim.create("a", COUNT, Io::PIPES)?)?;
    logged_more_than(&shim, "a", 0)?;
    let first = holder(&shim, None)?;
    kill_process(first, Signal::KILL)?;
    holder(&shim, Some(first))?;
    // Whatever the supervisor answers now comes after it has given everything to the new one.
    list(&mut client)?;
    shim.kill()?;
    shim.start_again()?;
    let mut client = shim.client()?;
    let lines = shim.logged("a")?.len();
    logged_more_than(&shim, "a", lines + 5)?;
    has_no_gap(&shim, "a")?;
    client.done(Request::Delete { id: shim.name("a"), exec: None, force: true })?;
    shim.stop()
}

fn told_to_end(host: &Host) -> Result<()> {
    let mut shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let pid = run(&mut client, shim.create("a", COUNT, Io::PIPES)?)?;
    logged_more_than(&shim, "a", 5)?;
    shim.end()?;
    shim.start_again()?;
    let mut client = shim.client()?;
    let states = list(&mut client)?;
    ensure!(states[0].status == Status::Running && states[0].pid == Some(pid), "{states:?}");
    let lines = shim.logged("a")?.len();
    logged_more_than(&shim, "a", lines + 5)?;
    has_no_gap(&shim, "a")?;
    client.done(Request::Delete { id: shim.name("a"), exec: None, force: true })?;
    shim.stop()
}
