//! The croftd of another host, asked under mutual TLS: who is trusted may do everything, and who is not gets nothing.

use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test, process};

use crate::daemon_streams::Pipe;

// Nothing here depends on the kind of host.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];
const CURL: &[Facility] = &[Facility::Root, Facility::NotEmulated, Facility::Packages(&["curl", "openssl"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_remote",
    on_runc: &[("*", OnRunc::CroftOnly("croftd is tried with the runtime that it comes with"))],
    tests: &[
        Test { name: "a_trusted_host_does_everything", requires: NEEDS, run: everything },
        Test { name: "who_is_not_trusted_gets_nothing", requires: CURL, run: strangers },
        Test { name: "a_revocation_cuts_what_is_open", requires: NEEDS, run: revocation },
        Test { name: "who_shakes_no_hands_holds_up_nobody", requires: NEEDS, run: silence },
        Test { name: "no_byte_is_lost_from_afar_when_croftd_is_killed", requires: NEEDS, run: kills },
        Test { name: "bad_requests_are_refused", requires: NEEDS, run: bad_requests },
    ],
};

const ADDRESS: &str = "127.0.0.1:8443";

/// A croftd that listens for the hosts it trusts, of which `desk` is one, and knows it as `east`.
struct Remote {
    croft: Croft,
    server: String,
    desk: String,
}

impl Remote {
    fn new(host: &Host) -> Result<Self> {
        // The stage's folder is known only when there is a stage; croftd finds its keys by its own folder.
        let croft = Croft::with_options(host, &["--listen", ADDRESS])?;
        let (server, desk) = (croft.path("lib/keys"), croft.path("desk"));
        let new = Self { croft, server, desk };
        new.keys(&new.desk, &["make"])?;
        new.introduce(&new.desk, &new.server, "desk", &[])?;
        new.introduce(&new.server, &new.desk, "east", &["--address", ADDRESS])?;
        Ok(new)
    }

    fn keys(&self, folder: &str, args: &[&str]) -> Result<String> {
        self.croft.ok(&[&["--keys", folder, "remote"], args].concat())
    }

    /// Has the keys in `there` trust those in `whose`, as `name`.
    fn introduce(&self, whose: &str, there: &str, name: &str, options: &[&str]) -> Result<()> {
        let file = self.croft.path(&format!("{name}.crt"));
        std::fs::write(&file, self.keys(whose, &["show"])?)?;
        self.keys(there, &[&["trust"], options, &[name, &file]].concat()).map(drop)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        self.croft.ok(&[&["--keys", &self.desk, "--remote", "east"], args].concat())
    }

    fn fails(&self, folder: &str, args: &[&str]) -> Result<String> {
        let (code, text) = self.croft.fails(&[&["--keys", folder, "--remote", "east"], args].concat())?;
        ensure!(code == 125, "{code}: {text}");
        Ok(text)
    }

    /// Starts croft from afar; its output goes to the file `name`.
    fn start(&self, name: &str, args: &[&str]) -> Result<Child> {
        let output = std::fs::File::create(self.croft.path(name))?;
        let mut command = self.croft.stage.command(&self.croft.program.display().to_string());
        command.args(["--keys", &self.desk, "--remote", "east"]).args(args).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output).spawn().context("start croft")
    }
}

fn everything(host: &Host) -> Result<()> {
    let remote = Remote::new(host)?;
    let run = ["run", "--network", "none", "--detach", "--name", "web", "box", "sh", "-c"];
    remote.ok(&[&run[..], &["echo from afar; sleep 1000"]].concat())?;
    ensure!(remote.ok(&["ps", "--quiet"])? == remote.croft.ok(&["ps", "--quiet"])?);
    ensure!(remote.ok(&["logs", "web"])? == "from afar\n");
    let exec = remote.croft.run(&[
        "--keys",
        &remote.desk,
        "--remote",
        "east",
        "exec",
        "web",
        "sh",
        "-c",
        "exit 7",
    ])?;
    ensure!(exec.code() == 7, "{exec:?}");
    let text = remote.croft.path("text");
    std::fs::write(&text, "numbers 0123456789\n".repeat(100_000))?;
    remote.ok(&["cp", &text, "web:/text"])?;
    remote.ok(&["cp", "web:/text", &remote.croft.path("back")])?;
    ensure!(std::fs::read(&text)? == std::fs::read(remote.croft.path("back"))?);
    let program = remote.croft.program.display().to_string();
    let afar = format!("{program} --keys {} --remote east", remote.desk);
    let screen =
        remote.croft.stage.run_on_terminal("sh", &["-c", &format!("{afar} exec -it web tty")], "")?;
    ensure!(screen.success()?.stdout.contains("/dev/pts/0"));
    remote.ok(&["image", "rm", "--force", "nothing"]).map_or(Ok(()), |_| anyhow::bail!("there was none"))?;
    let listed = remote.keys(&remote.desk, &["list"])?;
    ensure!(listed.contains("east") && listed.contains(ADDRESS), "{listed}");
    remote.ok(&["rm", "--force", "web"])?;
    remote.croft.nothing_is_left()
}

fn strangers(host: &Host) -> Result<()> {
    let remote = Remote::new(host)?;
    let stranger = remote.croft.path("stranger");
    remote.keys(&stranger, &["make"])?;
    remote.introduce(&remote.server, &stranger, "east", &["--address", ADDRESS])?;
    let text = remote.fails(&stranger, &["ps"])?;
    ensure!(
        text.contains("does not trust the key of this host") && text.contains("croft remote trust"),
        "{text}"
    );
    // The other way round: where east is expected somebody else answers.
    let deceived = remote.croft.path("deceived");
    remote.keys(&deceived, &["make"])?;
    remote.introduce(&deceived, &remote.server, "deceived", &[])?;
    remote.introduce(&stranger, &deceived, "east", &["--address", ADDRESS])?;
    let text = remote.fails(&deceived, &["ps"])?;
    ensure!(text.contains("another key than the one that is trusted"), "{text}");
    let url = format!("https://{ADDRESS}/v1/system/info");
    let curl = |options: &[&str]| {
        let usual = ["--silent", "--show-error", "--insecure", "--max-time", "20", "--output", "/dev/null"];
        remote.croft.stage.run("curl", &[&usual, options, &[&url]].concat())
    };
    let (crt, key) = (format!("{}/host.crt", remote.desk), format!("{}/host.key", remote.desk));
    let shown = ["--cert", &crt, "--key", &key];
    curl(&shown)?.success()?;
    for (options, word) in [
        (&[][..], "certificate required"),
        (&[&shown[..], &["--tls-max", "1.2"]].concat()[..], "protocol version"),
    ] {
        let text = curl(options)?.failure()?;
        ensure!(text.contains(word), "{options:?}: {text}");
    }
    // A certificate of the same name with the trusted host's text and another key: the handshake's signature is what counts.
    let wrong = ["--cert", &crt, "--key", &format!("{stranger}/host.key")];
    ensure!(curl(&wrong)?.code() != 0);
    // Plain HTTP, and noise.
    let plain = format!("http://{ADDRESS}/v1/system/info");
    let output = remote.croft.stage.run("curl", &["--silent", "--max-time", "20", &plain])?;
    ensure!(output.code() != 0, "{output:?}");
    let noise = format!(
        "head -c 100000 /dev/urandom | timeout 20 bash -c 'cat >/dev/tcp/{}'",
        ADDRESS.replace(':', "/")
    );
    remote.croft.stage.run("bash", &["-c", &noise])?;
    remote.ok(&["ps"])?;
    remote.croft.nothing_is_left()
}

fn revocation(host: &Host) -> Result<()> {
    let remote = Remote::new(host)?;
    let run = ["run", "--network", "none", "--detach", "--name", "web", "box", "sleep", "1000"];
    remote.ok(&run)?;
    let mut open = [
        ("events", remote.start("events", &["events"])?),
        ("exec", remote.start("exec", &["exec", "web", "sh", "-c", "echo begun; sleep 1000"])?),
    ];
    let deadline = Instant::now() + COMMAND_LIMIT;
    for (name, _) in &open {
        while std::fs::metadata(remote.croft.path(name))?.len() == 0 {
            ensure!(Instant::now() < deadline, "{name} does not begin");
            // The stream of events begins with the next one.
            remote.croft.ok(&["rename", "web", "www"])?;
            remote.croft.ok(&["rename", "www", "web"])?;
        }
    }
    remote.keys(&remote.server, &["revoke", "desk"])?;
    for (name, child) in &mut open {
        let ended = process::wait(child, COMMAND_LIMIT)?;
        let said = std::fs::read_to_string(remote.croft.path(name))?;
        let ended = ended.with_context(|| format!("{name} goes on: {said}"))?;
        ensure!(ended.code() == Some(125), "{name}: {ended}: {said}");
    }
    let text = remote.fails(&remote.desk, &["ps"])?;
    ensure!(text.contains("does not trust"), "{text}");
    // Trusted again, it is as before; croftd was not started anew for any of it.
    remote.introduce(&remote.desk, &remote.server, "desk", &[])?;
    remote.ok(&["rm", "--force", "web"])?;
    remote.croft.nothing_is_left()
}

fn silence(host: &Host) -> Result<()> {
    let remote = Remote::new(host)?;
    let hold = format!(
        "for i in $(seq 300); do exec {{fd}}<>/dev/tcp/{} || exit 1; done; echo held; exec sleep 1000",
        ADDRESS.replace(':', "/")
    );
    let mut command = remote.croft.stage.command("bash");
    let mut child = command.args(["-c", &hold]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = [0; 5];
    std::io::Read::read_exact(&mut child.stdout.take().context("a pipe")?, &mut line)?;
    let begun = Instant::now();
    remote.ok(&["ps"])?;
    ensure!(begun.elapsed().as_secs() < 5, "it took {:?}", begun.elapsed());
    child.kill()?;
    child.wait()?;
    remote.croft.nothing_is_left()
}

fn kills(host: &Host) -> Result<()> {
    let mut remote = Remote::new(host)?;
    remote.ok(&["run", "--network", "none", "--detach", "--name", "web", "box", "sleep", "1000"])?;
    let afar = format!("--keys {} --remote east exec --interactive web sh -c 'cat; exit 9'", remote.desk);
    let pipe = Pipe::start(&remote.croft, "exec", &afar)?;
    pipe.flows(&remote.croft)?;
    for _ in 0..5 {
        remote.croft.kill()?;
        remote.croft.start()?;
    }
    std::fs::write(remote.croft.path("stop"), "")?;
    pipe.ended(&remote.croft, 9)?;
    remote.ok(&["rm", "--force", "web"])?;
    remote.croft.nothing_is_left()
}

fn bad_requests(host: &Host) -> Result<()> {
    let remote = Remote::new(host)?;
    let (desk, croft) = (remote.desk.as_str(), &remote.croft);
    let (empty, crt, key) =
        (croft.path("empty"), croft.path("east.crt"), format!("{}/host.key", remote.desk));
    let own = croft.path("desk.crt");
    let no_croftd = croft.path("other.crt");
    let other = croft.path("other");
    remote.keys(&other, &["make"])?;
    std::fs::write(&no_croftd, remote.keys(&other, &["show"])?)?;
    remote.keys(desk, &["trust", "--address", "127.0.0.1:1", "away", &no_croftd])?;
    for (args, words) in [
        (&["--keys", &empty, "remote", "show"][..], "hint: croft remote make"),
        (&["--keys", &empty, "--remote", "east", "ps"], "no host east is trusted"),
        (&["--keys", desk, "--remote", "esat", "ps"], "hint: there is east"),
        (&["--keys", desk, "--remote", "away", "ps"], "croftd does not answer on away (127.0.0.1:1)"),
        (&["--keys", desk, "remote", "revoke", "esat"], "hint: there is east"),
        (&["--keys", desk, "remote", "revoke"], "required"),
        (&["--keys", desk, "remote", "trust", "self", &own], "that is the key of this host"),
        (&["--keys", desk, "remote", "trust", "west", &crt], "east is trusted already, with the same key"),
        (&["--keys", desk, "remote", "trust", "east", &no_croftd], "with the same key"),
        (&["--keys", desk, "remote", "trust", "west", &key], "private key"),
        (&["--keys", desk, "remote", "trust", "west", "/nonexistent"], "No such file"),
        (&["--keys", desk, "remote", "trust", "west", "/etc/passwd"], "no certificate"),
        (&["--keys", desk, "remote", "trust", "../west", &no_croftd], "is no name"),
        (&["--keys", desk, "remote", "trust", "--address", "west", "west", &crt], "HOST:PORT"),
        (&["--keys", "/proc/keys", "remote", "make"], "/proc/keys"),
    ] {
        let (code, text) = croft.fails(args)?;
        ensure!(code == 125 && text.contains(words), "{args:?}: {code}: {text}");
    }
    ensure!(remote.keys(desk, &["list", "--quiet"])? == "away\neast\n");
    // A second croftd cannot have the address, says so, and leaves nothing.
    let croftd = croft.croftd.display().to_string();
    let (root, state) = (croft.path("second"), croft.path("second-state"));
    let args = ["--root", &root, "--state", &state, "--bridge-prefix", "second", "--listen", ADDRESS];
    let text = croft.stage.run(&croftd, &args)?.failure()?;
    ensure!(text.contains(&format!("--listen {ADDRESS}")) && text.contains("in use"), "{text}");
    croft.nothing_is_left()
}
