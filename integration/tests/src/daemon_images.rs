//! Images: registries, names, archives, what takes the disk and how it is given back.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Relay, Subject, Test, debian};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// Nothing here depends on the kind of host: the emulated one would only take longer.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];
const REGISTRY: &[Facility] =
    &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["docker-registry"])];
const MMDEBSTRAP: &[Facility] = &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["mmdebstrap"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_images",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "a_pushed_image_is_pulled_again", requires: REGISTRY, run: push_and_pull },
        Test { name: "a_login_is_kept_for_who_is_known", requires: REGISTRY, run: login },
        Test { name: "names_history_and_archives", requires: NEEDS, run: names_and_archives },
        Test { name: "prune_keeps_what_somebody_needs", requires: NEEDS, run: prune },
        Test { name: "df_tells_where_the_disk_went", requires: NEEDS, run: usage },
        Test { name: "a_failed_build_leaves_nothing", requires: MMDEBSTRAP, run: failed_build },
        Test { name: "a_debian_is_built_and_runs", requires: MMDEBSTRAP, run: built_debian },
        Test { name: "bad_requests_leave_nothing", requires: NEEDS, run: bad_requests },
    ],
};

/// "secret".
const SECRET_BY_BCRYPT: &str = "$2y$04$E60mR8F.mEl9IqmLo3ty8OstVY1d.tSOUXbMmVruWeiSP425KfzZ6";

/// Debian's docker-registry on a stage's loopback interface, with which it ends. What runs it is left to reap it: a zombie that came to
/// the suite would keep the stage's pid namespace from ending.
pub struct Registry(Child);

/// Where it listens: nobody else is on the stage.
pub const REGISTRY_HOST: &str = "127.0.0.1:5000";

impl Registry {
    /// Starts one, only for the user `me` with the password `secret` if `private`.
    pub fn start(croft: &Croft, private: bool) -> Result<Self> {
        let users = croft.stage.path("htpasswd");
        fs::write(&users, format!("me:{SECRET_BY_BCRYPT}\n"))?;
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", users.display());
        let config = croft.stage.path("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {REGISTRY_HOST}\n{}",
            croft.path("registry"),
            if private { &auth } else { "" }
        );
        fs::write(&config, text)?;
        let script = format!(
            "echo $$ >{}; exec docker-registry serve {}",
            croft.path("registry.pid"),
            config.display()
        );
        let mut command = croft.stage.command("sh");
        command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut registry = Registry(command.spawn().context("start docker-registry")?);
        let deadline = Instant::now() + Duration::from_secs(60);
        // It says nothing when it is ready, so it is asked.
        let probe = format!("exec 3<>/dev/tcp/{}", REGISTRY_HOST.replace(':', "/"));
        while croft.stage.run("bash", &["-c", &probe])?.code() != 0 {
            if let Some(status) = registry.0.try_wait()? {
                bail!("docker-registry ended: {status}");
            }
            ensure!(Instant::now() < deadline, "docker-registry does not answer");
        }
        Ok(registry)
    }

    /// Ends it in the middle of whatever it does.
    pub fn stop(mut self, croft: &Croft) -> Result<()> {
        let pid = fs::read_to_string(croft.stage.path("registry.pid"))?;
        croft.stage.run("kill", &["-9", pid.trim()])?.success()?;
        self.0.wait().map(drop).context("the registry did not end")
    }
}

fn json(croft: &Croft, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&croft.ok(&[&["--format", "json"], args].concat())?)?)
}

fn push_and_pull(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let _registry = Registry::start(&croft, false)?;
    let name = format!("{REGISTRY_HOST}/team/box:v1");
    croft.ok(&["image", "tag", "box", &name])?;
    let pushed = croft.run(&["push", &name])?.success()?;
    ensure!(pushed.stderr.contains("transferred") && pushed.stdout.starts_with("sha256:"), "{pushed}");
    ensure!(!pushed.stderr.contains('\u{1b}'), "no bars where nobody looks: {pushed}");
    let again = croft.run(&["image", "push", &name])?.success()?;
    ensure!(again.stderr.contains("is there already") && !again.stderr.contains("transferred"), "{again}");
    let id = json(&croft, &["image", "inspect", &name])?[0]["id"].clone();
    croft.ok(&["rmi", &name, "box"])?;
    ensure!(croft.ok(&["images", "--quiet"])?.is_empty(), "both names are gone");
    let blobs = croft.stage.run("find", &[&croft.path("lib/images/blobs"), "-type", "f"])?.success()?;
    ensure!(blobs.stdout.is_empty(), "the disk is given back: {}", blobs.stdout);
    // run pulls what is not there.
    let ran = croft.run(&["run", "--rm", &name, "echo", "pulled"])?.success()?;
    ensure!(ran.stdout == "pulled\n" && ran.stderr.contains("transferred"), "{ran}");
    ensure!(json(&croft, &["image", "inspect", &name])?[0]["id"] == id);
    let quiet = croft.run(&["pull", "--quiet", &name])?.success()?;
    ensure!(quiet.stdout.trim() == id && quiet.stderr.is_empty(), "{quiet}");
    let program = croft.program.display().to_string();
    croft.ok(&["rmi", &name])?;
    let seen = croft.stage.run_on_terminal(&program, &["pull", &name], "")?;
    ensure!(seen.stdout.contains('\u{1b}'), "a terminal has bars: {seen}");
    croft.nothing_is_left()
}

