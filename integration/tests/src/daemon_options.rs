//! What a container can be asked for, seen from inside.

use anyhow::{Result, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const NEEDS: &[Facility] = &[Facility::Root];
const NETWORKS: &[Facility] = &[Facility::Root, Facility::Packages(&["nftables", "iproute2"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_options",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "mounts_by_keys", requires: NEEDS, run: mounts_by_keys },
        Test { name: "sources_of_mounts", requires: NEEDS, run: sources_of_mounts },
        Test { name: "files_in_memory", requires: NEEDS, run: files_in_memory },
        Test { name: "devices_belong_to_the_container", requires: NEEDS, run: devices },
        Test { name: "security_options", requires: NEEDS, run: security_options },
        Test { name: "a_privileged_container", requires: NEEDS, run: privileged },
        Test { name: "limits_of_processes_and_groups", requires: NEEDS, run: limits },
        Test { name: "values_that_mean_none", requires: NEEDS, run: values_that_mean_none },
        Test { name: "names_and_name_servers", requires: NEEDS, run: names },
        Test { name: "namespaces_of_the_host", requires: NEEDS, run: namespaces_of_the_host },
        Test { name: "namespaces_of_another_container", requires: NETWORKS, run: namespaces_of_another },
        Test { name: "an_init_reaps_and_passes_signals_on", requires: NEEDS, run: init },
        Test { name: "images_when_they_are_wanted", requires: NEEDS, run: images },
        Test { name: "bad_options_leave_nothing", requires: NEEDS, run: bad_options_leave_nothing },
    ],
};

fn mounts_by_keys(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    std::fs::write(croft.stage.path("file"), "theirs")?;
    let bind = format!("type=bind,source={},target=/mnt/file,readonly", croft.path("file"));
    let tmpfs = "type=tmpfs,target=/scratch,tmpfs-size=1m";
    let script = "cat /mnt/file; echo x > /mnt/file && exit 9; df -k /scratch | tail -1";
    let seen = croft.ok(&["run", "--rm", "--mount", &bind, "--mount", tmpfs, "box", "sh", "-c", script])?;
    ensure!(seen.starts_with("theirs") && seen.contains(" 1024 "), "{seen}");
    let volume = "type=volume,source=kept,target=/data";
    croft.ok(&["run", "--rm", "--mount", volume, "box", "sh", "-c", "echo here > /data/file"])?;
    ensure!(croft.ok(&["run", "--rm", "--mount", volume, "box", "cat", "/data/file"])? == "here\n");
    croft.ok(&["volume", "rm", "kept"])?;
    croft.nothing_is_left()
}

fn sources_of_mounts(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let missing = croft.path("missing/deep");
    // What croft makes for itself is not what was asked for: 125, and not the 127 of a program that is missing.
    let bind = format!("type=bind,source={missing},target=/m");
    for verb in ["create", "run"] {
        let (code, text) = croft.fails(&[verb, "--mount", &bind, "box", "true"])?;
        ensure!(code == 125 && text.contains(&missing) && text.contains("hint: make it"), "{code}: {text}");
    }
    let volume = format!("{missing}:/m");
    croft.ok(&["run", "--rm", "--volume", &volume, "box", "touch", "/m/file"])?;
    let made = croft.stage.run("stat", &["-c", "%u %a %F", &missing])?.success()?.stdout;
    ensure!(made == "0 755 directory\n", "{made}");
    croft.stage.run("test", &["-f", &format!("{missing}/file")])?.success()?;
    // It may go between two starts.
    croft.ok(&["create", "--name", "c", "--mount", &bind, "box", "true"])?;
    croft.stage.run("rm", &["-r", &croft.path("missing")])?.success()?;
    let (code, text) = croft.fails(&["start", "c"])?;
    ensure!(code == 125 && text.contains(&missing), "{code}: {text}");
    croft.ok(&["rm", "c"])?;
    // The kernel cannot map owners of these.
    for (source, extra) in [("/sys", ":ro"), ("/proc", ""), ("/dev/null", "")] {
        let (code, text) =
            croft.fails(&["run", "--rm", "--volume", &format!("{source}:/x{extra}"), "box", "true"])?;
        ensure!(code == 125 && text.contains("hint: SOURCE:TARGET:nomap"), "{source}: {code}: {text}");
    }
    croft.nothing_is_left()
}

fn files_in_memory(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let shown = ["box", "sh", "-c", "grep ' /m ' /proc/mounts; stat -c %a /m"];
    let show = |options: &[&str]| croft.ok(&[&["run", "--rm"], options, &shown].concat());
    for (options, wanted, not) in [
        (&["--tmpfs", "/m"][..], &["rw,", "noexec", "nosuid", "nodev", "1777\n"][..], "size="),
        (&["--tmpfs", "/m:rw,noexec,nosuid,size=65536k"], &["noexec", "size=65536k", "1777\n"], "ro,"),
        (&["--tmpfs", "/m:exec,size=1m,mode=0750"], &["nosuid", "size=1024k", "750\n"], "noexec"),
        (&["--mount", "type=tmpfs,target=/m,tmpfs-mode=1770,readonly"], &["ro,", "noexec", "1770\n"], "rw,"),
    ] {
        let seen = show(options)?;
        ensure!(wanted.iter().all(|word| seen.contains(word)) && !seen.contains(not), "{options:?}: {seen}");
    }
    for option in ["/m:huge=always", "/m:mode=9", "/m:size=x", "/m:uid="] {
        let (code, text) = croft.fails(&["create", "--tmpfs", option, "box", "true"])?;
        let asked = option.rsplit(':').next().unwrap_or_default();
        ensure!(code == 125 && text.contains(asked), "{option}: {code}: {text}");
    }
    croft.nothing_is_left()
}

fn devices(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    // Devices of the tests' own that only their owner may use: root of the container is not root of the host.
    let nodes = [("zero", "5"), ("none", "99")];
    for (name, minor) in nodes {
        croft.stage.run("mknod", &["-m", "600", &croft.path(name), "c", "1", minor])?.success()?;
    }
    let script = "stat -c '%F %a %u' /dev/mine; head -c 3 /dev/mine | wc -c";
    let device = format!("{}:/dev/mine", croft.path("zero"));
    let seen = croft.ok(&["run", "--rm", "--device", &device, "box", "sh", "-c", script])?;
    ensure!(seen == "character special file 600 0\n3\n", "{seen}");
    // The filter is asked before the driver, and there is none: what gets past the first fails at the second.
    let script = "(: < /dev/mine) 2>&1; (: >> /dev/mine) 2>&1";
    for (options, wanted) in [
        (&[][..], ["No such device", "No such device"]),
        (&[":r"], ["No such device", "not permitted"]),
        (&[":w"], ["not permitted", "No such device"]),
        (&[":r", "--privileged"], ["No such device", "No such device"]),
    ] {
        let access = options.first().copied().unwrap_or_default();
        let device = format!("{}:/dev/mine{access}", croft.path("none"));
        let further = options.get(1..).unwrap_or_default();
        let args = [&["run", "--rm", "--device", &device], further, &["box", "sh", "-c", script]].concat();
        let seen = croft.run(&args)?.stdout;
        let lines: Vec<&str> = seen.lines().collect();
        ensure!(
            lines.len() == 2 && lines[0].contains(wanted[0]) && lines[1].contains(wanted[1]),
            "{options:?}: {seen}"
        );
    }
    let none = croft.run(&["run", "--rm", "box", "sh", "-c", "test -e /dev/mine"])?;
    ensure!(none.code() == 1, "{none}");
    croft.nothing_is_left()
}

fn security_options(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let status = |options: &[&str], field: &str| -> Result<String> {
        let seen = croft.ok(&[&["run", "--rm"], options, &["box", "cat", "/proc/self/status"]].concat())?;
        let line = seen.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        Ok(line.trim().to_owned())
    };
    ensure!(status(&[], "NoNewPrivs:")? == "0" && status(&[], "Seccomp:")? == "2");
    ensure!(status(&["--security-opt", "no-new-privileges"], "NoNewPrivs:")? == "1");
    ensure!(status(&["--security-opt", "seccomp=unconfined"], "Seccomp:")? == "0");
    // Also where there is no AppArmor.
    ensure!(status(&["--security-opt", "apparmor=unconfined"], "Seccomp:")? == "2");
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71,
                      "excludes": {"caps": ["CAP_SYS_ADMIN"]}}],
    });
    std::fs::write(croft.stage.path("profile.json"), profile.to_string())?;
    let option = format!("seccomp={}", croft.path("profile.json"));
    let refused = croft.run(&["run", "--rm", "--security-opt", &option, "box", "mkdir", "/x"])?;
    ensure!(refused.code() == 1 && refused.stderr.contains("Protocol error"), "{refused}");
    croft.ok(&["run", "--rm", "--cap-add", "SYS_ADMIN", "--security-opt", &option, "box", "mkdir", "/x"])?;
    let count = "awk '$2 ~ \"^/proc/\"' /proc/mounts | wc -l";
    ensure!(croft.ok(&["run", "--rm", "box", "sh", "-c", count])?.trim() != "0");
    let open = ["run", "--rm", "--security-opt", "systempaths=unconfined", "box", "sh", "-c", count];
    ensure!(croft.ok(&open)?.trim() == "0");
    croft.nothing_is_left()
}

