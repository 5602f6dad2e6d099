//! How containers are watched: `croft stats`, `croft top`, and what Prometheus scrapes.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::terminal::Terminal;
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const NEEDS: &[Facility] = &[Facility::Root];
const NETWORKS: &[Facility] = &[Facility::Root, Facility::Packages(&["nftables", "iproute2"])];
const PARSER: &[Facility] = &[Facility::Root, Facility::Packages(&["python3-prometheus-client"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_watch",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "stats_are_the_container_s", requires: NEEDS, run: stats },
        Test { name: "stats_count_the_network", requires: NETWORKS, run: network },
        Test { name: "stats_come_as_a_stream", requires: NEEDS, run: stream },
        Test { name: "top_lists_processes", requires: NEEDS, run: processes },
        Test { name: "top_is_a_screen_and_leaves_the_terminal_as_it_was", requires: NEEDS, run: screen },
        Test { name: "a_strict_parser_understands_the_metrics", requires: PARSER, run: metrics },
    ],
};

const BUSY: &str = "while :; do :; done";

/// The numbers of the container that is called `name`.
fn numbers(croft: &Croft, name: &str) -> Result<Value> {
    let all: Vec<Value> = serde_json::from_str(&croft.ok(&["stats", "--no-stream", "--format", "json"])?)?;
    all.into_iter().find(|one| one["name"] == name).with_context(|| format!("no numbers of {name}"))
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is no number"))
}

fn stats(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let limits = ["--memory", "64m", "--pids-limit", "20"];
    let busy = [&["run", "--detach", "--name", "busy"][..], &limits, &["box", "sh", "-c", BUSY]].concat();
    croft.ok(&busy)?;
    croft.ok(&["run", "--detach", "--name", "idle", "box", "sleep", "1000"])?;
    let (busy, idle) = (numbers(&croft, "busy")?, numbers(&croft, "idle")?);
    ensure!(number(&busy["cpu_percent"])? > 5.0, "{busy}");
    ensure!(number(&busy["cpu_percent"])? > number(&idle["cpu_percent"])?, "{busy} {idle}");
    ensure!(busy["memory_limit"] == 64 << 20 && busy["pids_limit"] == 20 && busy["pids"] == 1, "{busy}");
    ensure!(number(&busy["memory"])? > 0.0 && number(&idle["memory_limit"])? > f64::from(64 << 20), "{idle}");
    let later = numbers(&croft, "busy")?;
    ensure!(number(&later["cpu_ns"])? > number(&busy["cpu_ns"])?, "{busy} {later}");
    let psi =
        host.cgroup2.as_ref().is_some_and(|root| root.join(croft.stage.name()).join("cpu.pressure").exists());
    ensure!(busy["pressure"].is_object() == psi, "{busy}");
    let table = croft.ok(&["stats", "--no-stream", "busy"])?;
    ensure!(table.contains("/ 64.0 MiB") && !table.contains("idle"), "{table}");
    croft.ok(&["pause", "idle"])?;
    ensure!(numbers(&croft, "idle")?["pids"] == 1);
    croft.ok(&["create", "--name", "still", "box", "true"])?;
    for (args, words) in [
        (&["stats", "--no-stream", "still"][..], "it is created"),
        (&["stats", "--no-stream", "bsy"], "hint: there is busy"),
        (&["stats", "--interval", "0"], "no time"),
        (&["top", "still"], "it is created"),
        (&["top"], "no terminal"),
    ] {
        let (code, text) = croft.fails(args)?;
        ensure!(code == 125 && text.contains(words), "{args:?}: {code}: {text}");
    }
    croft.ok(&["rm", "--force", "busy", "idle", "still"])?;
    ensure!(croft.ok(&["stats", "--no-stream", "--format", "json"])?.trim() == "[]");
    croft.nothing_is_left()
}

fn network(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script =
        "ping -c 3 -W 5 $(ip route | awk '/default/ {print $3}') >/dev/null && echo reached; sleep 1000";
    croft.ok(&["run", "--detach", "--name", "talks", "--network", "croft", "box", "sh", "-c", script])?;
    let deadline = Instant::now() + COMMAND_LIMIT;
    while croft.ok(&["logs", "talks"])? != "reached\n" {
        ensure!(Instant::now() < deadline, "the gateway does not answer");
    }
    let network = numbers(&croft, "talks")?["network"].clone();
    // Three echoes and their answers, of 98 bytes each on the wire.
    ensure!(number(&network["received_bytes"])? >= 3.0 * 98.0, "{network}");
    ensure!(number(&network["sent_packets"])? >= 3.0, "{network}");
    croft.ok(&["run", "--detach", "--name", "host", "--network", "host", "box", "sleep", "1000"])?;
    ensure!(numbers(&croft, "host")?["network"].is_null());
    croft.ok(&["rm", "--force", "talks", "host"])?;
    croft.nothing_is_left()
}

fn stream(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "busy", "box", "sh", "-c", BUSY])?;
    let program = croft.program.display();
    let script = format!("{program} stats --format json --interval 0.1 | head -n 30");
    let lines = croft.stage.run("sh", &["-c", &script])?.success()?.stdout;
    let seen: Vec<f64> = lines
        .lines()
        .map(|line| number(&serde_json::from_str::<Value>(line)?[0]["cpu_ns"]))
        .collect::<Result<_>>()?;
    // On a loaded host it does not get a processor between any two looks.
    ensure!(seen.len() == 30 && seen.is_sorted() && seen[0] < seen[29], "{lines}");
    croft.ok(&["rm", "--force", "busy"])?;
    croft.nothing_is_left()
}

