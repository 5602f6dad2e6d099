//! What croft prints for people, for scripts and for shells: filters, formats, logs in part, completion.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// Nothing here depends on the kind of host: the emulated one would only take longer.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];

pub const SUBJECT: Subject = Subject {
    name: "daemon_lists",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "ps_has_filters", requires: NEEDS, run: filters },
        Test { name: "actions_print_names_json_or_nothing", requires: NEEDS, run: actions },
        Test { name: "logs_are_cut_by_lines_and_times", requires: NEEDS, run: logs },
        Test { name: "logs_go_over_full_files", requires: NEEDS, run: full_files },
        Test { name: "logs_have_a_rate", requires: NEEDS, run: rate },
        Test { name: "shells_complete_commands_and_names", requires: NEEDS, run: completion },
        Test { name: "nothing_is_coloured_in_a_file", requires: NEEDS, run: colours },
    ],
};

/// The names that `croft ps` lists, in order.
fn listed(croft: &Croft, args: &[&str]) -> Result<String> {
    let all: Vec<Value> = serde_json::from_str(&croft.ok(&[&["ps", "--format", "json"], args].concat())?)?;
    let names: Vec<&str> = all.iter().filter_map(|one| one["name"].as_str()).collect();
    Ok(names.join(" "))
}

fn filters(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "web", "--label", "tier=front", "box", "sleep", "1000"])?;
    croft.ok(&["create", "--name", "db", "--label", "tier=back", "box", "true"])?;
    croft.ok(&[
        "run",
        "--name",
        "job",
        "box",
        "sh",
        "-c",
        "true # a comment that is longer than a column",
    ])?;
    for (args, names) in [
        (&[][..], "web"),
        (&["--all"], "web db job"),
        (&["--filter", "status=exited"], "job"),
        (&["--filter", "status=running", "--filter", "status=created"], "web db"),
        (&["--all", "--filter", "label=tier"], "web db"),
        (&["--filter", "label=tier=back"], ""),
        (&["--all", "--filter", "name=b"], "web db job"),
        (&["--all", "--filter", "name=eb", "--filter", "network=none"], "web"),
        (&["--all", "--filter", "network=croft"], ""),
        (&["--last", "2"], "db job"),
        (&["-n", "0"], ""),
    ] {
        let found = listed(&croft, args)?;
        ensure!(found == names, "{args:?}: {found}");
    }
    let (short, full) = (croft.ok(&["ps", "--all"])?, croft.ok(&["ps", "--all", "--no-trunc"])?);
    let id = croft.inspect("web")?["id"].as_str().context("an id")?.to_owned();
    ensure!(!short.contains(&id) && short.contains(&id[..12]) && short.contains('…'), "{short}");
    ensure!(full.contains(&id) && full.contains("than a column"), "{full}");
    for (filter, words) in
        [("colour=red", "status, name, id"), ("status=bored", "is no status"), ("web", "no '='")]
    {
        let (code, text) = croft.fails(&["ps", "--filter", filter])?;
        ensure!(code == 125 && text.contains(words), "{filter}: {code}: {text}");
    }
    croft.ok(&["rm", "--force", "web", "db", "job"])?;
    croft.nothing_is_left()
}

