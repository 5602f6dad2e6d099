//! New images: of what a container changed, and of Debian's packages.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

use flate2::write::GzEncoder;

use crate::error::{Context, Error, Result};
use crate::import::{self, finish};
use crate::layer::Limits;
use crate::manifest::{Defaults, Descriptor, History};
use crate::pack::pack;
use crate::reference::Reference;
use crate::store::{Image, Incoming, Keep, Origin, Source, Store};

/// What [`commit`] says of the new image.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// When it is made: RFC 3339.
    pub created: Option<String>,
    /// Who makes it.
    pub author: Option<String>,
    /// A remark.
    pub comment: Option<String>,
    /// What containers of it run; what those of the container's own image run without it.
    pub defaults: Option<Defaults>,
}

/// Makes an image of the container `id`'s image and what it changed. The container should be paused, or stopped.
///
/// A file of the image with several names, changed under one of them, is changed under that name alone in the new image: the
/// others are not among what the container changed (overlayfs keeps their link in its index). Docker does the same.
pub fn commit(store: &Arc<Store>, id: &str, reference: &Reference, about: Commit) -> Result<Image> {
    let snapshot = store.snapshot(id)?;
    let incoming = Incoming::new(store)?;
    let changes = store.changes(id)?;
    let upper = croft_sys::path::open_path(croft_sys::fs::CWD, &changes)
        .map_err(|e| Error::file("open", &changes, e))?;
    let tmp = store.tmp();
    let packed = tempfile::tempfile_in(&tmp).on_file("make a file in", &tmp)?;
    let encoder = GzEncoder::new(std::io::BufWriter::new(&packed), flate2::Compression::default());
    let encoder = pack(upper.as_fd(), encoder)?;
    encoder.finish().and_then(|mut file| std::io::Write::flush(&mut file)).on_file("write", &tmp)?;
    std::io::Seek::rewind(&mut &packed).on_file("read", &tmp)?;
    // What a container wrote has no limit but the disk.
    let staged = incoming.unpack(&packed, &Limits::NONE, Keep::Blob)?;
    let base: crate::manifest::Manifest = serde_json::from_slice(&store.document(&snapshot.manifest)?)
        .map_err(|e| Error::malformed("manifest", e))?;
    let mut config = crate::manifest::Config::parse(&store.document(&snapshot.config)?, base.layers.len())?;
    let Commit { created, author, comment, defaults } = about;
    config.created.clone_from(&created);
    config.config = defaults.unwrap_or(config.config);
    config.rootfs.diff_ids.push(staged.unpacked.diff_id);
    // An image may tell nothing of its layers; the new step has to stand beside the new layer all the same.
    let told = config.history.iter().filter(|step| !step.empty_layer).count();
    config.history.extend((told..base.layers.len()).map(|_| History::default()));
    config.history.push(History { created, author, comment, ..History::default() });
    let layer = &staged.unpacked;
    let layer = Descriptor::new(layer.digest, layer.size, layer.compression.media_type());
    let mut sources: Vec<Source> = base.layers.iter().map(|_| Source::Stored).collect();
    sources.push(Source::Staged(staged));
    let layers = base.layers.into_iter().chain([layer]).collect();
    finish(incoming, &config, layers, sources, (reference, Origin::Committed))
}

/// A Debian to make with mmdebstrap(1).
#[derive(Debug, Clone)]
pub struct Debian {
    /// `trixie`, `bookworm`...
    pub suite: String,
    /// mmdebstrap's variant: `minbase`, `essential`, `apt`...
    pub variant: String,
    /// More packages.
    pub packages: Vec<String>,
    /// Where from; empty for mmdebstrap's own choice. As in sources.list(5), or a mirror's address.
    pub mirrors: Vec<String>,
    /// More arguments, such as `--aptopt=...`.
    pub arguments: Vec<String>,
}

/// Makes an image of Debian's packages. Takes minutes, and the network.
pub fn debian(
    store: &Arc<Store>,
    what: &Debian,
    reference: &Reference,
    options: &import::Options,
) -> Result<Image> {
    let words = [&what.suite, &what.variant].into_iter().chain(&what.packages).chain(&what.mirrors);
    if let Some(word) =
        words.clone().find(|word| word.starts_with('-') || word.is_empty() || word.contains('\0'))
    {
        let why =
            "a suite, variant, package or mirror has letters, no zero byte, and no dash at its beginning";
        return Err(Error::Refused { what: format!("{word:?}"), why: why.to_owned() });
    }
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--format=tar", "--mode=root"]).arg(format!("--variant={}", what.variant));
    if !what.packages.is_empty() {
        command.arg(format!("--include={}", what.packages.join(",")));
    }
    command.args(&what.arguments).arg(&what.suite).arg("-").args(&what.mirrors);
    let failed = |why: String| Error::Program { program: "mmdebstrap".to_owned(), why };
    let tmp = store.tmp();
    // Into a file: what it says may be more than a pipe holds, and is wanted only when it fails.
    let errors = tempfile::tempfile_in(&tmp).on_file("make a file in", &tmp)?;
    let copy = errors.try_clone().on_file("open a file in", &tmp)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(copy));
    let mut child = command.spawn().map_err(|e| failed(format!("{e}: install the package mmdebstrap")))?;
    let output = child.stdout.take().ok_or_else(|| failed("no output".to_owned()))?;
    let incoming = Incoming::new(store)?;
    let staged = incoming.unpack(output, &options.limits, Keep::Blob);
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    let staged = match staged {
        // Nobody read to its end then, and that is why it failed too.
        Err(full) if full.is_full() => return Err(full),
        other => other,
    };
    if !status.success() {
        let said = std::io::Seek::rewind(&mut &errors).and_then(|()| std::io::read_to_string(&errors));
        let said = said.unwrap_or_default();
        let tail: Vec<&str> = said.lines().rev().take(5).collect();
        return Err(failed(format!("{status}: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" | "))));
    }
    let mut config = crate::manifest::Config::empty(None);
    config.platform = options.platform.clone();
    config.config.cmd = vec!["/bin/bash".to_owned()];
    import::single_layer(incoming, staged?, config, reference, (Origin::Built, "mmdebstrap"))
}