fn privileged(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = "grep -E '^(CapEff|Seccomp):' /proc/self/status; ls -d /dev/kmsg; mkdir /m && mount -t tmpfs x /m && echo mounted; \
                  awk '{print $2}' /proc/self/uid_map";
    let seen = croft.ok(&["run", "--rm", "--privileged", "box", "sh", "-c", script])?;
    for word in ["CapEff:\t000001ffffffffff", "Seccomp:\t0", "/dev/kmsg", "mounted"] {
        ensure!(seen.contains(word), "{word}: {seen}");
    }
    ensure!(seen.lines().last().is_some_and(|first| first != "0"), "its ids are its own: {seen}");
    let usual = croft.ok(&["run", "--rm", "box", "sh", "-c", "ls /dev"])?;
    ensure!(!usual.contains("kmsg"), "{usual}");
    croft.nothing_is_left()
}

fn limits(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; df -k /dev/shm | awk 'END {print $2}'; \
                  grep Cpus_allowed_list /proc/self/status; cat /proc/sys/kernel/domainname; id -G";
    let seen = croft.ok(&[
        "run",
        "--rm",
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--oom-score-adj",
        "300",
        "--shm-size",
        "2m",
        "--cpuset-cpus",
        "0",
        "--memory",
        "64m",
        "--memory-reservation",
        "32m",
        "--domainname",
        "example.org",
        "--group-add",
        "user",
        "--group-add",
        "4321",
        "box",
        "sh",
        "-c",
        script,
    ])?;
    let lines: Vec<&str> = seen.lines().collect();
    ensure!(lines[..5] == ["100", "200", "0", "300", "2048"], "{seen}");
    ensure!(lines[5].ends_with("\t0") && lines[6] == "example.org", "{seen}");
    let groups: Vec<&str> = lines[7].split(' ').collect();
    ensure!(groups.contains(&"4321") && groups.len() >= 3, "{seen}");
    croft.nothing_is_left()
}

