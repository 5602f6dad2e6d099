//! SIGKILL at any moment: what a store then holds is whole, and the next who opens it finds no leftovers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_images::store::Store;
use croft_images::{gc, import};

use crate::sample::{self, Merged};
use crate::{Test, tree};

pub const TESTS: &[Test] =
    &[("a_killed_import_is_never_half_there", &[], a_killed_import_is_never_half_there)];

/// With this in its environment the test program only imports, tags, mounts nothing, and ends: to be killed.
pub const VICTIM: &str = "CROFT_IMAGES_VICTIM";

/// What the victim does, in the folder `at`: import, another name, a snapshot, and everything back. It says when each step is done.
pub fn victim(at: &Path) -> Result<()> {
    let done = || std::io::stdout().write_all(b".").and_then(|()| std::io::stdout().flush());
    let store = Arc::new(Store::open(&at.join("store"))?);
    let source = File::open(at.join("image.tar"))?;
    let image = import::archive(&store, source, &import::Options::default())?.remove(0);
    done()?;
    store.tag(&image, &"other:v1".parse()?)?;
    store.create_snapshot("victim", &image)?;
    done()?;
    store.remove(&image.reference)?;
    done()?;
    store.remove_snapshot("victim")?;
    done()?;
    store.remove(&"other:v1".parse()?)?;
    store.prune()?;
    done()?;
    Ok(())
}

/// The steps of the victim.
const STEPS: u32 = 5;

fn start(at: &Path) -> Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(VICTIM, at).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("start the victim")
}

fn a_killed_import_is_never_half_there() -> Result<()> {
    let at = tempfile::tempdir()?;
    let layout = sample::layout(at.path(), "gzip")?;
    let whole = {
        let store = Arc::new(Store::open(&at.path().join("whole"))?);
        let options = import::Options { reference: Some("sample:v1".parse()?), ..import::Options::default() };
        let image = import::layout(&store, &layout, &options)?.remove(0);
        croft_images::export::archive(
            &store,
            std::slice::from_ref(&image),
            File::create(at.path().join("image.tar"))?,
        )?;
        tree::read(&Merged::of(&store.trees(&image))?.root())?
    };
    let clock = Instant::now();
    let undisturbed = start(at.path())?.wait_with_output()?;
    ensure!(undisturbed.status.success() && undisturbed.stdout.len() == STEPS as usize, "{undisturbed:?}");
    let span = clock.elapsed();
    // What was found after a kill, counted: the kills have to hit different moments for this to say anything.
    let mut found: BTreeMap<(usize, u64, usize), usize> = BTreeMap::new();
    const ROUNDS: u32 = 30;
    for round in 0..ROUNDS {
        let mut child = start(at.path())?;
        let step = round % STEPS;
        let mut said = child.stdout.take().context("its output")?;
        said.read_exact(&mut vec![0; step as usize]).context("the steps before")?;
        // Moments spread over the step, the first of which takes nearly all of the time; not a wait for anything.
        let length = if step == 0 { span } else { Duration::from_millis(6) };
        std::thread::sleep(length * (round / STEPS) / (ROUNDS / STEPS));
        child.kill()?;
        child.wait()?;
        let store = Store::open(&at.path().join("store"))?;
        let leftovers = std::fs::read_dir(store.root().join("tmp"))?.count();
        ensure!(leftovers == 0, "round {round}: {leftovers} leftovers");
        let faults = store.check(gc::Depth::Content)?;
        ensure!(faults.is_empty(), "round {round}: {faults:?}");
        let (images, snapshots) = (store.list()?, store.snapshots()?);
        for image in &images {
            let merged = Merged::of(&store.trees(image))?;
            tree::compare(&tree::read(&merged.root())?, &whole).with_context(|| format!("round {round}"))?;
        }
        *found.entry((images.len(), store.disk_usage()?.layers, snapshots.len())).or_default() += 1;
        if step != 0 {
            // Begin anew, else all rounds would find what the first left; what an import left is gone on with.
            for image in images {
                store.remove(&image.reference)?;
            }
            snapshots.iter().try_for_each(|(snapshot, _)| store.remove_snapshot(&snapshot.id))?;
            store.prune()?;
            let usage = store.disk_usage()?;
            ensure!(usage.blobs + usage.layers + usage.images == 0, "round {round}: {usage:?}");
        } else if !snapshots.is_empty() {
            store.remove_snapshot("victim")?;
        }
    }
    ensure!(found.len() >= 3, "the kills hit too few different moments: {found:?}");
    Ok(())
}
