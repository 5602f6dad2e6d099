//! What is built once and kept: root filesystems, unpacked packages, the VM's image.
//!
//! An entry is a folder under [`root`]. It is built in a folder beside it and renamed when it is complete, so that an
//! interrupted build leaves nothing that looks ready; a lock lets two processes that want the same entry build it once.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

/// The folder of all entries: `$XDG_CACHE_HOME/croft`, or `~/.cache/croft`.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("no cache folder: HOME is not set")?)
            .join(".cache"),
    };
    let root = base.join("croft");
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    Ok(root)
}

/// A folder in the cache, and the text from which it follows: another recipe means another build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The folder's name under [`root`].
    pub name: String,
    /// Everything that decides the content: suites, package lists, scripts.
    pub recipe: String,
}

impl Entry {
    /// An entry whose name carries its recipe's hash, for content that changes with the sources: two checkouts
    /// with different recipes then keep one each instead of rebuilding each other's.
    pub fn by_hash(name: &str, recipe: String) -> Entry {
        Entry { name: format!("{name}-{:016x}", fnv1a(recipe.as_bytes())), recipe }
    }

    /// The entry's folder, built by `build` in the folder it is given when it is missing or of another recipe.
    ///
    /// `build` gets two paths: where to build, and where that will be afterwards.
    pub fn ready(&self, build: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
        self.ready_in(&root()?, build)
    }

    fn ready_in(&self, root: &Path, build: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
        let (folder, stamp) = (root.join(&self.name), root.join(format!(".{}.recipe", self.name)));
        if self.is_ready(&folder, &stamp) {
            return Ok(folder);
        }
        let lock_path = root.join(format!(".{}.lock", self.name));
        let lock = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("lock {}", lock_path.display()))?;
        if self.is_ready(&folder, &stamp) {
            return Ok(folder);
        }
        let new = root.join(format!(".{}.new", self.name));
        remove_tree(&new)?;
        fs::create_dir(&new).with_context(|| format!("create {}", new.display()))?;
        if let Err(error) = build(&new, &folder) {
            remove_tree(&new)?;
            return Err(error.context(format!("build {}", folder.display())));
        }
        match fs::remove_file(&stamp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                bail!("remove {}: {error}", stamp.display())
            }
            _ => {}
        }
        remove_tree(&folder)?;
        fs::rename(&new, &folder)
            .with_context(|| format!("rename {} to {}", new.display(), folder.display()))?;
        fs::write(&stamp, &self.recipe).with_context(|| format!("write {}", stamp.display()))?;
        Ok(folder)
    }

    fn is_ready(&self, folder: &Path, stamp: &Path) -> bool {
        folder.is_dir() && fs::read_to_string(stamp).is_ok_and(|recipe| recipe == self.recipe)
    }
}

/// Removes all but the `keep` youngest entries made by [`Entry::by_hash`] under `name`.
pub fn prune(name: &str, keep: usize) -> Result<()> {
    prune_in(&root()?, name, keep)
}

fn prune_in(root: &Path, name: &str, keep: usize) -> Result<()> {
    let mut stamps = Vec::new();
    for item in fs::read_dir(root).with_context(|| format!("read {}", root.display()))? {
        let item = item.with_context(|| format!("read {}", root.display()))?;
        let file_name = item.file_name();
        let Some(entry) = file_name.to_str().and_then(|file| file.strip_prefix('.')?.strip_suffix(".recipe"))
        else {
            continue;
        };
        let hash = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        if hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            stamps.push((item.metadata()?.modified()?, item.path(), root.join(entry)));
        }
    }
    stamps.sort();
    stamps.reverse();
    for (_, stamp, folder) in stamps.into_iter().skip(keep) {
        fs::remove_file(&stamp).with_context(|| format!("remove {}", stamp.display()))?;
        remove_tree(&folder)?;
    }
    Ok(())
}

