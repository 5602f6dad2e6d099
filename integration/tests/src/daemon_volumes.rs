//! Volumes: made on first use, filled from the image, owners kept, shared, and removed only when no container has them.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

// Nothing here depends on the kind of host: the emulated one would only take longer.
const NEEDS: &[Facility] = &[Facility::Root, Facility::NotEmulated];

pub const SUBJECT: Subject = Subject {
    name: "daemon_volumes",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "a_new_volume_has_what_the_image_has", requires: NEEDS, run: filled_once },
        Test { name: "containers_share_a_volume_that_stays", requires: NEEDS, run: shared },
        Test { name: "one_in_use_stays", requires: NEEDS, run: in_use },
        Test { name: "those_without_names_go_with_their_container", requires: NEEDS, run: anonymous },
        Test { name: "prune_removes_what_nobody_has", requires: NEEDS, run: prune },
        Test { name: "they_outlive_croftd", requires: NEEDS, run: restarted },
        Test { name: "bad_requests_leave_nothing", requires: NEEDS, run: bad_requests },
        Test { name: "check_finds_folders_of_nobody", requires: NEEDS, run: strays },
    ],
};

/// An image `full` with files of several owners in /srv, and a file /plain.
fn full_image(croft: &Croft) -> Result<()> {
    let script = format!(
        "cd {} && mkdir -p srv/sub && echo theirs >srv/file && ln -s file srv/link && ln srv/file srv/sub/same && \
         chown 1000:1001 srv/file && chmod 4750 srv/file && chown 33:33 srv && chmod 2750 srv && echo x >plain && tar -cf ../full.tar .",
        croft.path("rootfs")
    );
    croft.stage.run("sh", &["-c", &script])?.success()?;
    croft.ok(&["image", "import", &croft.path("full.tar"), "full"]).map(drop)
}

fn volume(croft: &Croft, name: &str) -> Result<Value> {
    let all: Value = serde_json::from_str(&croft.ok(&["volume", "inspect", name])?)?;
    Ok(all[0].clone())
}

fn folder(croft: &Croft, name: &str) -> Result<PathBuf> {
    let volume = volume(croft, name)?;
    Ok(volume["mountpoint"].as_str().context("it has a folder")?.into())
}

fn filled_once(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    full_image(&croft)?;
    let look = "stat -c '%u:%g %a %h' /data /data/file; readlink /data/link; cat /data/sub/same";
    let mount = ["--volume", "data:/srv", "--volume", "data:/data"];
    let seen = croft.ok(&[&["run", "--rm"], &mount[..], &["full", "sh", "-c", look]].concat())?;
    ensure!(seen == "33:33 2750 3\n1000:1001 4750 2\nfile\ntheirs\n", "{seen}");
    // On the disk the owners are the container's own numbers, whatever ids it ran with.
    let data = folder(&croft, "data")?;
    let stat = std::fs::metadata(data.join("file"))?;
    ensure!((stat.uid(), stat.gid()) == (1000, 1001), "{}:{}", stat.uid(), stat.gid());
    // The second container finds what the first left, and nothing comes back from the image.
    let change = "rm /srv/file; echo new >/srv/new; touch /srv/mine";
    croft.ok(&["run", "--rm", "--volume", "data:/srv", "full", "sh", "-c", change])?;
    let names = croft.ok(&["run", "--rm", "--volume", "data:/srv:ro", "full", "ls", "/srv"])?;
    ensure!(names == "link\nmine\nnew\nsub\n", "{names}");
    ensure!(std::fs::metadata(data.join("mine"))?.uid() == 0, "a new file is root's");
    for (mount, image) in [("bare:/srv:nocopy", "full"), ("other:/none/such", "full"), ("bare2:/srv", "box")]
    {
        let target = mount.split(':').nth(1).unwrap_or_default();
        let names = croft.ok(&["run", "--rm", "--volume", mount, image, "ls", target])?;
        ensure!(names.is_empty(), "{mount}: {names}");
    }
    croft.nothing_is_left()
}

