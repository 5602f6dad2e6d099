//! `linux.seccomp`: the filter as the container's program meets it, and the agent that answers for it.
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use croft_harness::process::patience;
use croft_harness::snapshot::Snapshot;
use croft_harness::suite::OnRunc;
use croft_harness::{Bundle, Facility, Host, Subject, Test};
use croft_sys::seccomp::{Answer, answer, is_valid, receive};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

const NEEDS: &[Facility] = &[Facility::Root, Facility::Seccomp];
const NEEDS_DOCKER: &[Facility] = &[Facility::Root, Facility::Seccomp, Facility::Path(DOCKER)];

pub const SUBJECT: Subject = Subject {
    name: "seccomp",
    on_runc: &[
        ("refused_profiles", OnRunc::CroftOnly("the words are croft's own")),
        ("all_threads_and_flags", OnRunc::CroftOnly("Debian bookworm's runc does not know the newer flags")),
    ],
    tests: &[
        Test { name: "an_errno_of_ones_own", requires: NEEDS, run: errnos },
        Test { name: "the_default_errno", requires: NEEDS_DOCKER, run: default_errno },
        Test { name: "rules_on_arguments", requires: NEEDS, run: arguments },
        Test { name: "kill_trap_and_log", requires: NEEDS, run: kill_trap_and_log },
        Test { name: "architectures", requires: NEEDS, run: architectures },
        Test { name: "newer_calls_get_enosys", requires: NEEDS_DOCKER, run: newer_calls },
        Test { name: "all_threads_and_flags", requires: NEEDS, run: flags },
        Test { name: "without_no_new_privileges", requires: NEEDS, run: without_no_new_privileges },
        Test { name: "a_profile_older_than_what_the_runtime_calls", requires: NEEDS, run: old_profile },
        Test { name: "dockers_profile", requires: NEEDS_DOCKER, run: dockers_profile },
        Test { name: "an_agent_answers", requires: NEEDS, run: an_agent_answers },
        Test { name: "no_agent_listens", requires: NEEDS, run: no_agent },
        Test { name: "refused_profiles", requires: NEEDS, run: refused_profiles },
    ],
};

/// The profile of Debian's golang-github-containers-common.
const DOCKER: &str = "/usr/share/containers/seccomp.json";

/// How long the agent waits for its next message.
const AGENT_LIMIT: Duration = Duration::from_secs(20);

/// A shell under this profile, in a root that it can write to.
fn filtered(host: &Host, script: &str, profile: Value) -> Result<Bundle> {
    Ok(Bundle::shell(host, script)?.edit(|c| {
        c["linux"]["seccomp"] = profile;
        c["root"]["readonly"] = json!(false);
    }))
}

