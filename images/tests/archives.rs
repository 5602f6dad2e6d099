//! Imports and exports, against what skopeo and umoci make of the same images.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use croft_images::manifest::Defaults;
use croft_images::store::Store;
use croft_images::{Error, export, import};

use crate::sample::{self, Merged, shell};
use crate::{Test, tree};

pub const TESTS: &[Test] = &[
    ("a_layout_unpacks_as_umoci_unpacks_it", &["umoci"], a_layout_unpacks_as_umoci_unpacks_it),
    ("a_zstd_layer_is_unpacked", &["zstd"], a_zstd_layer_is_unpacked),
    ("docker_save_archives_come_in", &["skopeo"], docker_save_archives_come_in),
    (
        "exports_are_read_by_skopeo_and_come_back_the_same",
        &["skopeo"],
        exports_are_read_by_skopeo_and_come_back_the_same,
    ),
    ("a_rootfs_archive_becomes_an_image", &[], a_rootfs_archive_becomes_an_image),
    (
        "what_an_archive_says_and_has_not_is_its_own_fault",
        &[],
        what_an_archive_says_and_has_not_is_its_own_fault,
    ),
    ("a_damaged_layout_is_refused_and_leaves_nothing", &[], a_damaged_layout_is_refused_and_leaves_nothing),
];

fn store(at: &Path) -> Result<Arc<Store>> {
    Ok(Arc::new(Store::open(&at.join("store"))?))
}

fn named(name: &str) -> Result<import::Options> {
    Ok(import::Options { reference: Some(name.parse()?), ..import::Options::default() })
}

fn a_layout_unpacks_as_umoci_unpacks_it() -> Result<()> {
    let at = tempfile::tempdir()?;
    let layout = sample::layout(at.path(), "gzip")?;
    let store = store(at.path())?;
    let images = import::layout(&store, &layout, &named("sample:v1")?)?;
    ensure!(images.len() == 1 && images[0].layers.len() == 3, "{images:?}");
    shell(at.path(), "umoci --log=error unpack --image layout:v1 bundle")?;
    let merged = Merged::of(&store.trees(&images[0]))?;
    let (ours, theirs) = (tree::read(&merged.root())?, tree::read(&at.path().join("bundle/rootfs"))?);
    ensure!(
        ours.contains_key(Path::new("deep/a/b/added")) && !ours.contains_key(Path::new("keeps")),
        "{ours:?}"
    );
    tree::compare(&ours, &theirs)
}

fn a_zstd_layer_is_unpacked() -> Result<()> {
    let at = tempfile::tempdir()?;
    let layout = sample::layout(at.path(), "zstd")?;
    let store = store(at.path())?;
    let images = import::layout(&store, &layout, &named("sample:v1")?)?;
    let merged = Merged::of(&store.trees(&images[0]))?;
    ensure!(fs::read_to_string(merged.root().join("etc/gone"))? == "back again");
    Ok(())
}

fn docker_save_archives_come_in() -> Result<()> {
    let at = tempfile::tempdir()?;
    let layout = sample::layout(at.path(), "gzip")?;
    shell(
        at.path(),
        "skopeo copy -q oci:layout:v1 docker-archive:saved.tar:example.org/saved:v2; gzip -k saved.tar",
    )?;
    let store = store(at.path())?;
    let direct = import::layout(&store, &layout, &named("direct")?)?.remove(0);
    for file in ["saved.tar", "saved.tar.gz"] {
        let images = import::archive(&store, File::open(at.path().join(file))?, &import::Options::default())?;
        ensure!(images.len() == 1 && images[0].reference.to_string() == "example.org/saved:v2", "{images:?}");
        // The same layers, so the same unpacked ones.
        ensure!(store.trees(&images[0]) == store.trees(&direct), "{images:?}");
    }
    ensure!(store.list()?.len() == 2 && store.disk_usage()?.layers == 3);
    Ok(())
}