fn processes(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "two", "box", "sh", "-c", "echo up; sleep 1000 & wait"])?;
    let deadline = Instant::now() + COMMAND_LIMIT;
    let all = loop {
        let all: Vec<Value> = serde_json::from_str(&croft.ok(&["top", "two", "--format", "json"])?)?;
        if all.iter().any(|process| process["command"] == "sleep 1000") {
            break all;
        }
        ensure!(Instant::now() < deadline, "{all:?}");
    };
    let first = all.iter().find(|process| process["pid_inside"] == 1).context("it has an init")?;
    ensure!(all.len() == 2 && first["pid"] == croft.inspect("two")?["pid"], "{all:?}");
    ensure!(first["uid_inside"] == 0 && first["uid"] == croft.inspect("two")?["ids"], "{first}");
    ensure!(all[1]["parent"] == first["pid"], "{all:?}");
    ensure!(croft.ok(&["top", "two"])?.contains("CMD"));
    croft.ok(&["rm", "--force", "two"])?;
    croft.nothing_is_left()
}

/// What a terminal gets when its other screen is left.
const LEFT: &str = "\x1b[?1049l";

fn screen(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "busy", "box", "sh", "-c", BUSY])?;
    let pid_file = croft.path("top.pid");
    let script = format!("echo $$ >{pid_file}; exec {} top --interval 0.1", croft.program.display());
    let mut command = croft.stage.command("sh");
    command.args(["-c", &script]);
    let start = || -> Result<_> {
        let mut terminal = Terminal::start(&command, 24, 150)?;
        terminal.wait_for("busy", COMMAND_LIMIT)?;
        Ok(terminal)
    };
    let ended = |terminal: &mut Terminal, status: i32| -> Result<String> {
        let (code, rest) = terminal.end(COMMAND_LIMIT)?;
        ensure!(code == status && rest.contains(LEFT), "{code}: {rest:?}");
        Ok(rest)
    };
    let cooked = Terminal::start(&croft.stage.command("true"), 24, 80)?.mode()?;
    let mut terminal = start()?;
    ensure!(terminal.mode()? != cooked, "what is typed is not shown");
    terminal.type_in(b"m", COMMAND_LIMIT)?;
    // Only what differs is drawn, but after a change of size everything is. The key may be looked at after the change.
    let mut rows = 25..200;
    let mut sorted = false;
    while !sorted {
        terminal.resize(rows.next().context("it is never sorted by memory")?, 150)?;
        terminal.wait_for("running", COMMAND_LIMIT)?;
        sorted = terminal.wait_for("busy", COMMAND_LIMIT)?.contains("MEMv");
    }
    terminal.type_in(b"q", COMMAND_LIMIT)?;
    ended(&mut terminal, 0)?;
    ensure!(terminal.mode()? == cooked);
    let mut terminal = start()?;
    terminal.type_in(b"\x03", COMMAND_LIMIT)?;
    ended(&mut terminal, 0)?;
    ensure!(terminal.mode()? == cooked);
    let mut terminal = start()?;
    let pid = std::fs::read_to_string(&pid_file)?;
    croft.stage.run("kill", &["-TERM", pid.trim()])?.success()?;
    ended(&mut terminal, 0)?;
    ensure!(terminal.mode()? == cooked);
    let mut terminal = start()?;
    croft.kill()?;
    let rest = ended(&mut terminal, 125)?;
    let after = rest.rsplit(LEFT).next().unwrap_or_default();
    ensure!(after.contains("croftd"), "the reason is seen when the screen has gone: {rest:?}");
    ensure!(terminal.mode()? == cooked);
    croft.start()?;
    croft.ok(&["rm", "--force", "busy"])?;
    croft.nothing_is_left()
}

