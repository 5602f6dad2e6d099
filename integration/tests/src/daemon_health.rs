//! What becomes of a container while it runs: health checks, other limits, and a runtime that hangs.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const NEEDS: &[Facility] = &[Facility::Root];

/// How long a container may take to be as healthy as it should.
const LIMIT: Duration = Duration::from_secs(90);

pub const SUBJECT: Subject = Subject {
    name: "daemon_health",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "a_check_says_how_it_is", requires: NEEDS, run: a_check_says_how_it_is },
        Test { name: "checks_go_on_after_a_killed_croftd", requires: NEEDS, run: checks_go_on },
        Test { name: "a_check_that_hangs_hinders_nothing", requires: NEEDS, run: a_check_that_hangs },
        Test { name: "limits_change_while_it_runs", requires: NEEDS, run: limits_change },
        Test { name: "a_runtime_that_hangs_is_ended", requires: NEEDS, run: a_runtime_that_hangs },
    ],
};

/// What is known of a container's health once that is `state`.
fn health(croft: &Croft, name: &str, state: &str) -> Result<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let health = croft.inspect(name)?["health"].clone();
        if health["state"] == state {
            return Ok(health);
        }
        ensure!(Instant::now() < deadline, "it is never {state}: {health}");
    }
}

fn run_with_check(croft: &Croft, name: &str, check: &str, options: &[&str]) -> Result<()> {
    let own = ["run", "--detach", "--name", name, "--health-cmd", check, "--health-interval", "100ms"];
    croft.ok(&[&own[..], options, &["box", "sleep", "1000"]].concat()).map(drop)
}

fn a_check_says_how_it_is(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let check = "echo looked; echo wrong >&2; test -e /ready";
    run_with_check(&croft, "web", check, &["--health-retries", "2"])?;
    let bad = health(&croft, "web", "unhealthy")?;
    ensure!(bad["failing"].as_u64() >= Some(2) && bad["log"][0]["status"] == 1, "{bad}");
    let output = bad["log"][0]["output"].as_str().unwrap_or_default();
    ensure!(output.contains("looked\n") && output.contains("wrong\n"), "{bad}");
    croft.ok(&["exec", "web", "touch", "/ready"])?;
    health(&croft, "web", "healthy")?;
    ensure!(croft.ok(&["ps"])?.contains("(healthy)"), "{}", croft.ok(&["ps"])?);
    let events = croft.ok(&["events", "--since", "0", "--no-follow"])?;
    for state in ["unhealthy", "healthy"] {
        ensure!(events.contains(&format!("health_status web ({state})")), "{events}");
    }
    let much = "head -c 10000 /dev/zero | tr '\\0' x; echo; echo last";
    run_with_check(&croft, "much", much, &[])?;
    health(&croft, "much", "healthy")?;
    let deadline = Instant::now() + LIMIT;
    let log = loop {
        let log = health(&croft, "much", "healthy")?["log"].clone();
        if log.as_array().is_some_and(|log| log.len() == 5) || Instant::now() > deadline {
            break log;
        }
    };
    ensure!(log.as_array().is_some_and(|log| log.len() == 5), "{log}");
    let output = log[4]["output"].as_str().unwrap_or_default();
    ensure!(output.len() == 4096 && output.ends_with("x\nlast\n"), "{} bytes", output.len());
    run_with_check(&croft, "begins", "false", &["--health-start-period", "1h"])?;
    let deadline = Instant::now() + LIMIT;
    while croft.inspect("begins")?["health"]["log"].as_array().is_none_or(|log| log.len() < 5) {
        ensure!(Instant::now() < deadline, "it is not looked at");
    }
    health(&croft, "begins", "starting")?;
    croft.ok(&["run", "--detach", "--name", "none", "--no-healthcheck", "box", "sleep", "1000"])?;
    ensure!(croft.inspect("none")?["health"].is_null());
    for (options, words) in [
        (&["--health-interval", "5 apples"][..], "30s"),
        (&["--health-cmd", "true", "--no-healthcheck"], "--no-healthcheck"),
        (&["--health-retries", "3"], "--health-cmd"),
        (&["--health-cmd", "true", "--health-timeout", "0s"], "more than nothing"),
    ] {
        let output = croft.run(&[&["create"], options, &["box", "true"]].concat())?;
        ensure!(output.code() != 0 && output.stderr.contains(words), "{options:?}: {output}");
    }
    croft.ok(&["rm", "--force", "web", "much", "begins", "none"])?;
    croft.nothing_is_left()
}

fn checks_go_on(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    run_with_check(&croft, "web", "test ! -e /broken", &["--health-retries", "1"])?;
    let before = health(&croft, "web", "healthy")?;
    croft.kill()?;
    croft.start()?;
    let after = croft.inspect("web")?["health"].clone();
    ensure!(
        after["state"] == "healthy"
            && after["log"][0]["start"].as_str() >= before["log"][0]["start"].as_str(),
        "{before}\n{after}"
    );
    croft.ok(&["exec", "web", "touch", "/broken"])?;
    health(&croft, "web", "unhealthy")?;
    croft.ok(&["restart", "--time", "0", "web"])?;
    croft.ok(&["exec", "web", "rm", "/broken"])?;
    health(&croft, "web", "healthy")?;
    croft.ok(&["rm", "--force", "web"])?;
    croft.nothing_is_left()
}

