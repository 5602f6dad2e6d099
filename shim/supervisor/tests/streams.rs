//! Numbered bytes: consoles, pipes, further processes, clients that come back.
use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};
use croft_harness::{Facility, Host, Subject, Test};
use croft_shim::client::{Client, Stream};
use croft_shim::frames::{Frame, Output};
use croft_shim::protocol::{From, Io, IoKind, Request, Size, WhenFull};

use crate::fixture::{Shim, run, wait};

const ROOT: &[Facility] = &[Facility::Root];

pub const SUBJECT: Subject = Subject {
    name: "streams",
    on_runc: &[],
    tests: &[
        Test { name: "a_further_process_gets_its_input_and_its_end", requires: ROOT, run: further_process },
        Test { name: "console_before_the_start_and_after_the_end", requires: ROOT, run: console },
        Test { name: "a_deleted_process_gives_a_client_the_rest", requires: ROOT, run: the_rest },
        Test { name: "a_client_that_was_cut_off_is_waited_for", requires: ROOT, run: cut_off },
        Test { name: "nobody_waits_for_a_client_that_left", requires: ROOT, run: left },
        Test { name: "a_gap_is_told_with_its_size", requires: ROOT, run: gap },
        Test {
            name: "a_client_that_comes_back_misses_nothing_on_pipes",
            requires: ROOT,
            run: comes_back_on_pipes,
        },
        Test {
            name: "a_client_that_comes_back_misses_nothing_on_a_terminal",
            requires: ROOT,
            run: comes_back_on_tty,
        },
    ],
};

/// Pipes both ways that lose nothing.
pub const LOSSLESS: Io =
    Io { kind: IoKind::Pipes { stdin: true }, ring: 64 << 10, when_full: WhenFull::Wait };

/// The byte with this number of a stream without a period that could hide a shift.
pub fn byte(number: u64) -> u8 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Some of that stream.
pub fn bytes(from: u64, count: usize) -> Vec<u8> {
    (from..from + count as u64).map(byte).collect()
}

