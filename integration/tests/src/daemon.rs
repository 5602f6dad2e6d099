//! croftd with croft-shim and croft: containers from images, and what becomes of them when croftd is killed.

use std::time::Instant;

use anyhow::{Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::terminal::Terminal;
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const NEEDS: &[Facility] = &[Facility::Root];
const NETWORKS: &[Facility] = &[Facility::Root, Facility::Packages(&["nftables", "iproute2"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "run_gives_output_and_status", requires: NEEDS, run: run_gives_output_and_status },
        Test { name: "a_container_has_its_own_ids", requires: NEEDS, run: a_container_has_its_own_ids },
        Test { name: "from_create_to_removal", requires: NEEDS, run: from_create_to_removal },
        Test { name: "a_killed_croftd_finds_its_containers", requires: NEEDS, run: a_killed_croftd },
        Test { name: "a_policy_starts_again", requires: NEEDS, run: a_policy_starts_again },
        Test { name: "a_kill_is_not_followed_by_a_start", requires: NEEDS, run: a_kill_is_final },
        Test { name: "a_removed_container_has_ended", requires: NEEDS, run: a_removed_container },
        Test { name: "what_is_no_stop_signal", requires: NEEDS, run: no_stop_signal },
        Test { name: "volumes_keep_owners", requires: NEEDS, run: volumes_keep_owners },
        Test { name: "limits_hold", requires: NEEDS, run: limits_hold },
        Test { name: "bad_requests_leave_nothing", requires: NEEDS, run: bad_requests_leave_nothing },
        Test { name: "exec_has_input_output_and_status", requires: NEEDS, run: exec },
        Test { name: "terminals", requires: NEEDS, run: terminals },
        Test { name: "a_console_is_there_before_and_after", requires: NEEDS, run: console },
        Test { name: "containers_reach_each_other_and_the_host", requires: NETWORKS, run: networks },
        Test { name: "events_go_on_over_a_restart", requires: NEEDS, run: events_go_on },
    ],
};

fn run_gives_output_and_status(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let output = croft.run(&["run", "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!(output.code() == 7, "{output}");
    ensure!(output.stdout == "out\n" && output.stderr == "err\n", "{output}");
    // The supervisor starts it by itself.
    croft.stage.called(&["create", "delete"])?;
    croft.nothing_is_left()
}

fn a_container_has_its_own_ids(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    for name in ["one", "two"] {
        croft.ok(&["run", "--detach", "--name", name, "box", "sleep", "1000"])?;
    }
    let ids = ["one", "two"].map(|name| croft.inspect(name).map(|c| c["ids"].as_u64().unwrap_or_default()));
    let [one, two] = ids;
    let (one, two) = (one?, two?);
    ensure!(one > 0 && two >= one + 65_536, "{one} {two}");
    let map = croft.ok(&["run", "--rm", "box", "cat", "/proc/self/uid_map"])?;
    ensure!(map.split_whitespace().nth(1).is_some_and(|first| first != "0"), "{map}");
    let owner =
        croft.ok(&["run", "--rm", "box", "sh", "-c", "touch /new && stat -c %u:%g /new /bin/busybox"])?;
    ensure!(owner == "0:0\n0:0\n", "{owner}");
    let host = croft.ok(&["run", "--rm", "--userns", "host", "box", "cat", "/proc/self/uid_map"])?;
    ensure!(host.split_whitespace().nth(1) == Some("0"), "{host}");
    croft.ok(&["rm", "--force", "one", "two"])?;
    croft.nothing_is_left()
}

fn from_create_to_removal(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.1; done";
    croft.ok(&["create", "--name", "web", "box", "sh", "-c", script])?;
    ensure!(croft.inspect("web")?["state"] == "created");
    croft.ok(&["start", "web"])?;
    let (_, again) = croft.fails(&["start", "web"])?;
    ensure!(again.contains("runs already") && again.contains("hint:"), "{again}");
    ensure!(croft.ok(&["ps"])?.contains("running"));
    croft.ok(&["pause", "web"])?;
    ensure!(croft.inspect("web")?["state"] == "paused");
    croft.ok(&["unpause", "web"])?;
    croft.ok(&["rename", "web", "site"])?;
    let (_, refused) = croft.fails(&["rm", "site"])?;
    ensure!(refused.contains("it runs"), "{refused}");
    croft.ok(&["stop", "site"])?;
    ensure!(croft.ok(&["logs", "site"])? == "hello\nbye\n");
    ensure!(croft.inspect("site")?["exit"]["status"] == 0);
    ensure!(croft.ok(&["wait", "site"])? == "0\n");
    croft.ok(&["restart", "site"])?;
    ensure!(croft.inspect("site")?["state"] == "running");
    croft.ok(&["kill", "site"])?;
    ensure!(croft.ok(&["wait", "site"])? == "137\n");
    croft.ok(&["rm", "site"])?;
    croft.nothing_is_left()
}

fn a_killed_croftd(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";
    croft.ok(&["run", "--detach", "--name", "counts", "box", "sh", "-c", script])?;
    croft.ok(&["run", "--detach", "--name", "ends", "box", "sh", "-c", "sleep 0.5; exit 3"])?;
    let before = croft.inspect("counts")?;
    croft.kill()?;
    let (code, silent) = croft.fails(&["ps"])?;
    ensure!(code == 125 && silent.contains("does not answer"), "{code} {silent}");
    croft.start()?;
    ensure!(croft.ok(&["wait", "ends"])? == "3\n");
    let after = croft.inspect("counts")?;
    ensure!(after["pid"] == before["pid"] && after["state"] == "running", "{before}\n{after}");
    croft.ok(&["stop", "--time", "1", "counts"])?;
    let log = croft.ok(&["logs", "counts"])?;
    let numbers: Vec<usize> = log.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers.len() > 5 && numbers.iter().enumerate().all(|(at, n)| *n == at + 1), "{log}");
    croft.ok(&["rm", "counts", "ends"])?;
    croft.nothing_is_left()
}

fn a_policy_starts_again(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "fails", "--restart", "on-failure:2", "box", "false"])?;
    let events = croft.run_until("fails", 3)?;
    ensure!(events.matches("exit fails (status 1)").count() == 3, "{events}");
    ensure!(croft.inspect("fails")?["restarts"] == 2);
    croft.ok(&["rm", "fails"])?;
    croft.nothing_is_left()
}

