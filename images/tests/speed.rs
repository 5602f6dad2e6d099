//! How long an image of Debian takes from a registry to a root filesystem, against skopeo and umoci. Only when asked for: `--ignored`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use croft_images::import;
use croft_images::registry::Settings;
use croft_images::store::Store;

use crate::Test;
use crate::pull::pull;
use crate::registry::Registry as Server;
use crate::sample::{self, run, shell};

pub const TESTS: &[Test] = &[(
    "debian_is_twice_as_fast_as_skopeo_and_umoci",
    &["docker-registry", "skopeo", "umoci"],
    debian_is_twice_as_fast_as_skopeo_and_umoci,
)];

/// The quickest of three: what disturbs only ever slows down.
fn quickest(mut once: impl FnMut(u32) -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for round in 0..3 {
        run(&mut Command::new("sync"))?;
        let clock = Instant::now();
        once(round)?;
        best = best.min(clock.elapsed());
    }
    Ok(best)
}

fn debian_is_twice_as_fast_as_skopeo_and_umoci() -> Result<()> {
    let rootfs = croft_harness::debian::rootfs("trixie")?;
    let at = tempfile::tempdir()?;
    let mut layout = sample::Layout::new(&at.path().join("layout"))?;
    layout.add(&rootfs, "gzip")?;
    layout.finish("v1")?;
    let server = Server::start(at.path(), None)?;
    let host = server.host();
    shell(
        at.path(),
        &format!("skopeo copy -q --dest-tls-verify=false oci:layout:v1 docker://{host}/debian:13"),
    )?;
    let store = |name: String| -> Result<Arc<Store>> { Ok(Arc::new(Store::open(&at.path().join(name))?)) };
    let name = format!("{host}/debian:13");
    let ours = quickest(|n| {
        pull(Settings::default(), &store(format!("pull-{n}"))?, &name, &Arc::default()).map(drop)
    })?;
    let theirs = quickest(|n| {
        let copy = format!("skopeo copy -q --src-tls-verify=false docker://{name} oci:copy-{n}:v1");
        shell(at.path(), &format!("{copy} && umoci --log=error unpack --image copy-{n}:v1 bundle-{n}"))
            .map(drop)
    })?;
    let options = import::Options { reference: Some("debian:13".parse()?), ..import::Options::default() };
    let layout: &Path = &at.path().join("layout");
    let from_layout = quickest(|n| {
        import::layout(&store(format!("import-{n}"))?, layout, &options).map(drop).map_err(Into::into)
    })?;
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    let files = shell(&rootfs, "find . | wc -l; du -sm . | cut -f1")?
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" files, ");
    println!(
        "{files} MB: pull {ours:?}, skopeo copy + umoci unpack {theirs:?}: {ratio:.2} x; import of a layout {from_layout:?}"
    );
    ensure!(ratio >= 2.0, "only {ratio:.2} x");
    Ok(())
}
