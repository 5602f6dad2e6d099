//! Output, input and statuses, while croftd is killed again and again.
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test, process};

// Nothing here depends on the kind of host: the emulated one would only take longer.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];

pub const SUBJECT: Subject = Subject {
    name: "daemon_streams",
    on_runc: &[("*", OnRunc::CroftOnly("croftd is tried with the runtime that it comes with"))],
    tests: &[
        Test { name: "a_slow_reader_gets_everything", requires: NEEDS, run: slow_reader },
        Test { name: "a_reader_that_leaves_holds_up_nobody", requires: NEEDS, run: reader_that_leaves },
        Test { name: "what_answers_while_it_reads_goes_on", requires: NEEDS, run: answers },
        Test { name: "a_command_ends_when_nobody_reads_what_it_says", requires: NEEDS, run: unread },
        Test { name: "signals_reach_the_container", requires: NEEDS, run: signals },
        Test { name: "a_killed_croftd_loses_no_byte_and_no_status", requires: NEEDS, run: kills },
        Test { name: "what_is_followed_goes_on_over_a_restart", requires: NEEDS, run: followed },
    ],
};

fn slow_reader(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let program = croft.program.display();
    // More than every buffer on the way holds, and an end before anybody reads.
    let run = format!("{program} run --rm --network none");
    for (options, bytes) in [("", 3_000_000), ("", 70_000), ("--interactive", 3_000_000)] {
        let script = format!("{run} {options} box head -c {bytes} /dev/zero </dev/null | (sleep 1; wc -c)");
        let counted = croft.stage.run("sh", &["-c", &script])?.success()?.stdout;
        ensure!(counted.trim() == bytes.to_string(), "{counted} of {bytes}");
    }
    croft.nothing_is_left()
}

fn reader_that_leaves(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = format!(
        "{} run --name web --network none box sh -c 'head -c 3000000 /dev/zero; exit 5' | head -c 10 | wc -c",
        croft.program.display()
    );
    let counted = croft.stage.run("sh", &["-c", &script])?.success()?.stdout;
    ensure!(counted.trim() == "10", "{counted}");
    ensure!(croft.ok(&["wait", "web"])? == "5\n");
    croft.ok(&["rm", "web"])?;
    croft.nothing_is_left()
}

/// More than all buffers on the way hold goes into a process and comes out of it again, in large pieces and in small ones.
fn answers(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "web", "--network", "none", "box", "sleep", "1000"])?;
    let program = croft.program.display();
    let exec = format!("{program} exec --interactive web");
    let run = format!("{program} run --rm --interactive --network none box");
    let line_by_line = "sh -c 'while read line; do echo $line; done'";
    for (input, command) in [
        ("head -c 20000000 /dev/urandom", format!("{exec} cat")),
        ("head -c 20000000 /dev/urandom", format!("{run} cat")),
        ("seq 20000", format!("{exec} {line_by_line}")),
    ] {
        let script = format!("{input} >in; {command} <in | cmp - in");
        let folder = croft.stage.path("").display().to_string();
        croft.stage.run("sh", &["-ec", &format!("cd {folder}; {script}")])?.success()?;
    }
    croft.ok(&["rm", "--force", "web"])?;
    croft.nothing_is_left()
}

fn unread(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "web", "--network", "none", "box", "sleep", "1000"])?;
    let program = croft.program.display();
    let without_end = "sh -c 'while :; do echo y; done'";
    let run = format!("{program} run --name talks --network none box {without_end}");
    for command in [run, format!("{program} exec web {without_end}")] {
        let script = format!("({command}; echo $? >&2) | head -n 1");
        let output = croft.stage.run("sh", &["-c", &script])?.success()?;
        ensure!(output.stdout == "y\n" && output.stderr == "141\n", "{output}");
    }
    croft.ok(&["rm", "--force", "talks"])?;
    // A pipe whose reader has gone before anything is written.
    let script = format!("mkfifo p; true <p & exec 4>p; wait; {program} ps >&4");
    let folder = croft.stage.path("").display().to_string();
    let unread = croft.stage.run("sh", &["-c", &format!("cd {folder}; {script}")])?;
    ensure!(unread.code() == 141 && unread.stderr.is_empty(), "{unread}");
    for command in ["ps", "run --rm --network none box echo hi", "exec web echo hi"] {
        let full = croft.stage.run("sh", &["-c", &format!("{program} {command} >/dev/full")])?;
        ensure!(full.code() == 125 && full.stderr.contains("No space left"), "{full}");
    }
    croft.ok(&["rm", "--force", "web"])?;
    croft.nothing_is_left()
}

