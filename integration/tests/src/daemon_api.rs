//! croftd's API against its own document, and against clients that go wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test, process, python};
use serde_json::Value;

use crate::daemon_images::{REGISTRY_HOST, Registry};

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const HOOKS: &str = include_str!("daemon_api/hooks.py");

const DOCUMENT: &[Facility] = &[
    Facility::Root,
    Facility::NotEmulated,
    Facility::Packages(&["nftables", "iproute2", "curl", "socat", "python3-venv", "docker-registry"]),
    Facility::Schemathesis,
];
const CLIENTS: &[Facility] = &[Facility::Root, Facility::NotEmulated];

pub const SUBJECT: Subject = Subject {
    name: "daemon_api",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "answers_are_as_the_document_says", requires: DOCUMENT, run: document },
        Test { name: "wrong_requests_are_told_what_is_wrong", requires: CLIENTS, run: wrong_requests },
        Test { name: "clients_that_go_wrong_hold_up_nobody", requires: CLIENTS, run: wrong_clients },
    ],
};

/// What is tried of each answer. `lines_conform` is of `hooks.py`.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,lines_conform";

/// croftd's address is a file, and schemathesis speaks TCP: socat is between them, on the stage's own loopback
/// interface. Who enters the stage's mount namespace begins at the root, which is the host's.
const TRY: &str = "cd \"$HOME\"
socat TCP-LISTEN:8080,bind=127.0.0.1,fork,reuseaddr UNIX-CONNECT:/run/croft/croft.sock >socat.log 2>&1 &
exec \"$@\" http://127.0.0.1:8080/v1/openapi.json --wait-for-schema 60";

/// How answers that came begin, in the notes of `hooks.py`: not everything was refused.
const DONE: &[&str] = &[
    "POST /v1/containers 20",
    "GET /v1/containers 20",
    "POST /v1/containers/{name}/exec 20",
    "PUT /v1/containers/{name}/archive 20",
    "GET /v1/containers/{name}/logs 20",
    "GET /v1/images/inspect 20",
    "POST /v1/images/pull 200 done",
    "POST /v1/images/push 200 done",
    "POST /v1/images/tag 20",
    "POST /v1/networks 20",
    "POST /v1/registries/login 20",
    "POST /v1/registries/login 403",
    "POST /v1/registries/logout 20",
    "POST /v1/volumes 20",
    "GET /v1/stats 20",
    "GET /v1/events 20",
];

