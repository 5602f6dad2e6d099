//! The cache gives back what was compiled, and nothing else.

use super::*;
use crate::seccomp::cache::{Folder, decode, encode, key};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;

fn small() -> LinuxSeccomp {
    profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ALLOW"}]}))
}

/// A folder that is not there yet, in one that goes away with the test.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("seccomp");
    (parent, folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A program that no compilation gives: what comes out of the cache can be told from it.
fn strange() -> Entry {
    Entry {
        program: vec![SockFilter { code: 0x06, jt: 0, jf: 0, k: 0x1234 }],
        warnings: vec!["strange".to_owned()],
    }
}

#[test]
fn what_is_found_is_used_with_its_warnings() {
    let (_parent, folder) = folder();
    let first = program(&small(), Some(&folder)).unwrap();
    assert_eq!(first, program(&small(), None).unwrap());
    let file = &files(&folder)[0];
    assert_eq!(files(&folder).len(), 1);
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    assert_eq!(program(&small(), Some(&folder)).unwrap(), first);
    fs::write(file, encode(&key(&small()), &strange())).unwrap();
    let second = program(&small(), Some(&folder)).unwrap();
    assert_eq!((second.program, second.warnings), (strange().program, strange().warnings));
}

#[test]
fn a_file_cut_short_or_changed_is_written_anew() {
    let (_parent, folder) = folder();
    let good = program(&small(), Some(&folder)).unwrap();
    let file = files(&folder)[0].clone();
    let whole = fs::read(&file).unwrap();
    for length in [0, 1, 8, 27, 28, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        assert_eq!(program(&small(), Some(&folder)).unwrap(), good, "{length}");
        assert_eq!(fs::read(&file).unwrap(), whole, "{length}");
    }
    for position in 0..whole.len() {
        let mut changed = whole.clone();
        changed[position] ^= 0x10;
        assert_eq!(decode(&changed, &key(&small())), None, "{position}");
    }
    let mut longer = whole.clone();
    longer.extend([0; 8]);
    assert_eq!(decode(&longer, &key(&small())), None);
}

#[test]
fn another_profile_under_the_same_name_is_not_taken() {
    let (_parent, folder) = folder();
    let good = program(&small(), Some(&folder)).unwrap();
    let other = profile(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    fs::write(&files(&folder)[0], encode(&key(&other), &strange())).unwrap();
    assert_eq!(program(&small(), Some(&folder)).unwrap(), good);
}

#[test]
fn the_key_holds_what_decides_the_program_and_no_more() {
    let base = json!({"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/a", "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let with = |field: &str, value: serde_json::Value| {
        let mut json = base.clone();
        json[field] = value;
        key(&profile(json))
    };
    let plain = key(&profile(base.clone()));
    assert_eq!(with("listenerPath", json!("/run/b")), plain);
    assert_eq!(with("listenerMetadata", json!("x")), plain);
    assert_eq!(with("flags", json!(["SECCOMP_FILTER_FLAG_LOG"])), plain);
    assert_ne!(with("listenerPath", json!(null)), plain);
    assert_ne!(with("architectures", json!(["SCMP_ARCH_X86"])), plain);
    assert_ne!(with("defaultErrnoRet", json!(2)), plain);
    assert_ne!(with("syscalls", json!([])), plain);
}

#[test]
fn a_folder_that_others_can_write_is_not_used() {
    let (parent, folder) = folder();
    let good = program(&small(), Some(&folder)).unwrap();
    let file = files(&folder)[0].clone();
    fs::write(&file, encode(&key(&small()), &strange())).unwrap();
    let unused = |path: &Path, words: &str| {
        let compiled = program(&small(), Some(path)).unwrap();
        assert_eq!(compiled.program, good.program);
        let warning = compiled.warnings.last().unwrap();
        assert!(warning.contains("is not used") && warning.contains(words), "{warning}");
    };
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
    unused(&folder, "mode 770");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let link = parent.path().join("link");
    symlink(&folder, &link).unwrap();
    unused(&link, "");
    unused(&file, "Not a directory");
    unused(&parent.path().join("a/b"), "No such file");
    if rustix::process::geteuid().is_root() {
        chown(&folder, Some(1000), None).unwrap();
        unused(&folder, "uid 1000");
        chown(&folder, Some(0), None).unwrap();
        // The folder is ours, and the file is not.
        chown(&file, Some(1000), None).unwrap();
        assert_eq!(program(&small(), Some(&folder)).unwrap(), good);
        assert_eq!(fs::metadata(&file).unwrap().uid(), 0);
    } else {
        skipped("seccomp: a cache of another user's", "not root");
    }
}

#[test]
fn what_is_not_a_file_is_not_read() {
    let (_parent, folder) = folder();
    let good = program(&small(), Some(&folder)).unwrap();
    let file = files(&folder)[0].clone();
    fs::remove_file(&file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    assert_eq!(program(&small(), Some(&folder)).unwrap(), good);
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
}

#[test]
fn a_folder_without_room_is_no_hindrance() {
    let (_parent, folder) = folder();
    let good = program(&small(), None).unwrap();
    fs::create_dir(&folder).unwrap();
    // A folder stands where the file should go.
    program(&small(), Some(&folder)).unwrap();
    let file = files(&folder)[0].clone();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let compiled = program(&small(), Some(&folder)).unwrap();
    assert_eq!(compiled.program, good.program);
    assert!(compiled.warnings.last().unwrap().contains("not kept"), "{:?}", compiled.warnings);
    assert_eq!(files(&folder), [file]);
}

#[test]
fn the_oldest_files_go() {
    let (_parent, path) = folder();
    let folder = Folder::open(&path).unwrap();
    for number in 0..70_u32 {
        folder.keep(&number.to_ne_bytes(), &strange()).unwrap();
    }
    assert_eq!(files(&path).len(), 64);
    assert_eq!(folder.find(&69_u32.to_ne_bytes()), Some(strange()));
}
