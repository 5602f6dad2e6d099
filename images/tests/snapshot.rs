//! Writable roots over images: with and without mapped ids, across restarts, and what pruning leaves.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use croft_images::snapshot::{Devices, IdRange, MountOptions, State};
use croft_images::store::{Image, Store};
use croft_images::{Error, gc};
use croft_images::{build, import};
use croft_sys::idmap;
use croft_sys::proc::Proc;

use crate::Test;
use crate::sample::{self, shell};
use crate::tree::{self, Tree};

pub const TESTS: &[Test] = &[
    ("a_root_is_the_image_and_changes_stay_apart", &[], a_root_is_the_image_and_changes_stay_apart),
    // The root has no libraries.
    (
        "ids_are_mapped_and_the_disk_keeps_its_own",
        &["busybox-static"],
        ids_are_mapped_and_the_disk_keeps_its_own,
    ),
    ("what_is_mounted_on_is_there", &[], what_is_mounted_on_is_there),
    ("many_layers_are_mounted", &[], many_layers_are_mounted),
    ("a_new_daemon_finds_what_is_mounted", &[], a_new_daemon_finds_what_is_mounted),
    ("a_snapshot_that_lost_its_record_is_completed", &[], a_snapshot_that_lost_its_record_is_completed),
    ("prune_keeps_what_is_used", &[], prune_keeps_what_is_used),
    ("a_committed_container_is_an_image_that_looks_the_same", &["umoci"], a_committed_container_is_an_image),
    ("mmdebstrap_that_fails_is_said", &["mmdebstrap"], mmdebstrap_that_fails_is_said),
    ("ids_that_are_no_names_are_refused", &[], ids_that_are_no_names_are_refused),
];

/// A store with the sample image, and a folder to mount on. What is mounted goes with it.
struct Bench {
    at: tempfile::TempDir,
    store: Arc<Store>,
    image: Image,
}

impl Bench {
    fn new() -> Result<Self> {
        let at = tempfile::tempdir()?;
        let layout = sample::layout(at.path(), "gzip")?;
        let store = Arc::new(Store::open(&at.path().join("store"))?);
        let options = import::Options { reference: Some("sample:v1".parse()?), ..import::Options::default() };
        let image = import::layout(&store, &layout, &options)?.remove(0);
        Ok(Self { at, store, image })
    }

    fn mount(&self, id: &str, ids: Option<IdRange>) -> Result<PathBuf> {
        let target = self.at.path().join(format!("root-{id}"));
        fs::create_dir_all(&target)?;
        let options = MountOptions { target: target.clone(), ids, devices: Devices::Usable };
        self.store.mount_snapshot(id, &options)?;
        Ok(target)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for (snapshot, _) in self.store.snapshots().unwrap_or_default() {
            let _ = self.store.remove_snapshot(&snapshot.id);
        }
    }
}

/// The files of a root but for the three that the image has not, and that something is mounted on.
fn of_image(root: &Path) -> Result<Tree> {
    let mut tree = tree::read(root)?;
    for name in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        ensure!(tree.remove(Path::new(name)).is_some(), "{name} is not there");
    }
    Ok(tree)
}