fn exports_are_read_by_skopeo_and_come_back_the_same() -> Result<()> {
    let at = tempfile::tempdir()?;
    let layout = sample::layout(at.path(), "gzip")?;
    let store = store(at.path())?;
    let image = import::layout(&store, &layout, &named("example.org/x:v1")?)?.remove(0);
    export::archive(&store, std::slice::from_ref(&image), File::create(at.path().join("out.tar"))?)?;
    export::layout(&store, std::slice::from_ref(&image), &at.path().join("out"))?;
    shell(
        at.path(),
        "skopeo copy -q docker-archive:out.tar:example.org/x:v1 oci:a:t; skopeo copy -q oci-archive:out.tar:v1 oci:b:t
         skopeo copy -q oci:out:v1 oci:c:t",
    )?;
    let again = tempfile::tempdir()?;
    let other = Arc::new(Store::open(again.path())?);
    for name in ["a", "b", "c"] {
        let back = import::layout(&other, &at.path().join(name), &named(name)?)?.remove(0);
        let ids =
            |image: &croft_images::store::Image| image.layers.iter().map(|l| l.diff_id).collect::<Vec<_>>();
        ensure!(ids(&back) == ids(&image), "{name}");
    }
    // A name with a digest is saved by its tag.
    let pinned: croft_images::Reference = format!("example.org/x:v1@{}", image.manifest.digest).parse()?;
    let mut image = image;
    let unpinned = std::mem::replace(&mut image.reference, pinned);
    export::archive(&store, std::slice::from_ref(&image), File::create(at.path().join("pinned.tar"))?)?;
    shell(at.path(), "skopeo copy -q docker-archive:pinned.tar:example.org/x:v1 oci:d:t")?;
    image.reference = unpinned;
    let back = import::archive(&other, File::open(at.path().join("out.tar"))?, &import::Options::default())?
        .remove(0);
    ensure!((back.config, &back.reference) == (image.config, &image.reference), "{back:?}");
    Ok(())
}

fn a_rootfs_archive_becomes_an_image() -> Result<()> {
    let at = tempfile::tempdir()?;
    let folder = at.path().join("base");
    fs::create_dir(&folder)?;
    sample::base_tree(&folder)?;
    sample::pack(&folder, &at.path().join("rootfs.tar"), "cat")?;
    let store = store(at.path())?;
    let defaults = Defaults { cmd: vec!["/bin/sh".into()], ..Defaults::default() };
    let source = File::open(at.path().join("rootfs.tar"))?;
    let image = import::rootfs(&store, source, &"mine:1".parse()?, defaults, &import::Options::default())?;
    ensure!(store.config(&image)?.config.cmd == ["/bin/sh"]);
    ensure!(store.find("mine:1")?.config == image.config && store.find(&image.config.hex()[..12])? == image);
    let tree = store.trees(&image).remove(0);
    tree::compare(&tree::read(&tree)?, &tree::read(&folder)?).context("the tree that was packed")
}

fn what_an_archive_says_and_has_not_is_its_own_fault() -> Result<()> {
    let at = tempfile::tempdir()?;
    let store = store(at.path())?;
    // A device without a driver: it can be looked at, and not be opened.
    for (makes, why) in [
        ("mknod index.json c 0 0", "index.json: it is no file"),
        ("mkfifo index.json", "index.json: it is no file"),
        ("ln -s nowhere index.json; mkdir manifest.json", "manifest.json: it is no file"),
        (r#"echo '[{"Config": "none", "RepoTags": ["a:b"], "Layers": []}]' >manifest.json"#, "none: "),
    ] {
        shell(at.path(), &format!("mkdir folder; cd folder; {makes}; tar -cf ../it.tar ."))?;
        let imports = [
            import::layout(&store, &at.path().join("folder"), &named("a")?),
            import::archive(&store, File::open(at.path().join("it.tar"))?, &named("a")?),
        ];
        for import in imports {
            let Err(error) = import else { bail!("{makes}: became an image") };
            let said = error.to_string();
            ensure!(matches!(error, Error::Malformed { .. }) && said.contains(why), "{makes}: {said}");
        }
        fs::remove_dir_all(at.path().join("folder"))?;
    }
    Ok(())
}

fn a_damaged_layout_is_refused_and_leaves_nothing() -> Result<()> {
    let at = tempfile::tempdir()?;
    let layout = sample::layout(at.path(), "gzip")?;
    let store = store(at.path())?;
    let blobs = layout.join("blobs/sha256");
    let mut refused = 0;
    for entry in fs::read_dir(&blobs)? {
        let path = entry?.path();
        let whole = fs::read(&path)?;
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        for bytes in [&damaged[..], &whole[..middle]] {
            fs::write(&path, bytes)?;
            let error =
                import::layout(&store, &layout, &named("sample:v1")?).err().context("it was taken")?;
            ensure!(!error.to_string().is_empty());
            ensure!(
                store.list()?.is_empty() && store.disk_usage()?.layers == 0 && store.disk_usage()?.blobs == 0
            );
            ensure!(fs::read_dir(store.root().join("tmp"))?.next().is_none(), "leftovers after: {error}");
            refused += 1;
        }
        fs::write(&path, whole)?;
    }
    ensure!(refused == 10, "{refused}");
    import::layout(&store, &layout, &named("sample:v1")?).map(drop).context("the whole layout")
}
