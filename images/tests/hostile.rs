//! Layers that mean harm or make no sense: each is refused or contained, and nothing outside of the root changes.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use croft_images::Error;
use croft_images::layer::Limits;
use croft_images::unpack::{Unpacked, settle, unpack};

use crate::{Test, tree};

pub const TESTS: &[Test] = &[
    ("the_corpus_is_contained", &[], the_corpus_is_contained),
    ("what_depends_on_lower_layers_is_settled_and_contained", &[], what_depends_on_lower_layers),
    ("limits_hold", &[], limits_hold),
    ("cut_archives_are_refused", &[], cut_archives_are_refused),
];

/// An archive in the making: fields are written as given, however wrong.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(self, name: &str, kind: u8, link: &str, content: &[u8]) -> Self {
        self.sized(name, kind, link, content, content.len() as u64)
    }

    fn sized(mut self, name: &str, kind: u8, link: &str, content: &[u8], size: u64) -> Self {
        let mut header = tar::Header::new_gnu();
        let fields = header.as_gnu_mut().expect("it was made so");
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(size);
        if kind == b'3' || kind == b'4' {
            let _ = header.set_device_major(1).and_then(|()| header.set_device_minor(3));
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(name, b'0', "", b"content")
    }

    fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', "", b"")
    }

    fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(name, b'2', to, b"")
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.entry(name, b'1', to, b"")
    }

    /// A PAX header before the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry("pax", b'x', "", &body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// What has to become of an archive.
enum Fate {
    Refused,
    /// Unpacked, and then this holds of the root.
    Taken(fn(&Path) -> bool),
}
use Fate::{Refused, Taken};

fn absent(root: &Path, name: &str) -> bool {
    root.join(name).symlink_metadata().is_err()
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.rdev() == 0 && data.mode() & libc_type() == 0o020000)
}

fn libc_type() -> u32 {
    0o170000
}

fn text(root: &Path, name: &str) -> Option<String> {
    fs::read_to_string(root.join(name)).ok()
}

