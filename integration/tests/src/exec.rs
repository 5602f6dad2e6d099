//! `exec`: who the further process is, where it runs, how it ends, and that nothing of it stays.
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::process;
use croft_harness::snapshot::{Snapshot, descendants};
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const ROOT: &[Facility] = &[Facility::Root];
const LIMIT: Duration = Duration::from_secs(20);

pub const SUBJECT: Subject = Subject {
    name: "exec",
    on_runc: &[
        ("process_from_a_file", OnRunc::Races("runc's init and its exec both set RLIMIT_NOFILE (runc 4195)")),
        ("changes_to_the_containers_process", OnRunc::Fails("runc refuses -e and --env in one command line")),
        (
            "subgroup",
            OnRunc::Fails(
                "runc joins a cpuset without processors: it fills a v1 group from its parent only at create",
            ),
        ),
        (
            "signals_are_passed_on",
            OnRunc::CroftOnly("runc copies the streams and waits for whoever still holds them"),
        ),
        (
            "preserved_descriptors",
            OnRunc::Fails("runc 1.1 passes on descriptors that it opened itself in place of a closed one"),
        ),
        (
            "default_signals_inside",
            OnRunc::Fails("runc 1.1 leaves a real-time signal ignored (SigIgn 80000000)"),
        ),
        ("cpu_affinity", OnRunc::CroftOnly("runtime-spec 1.2, which Debian bookworm's runc does not know")),
        (
            "what_it_leaves_out_is_the_containers",
            OnRunc::CroftOnly("--process of runc 1.1 wants every property"),
        ),
        ("pidfd_socket", OnRunc::CroftOnly("runc 1.2")),
    ],
    tests: &[
        Test { name: "statuses_and_words", requires: ROOT, run: statuses_and_words },
        Test { name: "another_user", requires: ROOT, run: another_user },
        Test { name: "changes_to_the_containers_process", requires: ROOT, run: changes },
        Test { name: "process_from_a_file", requires: ROOT, run: process_from_a_file },
        Test { name: "what_it_leaves_out_is_the_containers", requires: ROOT, run: what_it_leaves_out },
        Test { name: "joins_every_namespace", requires: ROOT, run: joins_every_namespace },
        Test { name: "joins_a_user_namespace", requires: ROOT, run: joins_a_user_namespace },
        Test { name: "is_in_the_containers_groups", requires: ROOT, run: is_in_the_containers_groups },
        Test { name: "subgroup", requires: ROOT, run: subgroup },
        Test { name: "has_the_filter", requires: &[Facility::Root, Facility::Seccomp], run: has_the_filter },
        Test {
            name: "cpu_affinity",
            requires: &[Facility::Root, Facility::Processors(2)],
            run: cpu_affinity,
        },
        Test { name: "bytes_through_pipes", requires: ROOT, run: bytes_through_pipes },
        Test { name: "signals_are_passed_on", requires: ROOT, run: signals_are_passed_on },
        Test { name: "run_passes_signals_on", requires: ROOT, run: run_passes_signals_on },
        Test { name: "detached_with_a_pid_file", requires: ROOT, run: detached_with_a_pid_file },
        Test { name: "preserved_descriptors", requires: ROOT, run: preserved_descriptors },
        Test { name: "listen_fds", requires: ROOT, run: listen_fds },
        Test { name: "pidfd_socket", requires: ROOT, run: pidfd_socket },
        Test { name: "in_a_created_container", requires: ROOT, run: in_a_created_container },
        Test { name: "in_a_paused_container", requires: ROOT, run: in_a_paused_container },
        Test { name: "in_a_container_that_runs_in_the_foreground", requires: ROOT, run: in_the_foreground },
        Test { name: "default_signals_inside", requires: ROOT, run: default_signals_inside },
        Test { name: "streams_of_an_ordinary_user", requires: ROOT, run: streams_of_an_ordinary_user },
        Test { name: "twenty_leave_nothing", requires: ROOT, run: twenty_leave_nothing },
    ],
};

/// A container that sleeps, with the probe in it.
fn sleeping(host: &Host, change: impl FnOnce(&mut Value)) -> Result<Bundle> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?.edit(change);
    bundle.add_probe()?;
    bundle.started()?;
    Ok(bundle)
}

