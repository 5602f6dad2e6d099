//! Pull and push at a real registry, filled by skopeo.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use croft_images::gc::Depth;
use croft_images::manifest::{Descriptor, Index, media};
use croft_images::registry::{Credentials, Event, Progress, Pull, Registry, Settings};
use croft_images::store::Store;
use croft_images::{Error, Reference};

use crate::flaky::{Fault, Proxy};
use crate::registry::Registry as Server;
use crate::sample::{self, Merged, shell};
use crate::{Test, tree};

/// "secret".
const SECRET_BY_BCRYPT: &str = "$2y$04$E60mR8F.mEl9IqmLo3ty8OstVY1d.tSOUXbMmVruWeiSP425KfzZ6";

const TOOLS: &[&str] = &["curl", "docker-registry", "skopeo", "umoci"];

pub const TESTS: &[Test] = &[
    ("a_pulled_image_is_what_umoci_unpacks", TOOLS, a_pulled_image_is_what_umoci_unpacks),
    ("a_second_pull_transfers_nothing", TOOLS, a_second_pull_transfers_nothing),
    ("zstd_layers_and_shared_ones_are_pulled", TOOLS, zstd_layers_and_shared_ones_are_pulled),
    ("a_broken_transfer_is_resumed", TOOLS, a_broken_transfer_is_resumed),
    ("a_failed_pull_is_resumed_by_the_next", TOOLS, a_failed_pull_is_resumed_by_the_next),
    ("damage_on_the_way_is_noticed", TOOLS, damage_on_the_way_is_noticed),
    ("mirrors_come_first_and_may_be_down", TOOLS, mirrors_come_first_and_may_be_down),
    ("a_login_is_needed_and_found", TOOLS, a_login_is_needed_and_found),
    ("an_image_is_chosen_by_platform", TOOLS, an_image_is_chosen_by_platform),
    ("what_is_not_there_is_said", TOOLS, what_is_not_there_is_said),
    ("a_pushed_image_is_read_by_skopeo", TOOLS, a_pushed_image_is_read_by_skopeo),
    ("a_dropped_pull_leaves_only_what_can_be_resumed", TOOLS, a_dropped_pull_leaves_only_what_can_be_resumed),
];

/// Keeps all events.
#[derive(Default)]
pub struct Events(Mutex<Vec<Event>>);

impl Progress for Events {
    fn event(&self, event: Event) {
        self.0.lock().expect("nobody panics with it").push(event);
    }
}

impl Events {
    fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().expect("nobody panics with it").iter().filter(|e| which(e)).count()
    }
}

/// Pulls on a runtime like the daemon's, as a task of its own.
pub fn pull(settings: Settings, store: &Arc<Store>, name: &str, events: &Arc<Events>) -> Result<Pull> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (reference, store, events) = (name.parse::<Reference>()?, store.clone(), events.clone());
    let task = async move { Registry::new(settings).pull(&store, &reference, events).await };
    Ok(runtime.block_on(async { tokio::spawn(task).await })??)
}

fn serve(at: &Path, third: &str) -> Result<Server> {
    sample::layout(at, third)?;
    let server = Server::start(at, None)?;
    let host = server.host();
    shell(
        at,
        &format!("skopeo copy -q --dest-tls-verify=false oci:layout:v1 docker://{host}/team/sample:v1"),
    )?;
    Ok(server)
}

fn a_pulled_image_is_what_umoci_unpacks() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let host = server.host();
    let store = Arc::new(Store::open(&at.path().join("store"))?);
    let events = Arc::new(Events::default());
    let pulled = pull(Settings::default(), &store, &format!("{host}/team/sample:v1"), &events)?;
    ensure!(pulled.changed && pulled.image.layers.len() == 3, "{pulled:?}");
    ensure!(
        events.count(|e| matches!(e, Event::Unpacked(_))) == 3 && events.count(|e| *e == Event::Done) == 1
    );
    shell(
        at.path(),
        &format!(
            "skopeo copy -q --src-tls-verify=false docker://{host}/team/sample:v1 oci:theirs:v1
             umoci --log=error unpack --image theirs:v1 bundle"
        ),
    )?;
    let merged = Merged::of(&store.trees(&pulled.image))?;
    tree::compare(&tree::read(&merged.root())?, &tree::read(&at.path().join("bundle/rootfs"))?)
        .context("compared with umoci")
}

