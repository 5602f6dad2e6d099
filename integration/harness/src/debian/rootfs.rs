//! Root filesystems for containers.

use std::path::PathBuf;

use anyhow::Result;

use super::{Bootstrap, Variant};
use crate::cache::Entry;

/// A minimal Debian root filesystem of a suite (`bookworm`, `trixie`), as `~/.cache/croft/rootfs-SUITE`.
///
/// The folder is shared by all who ask: mount it read-only or under an overlay, or copy it.
pub fn rootfs(suite: &str) -> Result<PathBuf> {
    let bootstrap = Bootstrap { suite, variant: Variant::Minimal, packages: &[] };
    let entry = Entry { name: format!("rootfs-{suite}"), recipe: bootstrap.recipe() };
    entry.ready(|new, _| bootstrap.unpack_into(new))
}