fn values_that_mean_none(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    // As with Docker: zero is no limit of its own, and no name is none.
    let zeros = [
        "--memory=0",
        "--memory-swap=0",
        "--memory-reservation=0",
        "--cpus=0",
        "--cpu-shares=0",
        "--pids-limit=0",
    ];
    let more = ["--blkio-weight=0", "--shm-size=0", "--hostname=", "--name=c"];
    let script = "df -k /dev/shm | awk 'END {print $2}'; hostname; grep 127.0.1.1 /etc/hosts";
    let rest = ["box", "sh", "-c", script];
    let seen = croft.ok(&[&["run"], &zeros[..], &more, &rest].concat())?;
    ensure!(seen == "65536\nc\n127.0.1.1\tc\n", "{seen}");
    croft.ok(&["rm", "c"])?;
    let twice = ["create", "--tmpfs", "/m", "--volume", "/srv:/m/", "box", "true"];
    let (code, text) = croft.fails(&twice)?;
    ensure!(code == 125 && text.contains("another mount has the same target"), "{code}: {text}");
    croft.nothing_is_left()
}

fn names(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let seen = croft.ok(&[
        "run",
        "--rm",
        "--add-host",
        "db:192.0.2.7",
        "--add-host",
        "db6=2001:db8::7",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.org",
        "box",
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
    ])?;
    for line in ["192.0.2.7\tdb\n", "2001:db8::7\tdb6\n", "nameserver 192.0.2.53\n", "search example.org\n"] {
        ensure!(seen.contains(line), "{line}: {seen}");
    }
    ensure!(seen.matches("nameserver").count() == 1, "{seen}");
    croft.nothing_is_left()
}