/// Everything is allowed but what `rules` say.
fn but(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

fn errnos(host: &Host) -> Result<()> {
    // ENOSPC (28) for one call, the usual EPERM for another.
    let rules = json!([
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"},
    ]);
    let script = "mkdir /d; chmod 700 /bin; grep ^Seccomp: /proc/self/status | tr -s '\\t' ' '";
    let out = filtered(host, script, but(rules))?.run()?.success()?;
    ensure!(out.stdout == "Seccomp: 2\n", "{out}");
    ensure!(out.stderr.contains("No space left") && out.stderr.contains("not permitted"), "{out}");
    Ok(())
}

/// What Docker's profile allows is allowed, but for mkdir.
fn default_errno(host: &Host) -> Result<()> {
    let names = allowed_by_docker()?;
    let names: Vec<Value> = names.into_iter().filter(|n| n != "mkdir" && n != "mkdirat").collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 17,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
    let out = filtered(host, "mkdir /d; echo $?", profile)?.run()?.success()?;
    ensure!(out.stdout == "1\n" && out.stderr.contains("File exists"), "{out}");
    Ok(())
}

fn arguments(host: &Host) -> Result<()> {
    // Of kill(2) only signal 10 is refused, of chmod(2) only the set-user-id bit.
    let rules = json!([
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
         "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
        {"names": ["fchmodat", "chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17,
         "args": [{"index": 1, "value": 0o7000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ"}]},
    ]);
    let script = "touch /f; kill -0 1 && echo zero; kill -USR1 1 || echo ten; \
                  chmod 4755 /f || echo suid; chmod 755 /f && echo plain";
    let out = filtered(host, script, but(rules))?.run()?.success()?;
    ensure!(out.stdout == "zero\nten\nsuid\nplain\n", "{out}");
    Ok(())
}

fn kill_trap_and_log(host: &Host) -> Result<()> {
    for (action, status) in
        [("SCMP_ACT_KILL_PROCESS", 159), ("SCMP_ACT_KILL", 159), ("SCMP_ACT_TRAP", 159), ("SCMP_ACT_LOG", 0)]
    {
        let rules = json!([{"names": ["mkdir", "mkdirat"], "action": action}]);
        let out = filtered(host, "mkdir /d; exit $?", but(rules))?.run()?;
        // 128 and the number of SIGSYS.
        ensure!(out.code() == status, "{action}: {out}");
    }
    Ok(())
}

fn architectures(host: &Host) -> Result<()> {
    let names = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let mut profile = but(rules);
    profile["architectures"] = json!(names);
    let out = filtered(host, "mkdir /d || echo refused", profile.clone())?.run()?.success()?;
    ensure!(out.stdout == "refused\n", "{out}");
    // One that libseccomp does not know is a warning, as with runc.
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_OF_THE_FUTURE"]);
    let out = filtered(host, "mkdir /d || echo refused", profile)?.run()?;
    ensure!(out.stdout == "refused\n" || out.stderr.contains("SCMP_ARCH_OF_THE_FUTURE"), "{out}");
    Ok(())
}

/// The newest call that the profile names is faccessat2's elder openat2 (437): above it is ENOSYS, below it EPERM.
fn newer_calls(host: &Host) -> Result<()> {
    let names: Vec<Value> = allowed_by_docker()?
        .into_iter()
        .filter(|n| !NEWER_THAN_OPENAT2.iter().any(|newer| n == newer) && n != "mkdir" && n != "mkdirat")
        .collect();
    // runc looks for the newest call in the architectures that are named.
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
    // 258 is mkdirat.
    let script =
        r#"for (258, 452, 1000) { $! = 0; syscall($_, 0, 0, 0, 0, 0, 0); print "$_ ", $! + 0, "\n" }"#;
    let out = perl(host, script, profile)?;
    ensure!(out == format!("258 {}\n452 {ENOSYS}\n1000 {ENOSYS}\n", 1), "{out}");
    Ok(())
}

const ENOSYS: i32 = 38;

/// Calls of Docker's profile that came after openat2.
const NEWER_THAN_OPENAT2: &[&str] = &[
    "pidfd_getfd",
    "faccessat2",
    "process_madvise",
    "epoll_pwait2",
    "mount_setattr",
    "quotactl_fd",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    "memfd_secret",
    "process_mrelease",
    "futex_waitv",
    "set_mempolicy_home_node",
    "cachestat",
    "fchmodat2",
    "map_shadow_stack",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
];

fn flags(host: &Host) -> Result<()> {
    let mut profile = but(json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]));
    for flag in ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"] {
        profile["flags"] = json!([format!("SECCOMP_FILTER_FLAG_{flag}")]);
        let out = filtered(host, "mkdir /d || echo refused", profile.clone())?.run()?.success()?;
        ensure!(out.stdout == "refused\n", "{flag}: {out}");
    }
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_OF_THE_FUTURE"]);
    filtered(host, "true", profile)?.run()?.failure()?;
    Ok(())
}

/// The kernel then takes a filter only from who has CAP_SYS_ADMIN: it comes before the capabilities go.
fn without_no_new_privileges(host: &Host) -> Result<()> {
    let profile = but(json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]));
    let script = "mkdir /tmp/d; grep -E '^(NoNewPrivs|Seccomp|CapEff):' /proc/self/status | tr -s '\\t' ' '";
    let bundle = filtered(host, script, profile)?.edit(|c| {
        c["process"]["noNewPrivileges"] = json!(false);
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let out = bundle.run()?.success()?;
    ensure!(out.stdout == "CapEff: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2\n", "{out}");
    ensure!(out.stderr.contains("No space left"), "{out}");
    Ok(())
}

/// The filter holds before the working folder is entered and the program is looked for: neither may need what it refuses.
fn old_profile(host: &Host) -> Result<()> {
    let newer = ["openat2", "faccessat2", "statx", "close_range", "fchmodat2", "pidfd_open", "mount_setattr"];
    let profile = but(json!([{"names": newer, "action": "SCMP_ACT_ERRNO"}]));
    let bundle =
        filtered(host, "pwd; grep ^Seccomp: /proc/self/status | tr -s '\\t' ' '", profile)?.edit(|c| {
            c["process"]["noNewPrivileges"] = json!(false);
            c["process"]["cwd"] = json!("/made/for/it");
        });
    let out = bundle.run()?.success()?;
    ensure!(out.stdout == "/made/for/it\nSeccomp: 2\n", "{out}");
    Ok(())
}

/// The profile as a container engine resolves it for x86-64 and a container without further capabilities.
fn docker() -> Result<Value> {
    let raw: Value = serde_json::from_str(&fs::read_to_string(DOCKER)?)?;
    let given =
        |list: &Value, name: &str| list.as_array().is_some_and(|all| all.iter().any(|each| each == name));
    let mut rules = Vec::new();
    for rule in raw["syscalls"].as_array().context("syscalls")? {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let asks_for_more = includes["caps"].as_array().is_some_and(|caps| !caps.is_empty());
        let elsewhere = !includes["arches"].is_null() && !given(&includes["arches"], "amd64");
        if asks_for_more || elsewhere || given(&excludes["arches"], "amd64") {
            continue;
        }
        let mut resolved = json!({"names": rule["names"], "action": rule["action"]});
        if rule["args"].as_array().is_some_and(|args| !args.is_empty()) {
            resolved["args"] = rule["args"].clone();
        }
        if rule["action"] == "SCMP_ACT_ERRNO" && !rule["errnoRet"].is_null() {
            resolved["errnoRet"] = rule["errnoRet"].clone();
        }
        rules.push(resolved);
    }
    Ok(json!({"defaultAction": raw["defaultAction"], "defaultErrnoRet": 1, "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}))
}

/// The calls that Docker's profile allows whatever their arguments.
fn allowed_by_docker() -> Result<Vec<Value>> {
    let profile = docker()?;
    let rules = profile["syscalls"].as_array().context("syscalls")?;
    let plain = rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null());
    Ok(plain.filter_map(|rule| rule["names"].as_array()).flatten().cloned().collect())
}

fn dockers_profile(host: &Host) -> Result<()> {
    // personality(2), 135, is allowed for a few values only; an audit socket (netlink, protocol 9) has an errno of its own.
    let calls = [("135, 8", 0), ("135, 7", 1), ("41, 16, 3, 9", 22), ("41, 16, 3, 0", 0)];
    let script: String =
        calls.iter().map(|(call, _)| format!("$! = 0; syscall({call}); print $! + 0, qq(\\n);")).collect();
    let out = perl(host, &script, docker()?)?;
    let want: String = calls.iter().map(|(_, errno)| format!("{errno}\n")).collect();
    ensure!(out == want, "{out}");
    filtered(host, "mkdir /d && echo x > /d/f && cat /d/f | grep x", docker()?)?.run()?.success()?;
    Ok(())
}

/// What this perl script prints under this profile. Debian's root filesystem has a perl, which makes any call by its number.
fn perl(host: &Host, script: &str, profile: Value) -> Result<String> {
    let debian = croft_harness::debian::rootfs("bookworm")?;
    let bundle = Bundle::new(host, &["/usr/bin/perl", "-e", script])?.edit(|c| {
        c["root"] = json!({"path": debian, "readonly": true});
        c["linux"]["seccomp"] = profile;
    });
    bundle.stdout()
}

/// An agent's socket beside a bundle.
struct Agent {
    socket: UnixListener,
    path: PathBuf,
}

/// What the runtime sends: the listener and the container process state (runtime-spec, config-linux.md).
struct Message {
    listener: OwnedFd,
    state: Value,
}

impl Agent {
    fn beside(bundle: &Bundle) -> Result<Self> {
        let path = bundle.folder().join("agent");
        Ok(Self { socket: UnixListener::bind(&path).context("the agent's socket")?, path })
    }

    /// Waits for the runtime and takes its message.
    fn take(&self) -> Result<Message> {
        ensure!(readable(&self.socket)?, "the runtime did not connect");
        let (stream, _) = self.socket.accept()?;
        ensure!(readable(&stream)?, "the runtime sent nothing");
        let mut text = vec![0; 1 << 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None })
            .flatten()
            .collect();
        ensure!(fds.len() == 1, "{} descriptors came", fds.len());
        let state = serde_json::from_slice(&text[..received.bytes]).context("container process state")?;
        Ok(Message { listener: fds.remove(0), state })
    }
}

/// Whether there is something to read (and not only an end) before the limit.
fn readable(fd: impl AsFd) -> Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec::try_from(patience(AGENT_LIMIT))?;
    Ok(poll(&mut fds, Some(&timeout))? == 1 && fds[0].revents().contains(PollFlags::IN))
}

fn notifying(agent: &Agent) -> Value {
    let mut profile = but(json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]));
    profile["listenerPath"] = json!(agent.path);
    profile["listenerMetadata"] = json!("for the agent");
    profile
}