fn sh(bundle: &Bundle, options: &[&str], script: &str) -> Command {
    let mut command = bundle.command("exec");
    command.args(options).arg(bundle.id()).args(["/bin/sh", "-c", script]);
    command
}

fn statuses_and_words(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    fs::write(bundle.rootfs().join("etc/data"), "no program")?;
    for (args, status, words) in [
        (&["/bin/sh", "-c", "exit 7"][..], 7, ""),
        (&["/bin/sh", "-c", "kill -9 $$"], 137, ""),
        (&["nosuch"], 255, r#"exec: \"nosuch\": executable file not found in $PATH"#),
        (&["/nosuch"], 255, r#"exec: \"/nosuch\": stat /nosuch: no such file or directory"#),
        (&["/etc/data"], 255, r#"exec: \"/etc/data\": permission denied"#),
        (&["/etc"], 255, r#"exec: \"/etc\""#),
        (&[], 255, "process args cannot be empty"),
    ] {
        let out = bundle.exec(args)?;
        ensure!(out.code() == status && out.stderr.contains(words), "{out}");
    }
    for (options, words) in [
        (&["--user", "bob"][..], "parsing bob as int for uid failed"),
        (&["--cwd", "/nosuch"], "chdir to cwd (\\\"/nosuch\\\")"),
        (&["-t", "-d"], "cannot allocate tty if runc will detach without setting console socket"),
        (&["--console-socket", "/x"], "cannot use console socket if runc will not detach or allocate tty"),
        (&["--process", "/nosuch"], "no such file or directory"),
        (&["--cgroup", "nosuch"], "no such file or directory"),
    ] {
        let out = bundle.exec_with(options, &["true"])?;
        ensure!(out.code() == 255 && out.stderr.contains(words), "{out}");
    }
    let mut missing = bundle.command("exec");
    let out = process::run(missing.args(["croft-test-nosuch", "true"]), LIMIT)?;
    ensure!(out.code() == 255 && out.stderr.contains("does not exist"), "{out}");
    let pid = bundle.pid()?;
    bundle.kill("KILL")?.success()?;
    bundle.ended(pid, LIMIT)?;
    let out = bundle.exec(&["true"])?;
    ensure!(out.code() == 255 && out.stderr.contains("cannot exec in a stopped container"), "{out}");
    Ok(())
}

fn another_user(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |c| c["process"]["noNewPrivileges"] = false.into())?;
    let options = ["--user", "1000:1001", "-g", "7", "-g", "8", "--cap", "CAP_NET_RAW", "--no-new-privs"];
    let seen = bundle.exec_probed(&options, &[])?;
    let status = &seen["status"];
    ensure!(status["Uid"] == json!([1000, 1000, 1000, 1000]), "{status:#}");
    ensure!(status["Gid"] == json!([1001, 1001, 1001, 1001]), "{status:#}");
    ensure!(status["Groups"] == json!([7, 8]) && status["NoNewPrivs"] == 1, "{status:#}");
    let want = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_AUDIT_WRITE"]);
    // An ordinary user's capabilities do not outlive the exec; what it could gain again is bounded.
    ensure!(status["CapBnd"] == want && status["CapEff"] == json!([]), "{status:#}");
    let seen = bundle.exec_probed(&["--cap", "CAP_NET_RAW"], &[])?;
    ensure!(seen["status"]["CapEff"] == want && seen["status"]["NoNewPrivs"] == 0, "{:#}", seen["status"]);
    Ok(())
}

fn changes(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |c| c["process"]["rlimits"][0]["soft"] = 321.into())?;
    let seen = bundle.exec_probed(&["--cwd", "/etc", "--env", "A=b", "-e", "TERM=dumb"], &["--exit", "0"])?;
    let env = seen["env"].as_array().context("env")?;
    ensure!(seen["cwd"] == "/etc" && env.contains(&"A=b".into()), "{seen:#}");
    ensure!(env.contains(&"HOME=/root".into()) && env.iter().any(|e| *e == "TERM=dumb"), "{seen:#}");
    ensure!(seen["rlimits"]["RLIMIT_NOFILE"]["soft"] == 321, "{seen:#}");
    ensure!(seen["fds"].as_object().is_some_and(|fds| fds.len() <= 4), "{}", seen["fds"]);
    ensure!(seen["process"]["sid"] == seen["process"]["pid"], "{}", seen["process"]);
    ensure!(seen["session_keyring"].as_str().is_some_and(|k| k.ends_with(bundle.id())), "{seen:#}");
    Ok(())
}

fn process_from_a_file(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let path = bundle.folder().join("process.json");
    let process = json!({
        "user": { "uid": 1234, "gid": 2345, "additionalGids": [9] }, "cwd": "/tmp", "args": ["/probe"],
        "env": ["ONLY=this"], "noNewPrivileges": true,
        "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 77, "soft": 66 }],
    });
    fs::write(&path, process.to_string())?;
    let out = bundle.exec_with(&["--process", &path.to_string_lossy()], &[])?.success()?;
    let seen = croft_harness::bundle::seen(&out)?;
    ensure!(seen["status"]["Uid"] == json!([1234, 1234, 1234, 1234]) && seen["cwd"] == "/tmp", "{seen:#}");
    ensure!(seen["status"]["Groups"] == json!([9]), "{seen:#}");
    ensure!(seen["status"]["CapAmb"] == json!(["CAP_KILL"]), "{:#}", seen["status"]);
    ensure!(seen["status"]["CapEff"] == json!(["CAP_KILL"]), "{:#}", seen["status"]);
    ensure!(seen["rlimits"]["RLIMIT_NOFILE"] == json!({"soft": 66, "hard": 77}), "{seen:#}");
    ensure!(
        seen["env"].as_array().is_some_and(|e| e.contains(&"ONLY=this".into()) && e.len() == 2),
        "{seen:#}"
    );
    Ok(())
}

fn what_it_leaves_out(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |c| c["process"]["oomScoreAdj"] = 222.into())?;
    let path = bundle.folder().join("process.json");
    fs::write(&path, r#"{"user":{"uid":0,"gid":0},"cwd":"/","args":["/probe"]}"#)?;
    let out = bundle.exec_with(&["--process", &path.to_string_lossy()], &[])?.success()?;
    let seen = croft_harness::bundle::seen(&out)?;
    ensure!(seen["rlimits"]["RLIMIT_NOFILE"]["hard"] == 1024 && seen["oom_score_adj"] == 222, "{seen:#}");
    ensure!(seen["status"]["CapBnd"].as_array().is_some_and(|c| c.len() == 3), "{seen:#}");
    Ok(())
}

const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// The namespaces of the further process are those of the container's own, and differ from the host's where `new` says so.
fn same_namespaces(bundle: &Bundle, new: &[&str]) -> Result<Value> {
    let seen = bundle.exec_probed(&[], &[])?;
    let pid = bundle.pid()?;
    for kind in KINDS {
        let container = fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
        let own = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        ensure!(seen["namespaces"][kind] == *container.to_string_lossy(), "{kind}: {seen:#}");
        ensure!(
            (container != own) == new.contains(&kind),
            "{kind}: {} and {}",
            container.display(),
            own.display()
        );
    }
    Ok(seen)
}

fn joins_every_namespace(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |c| {
        let namespaces = c["linux"]["namespaces"].as_array_mut();
        namespaces.into_iter().for_each(|n| n.push(json!({"type": "cgroup"})));
    })?;
    let seen = same_namespaces(&bundle, &["cgroup", "ipc", "mnt", "net", "pid", "uts"])?;
    ensure!(seen["process"]["ppid"] == 0 && seen["hostname"] == "croft-test", "{seen:#}");
    let seen = seen["cgroup"].as_array().context("cgroup")?.clone();
    ensure!(seen.iter().any(|line| line == "0::/"), "{seen:?}");
    Ok(())
}

fn in_a_user_namespace(c: &mut Value) {
    let namespaces = c["linux"]["namespaces"].as_array_mut();
    namespaces.into_iter().for_each(|n| n.extend([json!({"type": "user"}), json!({"type": "cgroup"})]));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    c["linux"]["uidMappings"] = map.clone();
    c["linux"]["gidMappings"] = map;
}

fn joins_a_user_namespace(host: &Host) -> Result<()> {
    let bundle = sleeping(host, in_a_user_namespace)?;
    let seen = same_namespaces(&bundle, &KINDS)?;
    ensure!(seen["status"]["Uid"] == json!([0, 0, 0, 0]), "{:#}", seen["status"]);
    ensure!(seen["uid_map"] == json!(["0 100000 65536"]), "{:#}", seen["uid_map"]);
    let seen = bundle.exec_probed(&["--user", "5:6"], &[])?;
    ensure!(seen["status"]["Uid"] == json!([5, 5, 5, 5]), "{:#}", seen["status"]);
    Ok(())
}

fn is_in_the_containers_groups(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |c| c["linux"]["resources"]["pids"] = json!({"limit": 50}))?;
    let seen = bundle.exec_probed(&[], &[])?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid()?))?;
    let want: Vec<&str> = text.lines().collect();
    ensure!(seen["cgroup"] == json!(want), "{:#} instead of {want:#?}", seen["cgroup"]);
    ensure!(want.iter().any(|line| line.starts_with("0::") && line.ends_with(bundle.id())), "{want:?}");
    let own = fs::read_to_string("/proc/self/cgroup")?;
    ensure!(!host.is_hybrid() || want.iter().any(|l| l.contains(":pids:") && !own.contains(l)), "{want:?}");
    Ok(())
}

