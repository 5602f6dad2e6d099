//! `process`: who the program is and what it may do, as the program itself sees it.
use anyhow::{Result, ensure};
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use serde_json::json;

pub const SUBJECT: Subject = Subject {
    name: "process",
    on_runc: &[
        ("memory_policy", OnRunc::CroftOnly("runtime-spec 1.3, which Debian bookworm's runc does not know")),
        ("io_priority", OnRunc::CroftOnly("runtime-spec 1.2, which Debian bookworm's runc does not know")),
        ("scheduler", OnRunc::CroftOnly("runtime-spec 1.1, which Debian bookworm's runc does not know")),
        (
            "real_time_schedulers",
            OnRunc::CroftOnly("runtime-spec 1.1, which Debian bookworm's runc does not know"),
        ),
        ("personality", OnRunc::CroftOnly("Debian bookworm's runc ignores it")),
        ("umask", OnRunc::CroftOnly("Debian bookworm's runc passes it on")),
    ],
    tests: &[
        Test { name: "user_and_groups", requires: &[Facility::Root], run: user_and_groups },
        Test { name: "umask", requires: &[Facility::Root], run: umask },
        Test { name: "all_five_capability_sets", requires: &[Facility::Root], run: all_five_capability_sets },
        Test { name: "capabilities_of_an_ordinary_user", requires: &[Facility::Root], run: ordinary_user },
        Test { name: "rlimits", requires: &[Facility::Root], run: rlimits },
        Test {
            name: "raised_hard_rlimit",
            requires: &[Facility::Root, Facility::SYS_RESOURCE],
            run: raised_hard_rlimit,
        },
        Test { name: "no_new_privileges", requires: &[Facility::Root], run: no_new_privileges },
        Test { name: "oom_score_adj", requires: &[Facility::Root], run: oom_score_adj },
        Test { name: "scheduler", requires: &[Facility::Root], run: scheduler },
        Test {
            name: "real_time_schedulers",
            requires: &[Facility::Root, Facility::SYS_NICE],
            run: real_time_schedulers,
        },
        Test { name: "io_priority", requires: &[Facility::Root], run: io_priority },
        Test { name: "memory_policy", requires: &[Facility::Root], run: memory_policy },
        Test { name: "personality", requires: &[Facility::Root], run: personality },
        Test { name: "working_folder_is_made", requires: &[Facility::Root], run: working_folder_is_made },
        Test { name: "environment_and_home", requires: &[Facility::Root], run: environment_and_home },
        Test { name: "unknown_names_are_warnings", requires: &[Facility::Root], run: unknown_names },
        Test { name: "an_unknown_rlimit_is_an_error", requires: &[Facility::Root], run: unknown_rlimit },
    ],
};

fn user_and_groups(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| c["process"]["user"] = json!({"uid": 1234, "gid": 2345, "additionalGids": [7, 8]}))
        .probed()?;
    let status = &seen["status"];
    ensure!(status["Uid"] == json!([1234, 1234, 1234, 1234]), "{status:#}");
    ensure!(status["Gid"] == json!([2345, 2345, 2345, 2345]), "{status:#}");
    ensure!(seen["status"]["Groups"] == json!([7, 8]), "{:#}", seen["status"]);
    Ok(())
}

fn umask(host: &Host) -> Result<()> {
    let out = Bundle::shell(host, "umask")?
        .edit(|c| c["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 0o27}))
        .stdout()?;
    ensure!(out.trim() == "0027", "{out}");
    let out = Bundle::shell(host, "umask")?.stdout()?;
    ensure!(out.trim() == "0022", "{out}");
    Ok(())
}

fn all_five_capability_sets(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| {
            c["process"]["capabilities"] = json!({
                "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SYS_ADMIN"],
                "permitted": ["CAP_KILL", "CAP_CHOWN"],
                "inheritable": ["CAP_KILL"],
                "effective": ["CAP_KILL"],
                "ambient": ["CAP_KILL"],
            });
            c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        })
        .probed()?;
    let status = &seen["status"];
    ensure!(status["CapBnd"] == json!(["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"]), "{status:#}");
    // Over exec an ordinary user keeps what is ambient.
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        ensure!(status[set] == json!(["CAP_KILL"]), "{set}: {status:#}");
    }
    Ok(())
}

fn ordinary_user(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| c["process"]["user"] = json!({"uid": 1000, "gid": 1000}))
        .probed()?;
    ensure!(seen["status"]["CapEff"] == json!([]), "{:#}", seen["status"]);
    Ok(())
}

fn rlimits(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| {
            c["process"]["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_CPU", "soft": 1000, "hard": 2000},
            ]);
        })
        .probed()?;
    let limits = &seen["rlimits"];
    ensure!(limits["RLIMIT_NOFILE"] == json!({"soft": 100, "hard": 200}), "{limits:#}");
    ensure!(limits["RLIMIT_CORE"] == json!({"soft": 0, "hard": 0}), "{limits:#}");
    ensure!(limits["RLIMIT_CPU"] == json!({"soft": 1000, "hard": 2000}), "{limits:#}");
    Ok(())
}