fn a_kill_is_final(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let trap = "trap 'exit 4' INT TERM USR1; echo ready; while :; do sleep 0.05; done";
    let run = ["run", "--detach", "--restart", "always", "--stop-signal", "INT", "--name"];
    for (name, signal) in [("k", "KILL"), ("i", "INT"), ("u", "USR1")] {
        croft.ok(&[&run[..], &[name, "box", "sh", "-c", trap]].concat())?;
        croft.wait_for_log(name, "ready")?;
        croft.ok(&["kill", "--signal", signal, name])?;
        croft.run_until(name, 1)?;
    }
    // The last one is started again after a pause as long as theirs, which began before.
    let deadline = Instant::now() + COMMAND_LIMIT;
    while croft.inspect("u")?["restarts"] == 0 {
        ensure!(Instant::now() < deadline, "it is not started again: {}", croft.inspect("u")?);
    }
    for name in ["k", "i"] {
        let after = croft.inspect(name)?;
        ensure!(after["restarts"] == 0 && after["state"] == "stopped", "{name}: {after}");
    }
    // Of one that is frozen too.
    croft.ok(&["pause", "u"])?;
    croft.ok(&["kill", "u"])?;
    ensure!(croft.ok(&["wait", "u"])? == "137\n");
    croft.ok(&["rm", "k", "i", "u"])?;
    croft.nothing_is_left()
}

