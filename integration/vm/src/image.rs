//! The image that every machine boots from, and the programs that run it: built once and cached.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use croft_harness::cache::{self, Entry};
use croft_harness::debian::{self, Bootstrap, Prefix, Variant};
use croft_harness::process;

/// Debian's suite in the guest, and of the programs on the host.
const SUITE: &str = "trixie";

/// What the guest has beyond the essential packages, by what needs it.
const PACKAGES: &[&str] = &[
    // The machine itself.
    "linux-image-cloud-amd64 busybox-static kmod systemd systemd-sysv dbus dbus-user-session libpam-systemd udev",
    // Runtimes, and what calls them.
    "runc crun criu libcriu2 podman conmon netavark aardvark-dns containerd docker.io docker-cli fuse-overlayfs bubblewrap",
    "uidmap passt containernetworking-plugins",
    // Networks.
    "iproute2 iputils-ping nftables iptables socat iperf3",
    // What tests look with.
    "strace python3 jq procps psmisc file attr acl libcap2-bin apparmor keyutils ca-certificates e2fsprogs libseccomp2",
];

/// Process 1 in the image.
const STUB: &str = include_str!("guest/stub.sh");
/// Where the image has it.
pub(crate) const STUB_PATH: &str = "/croft-init";

/// The root filesystem's options: nothing that only a machine that is kept needs, as every boot discards its changes.
const MKE2FS: [&str; 10] = [
    "-q",
    "-t",
    "ext4",
    "-L",
    "root",
    "-O",
    "^has_journal,^metadata_csum,^resize_inode",
    "-E",
    "lazy_itable_init=1,nodiscard",
    "-m0",
];
/// The size that the guest sees; the file is sparse.
const SIZE: &str = "4G";

/// The files that make a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The kernel as an ELF file: QEMU enters it directly, nothing has to be unpacked in the guest.
    pub kernel: PathBuf,
    /// The root filesystem, ext4.
    pub root: PathBuf,
    /// Where QEMU and virtiofsd live.
    pub(crate) programs: PathBuf,
}

impl Image {
    /// The image, built when it is missing or made by another recipe; that takes about a minute and needs root.
    pub fn ready() -> Result<Image> {
        let programs = Prefix {
            name: "qemu",
            suite: SUITE,
            packages: &["qemu-system-x86", "virtiofsd"],
            programs: &["usr/bin/qemu-system-x86_64", "usr/libexec/virtiofsd"],
        };
        let programs = programs.ready()?;
        let packages: Vec<&str> = PACKAGES.iter().flat_map(|line| line.split(' ')).collect();
        let bootstrap = Bootstrap { suite: SUITE, variant: Variant::Essential, packages: &packages };
        // The steps below are as much part of the recipe as the packages.
        let recipe = format!("{}{STUB}{}", bootstrap.recipe(), include_str!("image.rs"));
        let mut built = false;
        let folder = Entry::by_hash("vm", recipe).ready(|new, _| {
            built = true;
            build(&bootstrap, new)
        })?;
        if built {
            cache::prune("vm", 2)?;
        }
        Ok(Image { kernel: folder.join("vmlinux"), root: folder.join("root.img"), programs })
    }
}

/// Builds `vmlinux` and `root.img` in the folder `new`.
fn build(bootstrap: &Bootstrap, new: &Path) -> Result<()> {
    debian::ensure_packages(&["e2fsprogs", "zstd"])?;
    let tree = new.join("tree");
    bootstrap.unpack_into(&tree)?;
    let boot = tree.join("boot");
    let mut compressed = None;
    for item in fs::read_dir(&boot).with_context(|| format!("read {}", boot.display()))? {
        let path = item?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")) {
            compressed = Some(path);
        }
    }
    let compressed =
        compressed.with_context(|| format!("find a kernel: {} has no vmlinuz-*", boot.display()))?;
    unpack_kernel(&compressed, &new.join("vmlinux"))?;
    cache::remove_tree(&boot)?;
    fs::create_dir(&boot).context("create /boot")?;
    finish_tree(&tree)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(MKE2FS).arg("-d").arg(&tree).arg(new.join("root.img")).arg(SIZE);
    process::run(&mut mke2fs, Duration::from_secs(600))?.success()?;
    cache::remove_tree(&tree)
}

/// What the packages leave open: names, users, process 1.
fn finish_tree(tree: &Path) -> Result<()> {
    let machine_id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("read a random number")?;
    let files = [
        ("etc/hostname", "croft-vm\n".to_owned()),
        ("etc/hosts", "127.0.0.1 localhost croft-vm\n::1 localhost\n".to_owned()),
        // Without it systemd takes every boot for the first one and sets the machine up anew.
        ("etc/machine-id", machine_id.replace('-', "")),
        (&STUB_PATH[1..], STUB.to_owned()),
    ];
    for (name, text) in files {
        fs::write(tree.join(name), text).with_context(|| format!("write {name}"))?;
    }
    fs::set_permissions(tree.join(&STUB_PATH[1..]), Permissions::from_mode(0o755))
        .context("set the mode of init")?;
    // An ordinary user with sub-ids, for what runs rootless.
    let mut useradd = Command::new("chroot");
    useradd.arg(tree).args(["useradd", "--create-home", "--shell", "/bin/bash", "--uid", "1000", "user"]);
    process::run(&mut useradd, Duration::from_secs(60))?.success()?;
    Ok(())
}

/// Unpacks the ELF kernel from a bzImage, as the x86 boot protocol describes it (Documentation/arch/x86/boot.rst).
fn unpack_kernel(compressed: &Path, kernel: &Path) -> Result<()> {
    let image = fs::read(compressed).with_context(|| format!("read {}", compressed.display()))?;
    let payload = payload(&image).with_context(|| format!("find the kernel in {}", compressed.display()))?;
    let file = tempfile::NamedTempFile::new().context("create a file for the kernel")?;
    fs::write(file.path(), payload).context("write the packed kernel")?;
    let output = fs::File::create(kernel).with_context(|| format!("create {}", kernel.display()))?;
    let status =
        Command::new("zstd").args(["-dcq"]).arg(file.path()).stdout(output).stderr(Stdio::inherit()).status();
    ensure!(
        status.context("run zstd")?.success(),
        "unpack {}: it is not packed by zstd",
        compressed.display()
    );
    let elf = fs::read(kernel).with_context(|| format!("read {}", kernel.display()))?;
    ensure!(
        elf.starts_with(b"\x7fELF"),
        "unpack {}: what comes out is not an ELF file",
        compressed.display()
    );
    Ok(())
}

/// The packed kernel in a bzImage, without the size that the kernel's build appends to it.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup_sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + number(0x248)?;
    image.get(start..start + number(0x24c)?.checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&10u32.to_le_bytes());
        image[1040..1050].copy_from_slice(b"kernel\x01\x02\x03\x04");
        assert_eq!(payload(&image), Some(b"kernel".as_slice()));
        image[0x24c..0x250].copy_from_slice(&9999u32.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"too short"), None);
    }
}
