//! Files of containers in and out: cp, diff, commit, export; and links that would lead out of the container.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// Nothing here depends on the kind of host: the emulated one would only take longer.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];

pub const SUBJECT: Subject = Subject {
    name: "daemon_files",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "cp_goes_where_docker_s_goes", requires: NEEDS, run: cp_places },
        Test { name: "links_and_fifos_are_copied_as_they_are", requires: NEEDS, run: cp_odd },
        Test { name: "cp_maps_owners_of_running_and_stopped", requires: NEEDS, run: cp_owners },
        Test { name: "cp_sees_volumes", requires: NEEDS, run: cp_volumes },
        Test { name: "cp_streams_archives", requires: NEEDS, run: cp_streams },
        Test { name: "hostile_links_never_leave_the_container", requires: NEEDS, run: hostile_links },
        Test { name: "diff_tells_what_changed", requires: NEEDS, run: diff },
        Test { name: "commit_makes_an_image", requires: NEEDS, run: commit },
        Test { name: "a_commit_that_is_cut_off_leaves_nothing_frozen", requires: NEEDS, run: cut_off },
        Test { name: "export_has_the_whole_root", requires: NEEDS, run: export },
        Test { name: "bad_requests_leave_nothing", requires: NEEDS, run: bad_requests },
    ],
};

/// Runs a shell on the stage, in its folder, with the path of croft in `$CROFT`.
fn sh(croft: &Croft, script: &str) -> Result<String> {
    let script = format!("cd {}; CROFT={}; {script}", croft.path(""), croft.program.display());
    Ok(croft.stage.run("sh", &["-ec", &script])?.success()?.stdout)
}

fn sleeper(croft: &Croft, name: &str, more: &[&str]) -> Result<()> {
    croft.ok(&[&["run", "--detach", "--name", name], more, &["box", "sleep", "1000"]].concat()).map(drop)
}

