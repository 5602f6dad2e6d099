//! Images for the tests, made of layers with everything that a layer can hold.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use croft_harness::{process, rootfs};
use croft_images::digest::Digest;
use croft_images::manifest::{Config, Descriptor, Index, Manifest, media};
use croft_sys::fs::XattrFlags;

/// Runs a program that ends within a minute or two.
pub fn run(command: &mut Command) -> Result<String> {
    Ok(process::run(command, Duration::from_secs(120))?.success()?.stdout)
}

/// Runs a line of shell in the folder `at`.
pub fn shell(at: &Path, line: &str) -> Result<String> {
    run(Command::new("bash").args(["-euo", "pipefail", "-c", line]).current_dir(at))
}

/// The tree of the lowest layer: busybox, and one of everything.
pub fn base_tree(at: &Path) -> Result<()> {
    rootfs::busybox(at)?;
    fs::write(at.join("etc/big"), vec![7u8; 3 << 20])?;
    fs::write(at.join("etc/ünïcode name with spaces"), "x")?;
    fs::write(at.join("etc/gone"), "gone in the next layer")?;
    fs::write(at.join("etc/becomes-folder"), "file")?;
    for folder in ["opaque/inner", "becomes-file/inner", "keeps/inner", "deep/a/b/c/d"] {
        fs::create_dir_all(at.join(folder))?;
        fs::write(at.join(folder).join("file"), folder)?;
    }
    fs::hard_link(at.join("etc/big"), at.join("root/big-link"))?;
    symlink("/etc/big", at.join("root/absolute"))?;
    symlink("../etc/nowhere", at.join("root/dangling"))?;
    shell(
        at,
        "mkfifo -m 640 root/pipe; mknod -m 600 root/null c 1 3; mknod -m 660 root/loop b 7 0
         cp bin/busybox bin/capable
         touch -d '2001-02-03 04:05:06.123456789' etc/gone keeps/inner/file; touch -d '1999-09-09 09:09:09.5' keeps/inner
         touch -h -d '2005-05-05 05:05:05' root/absolute; touch -d '1969-12-31 23:59:50' deep/a/b",
    )?;
    // CAP_NET_RAW, permitted, as setcap(8) writes it.
    let net_raw = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (name, key, value) in [
        ("bin/capable", "security.capability", &net_raw[..]),
        ("etc/big", "user.note", b"hello"),
        ("keeps", "user.folder", b"yes"),
    ] {
        croft_sys::fs::setxattr(at.join(name), key, value, XattrFlags::empty())?;
    }
    chown(at.join("keeps/inner/file"), Some(1000), Some(1001))?;
    chown(at.join("keeps"), Some(65534), Some(65534))?;
    for (name, mode) in
        [("bin/busybox", 0o4755), ("keeps", 0o2771), ("deep/a", 0o555), ("keeps/inner/file", 0o000)]
    {
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The tree of the second layer, as tar entries: whiteouts, replacements, an addition.
pub fn upper_tree(at: &Path) -> Result<()> {
    shell(
        at,
        "mkdir -p etc/becomes-folder opaque deep/a/b; touch etc/.wh.gone opaque/.wh..wh..opq .wh.keeps
         echo new > etc/becomes-folder/file; echo new > opaque/new; echo file > becomes-file; echo x > deep/a/b/added
         touch -d '2010-01-01' deep/a/b/added; chmod 700 deep/a; chmod 711 opaque; ln opaque/new opaque/second",
    )?;
    Ok(())
}

/// Packs the tree `from` as GNU tar does, with everything that it holds, through `filter` (`cat`, `gzip`, `zstd`).
pub fn pack(from: &Path, to: &Path, filter: &str) -> Result<()> {
    let line = format!(
        "tar --create --format=posix --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include='*' --numeric-owner --sort=name . | {filter} > {}",
        to.display()
    );
    shell(from, &line).map(drop)
}

/// An OCI layout in the making.
pub struct Layout {
    pub folder: PathBuf,
    layers: Vec<Descriptor>,
    config: Config,
}

impl Layout {
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("blobs/sha256"))?;
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut config = Config::empty(Some("2020-02-02T02:02:02Z".to_owned()));
        config.config.cmd = vec!["/bin/sh".to_owned()];
        Ok(Self { folder: folder.to_owned(), layers: Vec::new(), config })
    }

    fn blob(&self, bytes: &[u8], kind: &str) -> Result<Descriptor> {
        let descriptor = Descriptor::of(bytes, kind);
        fs::write(self.folder.join("blobs/sha256").join(descriptor.digest.hex()), bytes)?;
        Ok(descriptor)
    }

    /// Adds the tree as the next layer.
    pub fn add(&mut self, tree: &Path, filter: &str) -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let (plain, packed) = (scratch.path().join("plain"), scratch.path().join("packed"));
        pack(tree, &plain, "cat")?;
        shell(scratch.path(), &format!("{filter} < plain > packed"))?;
        let kind = match filter {
            "cat" => "application/vnd.oci.image.layer.v1.tar",
            "zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar+gzip",
        };
        let layer = self.blob(&fs::read(&packed)?, kind)?;
        self.layers.push(layer);
        self.config.rootfs.diff_ids.push(Digest::of(&fs::read(&plain)?));
        Ok(())
    }

    /// Writes configuration, manifest and index under the tag `tag`.
    pub fn finish(self, tag: &str) -> Result<PathBuf> {
        let config = self.blob(&serde_json::to_vec(&self.config)?, media::CONFIG)?;
        let manifest = Manifest::new(config, self.layers.clone());
        let mut entry = self.blob(&serde_json::to_vec(&manifest)?, media::MANIFEST)?;
        entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
        let index =
            Index { schema_version: 2, media_type: Some(media::INDEX.to_owned()), manifests: vec![entry] };
        let mut file = File::create(self.folder.join("index.json"))?;
        file.write_all(&serde_json::to_vec(&index)?).context("write index.json")?;
        Ok(self.folder)
    }
}

/// An image of three layers (plain, gzip, and `third`) under the tag `v1` in the folder `at/layout`.
pub fn layout(at: &Path, third: &str) -> Result<PathBuf> {
    let trees = ["base", "upper", "third"].map(|name| at.join(name));
    trees.iter().try_for_each(fs::create_dir)?;
    base_tree(&trees[0])?;
    upper_tree(&trees[1])?;
    fs::create_dir(trees[2].join("etc"))?;
    fs::write(trees[2].join("etc/gone"), "back again")?;
    let mut layout = Layout::new(&at.join("layout"))?;
    for (tree, filter) in trees.iter().zip(["cat", "gzip", third]) {
        layout.add(tree, filter)?;
    }
    layout.finish("v1")
}

/// The trees of an image as one folder, by overlayfs, until this is dropped.
pub struct Merged {
    pub folder: tempfile::TempDir,
}

impl Merged {
    pub fn of(trees: &[PathBuf]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let empty = folder.path().join("empty");
        fs::create_dir(&empty)?;
        fs::create_dir(folder.path().join("root"))?;
        let lower: Vec<String> = trees.iter().chain([&empty]).map(|t| t.display().to_string()).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        let mut mount = Command::new("mount");
        run(mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(folder.path().join("root")))?;
        Ok(Self { folder })
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        let _ = croft_sys::mount::unmount_tree(&self.root());
    }
}