fn a_second_pull_transfers_nothing() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let name = format!("{}/team/sample:v1", server.host());
    let store = Arc::new(Store::open(&at.path().join("store"))?);
    pull(Settings::default(), &store, &name, &Arc::default())?;
    let events = Arc::new(Events::default());
    let pulled = pull(Settings::default(), &store, &name, &events)?;
    ensure!(!pulled.changed);
    ensure!(events.count(|e| matches!(e, Event::Transferred { .. } | Event::Unpacked(_))) == 0);
    ensure!(events.count(|e| matches!(e, Event::Present(_))) == 3);
    Ok(())
}

fn new_store(at: &Path, name: &str) -> Result<Arc<Store>> {
    Ok(Arc::new(Store::open(&at.join(name))?))
}

/// What a store holds is whole, and nothing is left of a failure.
fn whole(store: &Store) -> Result<()> {
    let faults = store.check(Depth::Content)?;
    ensure!(faults.is_empty(), "{faults:?}");
    ensure!(std::fs::read_dir(store.root().join("tmp"))?.next().is_none(), "leftovers");
    Ok(())
}

fn zstd_layers_and_shared_ones_are_pulled() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "zstd")?;
    let host = server.host();
    let store = new_store(at.path(), "store")?;
    let pulled = pull(Settings::default(), &store, &format!("{host}/team/sample:v1"), &Arc::default())?;
    let merged = Merged::of(&store.trees(&pulled.image))?;
    ensure!(std::fs::read_to_string(merged.root().join("etc/gone"))? == "back again");
    // Two pulls at once into a second store, of images that share two layers.
    let more = at.path().join("more");
    std::fs::create_dir(&more)?;
    let mut layout = sample::Layout::new(&more)?;
    layout.add(&at.path().join("base"), "cat")?;
    layout.add(&at.path().join("upper"), "gzip")?;
    layout.finish("v2")?;
    shell(
        at.path(),
        &format!("skopeo copy -q --dest-tls-verify=false oci:more:v2 docker://{host}/team/sample:v2"),
    )?;
    let both = new_store(at.path(), "both")?;
    std::thread::scope(|scope| {
        let pulls = ["v1", "v2", "v1"].map(|tag| {
            let (both, host) = (&both, &host);
            scope.spawn(move || {
                pull(Settings::default(), both, &format!("{host}/team/sample:{tag}"), &Arc::default())
            })
        });
        pulls.into_iter().try_for_each(|one| one.join().expect("it does not panic").map(drop))
    })?;
    let usage = both.disk_usage()?;
    // skopeo packs a layer anew for each push, and not always to the same bytes.
    ensure!((usage.images, usage.layers, usage.partial_bytes) == (2, 3, 0) && usage.blobs <= 8, "{usage:?}");
    whole(&both)
}

fn a_broken_transfer_is_resumed() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let proxy = Proxy::start(server.host(), |n| match n {
        // The first is the configuration.
        1 => Some(Fault::Unavailable),
        2..=6 => Some(Fault::Cut(200_000)),
        _ => None,
    })?;
    let store = new_store(at.path(), "store")?;
    let events = Arc::new(Events::default());
    let pulled = pull(Settings::default(), &store, &format!("{}/team/sample:v1", proxy.host()), &events)?;
    ensure!(proxy.ranges.load(Ordering::SeqCst) >= 2, "resumed by range");
    ensure!(events.count(|e| matches!(e, Event::Retry { from: 1.., .. })) >= 2);
    let direct = new_store(at.path(), "direct")?;
    let other =
        pull(Settings::default(), &direct, &format!("{}/team/sample:v1", server.host()), &Arc::default())?;
    ensure!(other.image.layers == pulled.image.layers);
    let (ours, theirs) = (Merged::of(&store.trees(&pulled.image))?, Merged::of(&direct.trees(&other.image))?);
    tree::compare(&tree::read(&ours.root())?, &tree::read(&theirs.root())?)?;
    whole(&store)
}

fn a_failed_pull_is_resumed_by_the_next() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let proxy = Proxy::start(server.host(), |n| match n {
        0 => None,
        1..=3 => Some(Fault::Cut(200_000)),
        _ => Some(Fault::Unavailable),
    })?;
    let store = new_store(at.path(), "store")?;
    let once = Settings { attempts: 1, ..Settings::default() };
    let error = pull(once, &store, &format!("{}/team/sample:v1", proxy.host()), &Arc::default()).err();
    let error = error.context("it has to fail")?.to_string();
    ensure!(error.starts_with("pull layer sha256:"), "{error}");
    ensure!(
        store.list()?.is_empty() && store.disk_usage()?.layers == 0 && store.disk_usage()?.partial_bytes > 0
    );
    whole(&store)?;
    // One of the cut-off downloads was damaged meanwhile: that is noticed, and it is fetched anew.
    for entry in std::fs::read_dir(store.root().join("partial"))? {
        let path = entry?.path();
        let mut bytes = std::fs::read(&path)?;
        bytes.iter_mut().take(50).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, bytes)?;
    }
    pull(Settings::default(), &store, &format!("{}/team/sample:v1", server.host()), &Arc::default())?;
    whole(&store)
}