fn shared(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let made = croft.ok(&["volume", "create", "--label", "a=b", "pool"])?;
    ensure!(made == "pool\n" && volume(&croft, "pool")?["labels"]["a"] == "b");
    ensure!(croft.ok(&["volume", "create", "pool"])? == "pool\n", "one that is there stays");
    croft.ok(&[
        "run",
        "--detach",
        "--name",
        "writes",
        "--volume",
        "pool:/p",
        "box",
        "sh",
        "-c",
        "echo one >/p/f; chown 7:8 /p/f; touch /p/done; sleep 1000",
    ])?;
    let wait = "while [ ! -e /q/done ]; do sleep 0.05; done; stat -c %u:%g /q/f; cat /q/f";
    let seen = croft.ok(&["run", "--rm", "--volume", "pool:/q:ro", "box", "sh", "-c", wait])?;
    ensure!(seen == "7:8\none\n", "{seen}");
    let (code, refused) = croft.fails(&["run", "--rm", "--volume", "pool:/q:ro", "box", "touch", "/q/x"])?;
    ensure!(code == 1 && refused.contains("Read-only"), "{code} {refused}");
    let from_host = croft.ok(&[
        "run", "--rm", "--userns", "host", "--volume", "pool:/q", "box", "stat", "-c", "%u:%g", "/q/f",
    ])?;
    ensure!(from_host == "7:8\n", "{from_host}");
    croft.ok(&["rm", "--force", "--volumes", "writes"])?;
    let kept = croft.ok(&["run", "--rm", "--volume", "pool:/p", "box", "cat", "/p/f"])?;
    ensure!(kept == "one\n", "{kept}");
    croft.nothing_is_left()
}

fn in_use(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["create", "--name", "has", "--volume", "kept:/k", "box", "true"])?;
    let (code, refused) = croft.fails(&["volume", "rm", "kept"])?;
    ensure!(
        code == 125 && refused.contains("has uses it") && refused.contains("hint: croft rm has"),
        "{refused}"
    );
    ensure!(
        croft.ok(&["volume", "prune", "--all", "--force"])?.starts_with("0 B"),
        "it is not pruned either"
    );
    ensure!(volume(&croft, "kept")?["used_by"][0] == "has");
    ensure!(croft.ok(&["start", "has"])? == "has\n" && croft.ok(&["wait", "has"])? == "0\n");
    croft.ok(&["rm", "has"])?;
    let data = folder(&croft, "kept")?;
    ensure!(croft.ok(&["volume", "rm", "kept"])? == "kept\n" && !data.exists());
    croft.nothing_is_left()
}

fn anonymous(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let names = |croft: &Croft| croft.ok(&["volume", "ls", "--quiet"]).map(|text| text.lines().count());
    croft.ok(&["create", "--name", "a", "--volume", "/anon", "--volume", "named:/n", "box", "true"])?;
    ensure!(names(&croft)? == 2);
    croft.ok(&["rm", "a"])?;
    ensure!(names(&croft)? == 2, "without --volumes they stay");
    croft.ok(&["create", "--name", "b", "--volume", "/anon", "--volume", "named:/n", "box", "true"])?;
    ensure!(names(&croft)? == 3);
    croft.ok(&["rm", "--volumes", "b"])?;
    ensure!(names(&croft)? == 2, "its own goes, the named one stays");
    croft.ok(&["run", "--rm", "--volume", "/anon", "box", "touch", "/anon/x"])?;
    ensure!(names(&croft)? == 2, "--rm takes it along");
    ensure!(croft.ok(&["volume", "prune", "--force"])?.lines().count() == 2, "the one that stayed");
    ensure!(croft.ok(&["volume", "ls", "--quiet"])? == "named\n");
    croft.nothing_is_left()
}