fn a_check_that_hangs(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    run_with_check(
        &croft,
        "web",
        "echo begun; sleep 1000",
        &["--health-timeout", "300ms", "--health-retries", "1"],
    )?;
    let bad = health(&croft, "web", "unhealthy")?;
    let output = bad["log"][0]["output"].as_str().unwrap_or_default();
    ensure!(
        bad["log"][0]["status"].is_null() && output.contains("begun") && output.contains("was killed"),
        "{bad}"
    );
    croft.ok(&["pause", "web"])?;
    croft.ok(&["unpause", "web"])?;
    croft.ok(&["stop", "--time", "0", "web"])?;
    croft.ok(&["rm", "web"])?;
    croft.nothing_is_left()
}

fn limits_change(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.ok(&[
        "run",
        "--detach",
        "--name",
        "web",
        "--memory",
        "64m",
        "--pids-limit",
        "50",
        "box",
        "sleep",
        "1000",
    ])?;
    let forks = "i=0; while [ $i -lt 20 ]; do sleep 1 & i=$((i+1)); done; wait; echo all";
    ensure!(croft.ok(&["exec", "web", "sh", "-c", forks])? == "all\n");
    croft.ok(&[
        "update",
        "--pids-limit",
        "10",
        "--memory",
        "128m",
        "--cpuset-cpus",
        "0",
        "--restart",
        "always",
        "web",
    ])?;
    let config = croft.inspect("web")?["config"].clone();
    ensure!(config["limits"]["pids"] == 10 && config["limits"]["memory"] == 128 << 20, "{config}");
    ensure!(config["restart"] == "always", "{config}");
    let refused = croft.run(&["exec", "web", "sh", "-c", forks])?;
    ensure!(!refused.stdout.contains("all") && refused.stderr.contains("fork"), "{refused}");
    let cpus = croft.ok(&["exec", "web", "grep", "Cpus_allowed_list", "/proc/self/status"])?;
    ensure!(cpus.trim().ends_with("\t0"), "{cpus}");
    for (options, words) in [
        (&["--memory", "1k"][..], "4 MiB"),
        (&["--memory-swap", "64m"], "no less than --memory"),
        (&["--cpuset-cpus", "4000"], "cpuset"),
        (&["--pids-limit", "0"], "pids-limit"),
        (&[], "nothing is asked"),
    ] {
        let (_, text) = croft.fails(&[&["update"], options, &["web"]].concat())?;
        ensure!(text.contains(words), "{options:?}: {text}");
        ensure!(croft.inspect("web")?["config"] == config, "{options:?}: the record has changed");
    }
    croft.kill()?;
    croft.start()?;
    ensure!(croft.inspect("web")?["config"] == config);
    croft.ok(&["stop", "--time", "0", "web"])?;
    croft.ok(&["update", "--pids-limit", "50", "web"])?;
    croft.ok(&["start", "web"])?;
    ensure!(croft.ok(&["exec", "web", "sh", "-c", forks])? == "all\n", "the limit is that of the update");
    let (_, missing) = croft.fails(&["update", "--memory", "64m", "none-such"])?;
    ensure!(missing.contains("no container is called so"), "{missing}");
    croft.ok(&["rm", "--force", "web"])?;
    croft.nothing_is_left()
}

fn a_runtime_that_hangs(host: &Host) -> Result<()> {
    let croft = Croft::with_options(host, &["--runtime-limit", "3"])?;
    let runtime = croft.stage.runtime();
    let works = std::fs::read_to_string(&runtime)?;
    let hang_in = |verb: &str| -> Result<()> {
        let hang = format!("case \" $* \" in *' {verb} '*) exec sleep 1000;; esac\n");
        let script = works.replacen("exec ", &format!("{hang}exec "), 1);
        // Put in place as a whole: croft-oci may be asked for at any moment.
        let new = runtime.with_extension("new");
        std::fs::write(&new, if verb.is_empty() { &works } else { &script })?;
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755))?;
        Ok(std::fs::rename(&new, &runtime)?)
    };
    croft.ok(&["run", "--detach", "--name", "runs", "box", "sleep", "1000"])?;
    croft.ok(&["create", "--name", "first", "box", "sleep", "1000"])?;
    hang_in("create")?;
    let (_, text) = croft.fails(&["start", "first"])?;
    ensure!(text.contains("did not end within 3s and was killed"), "{text}");
    ensure!(croft.inspect("first")?["state"] == "created");
    croft.ok(&["rm", "--force", "first"])?;
    hang_in("exec")?;
    let (_, text) = croft.fails(&["exec", "runs", "true"])?;
    ensure!(text.contains("did not end within 3s and was killed"), "{text}");
    hang_in("pause")?;
    let (_, text) = croft.fails(&["pause", "runs"])?;
    ensure!(text.contains("did not end within 3s and was killed"), "{text}");
    hang_in("")?;
    croft.ok(&["exec", "runs", "true"])?;
    croft.ok(&["rm", "--force", "runs"])?;
    croft.nothing_is_left()
}