fn subgroup(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    for root in host.hierarchies() {
        let own = root.join(bundle.id());
        if own.exists() {
            fs::create_dir(own.join("below"))?;
        }
    }
    let out =
        process::run(&mut sh(&bundle, &["--cgroup", "below"], "cat /proc/self/cgroup"), LIMIT)?.success()?;
    let want = format!("0::/{}/below", bundle.id());
    ensure!(out.stdout.lines().any(|line| line == want), "{out}");
    let out = bundle.exec_with(&["--cgroup", "../x"], &["true"])?;
    ensure!(out.code() == 255 && out.stderr.contains("not a sub cgroup path"), "{out}");
    Ok(())
}

fn has_the_filter(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});
    })?;
    let seen = bundle.exec_probed(&[], &[])?;
    ensure!(seen["status"]["Seccomp"] == 2, "{:#}", seen["status"]);
    let out = bundle.exec(&["mkdir", "/tmp/x"])?;
    ensure!(out.code() == 1 && out.stderr.contains("not supported"), "{out}");
    Ok(())
}

fn cpu_affinity(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let path = bundle.folder().join("process.json");
    for (affinity, want) in [(json!({"initial": "0", "final": "1"}), "1"), (json!({"initial": "1"}), "1")] {
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/probe"], "execCPUAffinity": affinity});
        fs::write(&path, process.to_string())?;
        let out = bundle.exec_with(&["--process", &path.to_string_lossy()], &[])?.success()?;
        let seen = croft_harness::bundle::seen(&out)?;
        ensure!(seen["status"]["Cpus_allowed_list"] == want, "{affinity}: {:#}", seen["status"]);
    }
    Ok(())
}