fn damage_on_the_way_is_noticed() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let name = |proxy: &Proxy| format!("{}/team/sample:v1", proxy.host());
    let always = Proxy::start(server.host(), |n| (n > 0).then_some(Fault::Damage(100)))?;
    let config = Proxy::start(server.host(), |_| Some(Fault::Damage(10)))?;
    let store = new_store(at.path(), "store")?;
    for proxy in [always, config] {
        let outcome = pull(Settings::default(), &store, &name(&proxy), &Arc::default());
        ensure!(outcome.is_err(), "{outcome:?}");
        let usage = store.disk_usage()?;
        ensure!((usage.images, usage.layers, usage.blobs) == (0, 0, 0), "{usage:?}");
        whole(&store)?;
    }
    pull(Settings::default(), &store, &format!("{}/team/sample:v1", server.host()), &Arc::default())?;
    whole(&store)
}

fn mirrors_come_first_and_may_be_down() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let proxy = Proxy::start(server.host(), |_| None)?;
    let store = new_store(at.path(), "store")?;
    // Nobody listens at the first; the second has it; the registry itself is not reached at all.
    let mirrors = vec!["127.0.0.1:1".to_owned(), proxy.host()];
    let settings = Settings {
        mirrors: [("registry.invalid".to_owned(), mirrors)].into(),
        attempts: 1,
        ..Settings::default()
    };
    let pulled = pull(settings.clone(), &store, "registry.invalid/team/sample:v1", &Arc::default())?;
    ensure!(
        pulled.image.reference.registry() == "registry.invalid" && proxy.blobs.load(Ordering::SeqCst) == 4
    );
    let by_digest = format!("registry.invalid/team/sample@{}", pulled.image.manifest.digest);
    ensure!(pull(settings, &store, &by_digest, &Arc::default())?.image.config == pulled.image.config);
    Ok(())
}

fn a_login_is_needed_and_found() -> Result<()> {
    let at = tempfile::tempdir()?;
    // "user" and "secret", by bcrypt.
    std::fs::write(at.path().join("users"), format!("user:{}\n", SECRET_BY_BCRYPT))?;
    sample::layout(at.path(), "gzip")?;
    let server = Server::start(at.path(), Some(&at.path().join("users")))?;
    let (host, config) = (server.host(), at.path().join("config.json"));
    let name = format!("{host}/team/sample:v1");
    shell(
        at.path(),
        &format!(
            "skopeo copy -q --dest-creds user:secret --dest-tls-verify=false oci:layout:v1 docker://{name}"
        ),
    )?;
    let store = new_store(at.path(), "store")?;
    let settings = Settings { docker_config: Some(config.clone()), attempts: 2, ..Settings::default() };
    let refused = || pull(settings.clone(), &store, &name, &Arc::default()).err().context("pulled");
    let denied = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(Error::Denied { .. }));
    let without = refused()?;
    ensure!(denied(&without) && without.to_string().contains("uthor"), "{without}");
    Credentials::new(&config).log_in(&host, "user", "wrong")?;
    let wrong = refused()?;
    ensure!(denied(&wrong), "{wrong}");
    Credentials::new(&config).log_in(&host, "user", "secret")?;
    pull(settings, &store, &name, &Arc::default())?;
    // skopeo reads the same file.
    let line = format!("skopeo inspect --authfile {} --tls-verify=false docker://{name}", config.display());
    shell(at.path(), &line).map(drop)
}