fn actions(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let json = |args: &[&str]| -> Result<Value> {
        let text = croft.ok(&[args, &["--format", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{args:?}: {text}"))
    };
    let made: Value =
        serde_json::from_str(&croft.ok(&["--format", "json", "create", "--name", "one", "box", "true"])?)?;
    ensure!(made["name"] == "one" && made["id"] == croft.inspect("one")?["id"], "{made}");
    ensure!(json(&["start", "one"])?["name"] == "one");
    let ended = json(&["wait", "one"])?;
    ensure!(ended["name"] == "one" && ended["exit"]["status"] == 0, "{ended}");
    ensure!(json(&["image", "ls"])?[0]["names"][0].as_str().is_some_and(|name| name.contains("box")));
    ensure!(croft.ok(&["image", "ls", "--quiet"])?.lines().count() == 1);
    for args in [&["start", "-q", "one"][..], &["wait", "--quiet", "one"], &["rm", "--quiet", "one"]] {
        let said = croft.ok(args)?;
        ensure!(said.is_empty(), "{args:?}: {said}");
    }
    ensure!(croft.ok(&["run", "--quiet", "--detach", "--rm", "box", "true"])?.is_empty());
    croft.ok(&["run", "--name", "says", "box", "echo", "words"])?;
    let log = croft.ok(&["logs", "--format", "json", "says"])?;
    ensure!(serde_json::from_str::<Value>(&log)?["log"] == "words\n", "{log}");
    croft.ok(&["run", "--name", "writes", "box", "touch", "/file"])?;
    ensure!(croft.ok(&["diff", "--quiet", "writes"])?.lines().any(|line| line == "/file"));
    for args in [
        &["commit", "--quiet", "writes", "made"][..],
        &["rmi", "--quiet", "made"],
        &["image", "prune", "--quiet", "--force"],
        &["volume", "prune", "--quiet", "--force"],
        &["system", "check", "--quiet"],
        &["system", "check", "--quiet", "--fix"],
    ] {
        let said = croft.ok(args)?;
        ensure!(said.is_empty(), "{args:?}: {said}");
    }
    ensure!(
        json(&["system", "prune", "--force"])?["containers"].as_array().is_some_and(|names| names.len() == 2)
    );
    ensure!(croft.ok(&["system", "prune", "--force", "--quiet"])?.is_empty());
    croft.ok(&["create", "--name", "says", "box"])?;
    ensure!(json(&["rm", "says"])?["name"] == "says");
    let (code, text) = croft.fails(&["strat", "one"])?;
    ensure!(code == 125 && text.contains("start"), "{text}");
    Ok(())
}

fn logs(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done";
    croft.ok(&["run", "--name", "says", "box", "sh", "-c", script])?;
    ensure!(croft.ok(&["logs", "--tail", "2", "says"])? == "line 48\nline 49\n");
    ensure!(croft.ok(&["logs", "-n", "0", "says"])?.is_empty());
    ensure!(croft.ok(&["logs", "--tail", "all", "says"])?.lines().count() == 50);
    ensure!(croft.ok(&["logs", "--tail", "1000", "says"])?.lines().count() == 50);
    let stamped = croft.ok(&["logs", "--timestamps", "says"])?;
    let times: Vec<&str> = stamped.lines().filter_map(|line| line.split(' ').next()).collect();
    // Lines of one write have one time.
    let (from, to) = (times[20], times[30]);
    let first = times.iter().position(|time| *time == from).unwrap_or_default();
    let last = times.iter().rposition(|time| *time == to).unwrap_or_default();
    let expected: String = (first..=last).map(|n| format!("line {n}\n")).collect();
    let cut = croft.ok(&["logs", "--since", from, "--until", to, "says"])?;
    ensure!(cut == expected, "{from} {to}: {cut}");
    let cut = croft.ok(&["logs", "--until", to, "--tail", "1", "says"])?;
    ensure!(cut == format!("line {last}\n"), "{cut}");
    ensure!(croft.ok(&["logs", "--since", "1h", "says"])?.lines().count() == 50);
    ensure!(croft.ok(&["logs", "--until", "1h", "says"])?.is_empty());
    ensure!(croft.ok(&["logs", "--until", "1h", "--tail", "3", "says"])?.is_empty());
    for args in [["--tail", "few"], ["--since", "yesterday"]] {
        let (code, text) = croft.fails(&[&["logs"], &args[..], &["says"]].concat())?;
        ensure!(code == 125 && text.contains(args[1]), "{args:?}: {text}");
    }
    croft.ok(&[
        "run",
        "--detach",
        "--name",
        "goes-on",
        "box",
        "sh",
        "-c",
        "echo a; echo b; read x; echo c",
    ])?;
    let deadline = Instant::now() + COMMAND_LIMIT;
    while croft.ok(&["logs", "goes-on"])? != "a\nb\nc\n" {
        ensure!(Instant::now() < deadline, "its input has ended");
    }
    ensure!(croft.ok(&["logs", "--follow", "--tail", "1", "goes-on"])? == "c\n");
    croft.ok(&["rm", "says", "goes-on"])?;
    croft.nothing_is_left()
}

/// Lines of a container with these options of its log.
fn says(croft: &Croft, name: &str, lines: u32, options: &[&str]) -> Result<()> {
    let script =
        format!("busybox awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) printf \"line %06d\\n\", i }}'");
    let run = ["run", "--detach", "--name", name];
    croft.ok(&[&run[..], options, &["box", "sh", "-c", &script]].concat()).map(drop)
}

fn full_files(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let all = |from: u32, to: u32| (from..=to).map(|n| format!("line {n:06}\n")).collect::<String>();
    says(&croft, "many", 20_000, &["--log-opt", "max-size=64k", "--log-opt", "max-file=100"])?;
    // Followed while files become full and are compressed.
    ensure!(croft.ok(&["logs", "--follow", "many"])? == all(1, 20_000));
    ensure!(croft.ok(&["logs", "many"])? == all(1, 20_000));
    for count in [1, 15_000, 19_999] {
        let cut = croft.ok(&["logs", "--tail", &count.to_string(), "many"])?;
        ensure!(cut == all(20_001 - count, 20_000), "{count}: {}", cut.lines().count());
    }
    let folder =
        croft.stage.path("lib/containers").join(croft.inspect("many")?["id"].as_str().unwrap_or_default());
    let names = || -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&folder)?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    ensure!(names()?.iter().any(|name| name.ends_with(".gz")), "{:?}", names()?);
    // The oldest go.
    says(&croft, "few", 20_000, &["--log-opt", "max-size=64k", "--log-opt", "max-file=2"])?;
    croft.ok(&["wait", "few"])?;
    let last = croft.ok(&["logs", "few"])?;
    let count = u32::try_from(last.lines().count())?;
    ensure!((1..5_000).contains(&count) && last == all(20_001 - count, 20_000), "{count}");
    for (option, words) in [
        ("max-size=1k", "64 KiB"),
        ("max-file=0", "one at least"),
        ("size=1m", "none of"),
        ("rate", "NAME=VALUE"),
    ] {
        let (code, text) = croft.fails(&["create", "--log-opt", option, "box", "true"])?;
        ensure!(code == 125 && text.contains(words), "{option}: {text}");
    }
    croft.ok(&["rm", "many", "few"])?;
    croft.nothing_is_left()
}

fn rate(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    // 12 bytes a line: a burst of 20 kB, and what the first instants add.
    says(&croft, "drops", 20_000, &["--log-opt", "rate=20k"])?;
    croft.ok(&["wait", "drops"])?;
    let logs = croft.run(&["logs", "drops"])?;
    let lines = logs.stdout.lines().count();
    ensure!((1_000..10_000).contains(&lines), "{lines} lines are logged");
    let missing: usize =
        logs.stderr.lines().filter_map(|line| line.split(' ').nth(1)?.parse::<usize>().ok()).sum();
    ensure!(lines + missing == 20_000, "{lines} and {missing}: {}", logs.stderr);
    // 240 kB, of which a pipe holds 64 at the end and the burst is 60.
    let begun = Instant::now();
    says(&croft, "waits", 20_000, &["--log-opt", "rate=60000", "--log-mode", "block"])?;
    croft.ok(&["wait", "waits"])?;
    ensure!(begun.elapsed().as_secs_f64() > 1.0, "240 kB at 60 kB a second took {:?}", begun.elapsed());
    let deadline = Instant::now() + COMMAND_LIMIT;
    while croft.ok(&["logs", "waits"])?.lines().count() < 20_000 {
        ensure!(Instant::now() < deadline, "lines are missing");
    }
    croft.ok(&["rm", "drops", "waits"])?;
    croft.nothing_is_left()
}

fn completion(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["create", "--name", "web-one", "box", "true"])?;
    croft.ok(&["create", "--name", "other", "box", "true"])?;
    let folder = croft.program.parent().context("a folder")?.display().to_string();
    let complete = |words: &str| -> Result<String> {
        let count = words.split(' ').count();
        // As bash does it: the words, which of them is completed, and the function that the script names.
        let script = format!(
            "PATH={folder}:$PATH; eval \"$(croft completion bash)\"; COMP_WORDS=({words}); COMP_CWORD={}; \
             COMP_TYPE=9; [ {count} = ${{#COMP_WORDS[@]}} ] || COMP_WORDS+=(''); \
             function=$(complete -p croft | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $function croft \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            count - 1
        );
        Ok(croft.stage.run("bash", &["-c", &script])?.success()?.stdout)
    };
    let commands = complete("croft st")?;
    ensure!(
        commands.contains("start") && commands.contains("stop") && commands.contains("stats"),
        "{commands}"
    );
    let names = complete("croft start web")?;
    ensure!(names.trim() == "web-one", "{names}");
    let images = complete("croft create bo")?;
    ensure!(images.contains("box"), "{images}");
    for shell in ["bash", "zsh", "fish"] {
        let script = croft.ok(&["completion", shell])?;
        ensure!(script.contains("COMPLETE") && script.contains("croft"), "{shell}: {script}");
    }
    let (code, _) = croft.fails(&["completion", "cmd"])?;
    ensure!(code == 125);
    croft.ok(&["rm", "web-one", "other"])?;
    croft.nothing_is_left()
}

fn colours(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["create", "--name", "one", "box", "true"])?;
    let (_, error) = croft.fails(&["start", "nobody"])?;
    for text in [croft.ok(&["ps", "--all"])?, croft.stage.daemon_log(), error] {
        ensure!(!text.is_empty() && !text.contains('\x1b'), "{text:?}");
    }
    croft.ok(&["rm", "one"])?;
    croft.nothing_is_left()
}