/// Asks croftd for its metrics, has the reference parser of OpenMetrics read them, and prints every sample.
const SCRAPE: &str = r#"
import http.client, json, socket
from prometheus_client.openmetrics.parser import text_string_to_metric_families
connection = http.client.HTTPConnection("croft")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/croft/croft.sock")
connection.request("GET", "/v1/metrics")
answer = connection.getresponse()
assert answer.status == 200, answer.status
assert answer.getheader("content-type").startswith("application/openmetrics-text"), answer.getheaders()
families = list(text_string_to_metric_families(answer.read().decode()))
print(json.dumps([[s.name, s.labels, s.value] for f in families for s in f.samples]))
"#;

fn metrics(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "busy", "--memory", "64m", "box", "sh", "-c", BUSY])?;
    croft.ok(&["create", "--name", "still", "box", "true"])?;
    let scrape = || -> Result<Vec<(String, Value, f64)>> {
        Ok(serde_json::from_str(&croft.stage.run("/usr/bin/python3", &["-c", SCRAPE])?.success()?.stdout)?)
    };
    let samples = scrape()?;
    let sample = |samples: &[(String, Value, f64)], name: &str, labels: &[(&str, &str)]| -> Result<f64> {
        let is = |found: &Value| labels.iter().all(|(key, value)| found[*key] == **value);
        let found = samples.iter().find(|(is_called, found, _)| is_called == name && is(found));
        Ok(found.with_context(|| format!("no {name} {labels:?} in {samples:?}"))?.2)
    };
    let busy = [("name", "busy")];
    ensure!(sample(&samples, "croft_container_memory_limit_bytes", &busy)? == f64::from(64 << 20));
    ensure!(sample(&samples, "croft_container_pids", &busy)? == 1.0);
    ensure!(sample(&samples, "croft_containers", &[("state", "running")])? == 1.0);
    ensure!(sample(&samples, "croft_containers", &[("state", "created")])? == 1.0);
    ensure!(sample(&samples, "croft_images", &[])? == 1.0);
    ensure!(sample(&samples, "croft_images_size_bytes", &[])? > 0.0);
    ensure!(sample(&samples, "process_resident_memory_bytes", &[])? > 1_000_000.0);
    let used = sample(&samples, "croft_container_cpu_seconds_total", &busy)?;
    let of_all = sample(&samples, "croft_group_cpu_seconds_total", &[])?;
    ensure!(of_all >= used, "{of_all} of all, {used} of one");
    let path = [("path", "/v1/containers/{name}/start"), ("method", "POST"), ("status", "200")];
    ensure!(sample(&samples, "croft_api_request_duration_seconds_count", &path)? == 1.0);
    ensure!(sample(&samples, "croft_api_request_duration_seconds_sum", &path)? > 0.0);
    // The machine may have other things to do meanwhile.
    let deadline = Instant::now() + COMMAND_LIMIT;
    while sample(&scrape()?, "croft_container_cpu_seconds_total", &busy)? <= used {
        ensure!(Instant::now() < deadline, "a busy container uses no processor time beyond {used} s");
    }
    croft.ok(&["rm", "--force", "busy", "still"])?;
    ensure!(!scrape()?.iter().any(|(_, labels, _)| labels["name"] == "busy"));
    croft.nothing_is_left()
}