/// Several MiB of numbers in and out at once.
fn bytes_through_pipes(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_be_bytes).collect();
    let mut child = sh(&bundle, &[], "cat; exit 9").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("stdin")?;
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || input.write_all(&sent));
    let mut back = Vec::new();
    child.stdout.take().context("stdout")?.read_to_end(&mut back)?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    let status = process::wait(&mut child, LIMIT)?.context("it does not end")?;
    ensure!(status.code() == Some(9) && back == bytes, "{status}, {} bytes of {}", back.len(), bytes.len());
    Ok(())
}

const TRAP: &str = "trap 'exit 42' USR1; trap 'exit 43' TERM; echo ready; sleep 1000 & wait";

/// Starts the runtime, waits for `ready` from inside, sends the runtime `signal`; its exit status.
fn signalled(command: &mut Command, signal: Signal) -> Result<Option<i32>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut ready = [0; 6];
    child.stdout.take().context("stdout")?.read_exact(&mut ready)?;
    kill_process(Pid::from_child(&child), signal)?;
    Ok(process::wait(&mut child, LIMIT)?.context("it does not end")?.code())
}

fn signals_are_passed_on(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    for (signal, want) in [(Signal::USR1, 42), (Signal::TERM, 43)] {
        let status = signalled(&mut sh(&bundle, &[], TRAP), signal)?;
        ensure!(status == Some(want), "{signal:?}: {status:?}");
    }
    let status = signalled(&mut sh(&bundle, &[], "echo ready; exec sleep 1000"), Signal::HUP)?;
    ensure!(status == Some(129), "{status:?}");
    Ok(())
}