fn an_agent_answers(host: &Host) -> Result<()> {
    let bundle = filtered(host, "mkdir /a; mkdir /b && ls -d /a /b", json!(null))?;
    let agent = Agent::beside(&bundle)?;
    let bundle = bundle.edit(|c| c["linux"]["seccomp"] = notifying(&agent));
    let id = bundle.id().to_owned();
    let serving = std::thread::spawn(move || {
        let message = agent.take()?;
        let answers = [Answer::Error(Errno::NOSPC), Answer::Continue];
        let mut callers = Vec::new();
        for one in answers {
            ensure!(readable(&message.listener)?, "no call came");
            let call = receive(message.listener.as_fd())?.context("its caller is gone")?;
            ensure!(is_valid(message.listener.as_fd(), call.id)?, "{call:?}");
            answer(message.listener.as_fd(), call.id, one)?;
            callers.push(call.nr);
        }
        Ok((message.state, callers))
    });
    let out = bundle.run();
    let Ok(served) = serving.join() else { bail!("the agent panicked") };
    let out = out?;
    let (state, calls) = served.with_context(|| out.to_string())?;
    ensure!(out.stdout == "/b\n" && out.stderr.contains("No space left"), "{out}");
    ensure!(calls.len() == 2 && calls.iter().all(|nr| [83, 258].contains(nr)), "{calls:?}");
    ensure!(state["fds"] == json!(["seccompFd"]) && state["metadata"] == "for the agent", "{state:#}");
    ensure!(state["pid"].as_i64().is_some_and(|pid| pid > 1) && state["ociVersion"].is_string(), "{state:#}");
    let inner = &state["state"];
    ensure!(inner["id"] == id.as_str() && inner["status"] == "creating", "{state:#}");
    ensure!(inner["pid"] == state["pid"] && inner["bundle"].is_string(), "{state:#}");
    Ok(())
}