fn a_root_is_the_image_and_changes_stay_apart() -> Result<()> {
    let bench = Bench::new()?;
    bench.store.create_snapshot("one", &bench.image)?;
    bench.store.create_snapshot("two", &bench.image)?;
    let (one, two) = (bench.mount("one", None)?, bench.mount("two", None)?);
    let merged = sample::Merged::of(&bench.store.trees(&bench.image))?;
    let image = tree::read(&merged.root())?;
    tree::compare(&of_image(&one)?, &image).context("a fresh root")?;
    fs::write(one.join("etc/mine"), "x")?;
    fs::remove_file(one.join("bin/capable"))?;
    fs::rename(one.join("etc/big"), one.join("etc/bigger"))?;
    tree::compare(&of_image(&two)?, &image).context("the other root")?;
    let options = shell(&one, "grep ' overlay croft:' /proc/self/mountinfo | head -1")?;
    ensure!(options.contains("index=on") && options.contains("nfs_export=on"), "{options}");
    // Not there for a second one, and a root that is used is mounted as it is.
    ensure!(matches!(bench.store.create_snapshot("one", &bench.image), Err(Error::Exists { .. })));
    ensure!(bench.mount("one", None)? == one);
    ensure!(bench.mount("one", Some(IdRange { start: 1000, size: 1000 })).is_err(), "mounted otherwise");
    bench.store.unmount_snapshot("one")?;
    ensure!(fs::read_dir(&one)?.next().is_none());
    bench.mount("one", None)?;
    ensure!(one.join("etc/mine").exists() && !one.join("bin/capable").exists(), "changes outlast a mount");
    bench.store.remove_snapshot("one")?;
    ensure!(matches!(bench.store.snapshot("one"), Err(Error::NotFound { .. })));
    ensure!(fs::read_dir(bench.store.root().join("tmp"))?.next().is_none());
    tree::compare(&of_image(&two)?, &image).context("after the other is gone")
}

fn ids_are_mapped_and_the_disk_keeps_its_own() -> Result<()> {
    let bench = Bench::new()?;
    bench.store.create_snapshot("mapped", &bench.image)?;
    let ids = IdRange { start: 300_000, size: 65536 };
    let root = bench.mount("mapped", Some(ids))?;
    let owner = |path: &Path| path.symlink_metadata().map(|data| (data.uid(), data.gid()));
    ensure!(owner(&root)? == (300_000, 300_000), "{:?}", owner(&root)?);
    ensure!(owner(&root.join("etc/big"))? == (300_000, 300_000));
    // The container's root, in its user namespace: id 0 there is 300000 here.
    let range = idmap::Range { inside: 0, outside: ids.start, size: ids.size };
    let namespace = idmap::namespace(&Proc::open()?, &[range])?;
    let script = format!(
        "nsenter --user=/proc/{}/fd/{} --setuid 0 --setgid 0 chroot {} /bin/sh -ec '
         id -u; echo new > /etc/new; chown 1000:1001 /etc/new; chmod 4755 /etc/new; echo more >> /etc/big; rm /etc/passwd
         mkdir /etc/folder; mv /deep /moved; ls -ln /etc/new'",
        std::process::id(),
        namespace.as_raw_fd(),
        root.display()
    );
    let said = shell(bench.at.path(), &script)?;
    ensure!(said.starts_with("0\n") && said.contains("-rwsr-xr-x    1 1000     1001"), "{said}");
    ensure!(owner(&root.join("etc/new"))? == (301_000, 301_001));
    let disk = bench.store.changes("mapped")?;
    ensure!(owner(&disk.join("etc/new"))? == (1000, 1001), "{:?}", owner(&disk.join("etc/new"))?);
    ensure!(owner(&disk.join("etc/big"))? == (0, 0) && owner(&disk.join("etc/folder"))? == (0, 0));
    ensure!(!root.join("etc/passwd").exists() && root.join("moved/a/b/added").exists());
    // On other ids later: nothing is chowned, so the same files have other owners.
    bench.store.unmount_snapshot("mapped")?;
    let root = bench.mount("mapped", Some(IdRange { start: 900_000, size: 65536 }))?;
    ensure!(owner(&root.join("etc/new"))? == (901_000, 901_001));
    ensure!(fs::read_to_string(root.join("etc/new"))? == "new\n");
    fs::write(root.join("etc/host-made"), "").err().context("an unmapped id writes nothing")?;
    Ok(())
}