/// Removes a folder and what is in it; one that is not there is as good as removed.
///
/// # Errors
/// Refuses while something is mounted below the folder: removing would reach into what is mounted.
pub fn remove_tree(folder: &Path) -> Result<()> {
    if folder.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let mounts = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let real = folder.canonicalize().with_context(|| format!("resolve {}", folder.display()))?;
    for mount in mounts.split(|byte| *byte == b'\n') {
        let point = mount.split(|byte| *byte == b' ').nth(4).unwrap_or_default();
        if Path::new(std::ffi::OsStr::from_bytes(point)).starts_with(&real) {
            bail!("remove {}: {} is mounted", folder.display(), String::from_utf8_lossy(point));
        }
    }
    let mut rm = Command::new("rm");
    rm.args(["-rf", "--one-file-system", "--"]).arg(folder);
    process::run(&mut rm, Duration::from_secs(300))?.success().map(drop)
}

/// FNV-1a, 64 bits: a name for a recipe that is the same in every build of this program (std promises no such thing).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_gives_the_published_values() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    fn entry(recipe: &str) -> Entry {
        Entry { name: "thing".into(), recipe: recipe.into() }
    }

    fn content(folder: &Path) -> String {
        fs::read_to_string(folder.join("content")).unwrap()
    }

    #[test]
    fn an_entry_is_built_once_and_again_for_another_recipe_or_when_gone() {
        let root = tempfile::tempdir().unwrap();
        let mut builds = 0;
        let mut ready = |recipe: &str| {
            let built = entry(recipe).ready_in(root.path(), |new, folder| {
                builds += 1;
                assert_eq!(folder, root.path().join("thing"));
                Ok(fs::write(new.join("content"), format!("{recipe} {builds}"))?)
            });
            built.unwrap()
        };
        assert_eq!(content(&ready("a")), "a 1");
        assert_eq!(content(&ready("a")), "a 1");
        assert_eq!(content(&ready("b")), "b 2");
        fs::remove_dir_all(root.path().join("thing")).unwrap();
        assert_eq!(content(&ready("b")), "b 3");
    }

    #[test]
    fn a_failed_build_leaves_nothing_and_the_next_one_works() {
        let root = tempfile::tempdir().unwrap();
        let failed = entry("a").ready_in(root.path(), |new, _| {
            fs::write(new.join("content"), "half")?;
            bail!("no network")
        });
        assert_eq!(failed.unwrap_err().root_cause().to_string(), "no network");
        assert!(!root.path().join("thing").exists() && !root.path().join(".thing.new").exists());
        let folder =
            entry("a").ready_in(root.path(), |new, _| Ok(fs::write(new.join("content"), "whole")?)).unwrap();
        assert_eq!(content(&folder), "whole");
    }

    #[test]
    fn prune_keeps_the_youngest_and_what_is_not_its_own() {
        let root = tempfile::tempdir().unwrap();
        let make = |entry: &Entry| entry.ready_in(root.path(), |_, _| Ok(())).unwrap();
        let other = make(&Entry { name: "vm-tools".into(), recipe: "x".into() });
        let made = ["1", "2", "3"].map(|recipe| {
            let folder = make(&Entry::by_hash("vm", recipe.into()));
            let stamp =
                root.path().join(format!(".{}.recipe", folder.file_name().unwrap().to_string_lossy()));
            let age = Duration::from_secs(10 - recipe.parse::<u64>().unwrap());
            File::options()
                .write(true)
                .open(stamp)
                .unwrap()
                .set_modified(std::time::SystemTime::now() - age)
                .unwrap();
            folder
        });
        prune_in(root.path(), "vm", 2).unwrap();
        assert_eq!(made.map(|folder| folder.exists()), [false, true, true]);
        assert!(other.exists());
    }

    #[test]
    fn a_tree_with_a_mount_below_is_not_removed() {
        let error = remove_tree(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("is mounted"), "{error}");
    }
}