fn document(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    for what in ["volume", "network"] {
        croft.ok(&[what, "create", "gone"])?;
    }
    croft.ok(&["volume", "create", "data"])?;
    croft.ok(&["network", "create", "back"])?;
    for (name, options) in [("web", &["--volume", "data:/data"][..]), ("idle", &[])] {
        let begin = ["run", "--detach", "--name", name, "--network", "back", "--init", "--restart", "always"];
        croft.ok(&[&begin[..], options, &["box", "sleep", "10000"]].concat())?;
    }
    croft.ok(&["run", "--name", "done", "box", "echo", "words"])?;
    for name in ["job", "gone"] {
        croft.ok(&["create", "--name", name, "box", "true"])?;
    }
    croft.ok(&["image", "tag", "box", "gone"])?;
    // An image that the registry alone has, and one that may go there.
    let _registry = Registry::start(&croft, true)?;
    let log_in = format!(
        "echo secret | {} login --username me --password-stdin {REGISTRY_HOST}",
        croft.program.display()
    );
    croft.stage.run("sh", &["-c", &log_in])?.success()?;
    let [there, here] = ["there", "box"].map(|name| format!("{REGISTRY_HOST}/{name}"));
    croft.ok(&["commit", "done", &there])?;
    croft.ok(&["push", &there])?;
    croft.ok(&["rmi", &there])?;
    croft.ok(&["tag", "box", &here])?;

    fs::write(croft.stage.path("hooks.py"), HOOKS)?;
    let tools = python::schemathesis()?.join("bin");
    let mut tried = croft.stage.command("sh");
    tried.args(["-c", TRY, "sh"]).arg(tools.join("python")).arg(tools.join("st"));
    tried.args(["run", "--no-color", "--seed", "1", "--max-examples", "15", "--phases", "coverage,fuzzing"]);
    tried.args(["--checks", CHECKS, "--continue-on-failure", "--request-timeout", "20"]);
    tried.args(["--generation-database", "none", "--warnings", "off"]);
    tried.env("STAGE", croft.path("")).env("PYTHONPATH", croft.path(""));
    tried.env("SCHEMATHESIS_HOOKS", "hooks").env("REGISTRY", REGISTRY_HOST);
    let said =
        process::run(&mut tried, COMMAND_LIMIT)?.success().with_context(|| croft.stage.daemon_log())?;
    // Everything was tried.
    let all: Value = serde_json::from_str(&fetch(&croft, "openapi.json")?)?;
    let paths = all["paths"].as_object().context("the document has paths")?;
    let count: usize = paths.values().filter_map(|path| path.as_object().map(serde_json::Map::len)).sum();
    ensure!(said.stdout.contains(&format!("Selected: {count}/{count}\n")), "{}", said.stdout);
    let answers = fs::read_to_string(croft.stage.path("answers"))?;
    for done in DONE {
        let same = |line: &&str| line.split(' ').take(2).eq(done.split(' ').take(2));
        let tried: BTreeSet<&str> = answers.lines().filter(same).collect();
        ensure!(tried.iter().any(|line| line.starts_with(done)), "{done} never came: {tried:?}");
    }
    ensure!(croft.inspect("web")?["state"] == "running", "{}", croft.stage.daemon_log());
    // What it seldom hits upon: names that no file has.
    for path in ["a%00b".to_owned(), "x".repeat(300), "/proc/1/root/x".to_owned()] {
        for first in ["GET", "PUT"] {
            let first = format!("{first} /v1/containers/web/archive?path={path}");
            let (status, said) = ask(&croft, request(&first, "").as_bytes())?;
            ensure!(status == 400 && said.contains("os error"), "{first}: {status}: {said}");
        }
    }
    // The whole of a container that runs, and an archive of what cannot be made.
    let whole = "GET /v1/containers/web/archive?path=/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (status, said) = ask(&croft, whole.as_bytes())?;
    ensure!(
        status == 200 && said.ends_with("0\r\n\r\n"),
        "the archive breaks off: {}",
        croft.stage.daemon_log()
    );
    let device = "cd \"$HOME\" && mkdir d && mknod d/null c 1 3 && tar -C d -cf device.tar null && \
                  curl -s --unix-socket /run/croft/croft.sock -T device.tar 'http://x/v1/containers/web/archive?path=/sys'";
    let said = process::run(croft.stage.command("sh").args(["-c", device]), COMMAND_LIMIT)?;
    ensure!(said.stdout.contains("it cannot be there"), "{}", said.stdout);
    Ok(())
}