/// Every archive may name `canary`, the path of a folder outside that must not change.
fn corpus(canary: &str) -> Vec<(&'static str, Tar, Fate)> {
    let t = Tar::default;
    let c = |name: &str| format!("{canary}/{name}");
    let relative = format!("../../../../../../../../..{canary}");
    vec![
        ("name with ..", t().file("../evil"), Refused),
        ("name with .. inside", t().file("a/../../evil"), Refused),
        ("name that is ..", t().dir(".."), Refused),
        ("absolute name", t().file(&c("evil")), Taken(|r| r.join("tmp").exists())),
        ("absolute link, file through it", t().symlink("d", canary).file("d/evil"), Refused),
        ("relative link, file through it", t().symlink("d", &relative).file("d/evil"), Refused),
        (
            "link to /, file through it",
            t().symlink("d", "/").file("d/etc-evil"),
            Taken(|r| r.join("etc-evil").is_file()),
        ),
        (
            "link over a folder, file through it",
            t().dir("d").file("d/x").symlink("d", canary).file("d/evil"),
            Refused,
        ),
        (
            "folder over that link",
            t().symlink("d", canary).dir("d").file("d/evil"),
            Taken(|r| r.join("d/evil").is_file()),
        ),
        (
            "file over a link",
            t().symlink("l", &c("victim")).file("l"),
            Taken(|r| text(r, "l").as_deref() == Some("content")),
        ),
        (
            "chain of links",
            t().symlink("a", "b").symlink("b", "c").symlink("c", canary).file("a/evil"),
            Refused,
        ),
        ("loop of links", t().symlink("a", "b").symlink("b", "a").file("a/evil"), Refused),
        ("hard link to an absolute name", t().link("h", &c("victim")), Taken(|r| absent(r, "h"))),
        ("hard link with ..", t().link("h", "../victim"), Refused),
        (
            "hard link through a link",
            t().symlink("d", canary).link("h", "d/victim"),
            Taken(|r| absent(r, "h")),
        ),
        (
            "hard link to a link, written through",
            t().symlink("l", &c("victim")).link("h", "l").file("h"),
            Taken(|r| text(r, "h").as_deref() == Some("content")),
        ),
        ("hard link to a folder", t().dir("d").link("h", "d"), Refused),
        ("hard link to the root", t().link("h", "/"), Refused),
        ("hard link to itself", t().link("h", "h"), Taken(|r| absent(r, "h"))),
        (
            "hard link before its target",
            t().link("h", "f").file("f"),
            Taken(|r| text(r, "h").as_deref() == Some("content")),
        ),
        ("hard link to a whiteout", t().file(".wh.f").link("h", ".wh.f"), Refused),
        ("link to nothing", t().symlink("l", ""), Refused),
        ("whiteout of ..", t().file("d/.wh..."), Refused),
        ("whiteout of .", t().file("d/.wh.."), Refused),
        ("whiteout of nothing", t().file("d/.wh."), Refused),
        ("whiteout through a link", t().symlink("d", canary).file("d/.wh.victim"), Refused),
        ("opaque through a link", t().symlink("d", canary).file("d/.wh..wh..opq"), Refused),
        ("file below a whiteout", t().file(".wh.d/evil"), Refused),
        ("whiteout, then the file", t().file(".wh.f").file("f"), Taken(|r| text(r, "f").is_some())),
        ("file, then its whiteout", t().file("f").file(".wh.f"), Taken(|r| text(r, "f").is_some())),
        (
            "whiteout alone",
            t().file("d/.wh.f"),
            Taken(|r| is_whiteout(&r.join("d/f")) && absent(r, "d/.wh.f")),
        ),
        (
            "aufs leftovers",
            t().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2"),
            Taken(|r| absent(r, ".wh..wh.plnk")),
        ),
        (
            "duplicates",
            t().file("f").entry("f", b'0', "", b"second"),
            Taken(|r| text(r, "f").as_deref() == Some("second")),
        ),
        ("file over a full folder", t().file("d/e/f").file("d"), Taken(|r| r.join("d").is_file())),
        ("file below a file", t().file("f").file("f/g"), Refused),
        ("folder below a pipe", t().entry("p", b'6', "", b"").file("p/g"), Refused),
        ("root that is a file", t().file("./"), Taken(|r| r.is_dir())),
        ("root that is a link", t().symlink("./", canary), Refused),
        ("root removed", t().file(".wh..wh..opq"), Taken(|r| r.is_dir())),
        (
            "device that a link stands for",
            t().symlink("n", &c("victim")).entry("n", b'3', "", b""),
            Taken(|r| r.join("n").symlink_metadata().is_ok_and(|d| d.rdev() == 0x103)),
        ),
        ("unknown type", t().entry("x", b'Z', "", b""), Refused),
        ("long name", t().pax(&[("path", "x".repeat(300).as_bytes())]).file("y"), Refused),
        ("name with NUL", t().pax(&[("path", b"a\0b")]).file("y"), Refused),
        (".. in a PAX name", t().pax(&[("path", b"../evil")]).file("y"), Refused),
        (".. in a PAX link", t().pax(&[("linkpath", b"../victim")]).link("h", "x"), Refused),
        (
            "overlay's attributes",
            t().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), ("SCHILY.xattr.user.ok", b"1")])
                .dir("d"),
            Taken(|r| {
                croft_sys::fs::getxattr(r.join("d"), "trusted.overlay.redirect", &mut [0u8; 64]).is_err()
                    && croft_sys::fs::getxattr(r.join("d"), "user.ok", &mut [0u8; 64]).is_ok()
            }),
        ),
        (
            "attribute over a link",
            t().symlink("l", &c("victim"))
                .pax(&[("SCHILY.xattr.user.evil", b"1")])
                .symlink("l", &c("victim")),
            Taken(|r| r.join("l").is_symlink()),
        ),
        ("owner beyond 32 bits", t().pax(&[("uid", b"4294967296")]).file("f"), Refused),
        ("owner that means unchanged", t().pax(&[("uid", b"4294967295")]).file("f"), Refused),
        ("time that is none", t().pax(&[("mtime", b"soon")]).file("f"), Refused),
        ("PAX sparse", t().pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]).file("f"), Refused),
        ("two PAX headers", t().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f"), Refused),
        (
            "setuid through a link",
            t().symlink("l", &c("victim")).link("l2", "l").entry("l2", b'3', "", b""),
            Taken(|r| r.join("l").is_symlink()),
        ),
        (
            "mode of the root",
            t().entry("./", b'5', "", b""),
            Taken(|r| r.metadata().is_ok_and(|d| d.mode() & 0o777 == 0o755)),
        ),
    ]
}