fn no_agent(host: &Host) -> Result<()> {
    let bundle = filtered(host, "echo ran", json!(null))?;
    let agent = Agent::beside(&bundle)?;
    let bundle = bundle.edit(|c| c["linux"]["seccomp"] = notifying(&agent));
    drop(agent);
    bundle.save()?;
    let before = Snapshot::take(host, &[bundle.state_root()])?;
    let out = bundle.run()?;
    ensure!(out.code() != 0 && out.stdout.is_empty() && out.stderr.contains("agent"), "{out}");
    before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)
}

fn refused_profiles(host: &Host) -> Result<()> {
    let notify = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let mut of_write = but(json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]));
    of_write["listenerPath"] = json!("/nowhere");
    let rule = |name: &str, more: Value| {
        let mut rule = json!({"names": [name], "action": "SCMP_ACT_ERRNO"});
        if let (Some(rule), Some(more)) = (rule.as_object_mut(), more.as_object()) {
            rule.extend(more.clone());
        }
        but(json!([rule]))
    };
    for (profile, word) in [
        (but(notify), "listenerPath"),
        (of_write, "write"),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/nowhere"}), "default action"),
        (rule("mkdir", json!({"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})), "argument 6"),
        (rule("mkdir", json!({"errnoRet": 70_000})), "70000"),
        (rule("", json!({})), "\"\""),
        // Under this one no program could be started.
        (rule("execve", json!({})), "execve"),
    ] {
        let bundle = filtered(host, "echo ran", profile)?;
        bundle.save()?;
        let before = Snapshot::take(host, &[bundle.state_root()])?;
        let out = bundle.run()?;
        ensure!(out.code() != 0 && out.stdout.is_empty() && out.stderr.contains(word), "{word}: {out}");
        before.same_as(&Snapshot::take(host, &[bundle.state_root()])?)?;
    }
    Ok(())
}
