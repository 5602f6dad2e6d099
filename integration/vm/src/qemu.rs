//! The command lines of QEMU and virtiofsd.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::image::{Image, STUB_PATH};
use crate::{Access, Share, Vm};

/// The names of the virtio ports, in the order in which the guest numbers them: `/dev/vport0p1` and so on.
pub(crate) const PORTS: [&str; 3] = ["control", "stdout", "stderr"];

/// The socket in the working folder that belongs to a port or a share.
pub(crate) fn socket(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join(format!("{name}.socket"))
}

/// Starts QEMU on sockets that are bound already. `job_size` is the length of the script that the guest will read.
pub(crate) fn start(vm: &Vm, image: &Image, folder: &Path, job_size: usize) -> Result<Child> {
    let mut qemu = dying_with_its_parent(&image.programs.join("usr/bin/qemu-system-x86_64"));
    for roms in ["usr/share/qemu", "usr/share/seabios"] {
        qemu.arg("-L").arg(image.programs.join(roms));
    }
    let memory = vm.memory_mib;
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", &vm.cpus.to_string()]);
    qemu.args(["-m", &memory.to_string()]);
    // virtiofsd maps the guest's memory, so it has to be shared.
    qemu.args(["-object", &format!("memory-backend-memfd,id=memory,size={memory}M,share=on")]);
    qemu.args([
        "-M",
        "q35,memory-backend=memory,i8042=off,vmport=off,smm=off,hpet=off,sata=off,smbus=off,pit=on",
    ]);
    qemu.arg("-kernel").arg(&image.kernel).arg("-append").arg(kernel_command_line(job_size));
    // Exactly one NVMe disk: with two, which of them is nvme0 is a race in the guest. What it writes goes to a
    // temporary file that QEMU has removed already.
    qemu.arg("-drive").arg(option("format=raw,if=none,id=root,snapshot=on,cache=unsafe,file=", &image.root));
    qemu.args(["-device", "nvme,serial=root,drive=root"]);
    qemu.arg("-chardev")
        .arg(option("file,id=console,path=", &folder.join("console")))
        .args(["-serial", "chardev:console"]);
    qemu.args(["-device", "virtio-serial-pci,max_ports=4"]);
    for (index, port) in PORTS.iter().enumerate() {
        qemu.arg("-chardev").arg(option(&format!("socket,id={port},path="), &socket(folder, port)));
        qemu.arg("-device").arg(format!("virtserialport,chardev={port},name={port},nr={}", index + 1));
    }
    qemu.args(["-object", "rng-random,filename=/dev/urandom,id=rng", "-device", "virtio-rng-pci,rng=rng"]);
    for Share { name, .. } in &vm.shares {
        qemu.arg("-chardev").arg(option(&format!("socket,id=share-{name},path="), &socket(folder, name)));
        qemu.arg("-device").arg(format!("vhost-user-fs-pci,chardev=share-{name},tag={name}"));
    }
    spawn(qemu, &folder.join("qemu.log"), Stdio::null())
}

/// What makes the guest's kernel quick: no self-tests, no mitigations, nothing printed unless it fails. An oops ends
/// the machine, so that no test passes on a broken kernel.
fn kernel_command_line(job_size: usize) -> String {
    format!(
        "root=/dev/nvme0n1 rootfstype=ext4 rw rootwait init={STUB_PATH} croft_job={job_size} console=ttyS0 quiet \
         panic=-1 oops=panic mitigations=off tsc=reliable no_timer_check audit=0 random.trust_cpu=on \
         rcupdate.rcu_expedited=1 cryptomgr.notests cgroup_no_v1=all"
    )
}

/// Starts the server of one share on a socket that is bound already, so that nobody has to wait for it.
pub(crate) fn start_virtiofsd(
    image: &Image,
    share: &Share,
    listener: UnixListener,
    folder: &Path,
) -> Result<Child> {
    let mut virtiofsd = dying_with_its_parent(&image.programs.join("usr/libexec/virtiofsd"));
    virtiofsd.args(["--fd=0", "--sandbox=chroot", "--thread-pool-size=0", "--log-level=error"]);
    virtiofsd.arg("--shared-dir").arg(&share.dir);
    // With `auto` each open drops the file's pages in the guest: a program there would be read anew, over the share,
    // each time it starts. What is shared read-only stays as it is for as long as the machine runs.
    match share.access {
        Access::ReadOnly => virtiofsd.args(["--readonly", "--cache=always"]),
        Access::ReadWrite => virtiofsd.args(["--xattr", "--cache=auto"]),
    };
    spawn(virtiofsd, &folder.join(format!("{}.log", share.name)), OwnedFd::from(listener).into())
}

/// So that the machine ends even when this process is killed and can clean up nothing.
fn dying_with_its_parent(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn spawn(mut command: Command, log: &Path, input: Stdio) -> Result<Child> {
    let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
    command.stdin(input).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("start {command:?}"))
}

/// A QEMU option that ends with a path; in it a comma is written twice.
fn option(head: &str, path: &Path) -> std::ffi::OsString {
    format!("{head}{}", path.to_string_lossy().replace(',', ",,")).into()
}