fn attempt(root: &Path, archive: &[u8], limits: &Limits) -> croft_images::Result<Unpacked> {
    let fd = croft_sys::path::open_path(croft_sys::fs::CWD, root).expect("the root is there");
    unpack(fd.as_fd(), archive, limits)
}

fn the_corpus_is_contained() -> Result<()> {
    let outside = tempfile::tempdir()?;
    let canary = outside.path().join("c");
    fs::create_dir(&canary)?;
    fs::write(canary.join("victim"), "untouched")?;
    fs::set_permissions(canary.join("victim"), fs::Permissions::from_mode(0o600))?;
    let before = tree::read(outside.path())?;
    let corpus = corpus(&canary.display().to_string());
    ensure!(corpus.len() >= 50, "{}", corpus.len());
    for (what, archive, fate) in corpus {
        let around = tempfile::tempdir()?;
        let root = around.path().join("root");
        fs::create_dir(&root)?;
        let outcome = attempt(&root, &archive.end(), &Limits::default());
        match (outcome, fate) {
            (Err(Error::Entry { .. } | Error::Malformed { .. }), Refused) => {}
            (Ok(_), Taken(holds)) => ensure!(holds(&root), "{what}: {:?}", tree::read(&root)?),
            (other, _) => bail!("{what}: {other:?}"),
        }
        ensure!(fs::read_dir(around.path())?.count() == 1, "{what}: something beside the root");
        tree::compare(&tree::read(outside.path())?, &before).with_context(|| what.to_owned())?;
    }
    Ok(())
}

fn what_depends_on_lower_layers() -> Result<()> {
    let outside = tempfile::tempdir()?;
    fs::write(outside.path().join("victim"), "untouched")?;
    let below = tempfile::tempdir()?;
    fs::create_dir_all(below.path().join("var/lib"))?;
    fs::set_permissions(below.path().join("var"), fs::Permissions::from_mode(0o700))?;
    fs::write(below.path().join("var/lib/file"), "lower")?;
    fs::set_permissions(below.path().join("var/lib/file"), fs::Permissions::from_mode(0o640))?;
    symlink(outside.path(), below.path().join("out"))?;
    let lower = || croft_sys::path::open_path(croft_sys::fs::CWD, below.path());
    let try_one = |archive: Tar| -> Result<(tempfile::TempDir, croft_images::Result<()>)> {
        let root = tempfile::tempdir()?;
        let unpacked = attempt(root.path(), &archive.end(), &Limits::default())?;
        let fd = croft_sys::path::open_path(croft_sys::fs::CWD, root.path())?;
        let settled = settle(fd.as_fd(), &[lower()?], &unpacked);
        Ok((root, settled))
    };
    let mode = |path: &Path| path.symlink_metadata().map(|data| data.mode() & 0o777);
    let (root, settled) = try_one(Tar::default().file("var/lib/new"))?;
    settled?;
    ensure!(mode(&root.path().join("var"))? == 0o700, "an implied folder looks as below");
    let (root, settled) = try_one(Tar::default().dir("var").link("etc/link", "var/lib/file"))?;
    settled?;
    ensure!(text(root.path(), "etc/link").as_deref() == Some("lower"));
    ensure!(mode(&root.path().join("var"))? == 0o755, "a folder with an entry looks as that says");
    let names = root.path().join("var/lib/file").metadata()?;
    ensure!(names.nlink() == 2 && names.mode() & 0o777 == 0o640 && names.mtime() > 0);
    for target in ["out/victim", "nowhere", "var/lib", "out"] {
        let (root, settled) = try_one(Tar::default().link("h", target))?;
        ensure!(settled.is_err() && absent(root.path(), "h"), "{target}");
    }
    let (_root, settled) = try_one(Tar::default().file("var/.wh..wh..opq").file("out/x"))?;
    settled?;
    ensure!(
        fs::read_dir(outside.path())?.count() == 1
            && text(outside.path(), "victim").as_deref() == Some("untouched")
    );
    Ok(())
}

