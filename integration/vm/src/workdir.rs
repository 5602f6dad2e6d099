//! The folder with a running machine's sockets and logs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

const PREFIX: &str = "croft-vm-";
const LOCK: &str = "lock";

/// A folder that goes when this value goes; when its process is killed instead, the next machine's start removes it.
#[derive(Debug)]
pub(crate) struct Workdir {
    folder: TempDir,
    /// Held for as long as the folder is in use.
    _lock: File,
}

impl Workdir {
    pub fn new() -> Result<Workdir> {
        Workdir::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> Result<Workdir> {
        remove_abandoned(parent)?;
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
        let folder = folder.with_context(|| format!("create a folder in {}", parent.display()))?;
        // Locked before it has the name that `remove_abandoned` looks for.
        let unnamed = folder.path().join("lock.new");
        let lock = File::create(&unnamed).with_context(|| format!("create {}", unnamed.display()))?;
        lock.lock().with_context(|| format!("lock {}", unnamed.display()))?;
        fs::rename(&unnamed, folder.path().join(LOCK))
            .with_context(|| format!("rename {}", unnamed.display()))?;
        Ok(Workdir { folder, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders whose machine's process is gone.
fn remove_abandoned(parent: &Path) -> Result<()> {
    for item in fs::read_dir(parent).with_context(|| format!("read {}", parent.display()))? {
        let folder: PathBuf = item.with_context(|| format!("read {}", parent.display()))?.path();
        if !folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            continue;
        }
        // Several may be at this at once: what fails here is being removed by another, or is not ours.
        if let Ok(lock) = File::open(folder.join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(&folder);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_stays_and_an_abandoned_one_goes() {
        let parent = tempfile::tempdir().unwrap();
        let used = Workdir::new_in(parent.path()).unwrap();
        let mut abandoned = Workdir::new_in(parent.path()).unwrap();
        abandoned.folder.disable_cleanup(true);
        let left = abandoned.path().to_owned();
        drop(abandoned);
        assert!(left.exists());
        let third = Workdir::new_in(parent.path()).unwrap();
        assert!(!left.exists() && used.path().exists() && third.path().exists());
        let path = third.path().to_owned();
        drop(third);
        assert!(!path.exists());
    }
}