fn prune(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["run", "--detach", "--name", "runs", "--volume", "used:/u", "box", "sleep", "1000"])?;
    croft.ok(&[
        "run",
        "--rm",
        "--volume",
        "big:/b",
        "box",
        "dd",
        "if=/dev/zero",
        "of=/b/f",
        "bs=1M",
        "count=3",
    ])?;
    let (code, unasked) = croft.fails(&["volume", "prune", "--all"])?;
    ensure!(code == 125 && unasked.contains("--force"), "{unasked}");
    ensure!(croft.ok(&["volume", "prune", "--force"])? == "0 B freed\n", "those with names stay");
    let pruned: Value =
        serde_json::from_str(&croft.ok(&["--format", "json", "volume", "prune", "--all", "--force"])?)?;
    ensure!(pruned["volumes"][0] == "big" && pruned["volumes"][1].is_null(), "{pruned}");
    ensure!(pruned["bytes"].as_u64().is_some_and(|bytes| (3 << 20..4 << 20).contains(&bytes)), "{pruned}");
    croft.ok(&["exec", "runs", "touch", "/u/still"])?;
    croft.ok(&["rm", "--force", "runs"])?;
    croft.nothing_is_left()
}

fn restarted(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.ok(&["run", "--rm", "--volume", "lasts:/l", "box", "sh", "-c", "echo kept >/l/f"])?;
    croft.ok(&["create", "--name", "c", "--volume", "/anon", "box", "true"])?;
    croft.kill()?;
    croft.start()?;
    ensure!(croft.ok(&["volume", "ls", "--quiet"])?.lines().count() == 2);
    ensure!(croft.ok(&["run", "--rm", "--volume", "lasts:/l", "box", "cat", "/l/f"])? == "kept\n");
    croft.ok(&["rm", "--volumes", "c"])?;
    ensure!(croft.ok(&["volume", "ls", "--quiet"])? == "lasts\n");
    croft.nothing_is_left()
}

fn bad_requests(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    full_image(&croft)?;
    croft.ok(&["volume", "create", "there"])?;
    for (args, words) in [
        (&["volume", "create", "../x"][..], "no name of a volume"),
        (&["volume", "create", "--label", "=x", "y"], "--label"),
        (&["volume", "inspect", "ther"], "hint: there is there"),
        (&["volume", "rm", "none-such"], "no volume is called so"),
        (&["create", "--volume", "a/b:/c", "box", "true"], "no name of a volume"),
        (&["create", "--volume", "data:c", "box", "true"], "no absolute path"),
        // The file cannot be a volume, and the volume that was made before it goes with the container.
        (&["create", "--volume", "first:/f", "--volume", "second:/plain", "full", "true"], "it is no folder"),
        (
            &["create", "--volume", "first:/f", "--volume", "/anon", "--user", "no-one", "full", "true"],
            "no-one",
        ),
    ] {
        let (code, text) = croft.fails(args)?;
        ensure!(code == 125 && text.contains(words), "{args:?}: {code}: {text}");
    }
    croft.ok(&["volume", "rm", "--force", "none-such"])?;
    ensure!(croft.ok(&["volume", "ls", "--quiet"])? == "there\n", "{}", croft.ok(&["volume", "ls"])?);
    croft.nothing_is_left()
}

fn strays(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["volume", "create", "gone"])?;
    let data = folder(&croft, "gone")?;
    let of_all = data.parent().and_then(|own| own.parent()).context("a folder of all volumes")?;
    std::fs::create_dir(of_all.join("stray"))?;
    std::fs::remove_dir_all(&data)?;
    let found = croft.run(&["system", "check"])?;
    ensure!(found.code() == 1 && found.stdout.contains("stray") && found.stdout.contains("gone"), "{found}");
    std::fs::remove_dir(of_all.join("stray"))?;
    croft.ok(&["volume", "rm", "gone"])?;
    croft.nothing_is_left()
}