/// croftd is killed while a container is frozen for its commit; one that somebody has frozen stays so.
fn cut_off(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    sleeper(&croft, "big", &[])?;
    sleeper(&croft, "kept", &[])?;
    croft.ok(&["pause", "kept"])?;
    croft.ok(&["exec", "big", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=256"])?;
    std::thread::scope(|scope| -> Result<()> {
        let commit = scope.spawn(|| croft.run(&["commit", "big", "cut:1"]));
        let end = Instant::now() + Duration::from_secs(20);
        while croft.inspect("big")?["state"] != "paused" {
            ensure!(Instant::now() < end && !commit.is_finished(), "it is not frozen");
        }
        croft.signal("-KILL")?;
        let ended = commit.join().expect("it does not panic")?;
        ensure!(ended.code() != 0, "it was not cut off: {ended}");
        Ok(())
    })?;
    croft.killed()?;
    croft.start()?;
    ensure!(croft.inspect("big")?["state"] == "running" && croft.inspect("kept")?["state"] == "paused");
    croft.ok(&["exec", "big", "rm", "/big"])?;
    croft.ok(&["pause", "big"])?;
    // The mark is gone too.
    croft.terminate()?;
    croft.start()?;
    ensure!(croft.inspect("big")?["state"] == "paused");
    croft.ok(&["rm", "--force", "big", "kept"])?;
    croft.nothing_is_left()
}

fn cp_odd(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sleeper(&croft, "c", &[])?;
    let long = "l".repeat(150);
    let links = format!("ln -s / root; ln -s a//b double; ln -s ../x/./y dots; ln -s {long} long");
    sh(&croft, &format!("mkdir odd; cd odd; mkfifo -m 640 pipe; {links}"))?;
    croft.ok(&["cp", &croft.path("odd"), "c:/odd"])?;
    let inside = "cd /odd && for f in *; do readlink $f || stat -c '%F %a' $f; done";
    let found = croft.ok(&["exec", "c", "sh", "-c", inside])?;
    ensure!(found == format!("../x/./y\na//b\n{long}\nfifo 640\n/\n"), "{found}");
    croft.ok(&["cp", "c:/odd", &croft.path("back")])?;
    let list = |folder: &str| sh(&croft, &format!("find {folder} -printf '%P %y %m %l\n' | sort"));
    ensure!(list("back")? == list("odd")?, "{}", list("back")?);
    croft.ok(&["rm", "--force", "c"])?;
    croft.nothing_is_left()
}

fn cp_places(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sleeper(&croft, "c", &[])?;
    sh(&croft, "mkdir -p from/sub have; echo one >from/file; echo two >from/sub/deep; ln -s file from/link")?;
    let into = |from: &str, to: &str| croft.ok(&["cp", &croft.path(from), &format!("c:{to}")]);
    let list = |path: &str| {
        croft.ok(&["exec", "c", "sh", "-c", &format!("cd {path} && find . | sort | tr '\\n' ' '")])
    };
    // A folder becomes what is named, or goes into what is there; its content goes with "/.".
    into("from", "/new")?;
    ensure!(list("/new")? == ". ./file ./link ./sub ./sub/deep ", "{}", list("/new")?);
    into("from", "/new")?;
    ensure!(list("/new/from")? == ". ./file ./link ./sub ./sub/deep ");
    croft.ok(&["exec", "c", "mkdir", "/content"])?;
    into("from/.", "/content")?;
    ensure!(list("/content")? == ". ./file ./link ./sub ./sub/deep ");
    // A file goes into a folder, becomes the file that is named, or takes its place.
    into("from/file", "/tmp")?;
    into("from/file", "/tmp/other")?;
    into("from/sub/deep", "/tmp/other")?;
    ensure!(croft.ok(&["exec", "c", "cat", "/tmp/file", "/tmp/other"])? == "one\ntwo\n");
    ensure!(croft.ok(&["exec", "c", "readlink", "/new/link"])? == "file\n", "a link stays one");
    let out = |from: &str, to: &str| croft.ok(&["cp", &format!("c:{from}"), &croft.path(to)]);
    out("/new", "back")?;
    out("/new", "have")?;
    out("/new/sub/.", "have")?;
    out("/new/file", "named")?;
    out("/new/link", "as-link")?;
    // What is in a folder, by a link to it: a slash follows, and wants a folder.
    croft.ok(&["exec", "c", "ln", "-s", "/new/sub", "/tosub"])?;
    out("/tosub/.", "by-link")?;
    ensure!(sh(&croft, "cat by-link/deep")? == "two\n");
    for (path, name) in [("/new/file/.", "nothing"), ("/new/link/", "nothing"), ("/nothing/.", "nothing")] {
        let (code, text) = croft.fails(&["cp", &format!("c:{path}"), &croft.path(name)])?;
        ensure!(code == 125 && text.contains("folder in the container"), "{path}: {text}");
        ensure!(std::fs::symlink_metadata(croft.stage.path(name)).is_err(), "{path} leaves something");
    }
    croft.ok(&["cp", "--follow-link", "c:/new/link", &croft.path("as-file")])?;
    let seen = sh(
        &croft,
        "cat back/file have/new/from/sub/deep have/deep named as-file; readlink back/link as-link",
    )?;
    ensure!(seen == "one\ntwo\ntwo\none\none\nfile\nfile\n", "{seen}");
    croft.ok(&["rm", "--force", "c"])?;
    croft.nothing_is_left()
}

fn cp_owners(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sh(&croft, "mkdir in; echo x >in/theirs; chown 1234:2345 in/theirs; chmod 4751 in/theirs")?;
    let look = ["exec", "c", "stat", "-c", "%u:%g %a", "/plain/theirs", "/kept/theirs", "/kept"];
    let own = "mkdir /own; echo y >/own/f; chown 77:88 /own/f; sleep 1000";
    for ids in ["own", "host"] {
        croft.ok(&["run", "--detach", "--name", "c", "--userns", ids, "box", "sh", "-c", own])?;
        for state in ["running", "stopped"] {
            if state == "stopped" {
                croft.ok(&["exec", "c", "rm", "-r", "/plain", "/kept"])?;
                croft.ok(&["stop", "--time", "0", "c"])?;
            }
            croft.ok(&["cp", &croft.path("in"), "c:/plain"])?;
            croft.ok(&["cp", "--archive", &croft.path("in"), "c:/kept"])?;
            sh(&croft, "rm -rf out; mkdir out")?;
            croft.ok(&["cp", "--archive", "c:/own/f", &croft.path("out/kept")])?;
            croft.ok(&["cp", "c:/own/f", &croft.path("out/plain")])?;
            let owner =
                |name: &str| std::fs::metadata(croft.stage.path(name)).map(|data| (data.uid(), data.gid()));
            ensure!(owner("out/kept")? == (77, 88), "{ids} {state}: {:?}", owner("out/kept")?);
            ensure!(owner("out/plain")? == (0, 0), "{ids} {state}: {:?}", owner("out/plain")?);
            if state == "stopped" {
                croft.ok(&["start", "c"])?;
            }
            let seen = croft.ok(&look)?;
            ensure!(seen == "0:0 4751\n1234:2345 4751\n0:0 755\n", "{ids} {state}: {seen}");
        }
        croft.ok(&["rm", "--force", "c"])?;
    }
    croft.nothing_is_left()
}

fn cp_volumes(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sh(&croft, "echo mine >mine; mkdir bound; echo b >bound/f")?;
    let bound = format!("{}:/bound:ro", croft.path("bound"));
    sleeper(&croft, "c", &["--volume", "data:/data", "--volume", &bound, "--tmpfs", "/mem"])?;
    for (round, state) in ["running", "stopped"].into_iter().enumerate() {
        let name = format!("c:/data/new{round}");
        croft.ok(&["cp", &croft.path("mine"), &name])?;
        let back = croft.path(&format!("back{round}"));
        croft.ok(&["cp", &name, &back])?;
        croft.ok(&["cp", "c:/bound/f", &croft.path("f")])?;
        ensure!(sh(&croft, &format!("cat back{round} f"))? == "mine\nb\n", "{state}");
        let (code, refused) = croft.fails(&["cp", &croft.path("mine"), "c:/bound/f2"])?;
        ensure!(code == 125 && refused.to_lowercase().contains("read-only"), "{state}: {refused}");
        if state == "running" {
            croft.ok(&["cp", &croft.path("mine"), "c:/mem/f"])?;
            croft.ok(&["exec", "c", "cat", "/mem/f"])?;
            croft.ok(&["stop", "--time", "0", "c"])?;
        }
    }
    let (_, refused) = croft.fails(&["cp", "c:/mem/f", &croft.path("x")])?;
    ensure!(refused.contains("only while it runs"), "{refused}");
    let volume =
        croft.ok(&["run", "--rm", "--volume", "data:/d", "box", "sh", "-c", "stat -c %u /d/*; ls /d"])?;
    ensure!(volume == "0\n0\nnew0\nnew1\n", "{volume}");
    ensure!(sh(&croft, "ls bound")? == "f\n");
    croft.ok(&["rm", "c"])?;
    croft.nothing_is_left()
}

fn cp_streams(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sleeper(&croft, "c", &[])?;
    sh(
        &croft,
        "mkdir big; dd if=/dev/urandom of=big/f bs=1M count=20 2>/dev/null; cp big/f big/g; ln big/f big/h; tar -cf big.tar big",
    )?;
    sh(&croft, "$CROFT cp - c:/tmp <big.tar")?;
    sh(
        &croft,
        "mkdir out; $CROFT cp c:/tmp/big - | tar -C out -xf -; cmp big/f out/big/f; cmp big/g out/big/g; stat -c %h out/big/f",
    )?;
    ensure!(sh(&croft, "stat -c %h out/big/h")? == "2\n", "{}", sh(&croft, "ls -lR out; tar -tvf big.tar")?);
    // One that is cut off is said to be, and so is none at all.
    let cut = croft.stage.run(
        "sh",
        &[
            "-c",
            &format!("head -c 9000000 {} | {} cp - c:/tmp", croft.path("big.tar"), croft.program.display()),
        ],
    )?;
    ensure!(cut.code() == 125 && cut.stderr.contains("the archive ends after"), "{cut}");
    // Who stops reading holds up neither the container's end nor its next start.
    sh(&croft, "$CROFT cp c:/tmp/big - | head -c 1000 >/dev/null")?;
    croft.ok(&["restart", "--time", "0", "c"])?;
    croft.ok(&["rm", "--force", "c"])?;
    croft.nothing_is_left()
}

fn hostile_links(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sh(
        &croft,
        "mkdir secret; echo secret >secret/file; chmod 700 secret; echo in >in; mkdir -p tree/x; echo t >tree/x/f",
    )?;
    let secret = croft.path("secret");
    let script = format!(
        "mkdir /w; cd /w; ln -s {secret} absolute; ln -s ../../../../../../../..{secret} relative; ln -s /proc/1/root magic; \
         ln -s loop loop; ln -s / top; ln -s {secret}/file tofile; echo own >/etc/own; mkdir swap; touch ready; \
         while :; do mv swap aside; ln -s {secret} swap; rm swap; mv aside swap; done"
    );
    croft.ok(&["run", "--detach", "--name", "c", "box", "sh", "-c", &script])?;
    croft.ok(&["exec", "c", "sh", "-c", "while [ ! -e /w/ready ]; do sleep 0.05; done"])?;
    let unharmed = |when: &str| -> Result<()> {
        let seen = sh(&croft, "ls -A secret; cat secret/file; stat -c %a:%u secret")?;
        ensure!(seen == "file\nsecret\n700:0\n", "{when}: {seen}");
        Ok(())
    };
    for state in ["running", "stopped"] {
        for path in ["absolute/file", "relative/file", "magic/etc/own", "loop/x", "tofile", "absolute/."] {
            let source = format!("c:/w/{path}");
            let out = croft.path("out");
            let (code, text) = croft.fails(&["cp", "--follow-link", &source, &out])?;
            let came = std::fs::symlink_metadata(croft.stage.path("out"));
            ensure!(code == 125 && came.is_err(), "{state} {path}: {text}");
            let name = path.split('/').next().unwrap_or_default();
            let (code, text) = croft.fails(&["cp", &croft.path("in"), &format!("c:/w/{name}/new")])?;
            ensure!(code == 125, "{state} into {name}: {code} {text}");
            unharmed(&format!("{state} {path}"))?;
        }
        // A link to the root is the container's root.
        croft.ok(&["cp", "c:/w/top/etc/own", &croft.path("own")])?;
        ensure!(sh(&croft, "cat own; rm own")? == "own\n");
        // An archive that brings the link that it goes through.
        let bring = format!(
            "rm -rf a; mkdir a; ln -s {secret} a/l; tar -C a -cf a.tar l; rm a/l; mkdir a/l; echo x >a/l/file; tar -C a -rf a.tar l/file; mkfifo a/p; mkdir a/q"
        );
        sh(&croft, &bring)?;
        let _ = sh(&croft, "$CROFT cp - c:/tmp <a.tar");
        unharmed(&format!("{state} archive"))?;
        if state == "running" {
            // It swaps a folder for a link while files and folders go through it.
            for _ in 0..40 {
                let _ = croft.run(&["cp", &croft.path("tree"), "c:/w/swap"])?;
                let _ = croft.run(&["cp", "c:/w/swap/.", &croft.path("got")])?;
                ensure!(!croft.stage.path("got/file").exists(), "a file of the host came out");
                sh(&croft, "rm -rf got; mkdir got")?;
            }
            unharmed("swapped")?;
            croft.ok(&["stop", "--time", "0", "c"])?;
        }
    }
    croft.ok(&["rm", "c"])?;
    croft.nothing_is_left()
}

fn diff(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sh(
        &croft,
        "mkdir -p rootfs/srv/old rootfs/gone; echo a >rootfs/srv/a; echo b >rootfs/srv/old/b; touch rootfs/gone/x; tar -C rootfs -cf img.tar .",
    )?;
    croft.ok(&["image", "import", &croft.path("img.tar"), "img"])?;
    let script = "echo more >>/srv/a; touch /srv/new; rm -r /gone; rm -r /srv/old; mkdir /srv/old; touch /srv/old/c; mkdir -p /n/m";
    croft.ok(&["run", "--name", "c", "img", "sh", "-c", script])?;
    let all = croft.ok(&["diff", "c"])?;
    let of_test: Vec<&str> = all
        .lines()
        .filter(|line| ["/srv", "/gone", "/n"].iter().any(|top| line[2..].starts_with(top)))
        .collect();
    let want = [
        "D /gone",
        "A /n",
        "A /n/m",
        "C /srv",
        "C /srv/a",
        "A /srv/new",
        "C /srv/old",
        "D /srv/old/b",
        "A /srv/old/c",
    ];
    ensure!(of_test == want, "{all}");
    let json: Value = serde_json::from_str(&croft.ok(&["--format", "json", "diff", "c"])?)?;
    ensure!(
        json.as_array().is_some_and(|all| all.iter().any(|one| one["kind"] == "D" && one["path"] == "/gone")),
        "{json}"
    );
    croft.ok(&["rm", "c"])?;
    croft.nothing_is_left()
}

fn commit(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = "echo mine >/mine; chown 5:6 /mine; rm /etc/passwd; touch /ready; sleep 1000";
    croft.ok(&["run", "--detach", "--name", "c", "--volume", "v:/v", "box", "sh", "-c", script])?;
    croft.ok(&["exec", "c", "sh", "-c", "while [ ! -e /ready ]; do sleep 0.05; done; touch /v/not-this"])?;
    let changes = [
        "--change",
        "CMD [\"cat\", \"/mine\"]",
        "--change",
        "ENV A=b",
        "--change",
        "WORKDIR /tmp",
        "--change",
        "VOLUME /vol",
    ];
    let id = croft.ok(&[
        &["commit", "--author", "me", "--message", "by hand"],
        &changes[..],
        &["c", "made:v1"],
    ]
    .concat())?;
    ensure!(id.starts_with("sha256:"), "{id}");
    ensure!(croft.inspect("c")?["state"] == "running", "it goes on");
    let events = croft.ok(&["events", "--since", "0", "--no-follow"])?;
    ensure!(events.contains("pause c") && events.contains("resume c"), "{events}");
    ensure!(croft.ok(&["run", "--rm", "made:v1"])? == "mine\n");
    let look = "stat -c %u:%g /mine; ls /etc/passwd /v/not-this 2>/dev/null; echo $A; pwd; stat -f -c %T /vol >/dev/null && grep -c ' /vol ' /proc/mounts";
    let seen = croft.ok(&["run", "--rm", "made:v1", "sh", "-c", look])?;
    ensure!(seen == "5:6\nb\n/tmp\n1\n", "{seen}");
    ensure!(
        croft.ok(&["volume", "ls", "--quiet"])? == "v\n",
        "the volume of its own went with the container"
    );
    croft.ok(&["commit", "--pause=false", "c", "made:v2"])?;
    let again = croft.ok(&["events", "--since", "0", "--no-follow"])?;
    ensure!(again.matches("pause c").count() == 1, "{again}");
    croft.ok(&["stop", "--time", "0", "c"])?;
    croft.ok(&["commit", "c", "made:v3"])?;
    for (args, words) in [
        (&["commit", "c", "Not a name"][..], "invalid image name"),
        (&["commit", "--change", "FLY away", "c", "not-made"], "none of CMD"),
        (&["commit", "none-such", "x"], "no container is called so"),
    ] {
        let (code, text) = croft.fails(args)?;
        ensure!(code == 125 && text.contains(words), "{args:?}: {text}");
    }
    ensure!(!croft.ok(&["image", "ls"])?.contains("not-made"));
    croft.ok(&["rm", "c"])?;
    croft.nothing_is_left()
}

fn export(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let script = "echo mine >/mine; chown 5:6 /mine; touch /v/not-this; ln -s /etc /l; sleep 1000";
    croft.ok(&["run", "--detach", "--name", "c", "--volume", "v:/v", "box", "sh", "-c", script])?;
    croft.ok(&["exec", "c", "sh", "-c", "while [ ! -L /l ]; do sleep 0.05; done"])?;
    for state in ["running", "stopped"] {
        croft.ok(&["export", "--output", &croft.path("all.tar"), "c"])?;
        let list = sh(&croft, "tar --numeric-owner -tvf all.tar")?;
        let line = |name: &str| list.lines().find(|line| line.ends_with(name)).unwrap_or_default().to_owned();
        ensure!(line(" mine").contains(" 5/6 ") && line(" l -> /etc").starts_with('l'), "{state}: {list}");
        ensure!(line("bin/busybox").contains(" 0/0 ") && !list.contains("not-this"), "{state}: {list}");
        let count = sh(&croft, "$CROFT export c | tar -tf - | wc -l")?;
        ensure!(count.trim() == list.lines().count().to_string(), "{state}: {count}");
        if state == "running" {
            croft.ok(&["stop", "--time", "0", "c"])?;
        }
    }
    croft.ok(&["image", "import", &croft.path("all.tar"), "again"])?;
    ensure!(croft.ok(&["run", "--rm", "again", "cat", "/mine"])? == "mine\n");
    croft.ok(&["rm", "c"])?;
    croft.nothing_is_left()
}

fn bad_requests(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sleeper(&croft, "c", &["--read-only"])?;
    sh(&croft, "echo x >file; mkdir folder; touch folder/f")?;
    let (file, folder, out) = (croft.path("file"), croft.path("folder"), croft.path("out"));
    for (args, words) in [
        (&["cp", "c:/none", &out][..], "no such file in the container: /none"),
        (&["cp", &croft.path("none"), "c:/tmp"], "No such file"),
        (&["cp", "nobody:/etc", &out], "no container is called so"),
        (&["cp", &file, "nobody:/etc"], "no container is called so"),
        (&["cp", &file, &out], "one side is in a container"),
        (&["cp", "c:/a", "c:/b"], "one side is on this host"),
        (&["cp", &file, "c:/none/such/x"], "no such file in the container: /none/such"),
        (&["cp", &file, "c:/none/"], "no such folder"),
        (&["cp", "c:/etc/passwd", &format!("{out}/")], "no such folder"),
        (&["cp", &folder, "c:/etc/passwd"], "it is a file"),
        (&["cp", "c:/etc", &file], "it is a file"),
        (&["cp", &file, "c:/etc"], "Read-only file system"),
        (&["export", "--output", "/none/such/x", "c"], "/none/such/x"),
        (&["export", "nobody"], "no container is called so"),
        (&["diff", "nobody"], "no container is called so"),
    ] {
        let (code, text) = croft.fails(args)?;
        ensure!(code == 125 && text.contains(words), "{args:?}: {code}: {text}");
        ensure!(!croft.stage.path("out").exists(), "{args:?} left something");
    }
    croft.ok(&["rm", "--force", "c"])?;
    croft.nothing_is_left()
}