fn an_image_is_chosen_by_platform() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let host = server.host();
    let small = |name: &str| -> Result<Vec<u8>> {
        let folder = at.path().join(name);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("arch"), name)?;
        let mut layout = sample::Layout::new(&at.path().join(format!("layout-{name}")))?;
        layout.add(&folder, "gzip")?;
        let done = layout.finish("v1")?;
        let line = format!(
            "skopeo copy -q --dest-tls-verify=false oci:layout-{name}:v1 docker://{host}/multi:{name}"
        );
        shell(at.path(), &line)?;
        let index: Index = serde_json::from_slice(&std::fs::read(done.join("index.json"))?)?;
        Ok(std::fs::read(done.join("blobs/sha256").join(index.manifests[0].digest.hex()))?)
    };
    let entry = |bytes: &[u8], platform: &str| -> Result<Descriptor> {
        Ok(Descriptor { platform: Some(platform.parse()?), ..Descriptor::of(bytes, media::MANIFEST) })
    };
    let manifests = vec![entry(&small("one")?, "linux/amd64")?, entry(&small("two")?, "linux/arm64/v8")?];
    let index = Index { schema_version: 2, media_type: Some(media::INDEX.to_owned()), manifests };
    std::fs::write(at.path().join("index"), serde_json::to_vec(&index)?)?;
    let put = format!(
        "curl -sSf -X PUT -H 'Content-Type: {}' --data-binary @index http://{host}/v2/multi/manifests/all",
        media::INDEX
    );
    shell(at.path(), &put)?;
    let store = new_store(at.path(), "store")?;
    for (platform, expected) in [("linux/arm64", "two"), ("linux/amd64", "one")] {
        let settings = Settings { platform: platform.parse()?, ..Settings::default() };
        let pulled = pull(settings, &store, &format!("{host}/multi:all"), &Arc::default())?;
        let tree = store.trees(&pulled.image).remove(0);
        ensure!(
            std::fs::read_to_string(tree.join("arch"))? == expected
                && pulled.changed
                && pulled.image.index.is_some()
        );
    }
    let settings = Settings { platform: "linux/s390x".parse()?, ..Settings::default() };
    let error =
        pull(settings, &store, &format!("{host}/multi:all"), &Arc::default()).err().context("no such")?;
    ensure!(error.to_string().contains("linux/arm64/v8"), "{error}");
    whole(&store)
}

fn what_is_not_there_is_said() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let store = new_store(at.path(), "store")?;
    let settings = Settings { attempts: 2, ..Settings::default() };
    let hex = "0".repeat(64);
    for name in ["team/sample:v9", "nobody:x", &format!("team/sample@sha256:{hex}")] {
        let name = format!("{}/{name}", server.host());
        let error = pull(settings.clone(), &store, &name, &Arc::default())
            .err()
            .context("no such image")?
            .to_string();
        ensure!(error.contains("pull the manifest of") && error.contains("nknown"), "{error}");
    }
    let error =
        pull(settings, &store, "127.0.0.1:1/x", &Arc::default()).err().context("no registry")?.to_string();
    ensure!(error.contains("log in at 127.0.0.1:1") && error.contains("refused"), "{error}");
    Ok(())
}

fn a_pushed_image_is_read_by_skopeo() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let host = server.host();
    let store = new_store(at.path(), "store")?;
    let pulled = pull(Settings::default(), &store, &format!("{host}/team/sample:v1"), &Arc::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let other = tempfile::tempdir()?;
    let target = Server::start(other.path(), None)?;
    let name: Reference = format!("{}/copy/of:v2", target.host()).parse()?;
    for round in 0..2 {
        let events = Arc::new(Events::default());
        let (store, image, name, told) = (store.clone(), pulled.image.clone(), name.clone(), events.clone());
        let push = async move { Registry::default().push(&store, &image, &name, told).await };
        let digest = runtime.block_on(async { tokio::spawn(push).await })??;
        ensure!(digest == pulled.image.manifest.digest);
        let present = events.count(|e| matches!(e, Event::Present(_)));
        ensure!(present == round * 4, "{present}");
    }
    let said = shell(
        at.path(),
        &format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{name}"),
    )?;
    ensure!(said.trim() == pulled.image.manifest.digest.to_string(), "{said}");
    shell(at.path(), &format!("skopeo copy -q --src-tls-verify=false docker://{name} oci:back:v2")).map(drop)
}

fn a_dropped_pull_leaves_only_what_can_be_resumed() -> Result<()> {
    let at = tempfile::tempdir()?;
    let server = serve(at.path(), "gzip")?;
    let store = new_store(at.path(), "store")?;
    let name: Reference = format!("{}/team/sample:v1", server.host()).parse()?;
    struct Tell(std::sync::mpsc::Sender<()>);
    impl Progress for Tell {
        fn event(&self, event: Event) {
            if matches!(event, Event::Transferred { .. }) {
                let _ = self.0.send(());
            }
        }
    }
    let (tell, told) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (to, from) = (store.clone(), name.clone());
    let task = runtime
        .spawn(async move { Registry::default().pull(&to, &from, Arc::new(Tell(tell))).await.map(drop) });
    told.recv()?;
    task.abort();
    // Ends when all threads that unpack have noticed.
    drop(runtime);
    ensure!(store.list()?.is_empty() && store.disk_usage()?.layers == 0);
    whole(&store)?;
    store.prune()?;
    ensure!(store.disk_usage()?.partial_bytes == 0);
    pull(Settings::default(), &store, &name.to_string(), &Arc::default()).map(drop)
}