fn a_removed_container(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let program = croft.program.display();
    for option in ["", "--rm"] {
        // Its output says that it is waited for.
        let script = format!(
            "cd {}; rm -f out; {program} run {option} --network none --name r box sh -c 'echo up; exec sleep 1000' >out & \
             until [ -s out ]; do :; done; {program} rm --force r >/dev/null; wait $!; echo $?",
            croft.path("")
        );
        let said = croft.stage.run("sh", &["-c", &script])?;
        ensure!(said.stdout == "137\n" && said.stderr.is_empty(), "{option}: {said}");
        croft.nothing_is_left()?;
    }
    Ok(())
}

fn no_stop_signal(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let (code, text) = croft.fails(&["create", "--stop-signal", "FOO", "box", "true"])?;
    ensure!(code == 125 && text.contains("\"FOO\" is no signal") && text.contains("hint:"), "{code}: {text}");
    croft.nothing_is_left()
}

fn volumes_keep_owners(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let folder = croft.stage.path("shared");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("file"), "theirs")?;
    std::os::unix::fs::chown(folder.join("file"), Some(1234), Some(1234))?;
    let volume = format!("{}:/mnt", folder.display());
    let script = "stat -c %u:%g /mnt/file; cat /mnt/file; echo mine > /mnt/new";
    let seen = croft.ok(&["run", "--rm", "--volume", &volume, "box", "sh", "-c", script])?;
    ensure!(seen == "1234:1234\ntheirs", "{seen}");
    let made = std::fs::metadata(folder.join("new"))?;
    ensure!(std::os::unix::fs::MetadataExt::uid(&made) == 0, "the owner of a new file is mapped");
    let read_only = format!("{volume}:ro");
    let (code, _) = croft.fails(&["run", "--rm", "--volume", &read_only, "box", "touch", "/mnt/x"])?;
    ensure!(code == 1, "{code}");
    croft.nothing_is_left()
}

fn limits_hold(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all";
    let output = croft.run(&["run", "--rm", "--pids-limit", "10", "box", "sh", "-c", script])?;
    ensure!(!output.stdout.contains("all") && output.stderr.contains("fork"), "{output}");
    croft.ok(&[
        "run",
        "--detach",
        "--name",
        "eats",
        "--memory",
        "32m",
        "box",
        "sh",
        "-c",
        "sleep 0.2; tail /dev/zero",
    ])?;
    ensure!(croft.ok(&["wait", "eats"])? == "137\n");
    ensure!(croft.ok(&["ps", "--all"])?.contains("out of memory"), "{}", croft.ok(&["ps", "--all"])?);
    croft.ok(&["rm", "eats"])?;
    croft.nothing_is_left()
}

fn bad_requests_leave_nothing(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["create", "--name", "taken", "box", "true"])?;
    for (args, status, words) in [
        (&["create", "--name", "taken", "box", "true"][..], 125, "a container of that name is there"),
        (&["create", "--name", "a/b", "box", "true"], 125, "is no name"),
        (&["create", "--cap-add", "FLY", "box", "true"], 125, "no capability is called"),
        (&["create", "--user", "nobody-there", "box", "true"], 125, "not in the image's /etc/passwd"),
        (&["create", "--workdir", "srv", "box", "true"], 125, "no absolute path"),
        (&["create", "--memory", "1k", "box", "true"], 125, "no program runs"),
        (&["create", "--network", "none-such", "box", "true"], 125, "no network none-such"),
        (&["create", "--entrypoint", "", "box"], 125, "no command"),
        (&["run", "box", "no-such-program"], 127, "no-such-program"),
        (&["run", "box", "/etc"], 126, "/etc"),
        (&["start", "takn"], 125, "hint: there is taken"),
        (&["kill", "taken"], 125, "it does not run"),
        (&["kill", "--signal", "FLY", "taken"], 125, "is no signal"),
        (&["rename", "taken", "-x"], 125, ""),
        (&["image", "rm", "box"], 125, "taken"),
        (&["image", "rm", "none-such"], 125, "none-such"),
        (&["image", "import", "/none/such", "x"], 125, "/none/such"),
    ] {
        let (code, text) = croft.fails(args)?;
        ensure!(code == status && text.contains(words), "{args:?}: {code}: {text}");
    }
    croft.ok(&["rm", "taken"])?;
    croft.ok(&["image", "rm", "box"])?;
    croft.nothing_is_left()
}