fn namespaces_of_the_host(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let own = |kind: &str| -> Result<String> {
        Ok(croft.stage.run("readlink", &[&format!("/proc/self/ns/{kind}")])?.success()?.stdout)
    };
    for userns in ["own", "host"] {
        for (option, kind) in [("--pid", "pid"), ("--ipc", "ipc")] {
            let seen = croft.ok(&[
                "run",
                "--rm",
                "--userns",
                userns,
                option,
                "host",
                "box",
                "readlink",
                &format!("/proc/self/ns/{kind}"),
            ])?;
            ensure!(seen == own(kind)?, "{option} host, {userns}: {seen}");
        }
        let processes = croft.ok(&[
            "run",
            "--rm",
            "--userns",
            userns,
            "--pid",
            "host",
            "box",
            "sh",
            "-c",
            "cat /proc/*/comm || true",
        ])?;
        ensure!(processes.contains("croftd") && processes.contains("croft-shim"), "{processes}");
    }
    croft.ok(&[
        "run",
        "--detach",
        "--name",
        "seen",
        "--pid",
        "host",
        "box",
        "sh",
        "-c",
        "sleep 1000 & sleep 1000",
    ])?;
    croft.ok(&["rm", "--force", "seen"])?;
    let left = croft.stage.run("sh", &["-c", "cat /proc/*/cmdline | tr '\\0' ' '"])?.stdout;
    ensure!(!left.contains("sleep 1000"), "all of it ends with it: {left}");
    croft.nothing_is_left()
}

fn namespaces_of_another(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    let script = "echo shared > /dev/shm/file; exec sleep 1000";
    croft.ok(&[
        "run",
        "--detach",
        "--name",
        "web",
        "--network",
        "croft",
        "--ipc",
        "shareable",
        "box",
        "sh",
        "-c",
        script,
    ])?;
    let own = |kind: &str| croft.ok(&["exec", "web", "readlink", &format!("/proc/self/ns/{kind}")]);
    for (option, kind) in [("--network", "net"), ("--pid", "pid"), ("--ipc", "ipc")] {
        let script = format!("readlink /proc/self/ns/{kind}; readlink /proc/self/ns/user");
        let seen = croft.ok(&["run", "--rm", option, "container:web", "box", "sh", "-c", &script])?;
        ensure!(seen == own(kind)? + &own("user")?, "{option}: {seen}");
    }
    let seen = croft.ok(&[
        "run", "--rm", "--network", "container:web", "--pid", "container:web", "--ipc", "container:web", "box", "sh", "-c",
        "cat /dev/shm/file; grep -l sleep /proc/*/comm | head -1; ping -c 1 -W 5 web >/dev/null && echo reached; touch /x && stat -c %u /x",
    ])?;
    ensure!(seen == "shared\n/proc/1/comm\nreached\n0\n", "{seen}");
    croft.ok(&["create", "--name", "beside", "--network", "container:web", "box", "sleep", "1000"])?;
    croft.kill()?;
    croft.start()?;
    croft.ok(&["start", "beside"])?;
    croft.ok(&["rm", "--force", "web"])?;
    croft.ok(&["stop", "--time", "0", "beside"])?;
    let (_, gone) = croft.fails(&["start", "beside"])?;
    ensure!(gone.contains("is not there"), "{gone}");
    croft.ok(&["rm", "beside"])?;
    croft.nothing_is_left()
}