fn many_layers_are_mounted() -> Result<()> {
    let at = tempfile::tempdir()?;
    let mut layout = sample::Layout::new(&at.path().join("layout"))?;
    for n in 0..90 {
        let folder = at.path().join(format!("layer-{n}"));
        fs::create_dir(&folder)?;
        fs::write(folder.join(format!("file-{n}")), "")?;
        fs::write(folder.join("last"), n.to_string())?;
        layout.add(&folder, "cat")?;
    }
    let layout = layout.finish("v1")?;
    let store = Arc::new(Store::open(&at.path().join("store"))?);
    let options = import::Options { reference: Some("many:v1".parse()?), ..import::Options::default() };
    let image = import::layout(&store, &layout, &options)?.remove(0);
    store.create_snapshot("many", &image)?;
    let target = at.path().join("root");
    fs::create_dir(&target)?;
    let ids = Some(IdRange { start: 200_000, size: 65536 });
    store.mount_snapshot("many", &MountOptions { target: target.clone(), ids, devices: Devices::Inert })?;
    ensure!(fs::read_to_string(target.join("last"))? == "89" && fs::read_dir(&target)?.count() == 91 + 4);
    Ok(store.remove_snapshot("many")?)
}

/// Those that are not the image's are below all its layers, and no change of the container.
fn what_is_mounted_on_is_there() -> Result<()> {
    let at = tempfile::tempdir()?;
    let store = Arc::new(Store::open(&at.path().join("store"))?);
    let container = |name: &str, script: &str| -> Result<PathBuf> {
        let tree = at.path().join(format!("tree-{name}"));
        fs::create_dir(&tree)?;
        shell(&tree, script)?;
        let mut layout = sample::Layout::new(&at.path().join(format!("layout-{name}")))?;
        layout.add(&tree, "cat")?;
        let options =
            import::Options { reference: Some(format!("{name}:v1").parse()?), ..import::Options::default() };
        let image = import::layout(&store, &layout.finish("v1")?, &options)?.remove(0);
        store.create_snapshot(name, &image)?;
        let target = at.path().join(format!("root-{name}"));
        fs::create_dir(&target)?;
        let options = MountOptions { target: target.clone(), ids: None, devices: Devices::Inert };
        store.mount_snapshot(name, &options)?;
        Ok(target)
    };
    let listed = |root: &Path| shell(root, "find . -path ./work -prune -o -printf '%m %P %l\\n' | sort -k2");
    let bare = listed(&container("bare", "touch program")?)?;
    let wanted = "755 dev \n755 etc \n644 etc/hostname \n644 etc/hosts \n644 etc/resolv.conf \n755 proc \n644 program \n755 sys \n";
    ensure!(bare.ends_with(wanted), "{bare}");
    ensure!(fs::read_dir(store.changes("bare")?)?.next().is_none(), "it is a change");
    let own = container("own", "mkdir -m 700 dev; mkdir etc; echo mine >etc/hosts; ln -s /etc sys")?;
    ensure!(fs::read_to_string(own.join("etc/hosts"))? == "mine\n" && own.join("etc/hostname").exists());
    let own = listed(&own)?;
    ensure!(own.contains("700 dev") && own.contains("777 sys /etc"), "{own}");
    // One of them removed is nothing of the image's that is gone.
    for (name, expected) in
        [("bare", vec!["Added /etc"]), ("own", vec!["Changed /etc", "Deleted /etc/hosts"])]
    {
        fs::remove_file(at.path().join(format!("root-{name}/etc/hosts")))?;
        let changes = croft_images::diff::diff(&store, name)?;
        let changes = changes.iter().map(|change| format!("{:?} {}", change.kind, change.path.display()));
        ensure!(changes.collect::<Vec<_>>() == expected, "{name}");
    }
    for name in ["bare", "own"] {
        store.remove_snapshot(name)?;
    }
    // Another croftd of the same store finds them made.
    let made = fs::metadata(store.root().join("mount-points"))?.ino();
    Store::open(&at.path().join("store"))?;
    ensure!(fs::metadata(store.root().join("mount-points"))?.ino() == made);
    Ok(())
}

