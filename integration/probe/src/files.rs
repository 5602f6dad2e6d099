//! Files: their text, kinds and modes, and whether they can be used.
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Map, Value, json};

/// A file's text without blanks around it.
pub fn text(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim_end_matches(['\n', '\0']).trim().to_owned())
}

/// A file's lines, each with single blanks.
pub fn lines(path: &str) -> io::Result<Vec<String>> {
    let single = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(fs::read_to_string(path)?.lines().map(single).collect())
}

/// The links of a folder and where they lead. The fd that reads the folder is left out: it is closed afterwards.
pub fn links(folder: &str) -> io::Result<Value> {
    let names: Vec<_> = fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
    let mut links = Map::new();
    for path in names {
        if let Ok(target) = fs::read_link(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            links.insert(name, target.display().to_string().into());
        }
    }
    Ok(links.into())
}

/// Everything under /dev, by path: nodes with their numbers, links with their targets. Not what is mounted below.
pub fn devices() -> io::Result<Value> {
    let mut found = Map::new();
    let home = fs::metadata("/dev")?.dev();
    walk(Path::new("/dev"), home, &mut found)?;
    Ok(found.into())
}

fn walk(folder: &Path, device: u64, found: &mut Map<String, Value>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let text = path.display().to_string();
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() && meta.dev() == device {
            walk(&path, device, found)?;
        }
        found.insert(text.clone(), describe(&text)?);
    }
    Ok(())
}

/// A file's kind, mode, owner and numbers, where it leads if it is a link, and whether it can be read and written.
pub fn describe(path: &str) -> io::Result<Value> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let kinds = [
        (kind.is_dir(), "folder"),
        (kind.is_file(), "file"),
        (kind.is_symlink(), "link"),
        (kind.is_char_device(), "character device"),
        (kind.is_block_device(), "block device"),
        (kind.is_fifo(), "fifo"),
        (kind.is_socket(), "socket"),
    ];
    let kind = kinds.iter().find(|(is, _)| *is).map_or("unknown", |(_, name)| *name);
    let mut seen = json!({
        "kind": kind,
        "mode": format!("{:04o}", meta.mode() & 0o7777),
        "uid": meta.uid(),
        "gid": meta.gid(),
        "size": meta.size(),
        "inode": meta.ino(),
    });
    match kind {
        "link" => seen["target"] = fs::read_link(path)?.display().to_string().into(),
        "character device" | "block device" => {
            seen["major"] = rustix::fs::major(meta.rdev()).into();
            seen["minor"] = rustix::fs::minor(meta.rdev()).into();
        }
        "file" => seen["read"] = outcome(read_a_little(path)),
        "folder" => {
            seen["entries"] = fs::read_dir(path).map_or(Value::Null, |entries| entries.count().into());
            seen["write"] = outcome(make_and_remove(path));
        }
        _ => {}
    }
    if kind == "file" {
        seen["write"] = outcome(fs::OpenOptions::new().append(true).open(path).map(|_| "ok".to_owned()));
    }
    Ok(seen)
}

/// The first 200 bytes that can be read.
fn read_a_little(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(200).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn make_and_remove(folder: &str) -> io::Result<String> {
    let path = format!("{folder}/.croft-probe-{}", std::process::id());
    fs::write(&path, "")?;
    fs::remove_file(&path)?;
    Ok("ok".to_owned())
}

fn outcome(tried: io::Result<String>) -> Value {
    match tried {
        Ok(text) => text.into(),
        Err(e) => json!({ "error": e.to_string() }),
    }
}