/// A request to run a further process in container `id`.
pub fn exec(client: &mut Client, id: &str, exec: &str, script: &str, io: Io) -> Result<i32> {
    let process = serde_json::json!({
        "args": ["/bin/sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0},
        "env": ["PATH=/bin:/usr/bin:/sbin"], "terminal": io.kind == IoKind::Terminal,
    });
    let request = Request::Exec { id: id.into(), exec: exec.into(), io, log: None };
    Ok(client.exec(request, &serde_json::to_vec(&process)?)?)
}

/// Attaches to everything from these places on.
pub fn attach(client: &mut Client, id: &str, exec: Option<&str>, from: From) -> Result<(Stream, u64)> {
    let (stdout, stderr) = (Some(from), Some(from));
    Ok(client.attach(Request::Attach { id: id.into(), exec: exec.map(str::to_owned), stdout, stderr })?)
}

/// Reads to the ends of `streams` streams: what came on each.
fn read_all(stream: &mut Stream, streams: usize) -> Result<[Vec<u8>; 2]> {
    let (mut got, mut ended) = ([Vec::new(), Vec::new()], 0);
    while ended < streams {
        match stream.receive()?.context("the supervisor has gone")? {
            Frame::Data { output, offset, bytes } => {
                ensure!(offset == got[output.index()].len() as u64, "at {offset}");
                got[output.index()].extend_from_slice(&bytes);
            }
            Frame::End { output, offset } => {
                ensure!(offset == got[output.index()].len() as u64, "the end at {offset}");
                ended += 1;
            }
            Frame::InputTaken { .. } | Frame::InputClosed { .. } => {}
            other => bail!("{other:?}"),
        }
    }
    Ok(got)
}

fn further_process(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    run(&mut client, shim.create("a", "sleep 1000", Io::NULL)?)?;
    exec(&mut client, &id, "x", "cat; echo problem >&2; exit 5", LOSSLESS)?;
    let (mut stream, input) = attach(&mut client, &id, Some("x"), From::Oldest)?;
    ensure!(input == 0);
    let text = bytes(0, 10_000);
    // The second frame repeats half of the first, the third all of it: only what is new counts.
    for (from, to) in [(0, 6_000), (3_000, 10_000), (0, 6_000)] {
        stream.send(&Frame::Input { offset: from, bytes: Cow::Borrowed(&text[from as usize..to]) })?;
    }
    stream.send(&Frame::EndInput { offset: 10_000 })?;
    let [out, err] = read_all(&mut stream, 2)?;
    ensure!(out == text && err == b"problem\n", "{} bytes, {:?}", out.len(), String::from_utf8_lossy(&err));
    ensure!(wait(&mut client, &id, Some("x"))?.status == Some(5));
    client.done(Request::Delete { id: id.clone(), exec: Some("x".into()), force: false })?;
    // A process that ends at once is no worse than one that stays.
    for n in 0..20 {
        let name = format!("short{n}");
        exec(&mut client, &id, &name, &format!("exit {n}"), Io::NULL)?;
        ensure!(wait(&mut client, &id, Some(&name))?.status == Some(n));
    }
    exec(&mut client, &id, "long", "sleep 1000", Io::PIPES)?;
    client.done(Request::Delete { id: id.clone(), exec: Some("long".into()), force: true })?;
    client.done(Request::Delete { id, exec: None, force: true })?;
    shim.stop()
}

/// Pipes for a client that is to come.
const PROMISED: Io = Io {
    kind: IoKind::Pipes { stdin: false },
    ring: 4096,
    when_full: WhenFull::WaitForClient { promised: true },
};

/// Reads to the ends of both streams, byte by byte from `from` on, saying what has been seen.
fn read_on(stream: &mut Stream, from: u64) -> Result<u64> {
    let (mut next, mut ended) = (from, 0);
    while ended < 2 {
        match stream.receive()?.context("the supervisor has gone")? {
            Frame::Data { output: Output::Stdout, offset, bytes } => {
                ensure!(offset == next, "byte {offset} instead of {next}");
                next += bytes.len() as u64;
                stream.send(&Frame::Seen { output: Output::Stdout, offset: next })?;
            }
            Frame::End { .. } => ended += 1,
            Frame::InputClosed { .. } => {}
            other => bail!("{other:?}"),
        }
    }
    Ok(next)
}

/// More than the ring keeps, and less than that and a pipe: the process ends before anybody has read it.
const A_PIPEFUL: u64 = 60_000;

fn the_rest(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    let script = format!("head -c {A_PIPEFUL} /dev/zero; exit 4");
    client.call(shim.create("a", &script, PROMISED)?, &[])?;
    let (mut stream, _) = attach(&mut client, &id, None, From::Oldest)?;
    client.done(Request::Start { id: id.clone() })?;
    ensure!(wait(&mut client, &id, None)?.status == Some(4));
    client.done(Request::Delete { id: id.clone(), exec: None, force: false })?;
    // Its name is free, and another of the same name is not mixed up with it.
    run(&mut client, shim.create("a", "echo other; sleep 1000", Io::PIPES)?)?;
    ensure!(read_on(&mut stream, 0)? == A_PIPEFUL);
    drop(stream);
    client.done(Request::Delete { id, exec: None, force: true })?;
    shim.stop()
}

/// More than ring, pipe and socket take: without somebody who reads, the process waits.
const MUCH: u64 = 1_000_000;

fn cut_off(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    run(&mut client, shim.create("a", &format!("head -c {MUCH} /dev/zero"), PROMISED)?)?;
    let mut have = 0;
    for _ in 0..50 {
        let mut other = shim.client()?;
        let (mut stream, _) = attach(&mut other, &id, None, From::At(have))?;
        loop {
            match stream.receive()?.context("the supervisor has gone")? {
                Frame::Data { output: Output::Stdout, offset, bytes } if offset == have => {
                    break have += bytes.len() as u64;
                }
                Frame::InputClosed { .. } => {}
                other => bail!("{other:?} instead of byte {have}"),
            }
        }
    }
    let (mut stream, _) = attach(&mut client, &id, None, From::At(have))?;
    ensure!(read_on(&mut stream, have)? == MUCH);
    ensure!(wait(&mut client, &id, None)?.status == Some(0));
    client.done(Request::Delete { id, exec: None, force: false })?;
    shim.stop()
}

fn left(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    run(&mut client, shim.create("a", &format!("head -c {MUCH} /dev/zero; exit 6"), PROMISED)?)?;
    let (mut stream, _) = attach(&mut client, &id, None, From::Oldest)?;
    stream.send(&Frame::Leave)?;
    let begun = std::time::Instant::now();
    ensure!(wait(&mut client, &id, None)?.status == Some(6));
    ensure!(begun.elapsed() < croft_shim::protocol::PATIENCE / 2, "it was waited for");
    client.done(Request::Delete { id, exec: None, force: false })?;
    shim.stop()
}

fn console(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    client.call(shim.create("a", "stty size -echo; read x; echo got $x; exit 3", Io::TERMINAL)?, &[])?;
    let size = Size { rows: 33, columns: 101 };
    client.done(Request::Resize { id: id.clone(), exec: None, size })?;
    let (mut stream, _) = attach(&mut client, &id, None, From::Oldest)?;
    client.done(Request::Start { id: id.clone() })?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"33 101\r\n") {
        if let Frame::Data { bytes, .. } = stream.receive()?.context("gone")? {
            seen.extend_from_slice(&bytes);
        }
    }
    stream.send(&Frame::Input { offset: 0, bytes: Cow::Borrowed(b"word\r") })?;
    ensure!(wait(&mut client, &id, None)?.status == Some(3));
    let (mut after, input) = attach(&mut client, &id, None, From::Oldest)?;
    let [shown, _] = read_all(&mut after, 1)?;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    ensure!(
        shown.starts_with("33 101\r\n") && shown.ends_with("got word\r\n") && input == 5,
        "{shown:?} {input}"
    );
    client.done(Request::Delete { id, exec: None, force: false })?;
    shim.stop()
}

