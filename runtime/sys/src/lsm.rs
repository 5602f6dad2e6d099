//! Linux security modules: which are on, and the labels that a process asks them for.

use crate::proc::Proc;
use crate::{Call, Error, OFlags, Result};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A module that labels processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// AppArmor: a label is a profile's name.
    AppArmor,
    /// SELinux: a label is a context.
    SeLinux,
}

/// What a label is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The process after its next execve(2).
    Exec,
    /// Files that it makes; SELinux only.
    FsCreate,
    /// Keys and keyrings that it makes; SELinux only.
    KeyCreate,
}

/// Whether `module` is on in this kernel.
pub fn is_on(module: Module, proc: &Proc) -> Result<bool> {
    match active_ids() {
        Ok(ids) => Ok(ids.contains(&id(module))),
        // Before Linux 6.8 each has a way of its own to tell.
        Err(error) if error.errno() == Errno::NOSYS => match module {
            Module::AppArmor => apparmor_parameter(Path::new("/sys/module/apparmor/parameters/enabled")),
            Module::SeLinux => {
                Ok(proc.read("filesystems")?.lines().any(|line| line.split('\t').nth(1) == Some("selinuxfs")))
            }
        },
        Err(error) => Err(error),
    }
}

/// `LSM_ID_*` of linux/lsm.h.
fn id(module: Module) -> u64 {
    match module {
        Module::SeLinux => 101,
        Module::AppArmor => 104,
    }
}

/// The ids of the modules that are on: lsm_list_modules(2), which libc does not name yet.
fn active_ids() -> Result<Vec<u64>> {
    const SYS_LSM_LIST_MODULES: libc::c_long = 461;
    let mut ids = vec![0u64; 32];
    let mut size = size_of_val(ids.as_slice()) as u32;
    // SAFETY: the kernel writes at most `size` bytes at the first pointer, which has that many, and one u32 at the second.
    let returned = unsafe { libc::syscall(SYS_LSM_LIST_MODULES, ids.as_mut_ptr(), &raw mut size, 0) };
    ids.truncate(Error::check("lsm_list_modules", returned)? as usize);
    Ok(ids)
}

fn apparmor_parameter(path: &Path) -> Result<bool> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.starts_with('Y')),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).call("read the parameter of AppArmor"),
    }
}

/// Asks `module` for `label` on this thread. EINVAL or ENOENT: it does not know the label.
///
/// `proc` is a checked procfs, and no mount or magic link is crossed below it, so that nothing else can be in the file's place and
/// the label is never lost in silence (CVE-2019-16884, CVE-2025-52881).
pub fn set_label(proc: &Proc, module: Module, purpose: Purpose, label: &str) -> Result<()> {
    // A whole string of them, or a cut one, would name something else.
    if label.bytes().any(|byte| byte == 0) {
        return Err(Error::new("write a security label", Errno::INVAL));
    }
    let file = open_attribute(proc, module, purpose)?;
    match module {
        Module::AppArmor => write_whole(file.as_fd(), format!("exec {label}").as_bytes()),
        Module::SeLinux => write_whole(file.as_fd(), label.as_bytes()),
    }
}

fn open_attribute(proc: &Proc, module: Module, purpose: Purpose) -> Result<OwnedFd> {
    let file = match purpose {
        Purpose::Exec => "exec",
        Purpose::FsCreate => "fscreate",
        Purpose::KeyCreate => "keycreate",
    };
    if module == Module::AppArmor {
        if purpose != Purpose::Exec {
            return Err(Error::new("write a security label", Errno::NOTSUP));
        }
        // Its own file since Linux 5.8; the shared one belongs to whichever module came first.
        match proc.open_file("thread-self/attr/apparmor/exec", OFlags::WRONLY) {
            Err(error) if error.errno() == Errno::NOENT => {}
            own => return own,
        }
    }
    proc.open_file(&format!("thread-self/attr/{file}"), OFlags::WRONLY)
}

/// The kernel takes a label in one write only.
fn write_whole(file: BorrowedFd<'_>, text: &[u8]) -> Result<()> {
    let written =
        rustix::io::retry_on_intr(|| rustix::io::write(file, text)).call("write a security label")?;
    if written == text.len() { Ok(()) } else { Err(Error::new("write a security label", Errno::IO)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_child, skipped};

    #[test]
    fn modules_are_told_as_sysfs_tells_them() {
        let proc = Proc::open().unwrap();
        let parameter = Path::new("/sys/module/apparmor/parameters/enabled");
        assert_eq!(is_on(Module::AppArmor, &proc).unwrap(), apparmor_parameter(parameter).unwrap());
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap();
        assert_eq!(is_on(Module::SeLinux, &proc).unwrap(), filesystems.contains("selinuxfs"));
    }

    #[test]
    fn active_modules_have_known_ids() {
        match active_ids() {
            Err(error) if error.errno() == Errno::NOSYS => {
                skipped("lsm: list of modules", "Linux before 6.8")
            }
            // LSM_ID_CAPABILITY is 100 and the first; ids below are reserved.
            ids => assert!(ids.unwrap().iter().all(|id| *id >= 100)),
        }
    }

    #[test]
    fn a_label_reaches_the_module() {
        in_child(|| {
            let proc = Proc::open().unwrap();
            for (module, label) in
                [(Module::AppArmor, "unconfined"), (Module::SeLinux, "system_u:system_r:init_t:s0")]
            {
                if is_on(module, &proc).unwrap() {
                    set_label(&proc, module, Purpose::Exec, label).unwrap();
                } else {
                    // The file is there all the same, and says that nobody listens.
                    let refused = set_label(&proc, module, Purpose::Exec, label).unwrap_err();
                    assert!(matches!(refused.errno(), Errno::INVAL | Errno::NOENT), "{refused}");
                    skipped("lsm: label", &format!("{module:?} is not on (its refusal was seen)"));
                }
            }
        });
    }

    #[test]
    fn what_cannot_be_a_label_is_refused() {
        let proc = Proc::open().unwrap();
        let zero = set_label(&proc, Module::AppArmor, Purpose::Exec, "a\0b").unwrap_err();
        assert_eq!(zero.errno(), Errno::INVAL);
        let other = set_label(&proc, Module::AppArmor, Purpose::FsCreate, "a").unwrap_err();
        assert_eq!(other.errno(), Errno::NOTSUP);
    }
}