fn login(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let _registry = Registry::start(&croft, true)?;
    let name = format!("{REGISTRY_HOST}/box:v1");
    croft.ok(&["tag", "box", &name])?;
    let (code, refused) = croft.fails(&["push", &name])?;
    ensure!(code == 125 && refused.to_lowercase().contains("auth"), "{refused}");
    let log_in = |password: &str| {
        let script = format!(
            "echo {password} | {} login --username me --password-stdin {REGISTRY_HOST}",
            croft.program.display()
        );
        croft.stage.run("sh", &["-c", &script])
    };
    let wrong = log_in("wrong")?;
    ensure!(wrong.code() == 125 && wrong.stderr.contains("log in at"), "{wrong}");
    let file = croft.stage.path(".docker/config.json");
    ensure!(!file.exists(), "what was refused is not kept");
    let right = log_in("secret")?.success()?;
    ensure!(right.stderr.contains("logged in"), "{right}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file)?.permissions());
    ensure!(mode & 0o777 == 0o600 && !fs::read_to_string(&file)?.contains("secret"), "{mode:o}");
    croft.ok(&["push", &name])?;
    croft.ok(&["logout", REGISTRY_HOST])?;
    let (_, none) = croft.fails(&["logout", REGISTRY_HOST])?;
    ensure!(none.contains("nobody is logged in"), "{none}");
    let (_, refused) = croft.fails(&["pull", &name])?;
    ensure!(refused.to_lowercase().contains("auth"), "{refused}");
    let (_, unasked) = croft.fails(&["login", REGISTRY_HOST])?;
    ensure!(unasked.contains("--password-stdin"), "{unasked}");
    croft.nothing_is_left()
}

fn names_and_archives(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["image", "tag", "box", "other:v2"])?;
    let details = json(&croft, &["image", "inspect", "other:v2"])?[0].clone();
    ensure!(details["names"].as_array().is_some_and(|names| names.len() == 2), "{details}");
    ensure!(
        details["config"]["Cmd"][0] == "/bin/sh"
            && details["platform"].as_str().is_some_and(|p| p.starts_with("linux/")),
        "{details}"
    );
    croft.ok(&["run", "--name", "c", "box", "touch", "/more"])?;
    croft.ok(&["commit", "--message", "by hand", "--author", "me", "c", "made"])?;
    let steps = json(&croft, &["image", "history", "made"])?;
    ensure!(
        steps[0]["comment"] == "by hand"
            && steps[0]["author"] == "me"
            && steps[1]["comment"] == "imported root filesystem",
        "{steps}"
    );
    ensure!(croft.ok(&["image", "history", "made"])?.contains("by hand"));
    croft.ok(&["rm", "c"])?;
    croft.ok(&["image", "export", "--output", &croft.path("two.tar"), "made", "other:v2"])?;
    croft.ok(&["rmi", "made", "other:v2", "box"])?;
    let loaded = croft.ok(&["load", "--input", &croft.path("two.tar")])?;
    ensure!(loaded.contains("made:latest") && loaded.contains("other:v2"), "{loaded}");
    ensure!(json(&croft, &["image", "inspect", "other:v2"])?[0]["id"] == details["id"]);
    ensure!(croft.ok(&["run", "--rm", "made", "ls", "/more"])? == "/more\n");
    let through = format!("{0} save made | {0} load --quiet", croft.program.display());
    let id = croft.stage.run("sh", &["-c", &through])?.success()?.stdout;
    ensure!(json(&croft, &["image", "inspect", "made"])?[0]["id"] == id.trim(), "{id}");
    croft.nothing_is_left()
}