fn limits_hold() -> Result<()> {
    let small = Limits { bytes: 1 << 20, entries: 20, ..Limits::default() };
    let is_limit = |what: &str, archive: &[u8], limits: &Limits| -> Result<()> {
        let root = tempfile::tempdir()?;
        let outcome = attempt(root.path(), archive, limits);
        ensure!(matches!(outcome, Err(Error::Limit { .. })), "{what}: {outcome:?}");
        Ok(())
    };
    let many = (0..30).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"))).end();
    is_limit("many entries", &many, &small)?;
    is_limit(
        "many folders of one entry",
        &Tar::default().file("d/".repeat(40).trim_end_matches('/')).end(),
        &small,
    )?;
    is_limit("a large file", &Tar::default().entry("f", b'0', "", &vec![1; 2 << 20]).end(), &small)?;
    is_limit(
        "a file that claims to be huge",
        &Tar::default().sized("f", b'0', "", b"", 8 << 40).end(),
        &Limits::default(),
    )?;
    is_limit("much after the end", &[Tar::default().file("f").end(), vec![0; 2 << 20]].concat(), &small)?;
    // A sparse file of eight exabytes in one block.
    let mut sparse = Tar::default().sized("f", b'S', "", b"", 0).0;
    let header = &mut sparse[..512];
    let huge = [0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0];
    header[386..398].copy_from_slice(&huge);
    header[398..410].copy_from_slice(b"000000000000");
    header[483..495].copy_from_slice(&huge);
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(n, b)| if (148..156).contains(&n) { 32 } else { u32::from(*b) })
        .sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    is_limit("a sparse file", &[sparse, vec![0; 1024]].concat(), &Limits::default())?;
    // Names and attributes are held in memory, so they are limited apart.
    let long = Tar::default().entry("long", b'L', "", &vec![b'x'; 3 << 20]).file("f").end();
    is_limit("a long name", &long, &Limits::default())?;
    let big = vec![b'x'; 2 << 20];
    is_limit(
        "a large PAX header",
        &Tar::default().pax(&[("comment", &big)]).file("f").end(),
        &Limits::default(),
    )?;
    // Packed a thousandfold, and the packed form is small.
    let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 1)?;
    bomb.write_all(&Tar::default().sized("f", b'0', "", b"", 64 << 30).0)?;
    for _ in 0..(Limits::RATIO_FROM >> 20) + 8 {
        bomb.write_all(&[0; 1 << 20])?;
    }
    is_limit("a bomb", &bomb.finish()?, &Limits::default())
}

fn cut_archives_are_refused() -> Result<()> {
    let whole = Tar::default().dir("d").entry("d/f", b'0', "", &[5; 3000]).file("g").end();
    let root = tempfile::tempdir()?;
    attempt(root.path(), &whole, &Limits::default())?;
    for cut in [100, 700, 1100, 2000, 4000] {
        let root = tempfile::tempdir()?;
        ensure!(attempt(root.path(), &whole[..cut], &Limits::default()).is_err(), "cut at {cut}");
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&whole)?;
    let packed = packer.finish()?;
    for cut in [5, packed.len() / 2, packed.len() - 4] {
        let root = tempfile::tempdir()?;
        ensure!(attempt(root.path(), &packed[..cut], &Limits::default()).is_err(), "packed, cut at {cut}");
    }
    let root = tempfile::tempdir()?;
    let xz = attempt(root.path(), b"\xfd7zXZ\0rest", &Limits::default());
    ensure!(xz.err().is_some_and(|e| e.to_string().contains("xz")));
    Ok(())
}