fn signals(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let folder = croft.stage.path("").display().to_string();
    let run = |options: &str, command: &str, signals: &str| {
        let run = format!("{} run --rm --network none {options}", croft.program.display());
        let script = format!(
            "cd {folder}; rm -f said; {run} box {command} >said & a=$!; until grep -qs ready said; do :; done; {signals}"
        );
        croft.stage.run("bash", &["-c", &script])
    };
    let traps = "sh -c 'trap \"exit 9\" TERM USR1; echo ready; while :; do sleep 0.1; done'";
    for signal in ["TERM", "USR1"] {
        let ended = run("", traps, &format!("kill -{signal} $a; wait $a"))?;
        ensure!(ended.code() == 9, "{signal}: {ended}");
        ensure!(croft.ok(&["ps", "--all", "--quiet"])?.is_empty(), "it runs on");
    }
    // The first process of a container need not heed them; who insists means croft.
    let deaf = "sh -c 'echo ready; exec sleep 1000'";
    let alone = "kill -TERM $a; wait $a";
    let insists = "while kill -TERM $a 2>/dev/null; do :; done; wait $a";
    for (options, signals) in [("--name deaf", insists), ("--name deaf --sig-proxy=false", alone)] {
        let ended = run(options, deaf, signals)?;
        ensure!(ended.code() == 143, "{options}: {ended}");
        ensure!(croft.inspect("deaf")?["state"] == "running");
        croft.ok(&["rm", "--force", "deaf"])?;
    }
    croft.nothing_is_left()
}