fn gap(host: &Host) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    let io = Io { ring: 4096, ..Io::PIPES };
    run(&mut client, shim.create("a", "head -c 100000 /dev/zero | tr '\\0' x; printf end", io)?)?;
    wait(&mut client, &id, None)?;
    let (mut stream, _) = attach(&mut client, &id, None, From::At(1000))?;
    let lost = 100_003 - 4096 - 1000;
    let first = stream.receive()?.context("gone")?;
    ensure!(first == Frame::Gap { output: Output::Stdout, offset: 1000, lost }, "{first:?}");
    match stream.receive()?.context("gone")? {
        Frame::Data { output: Output::Stdout, offset, bytes } => {
            ensure!(offset == 1000 + lost && bytes.len() == 4096 && bytes.ends_with(b"xend"));
        }
        other => bail!("{other:?}"),
    }
    client.done(Request::Delete { id, exec: None, force: false })?;
    shim.stop()
}

fn comes_back_on_pipes(host: &Host) -> Result<()> {
    comes_back(host, "cat", LOSSLESS)
}

fn comes_back_on_tty(host: &Host) -> Result<()> {
    comes_back(host, "stty raw -echo; echo; exec cat", Io { kind: IoKind::Terminal, ..LOSSLESS })
}

/// How often connections are cut: `CROFT_SHIM_RECONNECTS`, or fewer in the usual run.
fn reconnects() -> u64 {
    std::env::var("CROFT_SHIM_RECONNECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// What is sent to `cat` comes back byte for byte although the connection is cut again and again, at any place.
fn comes_back(host: &Host, script: &str, io: Io) -> Result<()> {
    let shim = Shim::start(host)?;
    let mut client = shim.client()?;
    let id = shim.name("a");
    run(&mut client, shim.create("a", "sleep 1000", Io::NULL)?)?;
    exec(&mut client, &id, "x", script, io)?;
    // A terminal says when it is raw.
    let echo = u64::from(io.kind == IoKind::Terminal);
    let mut have = 0;
    if echo > 0 {
        let (mut stream, _) = attach(&mut client, &id, Some("x"), From::Oldest)?;
        while have < echo {
            if let Frame::Data { bytes, .. } = stream.receive()?.context("gone")? {
                have += bytes.len() as u64;
            }
        }
        ensure!(have == echo, "{have}");
    }
    let rounds = reconnects();
    for round in 0..rounds {
        let mut client = shim.client()?;
        let (mut stream, input) = attach(&mut client, &id, Some("x"), From::At(have))?;
        ensure!(input >= have - echo, "{input} {have}");
        // A little more each time than comes back, until much is under way.
        let ahead = (have - echo) + 3_000 + round % 7 * 1_111;
        let sent = bytes(input, usize::try_from(ahead.saturating_sub(input))?);
        for (place, piece) in sent.chunks(700).enumerate() {
            stream.send(&Frame::Input { offset: input + place as u64 * 700, bytes: Cow::Borrowed(piece) })?;
        }
        let wanted = (have - echo + 1 + round % 5 * 600).min(ahead);
        while have - echo < wanted {
            let seen = match stream.receive()?.context("the supervisor has gone")? {
                Frame::Data { output: Output::Stdout, offset, bytes } => {
                    ensure!(offset == have, "round {round}: byte {offset} instead of {have}");
                    let right = (offset..).zip(bytes.iter()).all(|(n, b)| *b == byte(n - echo));
                    ensure!(right, "round {round}: other bytes came than were sent, from {offset} on");
                    offset + bytes.len() as u64
                }
                Frame::InputTaken { .. } => continue,
                other => bail!("round {round}: {other:?}"),
            };
            have = seen;
            stream.send(&Frame::Seen { output: Output::Stdout, offset: have })?;
        }
    }
    ensure!(have > rounds, "{have}");
    client.done(Request::Delete { id, exec: None, force: true })?;
    shim.stop()
}
