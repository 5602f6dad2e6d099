//! Programs of another Debian suite, unpacked apart from the machine and made to run from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Bootstrap, Variant, ensure_packages};
use crate::cache::Entry;
use crate::process;

/// Rewriting one program's header is quick; more means that something hangs.
const PATCH_LIMIT: Duration = Duration::from_secs(60);

/// Packages of a suite, with all that they depend on, in a cached folder.
#[derive(Debug, Clone, Copy)]
pub struct Prefix<'a> {
    /// The folder's name in the cache.
    pub name: &'a str,
    /// The suite, as in [`Bootstrap::suite`].
    pub suite: &'a str,
    /// The packages.
    pub packages: &'a [&'a str],
    /// Programs in the folder, as `usr/bin/NAME`, that shall run on this machine: see [`rehome`].
    pub programs: &'a [&'a str],
}

impl Prefix<'_> {
    /// The folder, fetched and unpacked when it is not there.
    pub fn ready(&self) -> Result<PathBuf> {
        let bootstrap = Bootstrap { suite: self.suite, variant: Variant::Unpacked, packages: self.packages };
        let recipe = format!("{}programs {}\n", bootstrap.recipe(), self.programs.join(" "));
        Entry { name: self.name.to_owned(), recipe }.ready(|new, folder| {
            bootstrap.unpack_into(new)?;
            self.programs.iter().try_for_each(|program| rehome(&new.join(program), new, folder))
        })
    }
}

/// The folder `~/.cache/croft/NAME` with packages of a suite and all that they depend on, unpacked.
pub fn private_prefix(name: &str, suite: &str, packages: &[&str]) -> Result<PathBuf> {
    Prefix { name, suite, packages, programs: &[] }.ready()
}

/// Makes a dynamic program use the loader and the libraries of the tree it came with.
///
/// `tree` is where those are now, `home` where they will be when the program runs. Starting the program through its
/// loader would do as well, but then /proc/self/exe is the loader, which breaks runc.
pub fn rehome(program: &Path, tree: &Path, home: &Path) -> Result<()> {
    ensure_packages(&["patchelf"])?;
    let mut patchelf = Command::new("patchelf");
    patchelf.arg("--print-interpreter").arg(program);
    let loader = process::run(&mut patchelf, PATCH_LIMIT)?.success()?.stdout;
    let loader = loader.trim().trim_start_matches('/');
    let mut loaders = [loader.to_owned(), format!("usr/{loader}")].into_iter();
    let Some(loader) = loaders.find(|loader| tree.join(loader).exists()) else {
        bail!("rehome {}: {} has no {loader}", program.display(), tree.display());
    };
    let mut libraries = Vec::new();
    for folder in ["usr/lib", "lib"] {
        for item in fs::read_dir(tree.join(folder)).into_iter().flatten() {
            let name = item.with_context(|| format!("read {}", tree.join(folder).display()))?.file_name();
            if name.to_string_lossy().contains("-linux-gnu") {
                libraries.push(home.join(folder).join(name).to_string_lossy().into_owned());
            }
        }
    }
    // DT_RPATH, not DT_RUNPATH: the libraries' own libraries come from the tree as well.
    let mut patchelf = Command::new("patchelf");
    patchelf.arg("--set-interpreter").arg(home.join(loader));
    patchelf.args(["--force-rpath", "--set-rpath"]).arg(libraries.join(":")).arg(program);
    process::run(&mut patchelf, PATCH_LIMIT)?.success().map(drop)
}

/// The runtimes that croft-oci is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// The newest runc that Debian has.
    pub runc: PathBuf,
    /// The newest crun that Debian has.
    pub crun: PathBuf,
}

/// The newest runc and crun that Debian has, as `~/.cache/croft/peers/{runc,crun}`.
pub fn peers() -> Result<Peers> {
    let bootstrap = Bootstrap { suite: "sid", variant: Variant::Unpacked, packages: &["runc", "crun"] };
    let folder = Entry { name: "peers".into(), recipe: bootstrap.recipe() }.ready(|new, folder| {
        let tree = new.join("root");
        bootstrap.unpack_into(&tree)?;
        for name in ["runc", "crun"] {
            let (program, from) = (new.join(name), tree.join("usr/bin").join(name));
            fs::copy(&from, &program).with_context(|| format!("copy {}", from.display()))?;
            rehome(&program, &tree, &folder.join("root"))?;
        }
        Ok(())
    })?;
    Ok(Peers { runc: folder.join("runc"), crun: folder.join("crun") })
}