fn events_go_on(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.ok(&["run", "--rm", "--name", "first", "box", "true"])?;
    croft.kill()?;
    croft.start()?;
    croft.ok(&["run", "--rm", "--name", "second", "box", "true"])?;
    croft.ok(&["image", "tag", "box", "other"])?;
    croft.ok(&["image", "rm", "other"])?;
    croft.ok(&["volume", "create", "data"])?;
    croft.ok(&["volume", "create", "data"])?;
    croft.ok(&["volume", "rm", "data"])?;
    let events = croft.ok(&["events", "--since", "0", "--no-follow"])?;
    let numbers: Vec<u64> = events.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    ensure!(numbers.iter().enumerate().all(|(at, n)| *n == at as u64 + 1), "{events}");
    for name in ["first", "second"] {
        for action in ["create", "start", "exit", "delete"] {
            ensure!(events.contains(&format!("container {action} {name}")), "{action} {name}: {events}");
        }
    }
    for once in ["image tag other", "image delete other", "volume create data", "volume delete data"] {
        ensure!(events.matches(once).count() == 1, "{once}: {events}");
    }
    croft.nothing_is_left()
}

fn exec(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "web", "--env", "A=1", "box", "sleep", "1000"])?;
    let output =
        croft.run(&["exec", "--env", "B=2", "web", "sh", "-c", "echo $A$B; echo err >&2; exit 9"])?;
    ensure!(output.code() == 9 && output.stdout == "12\n" && output.stderr == "err\n", "{output}");
    let user =
        croft.ok(&["exec", "--user", "user", "--workdir", "/tmp", "web", "sh", "-c", "id -un; pwd"])?;
    ensure!(user == "user\n/tmp\n", "{user}");
    let piped =
        format!("head -c 300000 /dev/zero | {} exec --interactive web wc -c", croft.program.display());
    let counted = croft.stage.run("sh", &["-c", &piped])?.success()?.stdout;
    ensure!(counted.trim() == "300000", "{counted}");
    let much = croft.ok(&[
        "exec",
        "web",
        "sh",
        "-c",
        "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done",
    ])?;
    ensure!(much.lines().count() == 20_000 && much.ends_with("19999\n"), "{} lines", much.lines().count());
    let (code, missing) = croft.fails(&["exec", "web", "no-such-program"])?;
    ensure!(code == 127, "{code}: {missing}");
    croft.ok(&["stop", "--time", "0", "web"])?;
    let (_, stopped) = croft.fails(&["exec", "web", "true"])?;
    ensure!(stopped.contains("it is stopped"), "{stopped}");
    croft.ok(&["rm", "web"])?;
    croft.nothing_is_left()
}

fn terminals(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let program = croft.program.display().to_string();
    let args = ["run", "--rm", "--interactive", "--tty", "box", "sh"];
    let output = croft.stage.run_on_terminal(&program, &args, "tty; echo said $((6*7)); exit 5\n")?;
    ensure!(output.code() == 5, "{output}");
    ensure!(output.stdout.contains("/dev/pts/") && output.stdout.contains("said 42"), "{output}");
    croft.ok(&["run", "--detach", "--name", "web", "box", "sleep", "1000"])?;
    let args = ["exec", "--interactive", "--tty", "web", "sh", "-c", "stty size; read line; echo got $line"];
    let output = croft.stage.run_on_terminal(&program, &args, "words\n")?;
    ensure!(output.stdout.contains("got words"), "{output}");
    croft.ok(&["rm", "--force", "web"])?;
    croft.nothing_is_left()
}