/// How often croftd is killed: `CROFT_KILLS`, or fewer in the usual run.
fn rounds() -> usize {
    std::env::var("CROFT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// A process that passes lines on, at both of whose ends is a file.
pub struct Pipe {
    name: &'static str,
    child: Child,
}

impl Pipe {
    /// Lines go through `command` until the file `stop` is there.
    pub fn start(croft: &Croft, name: &'static str, command: &str) -> Result<Self> {
        let (program, stop) = (croft.program.display(), croft.path("stop"));
        let (sent, got) = (croft.path(&format!("{name}.sent")), croft.path(&format!("{name}.got")));
        let lines = format!("i=0; while [ ! -e {stop} ]; do echo line $i; i=$((i+1)); done");
        let script = format!("({lines}) | tee {sent} | {program} {command} >{got}");
        let mut shell = croft.stage.command("bash");
        shell.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
        let log = std::fs::File::create(croft.path(&format!("{name}.log")))?;
        Ok(Self { name, child: shell.stderr(log).spawn().context("start a pipe")? })
    }

    /// Waits until something has come through.
    pub fn flows(&self, croft: &Croft) -> Result<()> {
        let came = || std::fs::metadata(croft.path(&format!("{}.got", self.name))).is_ok_and(|f| f.len() > 0);
        let deadline = std::time::Instant::now() + COMMAND_LIMIT;
        while !came() {
            ensure!(std::time::Instant::now() < deadline, "nothing comes through {}", self.name);
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Waits for its end with this status, and compares what was sent with what came.
    pub fn ended(mut self, croft: &Croft, status: i32) -> Result<()> {
        let said = || std::fs::read_to_string(croft.path(&format!("{}.log", self.name))).unwrap_or_default();
        let ended = process::wait(&mut self.child, COMMAND_LIMIT)?;
        let ended = ended.with_context(|| format!("{} goes on: {}", self.name, said()))?;
        ensure!(ended.code() == Some(status), "{}: {ended}: {}", self.name, said());
        let read = |end: &str| std::fs::read(croft.path(&format!("{}.{end}", self.name)));
        let (sent, got) = (read("sent")?, read("got")?);
        let same = sent.iter().zip(&got).take_while(|(a, b)| a == b).count();
        ensure!(
            sent == got,
            "{}: {} bytes sent, {} came, the first {same} are right; {}",
            self.name,
            sent.len(),
            got.len(),
            said()
        );
        println!("{}: {} bytes there and back", self.name, sent.len());
        Ok(())
    }
}

fn kills(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "web", "box", "sleep", "10000"])?;
    let web = croft.inspect("web")?;
    let pipes = [
        Pipe::start(&croft, "run", "run --rm --interactive --network none box sh -c 'cat; exit 7'")?,
        Pipe::start(&croft, "exec", "exec --interactive web sh -c 'cat; exit 9'")?,
    ];
    // Both have come through: nothing of them is asked of a croftd that is dead.
    pipes.iter().try_for_each(|pipe| pipe.flows(&croft))?;
    let rounds = rounds();
    for round in 0..rounds {
        let (name, script) =
            (format!("ends{round}"), format!("sleep 0.0{}; exit {}", round % 10, round % 100));
        croft.ok(&["run", "--detach", "--name", &name, "box", "sh", "-c", &script])?;
        croft.kill()?;
        croft.start()?;
    }
    std::fs::write(croft.path("stop"), "")?;
    let [run, exec] = pipes;
    run.ended(&croft, 7)?;
    exec.ended(&croft, 9)?;
    for round in 0..rounds {
        let name = format!("ends{round}");
        let status = croft.ok(&["wait", &name])?;
        ensure!(status == format!("{}\n", round % 100), "{name}: {status}");
        croft.ok(&["rm", &name])?;
    }
    let after = croft.inspect("web")?;
    ensure!(after["pid"] == web["pid"] && after["state"] == "running", "{after}");
    println!("croftd was killed {rounds} times");
    croft.ok(&["rm", "--force", "web"])?;
    croft.nothing_is_left()
}

/// A command that follows something, into a file.
fn follow(croft: &Croft, args: &[&str], name: &str) -> Result<(Child, String)> {
    let path = croft.path(name);
    let mut command = croft.stage.command(&croft.program.display().to_string());
    command.args(args).stdin(Stdio::null()).stdout(std::fs::File::create(&path)?);
    Ok((command.spawn().with_context(|| format!("start croft {args:?}"))?, path))
}

fn followed(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    let counts = "i=0; while [ ! -e /stop ]; do echo $i; i=$((i+1)); sleep 0.01; done";
    croft.ok(&["run", "--detach", "--name", "web", "--network", "none", "box", "sh", "-c", counts])?;
    let (mut logs, said) = follow(&croft, &["logs", "--follow", "web"], "said")?;
    let (mut events, happened) = follow(&croft, &["events", "--since", "0"], "happened")?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let comes = |path: &str, has: &dyn Fn(&str) -> bool| {
        let end = Instant::now() + COMMAND_LIMIT;
        while !has(&read(path)) {
            ensure!(Instant::now() < end, "{path} ends with {:?}", read(path).lines().last());
            std::thread::yield_now();
        }
        Ok(())
    };
    comes(&said, &|text| text.len() > 20)?;
    for round in 0..4 {
        match round % 2 {
            0 => croft.kill()?,
            _ => croft.terminate()?,
        }
        croft.start()?;
        let name = format!("after-{round}");
        croft.ok(&["create", "--name", &name, "box"])?;
        let before = read(&said).len();
        comes(&said, &|text| text.len() > before + 20)?;
        comes(&happened, &|text| text.contains(&name))?;
        croft.ok(&["rm", &name])?;
    }
    croft.ok(&["exec", "web", "touch", "/stop"])?;
    let ended = process::wait(&mut logs, COMMAND_LIMIT)?.context("logs goes on")?;
    let all = croft.ok(&["logs", "web"])?;
    ensure!(ended.success() && read(&said) == all, "{ended}: {} {}", read(&said).len(), all.len());
    comes(&happened, &|text| text.contains(" exit web "))?;
    // This ends nsenter, its parent; it ends with the stage.
    process::wait(&mut events, Duration::ZERO)?;
    let happened = read(&happened);
    let numbers: Vec<usize> =
        happened.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    ensure!(numbers.iter().enumerate().all(|(at, number)| *number == at + 1), "{happened}");
    croft.ok(&["rm", "web"])?;
    croft.nothing_is_left()
}