fn prune(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let other = format!("cd {} && touch rootfs/other && tar -C rootfs -cf other.tar .", croft.path(""));
    croft.stage.run("sh", &["-c", &other])?.success()?;
    croft.ok(&["image", "import", &croft.path("other.tar"), "unused"])?;
    for (name, image) in [("ended", "box"), ("runs", "box")] {
        let command: &[&str] = if name == "runs" {
            &["sleep", "1000"]
        } else {
            &["sh", "-c", "dd if=/dev/zero of=/f bs=1M count=2"]
        };
        croft.ok(&[
            &[
                "run",
                "--detach",
                "--name",
                name,
                "--volume",
                &format!("{name}:/v"),
                "--volume",
                "/anon",
                image,
            ],
            command,
        ]
        .concat())?;
    }
    croft.ok(&["wait", "ended"])?;
    let (code, unasked) = croft.fails(&["system", "prune"])?;
    ensure!(code == 125 && unasked.contains("--force"), "{unasked}");
    let pruned = json(&croft, &["system", "prune", "--force"])?;
    ensure!(pruned["containers"][0] == "ended" && pruned["containers"][1].is_null(), "{pruned}");
    ensure!(pruned["volumes"][0].is_null() && pruned["images"][0].is_null(), "{pruned}");
    ensure!(pruned["bytes"].as_u64() >= Some(2 << 20), "{pruned}");
    let pruned = json(&croft, &["system", "prune", "--force", "--all", "--volumes"])?;
    let volumes = pruned["volumes"].as_array().context("volumes")?;
    ensure!(volumes.len() == 2 && volumes.iter().any(|name| name == "ended"), "{pruned}");
    ensure!(pruned["images"][0] == "unused:latest" && pruned["images"][1].is_null(), "{pruned}");
    ensure!(croft.inspect("runs")?["state"] == "running");
    ensure!(croft.ok(&["volume", "ls", "--quiet"])?.lines().count() == 2, "those of the running one stay");
    croft.ok(&["exec", "runs", "touch", "/v/still", "/anon/still"])?;
    ensure!(croft.ok(&["run", "--rm", "box", "echo", "whole"])? == "whole\n");
    croft.ok(&["rm", "--force", "--volumes", "runs"])?;
    ensure!(croft.ok(&["image", "prune", "--all", "--force"])?.starts_with("box:latest\n"));
    ensure!(croft.ok(&["images", "--quiet"])?.is_empty());
    croft.nothing_is_left()
}

fn usage(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let before = json(&croft, &["system", "df"])?;
    ensure!(before["images"]["count"] == 1 && before["images"]["active"] == 0, "{before}");
    ensure!(before["images"]["reclaimable"].as_u64() > Some(1 << 20), "nobody needs the image: {before}");
    ensure!(before["images"]["bytes"].as_u64() >= before["images"]["reclaimable"].as_u64(), "{before}");
    let script = "dd if=/dev/zero of=/v/f bs=1M count=3 2>/dev/null; dd if=/dev/zero of=/f bs=1M count=2 2>/dev/null; seq 10000";
    croft.ok(&["run", "--name", "c", "--volume", "v:/v", "box", "sh", "-c", script])?;
    let used = json(&croft, &["system", "df"])?;
    let about = |what: &str, field: &str, mib: u64| {
        used[what][field].as_u64().is_some_and(|bytes| (mib << 20..(mib + 1) << 20).contains(&bytes))
    };
    ensure!(about("containers", "bytes", 2) && about("containers", "reclaimable", 2), "{used}");
    ensure!(about("volumes", "bytes", 3) && used["volumes"]["reclaimable"] == 0, "{used}");
    ensure!(used["logs"]["bytes"].as_u64() > Some(100_000) && used["logs"]["count"] == 1, "{used}");
    ensure!(used["images"]["active"] == 1, "{used}");
    ensure!(used["images"]["reclaimable"].as_u64() < before["images"]["reclaimable"].as_u64(), "{used}");
    let table = croft.ok(&["system", "df"])?;
    ensure!(
        table.contains("RECLAIMABLE") && table.lines().count() == 5 && !table.contains('\u{1b}'),
        "{table}"
    );
    croft.ok(&["rm", "c"])?;
    croft.ok(&["volume", "rm", "v"])?;
    let after = json(&croft, &["system", "df"])?;
    ensure!(
        after["containers"]["bytes"] == 0 && after["volumes"]["count"] == 0 && after["logs"]["bytes"] == 0,
        "{after}"
    );
    croft.nothing_is_left()
}