fn a_new_daemon_finds_what_is_mounted() -> Result<()> {
    let bench = Bench::new()?;
    for id in ["a", "b", "c"] {
        bench.store.create_snapshot(id, &bench.image)?;
    }
    let root = bench.mount("a", None)?;
    let lost = bench.mount("b", None)?;
    // As after a crash: a record that says mounted, and nothing is.
    croft_sys::mount::unmount_tree(&lost)?;
    let other = Store::open(bench.store.root())?;
    let states: Vec<_> = other.snapshots()?.into_iter().map(|(s, state)| (s.id, state)).collect();
    let expected = [("a", State::Mounted), ("b", State::Unmounted), ("c", State::Unmounted)];
    ensure!(states == expected.map(|(id, state)| (id.to_owned(), state)), "{states:?}");
    // Another store with a container of that name does not take it for its own.
    let elsewhere = tempfile::tempdir()?;
    fs::create_dir_all(elsewhere.path().join("containers"))?;
    shell(bench.at.path(), &format!("cp -r store/containers/a {}/containers/", elsewhere.path().display()))?;
    ensure!(Store::open(elsewhere.path())?.snapshots()?[0].1 == State::Unmounted);
    other.remove_snapshot("a")?;
    ensure!(fs::read_dir(root)?.next().is_none(), "unmounted by who did not mount it");
    Ok(())
}

/// What a file system without a journal may show after a power cut.
fn a_snapshot_that_lost_its_record_is_completed() -> Result<()> {
    let bench = Bench::new()?;
    let made = bench.store.create_snapshot("cut", &bench.image)?;
    let root = bench.mount("cut", None)?;
    fs::write(root.join("etc/mine"), "x")?;
    bench.store.unmount_snapshot("cut")?;
    let folder = bench.store.root().join("containers/cut");
    for (record, mount) in [("", "{"), ("{\"version\": 1", "")] {
        fs::write(folder.join("snapshot.json"), record)?;
        fs::write(folder.join("mount.json"), mount)?;
        fs::remove_dir_all(folder.join("data/work"))?;
        ensure!(matches!(bench.store.snapshot("cut"), Err(Error::Malformed { .. })));
        ensure!(bench.store.create_snapshot("cut", &bench.image)? == made);
        let root = bench.mount("cut", None)?;
        ensure!(fs::read(root.join("etc/mine"))? == b"x", "what the container wrote stays");
        bench.store.unmount_snapshot("cut")?;
    }
    let record = folder.join("snapshot.json");
    fs::write(&record, fs::read_to_string(&record)?.replace("\"version\": 1", "\"version\": 99"))?;
    let again = bench.store.create_snapshot("cut", &bench.image);
    ensure!(matches!(again, Err(Error::Exists { .. })), "a newer croft's is taken for damaged: {again:?}");
    // With all of it gone, it is as a new one.
    fs::remove_dir_all(folder.join("data"))?;
    fs::remove_file(&record)?;
    bench.store.create_snapshot("cut", &bench.image)?;
    let merged = sample::Merged::of(&bench.store.trees(&bench.image))?;
    let root = bench.mount("cut", None)?;
    tree::compare(&of_image(&root)?, &tree::read(&merged.root())?)?;
    bench.store.unmount_snapshot("cut")?;
    fs::remove_file(&record)?;
    Ok(bench.store.remove_snapshot("cut")?)
}

fn prune_keeps_what_is_used() -> Result<()> {
    let bench = Bench::new()?;
    let store = &bench.store;
    ensure!(store.prune()? == gc::Pruned::default(), "everything has a name");
    store.tag(&bench.image, &"also:v2".parse()?)?;
    store.remove(&"sample:v1".parse()?)?;
    ensure!(store.prune()?.layers == 0, "the other name keeps it");
    store.create_snapshot("user", &bench.image)?;
    let root = bench.mount("user", None)?;
    store.remove(&"also:v2".parse()?)?;
    ensure!(store.list()?.is_empty() && store.prune()? == gc::Pruned::default(), "the container keeps it");
    ensure!(root.join("bin/busybox").exists() && store.check(gc::Depth::Content)?.is_empty());
    fs::write(store.root().join("partial").join("0".repeat(64)), "half")?;
    {
        let _pull = store.hold()?;
        ensure!(matches!(store.prune(), Err(Error::InUse { .. })), "not while somebody adds");
    }
    store.remove_snapshot("user")?;
    let pruned = store.prune()?;
    ensure!((pruned.layers, pruned.blobs, pruned.partial) == (3, 5, 1), "{pruned:?}");
    let usage = store.disk_usage()?;
    ensure!(usage.blob_bytes + usage.layer_bytes + usage.partial_bytes == 0, "{usage:?}");
    // A record that cannot be read may need anything.
    fs::write(store.root().join("images").join("x.json"), "{")?;
    ensure!(store.prune().is_err());
    fs::remove_file(store.root().join("images/x.json"))?;
    Ok(())
}