fn console(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = "echo early words; while read line; do echo said $line; done";
    croft.ok(&["create", "--name", "web", "--interactive", "--tty", "box", "sh", "-c", script])?;
    let mut command = croft.stage.command(&croft.program.display().to_string());
    command.args(["console", "web"]);
    let shown = |terminal: &mut Terminal, typed: &str, text: &str| -> Result<()> {
        terminal.type_in(typed.as_bytes(), COMMAND_LIMIT)?;
        terminal.wait_for(text, COMMAND_LIMIT).map(drop)
    };
    let mut before = Terminal::start(&command, 24, 80)?;
    shown(&mut before, "", "does not run")?;
    croft.ok(&["start", "web"])?;
    shown(&mut before, "", "early words")?;
    shown(&mut before, "one\n", "said one")?;
    before.type_in(b"\x10\x11", COMMAND_LIMIT)?;
    ensure!(before.end(COMMAND_LIMIT)?.0 == 0, "the user has left");
    // Who comes later sees what was shown, and the container's end.
    let mut after = Terminal::start(&command, 24, 80)?;
    shown(&mut after, "", "said one")?;
    shown(&mut after, "two\n", "said two")?;
    croft.ok(&["stop", "--time", "0", "web"])?;
    ensure!(after.end(COMMAND_LIMIT)?.0 == 0, "it has ended");
    croft.ok(&["run", "--detach", "--name", "plain", "box", "sleep", "1000"])?;
    for (name, words) in [("plain", "no terminal"), ("webb", "hint: there is web")] {
        let (code, text) = croft.fails(&["console", name])?;
        ensure!(code == 125 && text.contains(words), "{name}: {text}");
    }
    croft.ok(&["rm", "--force", "web", "plain"])?;
    croft.nothing_is_left()
}

fn networks(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    let serve = "echo 'echo answer from $(hostname)' > /answer; exec nc -ll -p 80 -e sh /answer";
    let on = ["--network", "croft"];
    let run = |rest: &[&str]| croft.ok(&[&["run"][..], &on, rest].concat());
    run(&["--detach", "--name", "web", "--publish", "8080:80", "box", "sh", "-c", serve])?;
    let own = run(&[
        "--rm",
        "box",
        "sh",
        "-c",
        "ip -o addr show eth0; ping -c 1 -W 5 web >/dev/null && echo reached",
    ])?;
    ensure!(own.contains("inet 10.") && own.contains("inet6 fd") && own.ends_with("reached\n"), "{own}");
    let answer = run(&["--rm", "box", "sh", "-c", "nc -w 5 web 80 </dev/null"])?;
    ensure!(answer == "answer from web\n", "{answer}");
    let from_host = |croft: &Croft, address: &str| -> Result<String> {
        let script = format!("exec 3<>/dev/tcp/{address}/8080 && timeout 5 cat <&3");
        Ok(croft.stage.run("bash", &["-c", &script])?.success()?.stdout)
    };
    for address in ["127.0.0.1", "::1"] {
        ensure!(from_host(&croft, address)? == "answer from web\n", "{address}");
    }
    let (code, taken) = croft.fails(&["run", "--network", "croft", "--publish", "8080:81", "box", "true"])?;
    ensure!(code == 125 && taken.contains("8080"), "{code} {taken}");
    croft.kill()?;
    ensure!(from_host(&croft, "127.0.0.1")? == "answer from web\n", "croftd is away");
    croft.start()?;
    let again =
        croft.ok(&["run", "--network", "croft", "--rm", "box", "sh", "-c", "nc -w 5 web 80 </dev/null"])?;
    ensure!(again == "answer from web\n", "{again}");
    croft.ok(&["rm", "--force", "web"])?;
    croft.nothing_is_left()
}