fn failed_build(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let mirror = "http://127.0.0.1:1/debian";
    let (code, failed) = croft.fails(&["image", "build-rootfs", "--mirror", mirror, "none-such", "deb"])?;
    ensure!(code == 125 && failed.contains("mmdebstrap: exit status"), "{failed}");
    let (_, refused) = croft.fails(&["image", "build-rootfs", "--include=-x", "trixie", "deb"])?;
    ensure!(refused.contains("no dash at its beginning"), "{refused}");
    ensure!(!croft.ok(&["images"])?.contains("deb"));
    let left = croft.stage.run("ls", &[&croft.path("lib/images/tmp")])?.success()?;
    ensure!(left.stdout.is_empty(), "{}", left.stdout);
    croft.nothing_is_left()
}

/// As a user builds it, from the archive that the host's apt uses: the stage has no way out, so that a relay stands for the archive.
fn built_debian(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let archive = debian::archive_uri()?;
    let name = archive.strip_prefix("http://").with_context(|| format!("{archive}: no relay for that"))?;
    let name = name.split('/').next().unwrap_or_default();
    let (outside, port) = (
        host.outside.as_ref().context("root's suite has left the host's network")?.try_clone()?,
        "127.0.0.1:80",
    );
    let relay =
        Relay::start(&croft.stage.network()?, port.parse()?, outside, &format!("{name}:80"), u64::MAX)?;
    fs::write(croft.stage.path("hosts"), format!("127.0.0.1 localhost {name}\n"))?;
    croft.stage.run("mount", &["--bind", &croft.path("hosts"), "/etc/hosts"])?.success()?;
    // The least that is a whole system: the essential packages, set up.
    croft.ok(&[
        "image",
        "build-rootfs",
        "--variant",
        "essential",
        "--mirror",
        &archive,
        "trixie",
        "debian:trixie",
    ])?;
    ensure!(relay.passed() > 1 << 20, "nothing came from the archive");
    drop(relay);
    let release = croft.ok(&["run", "--rm", "debian:trixie", "cat", "/etc/os-release"])?;
    ensure!(release.contains("VERSION_CODENAME=trixie\n"), "{release}");
    let shell =
        ["debian:trixie", "-c", "dpkg-query --show --showformat '${db:Status-Status}\n' | sort -u; id -un"];
    let state = croft.ok(&[&["run", "--rm", "--entrypoint", "/bin/bash"], &shell[..]].concat())?;
    ensure!(state == "installed\nroot\n", "{state}");
    ensure!(croft.ok(&["image", "history", "debian:trixie"])?.contains("mmdebstrap"));
    let left = croft.stage.run("ls", &[&croft.path("lib/images/tmp")])?.success()?;
    ensure!(left.stdout.is_empty(), "{}", left.stdout);
    croft.ok(&["rmi", "debian:trixie"])?;
    croft.nothing_is_left()
}

fn bad_requests(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["create", "--name", "c", "box", "true"])?;
    fs::write(croft.stage.path("junk"), "no archive at all")?;
    for (args, words) in [
        (&["image", "inspect", "bx"][..], "hint: there is box"),
        (&["image", "history", "none-such-image"], "croft image pull none-such-image"),
        (&["image", "tag", "bax", "x"], "hint: there is box"),
        (&["tag", "box", "Not A Name"], "invalid image name"),
        (&["push", "box@sha256:12"], "no such image"),
        (&["create", "--pull", "never", "boxx", "true"], "hint: there is box"),
        (&["rmi", "box"], "the container c is made from it"),
        (&["save", "--output", "/none/such/x", "box"], "/none/such/x"),
        (&["save", "--output", &croft.path("out"), "box", "none-such-image"], "no such image"),
        (&["load", "--input", "/none/such"], "/none/such"),
        (&["load", "--input", &croft.path("junk")], "load:"),
        (&["login", "--username", "a:b", "127.0.0.1:1"], "--password-stdin"),
    ] {
        let (code, text) = croft.fails(args)?;
        ensure!(code == 125 && text.contains(words), "{args:?}: {code}: {text}");
    }
    ensure!(!croft.stage.path("out").exists(), "an archive that is not complete is removed");
    ensure!(croft.ok(&["images"])?.lines().count() == 2);
    croft.ok(&["rm", "c"])?;
    croft.nothing_is_left()
}