fn ids_that_are_no_names_are_refused() -> Result<()> {
    let bench = Bench::new()?;
    for id in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", &"x".repeat(129)] {
        ensure!(
            matches!(bench.store.create_snapshot(id, &bench.image), Err(Error::Refused { .. })),
            "{id:?}"
        );
    }
    // Modes and owners of the highest layer's root are those of the container's.
    let top = bench.store.trees(&bench.image).remove(0);
    fs::set_permissions(&top, fs::Permissions::from_mode(0o711))?;
    chown(&top, Some(7), Some(8))?;
    bench.store.create_snapshot("x", &bench.image)?;
    let data = File::open(bench.store.changes("x")?)?.metadata()?;
    ensure!((data.mode() & 0o7777, data.uid(), data.gid()) == (0o711, 7, 8));
    Ok(())
}

fn a_committed_container_is_an_image() -> Result<()> {
    let bench = Bench::new()?;
    bench.store.create_snapshot("worker", &bench.image)?;
    let root = bench.mount("worker", None)?;
    let long = format!("{}/{}", "long-name-".repeat(12), "x".repeat(200));
    shell(
        &root,
        &format!(
            "rm etc/passwd; rm -r opaque; mkdir opaque; echo over > opaque/file; echo more >> etc/group; mv becomes-file moved
             mkdir -p {long}; ln etc/group root/third; ln -s {long}/{long} root/long-link; mkfifo -m 600 new-pipe; mknod new-dev c 5 2
             touch -d '1960-01-01 00:00:00.25' etc/old; chmod 4711 bin/ls -h 2>/dev/null || true; chown 70000:3000000 etc/old"
        ),
    )?;
    croft_sys::fs::setxattr(root.join("opaque"), "user.mine", b"1", croft_sys::fs::XattrFlags::empty())?;
    let image = build::commit(
        &bench.store,
        "worker",
        &"mine:v2".parse()?,
        build::Commit { comment: Some("by hand".to_owned()), ..build::Commit::default() },
    )?;
    ensure!(image.layers.len() == 4 && bench.store.config(&image)?.config.cmd == ["/bin/sh"]);
    ensure!(bench.store.history(&image)?[0].0.comment.as_deref() == Some("by hand"));
    let expected = of_image(&root)?;
    bench.store.create_snapshot("again", &image)?;
    let again = bench.mount("again", None)?;
    tree::compare(&of_image(&again)?, &expected).context("a container of the new image")?;
    // Others read the layer the same way.
    croft_images::export::layout(&bench.store, std::slice::from_ref(&image), &bench.at.path().join("out"))?;
    shell(bench.at.path(), "umoci --log=error unpack --image out:v2 bundle")?;
    tree::compare(&expected, &tree::read(&bench.at.path().join("bundle/rootfs"))?).context("umoci")
}

fn mmdebstrap_that_fails_is_said() -> Result<()> {
    let at = tempfile::tempdir()?;
    let store = Arc::new(Store::open(&at.path().join("store"))?);
    let mut what = build::Debian {
        suite: "no-such-suite".into(),
        variant: "minbase".into(),
        packages: Vec::new(),
        mirrors: vec!["http://127.0.0.1:1/debian".into()],
        arguments: Vec::new(),
    };
    let options = import::Options::default();
    let error =
        build::debian(&store, &what, &"x".parse()?, &options).err().context("no such suite")?.to_string();
    ensure!(error.starts_with("mmdebstrap: exit status"), "{error}");
    what.suite = "--help".into();
    ensure!(matches!(build::debian(&store, &what, &"x".parse()?, &options), Err(Error::Refused { .. })));
    ensure!(store.list()?.is_empty() && fs::read_dir(store.root().join("tmp"))?.next().is_none());
    Ok(())
}
