//! croftd as a service: what it says of its host, its socket from systemd, its signals, its configuration file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Stage, Subject, Test, build};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// Nothing here depends on the kind of host: the emulated one would only take longer.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];

pub const SUBJECT: Subject = Subject {
    name: "daemon_service",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "check_says_what_a_host_lacks_and_fixes_what_is_safe", requires: NEEDS, run: check },
        Test { name: "a_socket_of_systemd_is_served_and_stays", requires: NEEDS, run: activation },
        Test { name: "sigterm_leaves_containers_running", requires: NEEDS, run: terminate },
        Test { name: "sighup_reads_the_options_again", requires: NEEDS, run: reload },
        Test { name: "wrong_configuration_files_are_refused", requires: NEEDS, run: wrong_files },
    ],
};

/// A folder that stands for a host: this much of one.
fn made_up_host(root: &Path) -> Result<()> {
    let files = [
        ("proc/sys/kernel/osrelease", "6.1.0-1\n"),
        ("proc/self/status", "Name:\tcroftd\nCapEff:\t000001ffffffffff\n"),
        ("proc/self/mountinfo", "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ("proc/self/limits", "Max open files            1024                 1024                 files\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n"),
        ("proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow\n"),
        ("proc/modules", "bridge 1 0 - Live\nveth 1 0 - Live\n"),
        ("proc/filesystems", "nodev\tproc\n\text4\n"),
        ("proc/sys/user/max_user_namespaces", "0\n"),
        ("proc/sys/fs/inotify/max_user_instances", "128\n"),
        ("proc/sys/kernel/pid_max", "4194304\n"),
        ("usr/sbin/nft", ""),
        ("etc/group", "root:x:0:\n"),
    ];
    let namespaces = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts", "time"];
    let namespaces = namespaces.map(|kind| (format!("proc/self/ns/{kind}"), ""));
    let all = files.map(|(path, text)| (path.to_owned(), text)).into_iter().chain(namespaces);
    for (path, text) in all {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, text)?;
    }
    Ok(())
}

fn check(host: &Host) -> Result<()> {
    let stage = Stage::new(host)?;
    let [croftd, shim, _] = build::daemon(build::Build::Debug)?;
    let root = stage.path("host");
    made_up_host(&root)?;
    // The only modprobe that can be found notes what it is asked.
    let asked = stage.path("asked");
    fs::create_dir(stage.path("bin"))?;
    let modprobe = format!("#!/bin/sh\necho \"$3\" >>{}\n", asked.display());
    fs::write(stage.path("bin/modprobe"), modprobe)?;
    stage.run("chmod", &["755", &stage.path("bin/modprobe").display().to_string()])?.success()?;
    let path = format!("PATH={}:/usr/bin:/bin", stage.path("bin").display());
    let run = |options: &[&str]| {
        let (root, shim) = (root.display().to_string(), shim.display().to_string());
        let runtime = stage.runtime().display().to_string();
        let croftd = croftd.display().to_string();
        let fixed =
            [&path, croftd.as_str(), "--shim", &shim, "--runtime", &runtime, "check", "--host-root", &root];
        stage.run("env", &[&fixed, options].concat())
    };
    let states = |text: &str| -> Result<Vec<(String, String)>> {
        let all: Vec<Value> = serde_json::from_str(text)?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(all.iter().map(|one| (word(&one["what"]), word(&one["state"]))).collect())
    };
    let output = run(&["--format", "json"])?;
    ensure!(output.code() == 1, "{output}");
    let before = states(&output.stdout)?;
    for (what, state) in [
        ("kernel", "ok"),
        ("privileges", "ok"),
        ("cgroup2", "ok"),
        ("controller memory", "ok"),
        ("controller io", "limited"),
        ("module overlay", "missing"),
        ("module bridge", "ok"),
        ("sysctl user.max_user_namespaces", "missing"),
        ("sysctl fs.inotify.max_user_instances", "limited"),
        ("sysctl kernel.pid_max", "ok"),
        ("limit of open files", "limited"),
        ("program nft", "ok"),
        ("program criu", "limited"),
        ("program croft-oci", "ok"),
        ("folder /var/lib/croft", "limited"),
        ("group croft", "limited"),
    ] {
        ensure!(before.contains(&(what.into(), state.into())), "{what} {state}: {before:?}");
    }
    ensure!(!asked.exists() && !root.join("var/lib/croft").exists(), "a look changes nothing");
    let table = run(&[])?;
    ensure!(table.stdout.contains("MISSING") && table.stdout.contains("apt-get install criu"), "{table}");
    let fixed = run(&["--fix", "--format", "json"])?;
    ensure!(fixed.stderr.contains("user.max_user_namespaces was 0 and is 1024"), "{fixed}");
    ensure!(fs::read_to_string(root.join("proc/sys/user/max_user_namespaces"))? == "1024");
    ensure!(fs::read_to_string(root.join("proc/sys/kernel/pid_max"))? == "4194304\n", "what is enough stays");
    ensure!(
        fs::read_to_string(&asked)?.lines().next() == Some("overlay") && root.join("var/lib/croft").is_dir()
    );
    // The noting modprobe loads nothing: what is still missing is said.
    ensure!(fixed.code() == 1, "{fixed}");
    fs::write(root.join("proc/filesystems"), "nodev\toverlay\n")?;
    let output = run(&["--format", "json"])?;
    ensure!(output.code() == 0, "{output}");
    let (own, _) = (stage.run(&croftd.display().to_string(), &["check"])?, ());
    ensure!(own.stdout.contains("kernel") && own.stdout.contains("cgroup2"), "{own}");
    Ok(())
}