/// What croftd gives.
fn fetch(croft: &Croft, path: &str) -> Result<String> {
    let (status, body) =
        ask(croft, format!("GET /v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    ensure!(status == 200, "{path}: {status}: {body}");
    Ok(body)
}

/// A connection to croftd. The stage's own /run is where its first process sees it.
fn connect(croft: &Croft) -> Result<UnixStream> {
    let path = format!("/proc/{}/root/run/croft/croft.sock", croft.pid()?);
    let stream = UnixStream::connect(&path).with_context(|| format!("connect to {path}"))?;
    stream.set_read_timeout(Some(COMMAND_LIMIT))?;
    stream.set_write_timeout(Some(COMMAND_LIMIT))?;
    Ok(stream)
}

/// Says `words` on a connection of their own. The status of the answer, and what comes after its head.
pub fn ask(croft: &Croft, words: &[u8]) -> Result<(u16, String)> {
    let mut stream = connect(croft)?;
    stream.write_all(words)?;
    answer(stream)
}

/// What comes on a connection until its end.
fn answer(mut stream: UnixStream) -> Result<(u16, String)> {
    let mut said = Vec::new();
    // Broken off by the other side is an end, too.
    let _ = stream.read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said).into_owned();
    let (head, body) = said.split_once("\r\n\r\n").with_context(|| format!("no answer: {said:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| head.to_owned())?, body.to_owned()))
}

/// A request of these lines, and of this body in JSON.
pub fn request(first: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{first} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

fn wrong_requests(host: &Host) -> Result<()> {
    let croft = Croft::without_images(host)?;
    for (first, body, status, why) in [
        ("GET /v1/images/inspect", "", 400, "missing field `image`"),
        ("GET /v1/stats?interval=soon", "", 400, "interval: invalid digit"),
        ("GET /v1/containers/%ff", "", 400, "name"),
        ("GET /v1/nothing", "", 404, "croftd answers nothing there"),
        ("GET /", "", 404, "croftd answers nothing there"),
        ("PATCH /v1/containers", "", 405, "cannot be asked to PATCH"),
        ("POST /v1/volumes", "{", 400, "EOF while parsing"),
        ("POST /v1/volumes", "[\"a\", {}]", 400, "expected an object"),
        ("POST /v1/volumes", "{\"nam\": \"a\"}", 400, "unknown field `nam`"),
        (
            "POST /v1/images/import",
            "{\"path\": \"/dev/zero\", \"name\": \"a\"}",
            400,
            "neither a file nor a folder",
        ),
        ("POST /v1/images/build-rootfs", "{\"name\": \"a\", \"suite\": \"a\\u0000b\"}", 400, "no zero byte"),
    ] {
        let (found, said) = ask(&croft, request(first, body).as_bytes())?;
        ensure!(found == status, "{first} {body}: {found}: {said}");
        let problem: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        ensure!(problem["status"] == status && detail.contains(why), "{first} {body}: {said}");
    }
    let words = request("POST /v1/volumes", "{}").replace("application/json", "text/plain");
    let (status, said) = ask(&croft, words.as_bytes())?;
    ensure!(status == 415 && said.contains("application/json"), "{status}: {said}");
    ensure!(croft.ok(&["volume", "ls", "--quiet"])?.is_empty());
    Ok(())
}

/// Descriptors that croftd has here. Half of them are for connections.
const DESCRIPTORS: usize = 256;

/// How much more memory croftd may take for clients that go wrong, in KiB.
const MEMORY: u64 = 64 * 1024;

fn wrong_clients(host: &Host) -> Result<()> {
    let mut croft = Croft::without_images(host)?;
    croft.terminate()?;
    croft.start_as(&["prlimit", &format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")], &[])?;
    let most = memory(&croft)? + MEMORY;
    // Who says nothing is let go, and then there is room for the others.
    let silent = (0..DESCRIPTORS * 3 / 4).map(|_| connect(&croft)).collect::<Result<Vec<_>>>()?;
    fetch(&croft, "system/info")?;
    for mut stream in silent {
        let mut said = String::new();
        stream.read_to_string(&mut said).context("croftd keeps who says nothing")?;
        ensure!(said.is_empty(), "{said}");
    }
    // What is no HTTP, or too much of it.
    for (words, status) in [
        ("\x16\x03\x01\x02\r\n\r\n".to_owned(), 400),
        (format!("GET /v1/system/info HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(1 << 20)), 431),
        (format!("GET /v1/system/info HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000)), 431),
        (format!("GET /v1/{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)), 431),
    ] {
        let mut stream = connect(&croft)?;
        // It is cut off in the middle.
        let _ = stream.write_all(words.as_bytes());
        let (found, _) = answer(stream).with_context(|| words.chars().take(40).collect::<String>())?;
        ensure!(found == status, "{:?}: {found}", &words[..20]);
    }
    let bodies =
        [("POST /v1/volumes", 1 << 30, 413), ("PUT /v1/containers/none/archive?path=/", 1 << 25, 404)];
    for (first, length, status) in bodies {
        let mut stream = connect(&croft)?;
        let head = request(first, "").replace("Content-Length: 0", &format!("Content-Length: {length}"));
        stream.write_all(head.as_bytes())?;
        let piece = [b' '; 1 << 16];
        let whole = (0..length / piece.len()).all(|_| stream.write_all(&piece).is_ok());
        // Whoever sends what can be thrown away is not cut off, and hears why.
        ensure!(whole == (status == 404), "{first}: {whole}");
        let (found, _) = answer(stream).with_context(|| first.to_owned())?;
        ensure!(found == status, "{first}: {found}");
    }
    let begun = Instant::now();
    let late = ask(&croft, request("POST /v1/volumes", "{}").replace("Length: 2", "Length: 3").as_bytes())?;
    ensure!(late.0 == 408 && late.1.contains("did not come"), "{late:?}");
    ensure!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    // Three at once, and the answers in their order.
    let three = "GET /v1/volumes HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/none HTTP/1.1\r\nHost: x\r\n\r\n";
    let (_, said) = ask(&croft, format!("{three}{}", request("GET /v1/networks", "")).as_bytes())?;
    let statuses: Vec<&str> = said.split("HTTP/1.1 ").skip(1).filter_map(|next| next.get(..3)).collect();
    ensure!(statuses == ["404", "200"], "{said}");
    let used = memory(&croft)?;
    ensure!(used < most, "croftd had {used} KiB, and {most} are enough");
    croft.nothing_is_left()
}

/// The most memory that croftd has had, in KiB.
fn memory(croft: &Croft) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", croft.pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    line.trim().trim_end_matches(" kB").parse().context("VmHWM")
}