fn run_passes_signals_on(host: &Host) -> Result<()> {
    for (signal, want) in [(Signal::USR1, 42), (Signal::TERM, 43)] {
        let bundle = Bundle::shell(host, TRAP)?;
        bundle.save()?;
        let mut run = bundle.command("run");
        let status = signalled(run.arg("--bundle").arg(bundle.folder()).arg(bundle.id()), signal)?;
        ensure!(status == Some(want), "{signal:?}: {status:?}");
        bundle.verb("state", &[], &[])?.failure()?;
    }
    Ok(())
}

fn detached_with_a_pid_file(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let path = bundle.folder().join("pid");
    bundle.exec_with(&["-d", "--pid-file", &path.to_string_lossy()], &["sleep", "77"])?.success()?;
    let pid: i32 = fs::read_to_string(&path)?.parse()?;
    // In the middle of execve(2), when the runtime's descriptors are closed already, a process has no arguments for a moment.
    let deadline = Instant::now() + LIMIT;
    let mut line = String::new();
    while line.is_empty() {
        ensure!(Instant::now() < deadline, "process {pid} has no arguments");
        line = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    }
    ensure!(line == "sleep\x0077\0", "{line:?}");
    // The suite takes the place of a shim: the container does not end before its processes are reaped.
    let process = Pid::from_raw(pid).context("pid")?;
    kill_process(process, Signal::KILL)?;
    rustix::process::waitpid(Some(process), rustix::process::WaitOptions::empty())?;
    Ok(())
}

fn preserved_descriptors(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let line = process::describe(&sh(&bundle, &["--preserve-fds", "2"], "X"))
        .replace(" X", " 'cat <&4; ls /proc/self/fd | wc -l'");
    let file = bundle.folder().join("passed");
    fs::write(&file, "passed\n")?;
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 3</dev/null 4<{} 5</dev/null; {line}", file.display())]);
    let out = process::run(&mut shell, LIMIT)?.success()?;
    // 0 to 4, and the one that ls reads the folder by.
    ensure!(out.stdout == "passed\n6\n", "{out}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 3</dev/null 4<&-; {line}")]);
    let out = process::run(&mut shell, LIMIT)?;
    ensure!(out.code() == 255 && out.stderr.contains("unable to stat preserved-fd"), "{out}");
    Ok(())
}

/// Descriptors of a service manager reach the container's process, which is number 1 in its namespace.
fn listen_fds(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "echo $LISTEN_FDS $LISTEN_PID; cat <&3")?;
    bundle.save()?;
    let mut run = bundle.command("run");
    run.arg("--bundle").arg(bundle.folder()).arg(bundle.id());
    let file = bundle.folder().join("passed");
    fs::write(&file, "passed\n")?;
    let mut shell = Command::new("sh");
    let line = process::describe(&run);
    shell.args(["-c", &format!("exec 3<{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec {line}", file.display())]);
    let out = process::run(&mut shell, LIMIT)?.success()?;
    ensure!(out.stdout == "1 1\npassed\n", "{out}");
    // Those for another process are not passed on.
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 3<{}; export LISTEN_FDS=1 LISTEN_PID=1; exec {line}", file.display())]);
    let out = process::run(&mut shell, LIMIT)?;
    ensure!(out.stdout == "\n", "{out}");
    Ok(())
}

fn pidfd_socket(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let path = bundle.folder().join("socket");
    let socket = croft_harness::terminal::FdSocket::listen(&path)?;
    bundle.exec_with(&["-d", "--pidfd-socket", &path.to_string_lossy()], &["sleep", "1000"])?.success()?;
    let (pidfd, _) = socket.received()?;
    rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)?;
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    ensure!(rustix::event::poll(&mut fds, Some(&limit))? == 1, "the process of the pidfd still runs");
    let whom = rustix::process::WaitId::PidFd(pidfd.as_fd());
    rustix::process::waitid(whom, rustix::process::WaitIdOptions::EXITED)?;
    Ok(())
}

