//! Two folders, compared file by file: type, mode, owner, times, content, links, devices, extended attributes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use croft_images::Digest;

/// What is compared of each file, as text.
pub type Tree = BTreeMap<PathBuf, String>;

/// Reads the tree below `root`. Of a file with several names the first stands for the others.
pub fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    let mut all = Vec::new();
    while let Some(path) = todo.pop() {
        if path.symlink_metadata()?.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| format!("read {}", path.display()))? {
                todo.push(entry?.path());
            }
        }
        all.push(path);
    }
    all.sort();
    for path in all {
        let name = path.strip_prefix(root)?.to_owned();
        let data = path.symlink_metadata()?;
        let kind = data.file_type();
        let content = if kind.is_dir() {
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path)?.display())
        } else if kind.is_file() {
            let one = first.entry(data.ino()).or_insert_with(|| name.clone());
            format!(
                "file {} {} names={} first={}",
                data.len(),
                Digest::of(&fs::read(&path)?),
                data.nlink(),
                one.display()
            )
        } else if kind.is_fifo() {
            "pipe".to_owned()
        } else {
            format!("device {:x} block={}", data.rdev(), kind.is_block_device())
        };
        let time = format!("{}.{:09}", data.mtime(), data.mtime_nsec());
        let attributes = attributes(&path)?;
        let text = format!("{:o} {}:{} {time} {content} {attributes:?}", data.mode(), data.uid(), data.gid());
        tree.insert(name, text);
    }
    Ok(tree)
}

fn attributes(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0u8; 4096];
    let length = croft_sys::fs::llistxattr(path, &mut names[..])?;
    let mut found = BTreeMap::new();
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0u8; 4096];
        let length = croft_sys::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(length);
        found.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    Ok(found)
}

/// Fails with all differences between two trees.
pub fn compare(ours: &Tree, theirs: &Tree) -> Result<()> {
    let mut wrong = Vec::new();
    for name in ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name))) {
        let (a, b) = (ours.get(name), theirs.get(name));
        if a != b {
            wrong.push(format!("{}\n   ours:   {a:?}\n   theirs: {b:?}", name.display()));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let count = wrong.len();
    wrong.truncate(20);
    bail!("{count} files differ:\n{}", wrong.join("\n"))
}