fn raised_hard_rlimit(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| {
            c["process"]["rlimits"] =
                json!([{"type": "RLIMIT_MSGQUEUE", "soft": 9_000_000, "hard": 9_000_000}])
        })
        .probed()?;
    ensure!(seen["rlimits"]["RLIMIT_MSGQUEUE"]["hard"] == 9_000_000, "{:#}", seen["rlimits"]);
    Ok(())
}

fn no_new_privileges(host: &Host) -> Result<()> {
    for wanted in [true, false] {
        let seen =
            Bundle::probe(host, &[])?.edit(|c| c["process"]["noNewPrivileges"] = json!(wanted)).probed()?;
        ensure!(seen["status"]["NoNewPrivs"] == u8::from(wanted), "{:#}", seen["status"]);
    }
    Ok(())
}

fn oom_score_adj(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?.edit(|c| c["process"]["oomScoreAdj"] = json!(321)).probed()?;
    ensure!(seen["oom_score_adj"] == 321, "{}", seen["oom_score_adj"]);
    Ok(())
}

fn scheduler(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| {
            c["process"]["scheduler"] =
                json!({"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
        })
        .probed()?;
    ensure!(seen["scheduler"]["policy"] == 3 && seen["scheduler"]["nice"] == 5, "{:#}", seen["scheduler"]);
    Ok(())
}

fn real_time_schedulers(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| c["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 7}))
        .probed()?;
    ensure!(
        seen["scheduler"]["policy"] == 1 && seen["scheduler"]["priority"] == 7,
        "{:#}",
        seen["scheduler"]
    );
    let times = json!({"policy": "SCHED_DEADLINE", "runtime": 5_000_000, "deadline": 50_000_000,
        "period": 100_000_000});
    let seen = Bundle::probe(host, &[])?.edit(|c| c["process"]["scheduler"] = times.clone()).probed()?;
    ensure!(seen["scheduler"]["policy"] == 6, "{:#}", seen["scheduler"]);
    for name in ["runtime", "deadline", "period"] {
        ensure!(seen["scheduler"][name] == times[name], "{name}: {:#}", seen["scheduler"]);
    }
    Ok(())
}

fn io_priority(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6}))
        .probed()?;
    ensure!(
        seen["io_priority"]["class"] == 2 && seen["io_priority"]["level"] == 6,
        "{:#}",
        seen["io_priority"]
    );
    Ok(())
}

fn memory_policy(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"}))
        .probed()?;
    let text = seen["memory_policy"].to_string();
    let none = Bundle::probe(host, &[])?.probed()?["memory_policy"].to_string();
    ensure!(text != none && !text.contains("error"), "with: {text}, without: {none}");
    Ok(())
}

fn personality(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| c["linux"]["personality"] = json!({"domain": "LINUX32"}))
        .probed()?;
    ensure!(seen["machine"] == "i686", "{}", seen["machine"]);
    Ok(())
}

fn working_folder_is_made(host: &Host) -> Result<()> {
    let seen = Bundle::probe(host, &[])?
        .edit(|c| {
            c["process"]["cwd"] = json!("/a/b");
            c["root"]["readonly"] = json!(false);
        })
        .probed()?;
    ensure!(seen["cwd"] == "/a/b", "{}", seen["cwd"]);
    Ok(())
}

fn environment_and_home(host: &Host) -> Result<()> {
    let bundle = Bundle::probe(host, &[])?.edit(|c| {
        c["process"]["env"] = json!(["A=1", "B=two words"]);
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    std::fs::create_dir_all(bundle.rootfs().join("etc"))?;
    std::fs::write(bundle.rootfs().join("etc/passwd"), "someone:x:1000:1000::/home/someone:/bin/sh\n")?;
    let seen = bundle.probed()?;
    let env = seen["env"].as_array().cloned().unwrap_or_default();
    for wanted in ["A=1", "B=two words", "HOME=/home/someone"] {
        ensure!(env.contains(&json!(wanted)), "{wanted} is not in {env:?}");
    }
    Ok(())
}

fn unknown_names(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "echo ran")?.edit(|c| {
        c["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_OF_THE_FUTURE"]);
    });
    let out = bundle.run()?;
    ensure!(out.code() == 0 && out.stdout == "ran\n", "{out}");
    ensure!(out.stderr.contains("CAP_OF_THE_FUTURE"), "it is not warned of: {out}");
    Ok(())
}

/// The spec asks for an error where a limit's name means nothing to the kernel.
fn unknown_rlimit(host: &Host) -> Result<()> {
    let bundle = Bundle::shell(host, "echo ran")?.edit(|c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_OF_THE_FUTURE", "soft": 1, "hard": 1}]);
    });
    let out = bundle.run()?;
    ensure!(out.code() != 0 && out.stdout.is_empty(), "{out}");
    ensure!(out.stderr.contains("RLIMIT_OF_THE_FUTURE"), "{out}");
    Ok(())
}