fn in_a_created_container(host: &Host) -> Result<()> {
    let bundle = Bundle::new(host, &["sleep", "1000"])?;
    bundle.create()?.success()?;
    let out = bundle.exec(&["/bin/sh", "-c", "hostname; exit 4"])?;
    ensure!(out.code() == 4 && out.stdout == "croft-test\n", "{out}");
    ensure!(bundle.status()? == "created");
    bundle.start()?.success()?;
    Ok(())
}

fn in_a_paused_container(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    bundle.verb("pause", &[], &[])?.success()?;
    let out = bundle.exec(&["true"])?;
    ensure!(
        out.code() == 255
            && out.stderr.contains("cannot exec in a paused container (use --ignore-paused to override)"),
        "{out}"
    );
    let mut child = sh(&bundle, &["--ignore-paused"], "exit 8").stdin(Stdio::null()).spawn()?;
    // It is born frozen, and comes to its program once the container is resumed.
    let deadline = Instant::now() + LIMIT;
    while descendants(child.id())?.is_empty() {
        ensure!(Instant::now() < deadline, "no process is born");
    }
    bundle.verb("resume", &[], &[])?.success()?;
    let status = process::wait(&mut child, LIMIT)?.context("it does not end")?;
    ensure!(status.code() == Some(8), "{status}");
    Ok(())
}

/// A runtime that waits for its container keeps no other verb from it.
fn in_the_foreground(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "echo ready; exec sleep 1000")?;
    bundle.save()?;
    let mut run = bundle.command("run");
    run.arg("--bundle").arg(bundle.folder()).arg(bundle.id());
    let mut child = run.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut ready = [0; 6];
    child.stdout.take().context("stdout")?.read_exact(&mut ready)?;
    ensure!(bundle.exec(&["hostname"])?.success()?.stdout == "croft-test\n");
    bundle.kill("KILL")?.success()?;
    let status = process::wait(&mut child, LIMIT)?.context("it does not end")?;
    ensure!(status.code() == Some(137), "{status}");
    Ok(())
}

/// What the runtime blocks and ignores for itself is not inherited.
fn default_signals_inside(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let none = "0000000000000000";
    let seen = Bundle::probe(host, &[])?.probed()?;
    // Rust's own runtime, in the probe, ignores SIGPIPE: the shell tells what it was given.
    ensure!(seen["status"]["SigBlk"] == none, "{:#}", seen["status"]);
    let out = bundle.exec(&["grep", "^Sig[BI]", "/proc/self/status"])?.success()?;
    ensure!(out.stdout == format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"), "{out}");
    Ok(())
}

/// A pipe of the caller's, which belongs to root, can be opened by name inside.
fn streams_of_an_ordinary_user(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let script = "echo by name > /proc/self/fd/1; exit 5";
    let mut child =
        sh(&bundle, &["--user", "1000"], script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut text = String::new();
    child.stdout.take().context("stdout")?.read_to_string(&mut text)?;
    let status = process::wait(&mut child, LIMIT)?.context("it does not end")?;
    ensure!(status.code() == Some(5) && text == "by name\n", "{status} {text:?}");
    Ok(())
}

fn twenty_leave_nothing(host: &Host) -> Result<()> {
    let bundle = sleeping(host, |_| {})?;
    let fds = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    let pid = bundle.pid()?;
    let before = (Snapshot::take(host, &[bundle.state_root()])?, fds(pid)?);
    for n in 0..20 {
        let out = bundle.exec(&["/bin/sh", "-c", &format!("exit {n}")])?;
        ensure!(out.code() == n, "{out}");
    }
    before.0.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    ensure!(fds(pid)? == before.1, "the container's process has other descriptors");
    let left = bundle.exec(&["ps", "-o", "pid,stat,args"])?.success()?.stdout;
    ensure!(left.lines().count() == 3, "{left}");
    Ok(())
}