fn init(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    for (script, status) in [("exit 7", 7), ("kill -9 $$", 137)] {
        let output = croft.run(&["run", "--rm", "--init", "box", "sh", "-c", script])?;
        ensure!(output.code() == status, "{script}: {output}");
    }
    let output = croft.run(&["run", "--rm", "--init", "box", "no-such-program"])?;
    ensure!(output.code() == 127 && output.stderr.contains("no-such-program"), "{output}");
    // Its own child is no process 1 and has no handler: only as such does the signal end it.
    croft.ok(&["run", "--detach", "--name", "ends", "--init", "box", "sleep", "1000"])?;
    ensure!(croft.ok(&["exec", "ends", "cat", "/proc/1/comm"])? == "croft-init\n");
    croft.ok(&["kill", "--signal", "TERM", "ends"])?;
    ensure!(croft.ok(&["wait", "ends"])? == "143\n");
    // An orphan that ends is reaped: the kernel forgets its number.
    let script = "(sh -c 'echo $$ > /orphan; exec sleep 0.2' &) ; while [ ! -s /orphan ] || [ -e /proc/$(cat /orphan) ]; do :; done; echo gone";
    let seen = croft.ok(&["run", "--rm", "--init", "--ulimit", "cpu=60", "box", "sh", "-c", script])?;
    ensure!(seen == "gone\n", "{seen}");
    let script = "trap 'echo heard; exit 3' 37; echo ready; while :; do sleep 0.05; done";
    croft.ok(&["run", "--detach", "--name", "hears", "--init", "box", "sh", "-c", script])?;
    croft.wait_for_log("hears", "ready")?;
    croft.ok(&["kill", "--signal", "37", "hears"])?;
    ensure!(croft.ok(&["wait", "hears"])? == "3\n" && croft.ok(&["logs", "hears"])?.contains("heard"));
    let program = croft.program.display().to_string();
    let args = ["run", "--rm", "--interactive", "--tty", "--init", "box", "sh"];
    let output = croft.stage.run_on_terminal(&program, &args, "tty; echo said $((6*7)); exit 5\n")?;
    ensure!(output.code() == 5 && output.stdout.contains("said 42"), "{output}");
    croft.ok(&["rm", "ends", "hears"])?;
    croft.nothing_is_left()
}

fn images(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let (_, missing) = croft.fails(&["run", "--pull", "never", "none-such:1", "true"])?;
    ensure!(missing.contains("none-such:1") && missing.contains("croft image pull"), "{missing}");
    let (_, pulled) = croft.fails(&["run", "--pull", "always", "localhost:1/box", "true"])?;
    ensure!(pulled.contains("pull localhost:1/box"), "{pulled}");
    croft.ok(&["run", "--rm", "--platform", "linux/amd64", "box", "true"])?;
    let (_, other) = croft.fails(&["run", "--pull", "never", "--platform", "linux/arm64", "box", "true"])?;
    ensure!(other.contains("it is for linux/amd64"), "{other}");
    let file = croft.path("id");
    croft.ok(&["create", "--name", "kept", "--cidfile", &file, "box", "true"])?;
    let id = std::fs::read_to_string(&file)?;
    ensure!(croft.inspect("kept")?["id"] == id.as_str(), "{id}");
    let (_, there) = croft.fails(&["create", "--cidfile", &file, "box", "true"])?;
    ensure!(there.contains("--cidfile"), "{there}");
    let other = croft.path("other");
    croft.fails(&["create", "--cidfile", &other, "--user", "nobody-there", "box", "true"])?;
    ensure!(!croft.stage.path("other").exists(), "there is no container, and a file for its id");
    croft.ok(&["rm", "kept"])?;
    croft.nothing_is_left()
}

fn bad_options_leave_nothing(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["create", "--name", "still", "box", "true"])?;
    for (options, words) in [
        (&["--rm", "--restart", "always"][..], "--rm and --restart"),
        (&["--network", "container:still", "--publish", "80:80"], "--network container: and --publish"),
        (&["--network", "container:none-such"], "no container is called so"),
        (&["--network", "container:still"], "it does not run"),
        (&["--pid", "container:still", "--userns", "host"], "--userns host"),
        (&["--ipc", "container:still"], "--ipc shareable"),
        (&["--device", "/none/such"], "/none/such"),
        (&["--device", "/etc/passwd"], "is no device"),
        (&["--ulimit", "files=3"], "nofile"),
        (&["--cpuset-cpus", "x"], "cpuset-cpus"),
        (&["--memory-swap", "64m"], "needs --memory"),
        (&["--oom-score-adj", "5000"], "oom-score-adj"),
        (&["--group-add", "none-such"], "none-such"),
        (&["--security-opt", "fly"], "is none of"),
        (&["--platform", "mars"], "mars"),
        (&["--mount", "type=bind,target=/x"], "source="),
    ] {
        let output = croft.run(&[&["run"], options, &["box", "true"]].concat())?;
        ensure!(output.code() != 0 && output.stderr.contains(words), "{options:?}: {output}");
        ensure!(croft.ok(&["ps", "--all", "--quiet"])?.lines().count() == 1, "{options:?}");
    }
    croft.ok(&["rm", "still"])?;
    croft.nothing_is_left()
}