/// Makes a socket and becomes the command behind it, which finds it as descriptor 3: sd_listen_fds(3).
const ACTIVATE: &str = r#"
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "1"
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn activation(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.terminate()?;
    let path = "/run/croft/croft.sock";
    croft.start_as(&["/usr/bin/python3", "-c", ACTIVATE, path], &[])?;
    ensure!(croft.ok(&["run", "--rm", "box", "echo", "served"])? == "served\n");
    ensure!(croft.stage.daemon_log().contains("activated=true"), "{}", croft.stage.daemon_log());
    croft.nothing_is_left()?;
    croft.terminate()?;
    croft.stage.run("test", &["-S", path])?.success().context("systemd's socket is systemd's")?;
    croft.stage.run("rm", &[path])?.success()?;
    croft.start()?;
    croft.terminate()?;
    ensure!(croft.stage.run("test", &["-e", path])?.code() == 1, "its own socket it removes");
    Ok(())
}

fn terminate(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "stays", "box", "sleep", "1000"])?;
    let pid = croft.inspect("stays")?["pid"].to_string();
    // Who waits for its end does not hold up croftd's.
    let script = format!("{} wait stays >{} 2>&1 & echo $!", croft.program.display(), croft.path("waited"));
    croft.stage.run("sh", &["-c", &script])?.success()?;
    croft.terminate()?;
    ensure!(croft.stage.daemon_log().contains("containers go on"), "{}", croft.stage.daemon_log());
    croft.stage.run("kill", &["-0", &pid])?.success().context("the container goes on")?;
    croft.start()?;
    let after = croft.inspect("stays")?;
    ensure!(after["state"] == "running" && after["pid"] == serde_json::from_str::<Value>(&pid)?, "{after}");
    croft.ok(&["rm", "--force", "stays"])?;
    croft.nothing_is_left()
}

/// Runs `croft ps` as nobody, on a socket that nobody's group can reach.
fn as_nobody(croft: &Croft) -> Result<bool> {
    let program = croft.program.display().to_string();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let ps = [program.as_str(), "--socket", SOCKET, "ps"];
    Ok(croft.stage.run("setpriv", &[&nobody[..], &ps].concat())?.code() == 0)
}

const SOCKET: &str = "/run/elsewhere.sock";

fn reload(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.terminate()?;
    // The suite's own folder lets nobody in.
    croft.program = copied(&croft)?;
    let config = croft.path("croftd.toml");
    fs::write(&config, format!("socket = {SOCKET:?}\nlog = \"warn\"\ngroup = \"no-such-group\"\n"))?;
    croft.start_as(&[], &["--config", &config])?;
    ensure!(!croft.stage.daemon_log().contains("croftd listens"), "{}", croft.stage.daemon_log());
    ensure!(!as_nobody(&croft)?, "nobody is no administrator");
    let ok = |args: &[&str]| croft.ok(&[&["--socket", SOCKET], args].concat());
    let pid = serde_json::from_str::<Value>(&ok(&["system", "info"])?)?["pid"].to_string();
    let hangup = |text: &str, said: &str| -> Result<()> {
        fs::write(&config, text)?;
        croft.stage.run("kill", &["-HUP", &pid])?.success()?;
        let deadline = std::time::Instant::now() + croft_harness::stage::COMMAND_LIMIT;
        while !croft.stage.daemon_log().contains(said) {
            ensure!(std::time::Instant::now() < deadline, "no {said:?}: {}", croft.stage.daemon_log());
        }
        Ok(())
    };
    let good = format!("socket = {SOCKET:?}\nlog = \"info\"\ngroup = \"nogroup\"\n");
    hangup(&good, "the options are read again")?;
    ensure!(as_nobody(&croft)?, "nobody is in the group");
    hangup("colour = 'red'\n", "the options stay as they were")?;
    ensure!(as_nobody(&croft)?, "what was good stays");
    hangup(&good.replace("nogroup", "no-such-group"), "group=\"no-such-group\"")?;
    ensure!(!as_nobody(&croft)?, "nobody is out of it again");
    Ok(())
}

/// A copy of croft where everybody can run it.
fn copied(croft: &Croft) -> Result<std::path::PathBuf> {
    let copy = croft.stage.path("croft");
    fs::copy(&croft.program, &copy)?;
    Ok(copy)
}

fn wrong_files(host: &Host) -> Result<()> {
    let stage = Stage::new(host)?;
    let croftd = build::daemon(build::Build::Debug)?[0].display().to_string();
    let file = stage.path("croftd.toml");
    for (text, words) in [
        ("colour = 'red'", "no such option"),
        ("log-json = 3", "neither true nor false"),
        ("log = [", "croftd.toml"),
        ("cgroup = true", "no string"),
    ] {
        fs::write(&file, text)?;
        let output = stage.run(&croftd, &["--config", &file.display().to_string()])?;
        ensure!(output.code() == 1 && output.stderr.contains(words), "{text}: {output}");
    }
    let output = stage.run(&croftd, &["--config", "/none/such"])?;
    ensure!(output.code() == 1 && output.stderr.contains("/none/such"), "{output}");
    ensure!(
        !Path::new("/run/croft-none").exists() && stage.run("ls", &["/run"])?.success()?.stdout == "lock\n"
    );
    Ok(())
}
