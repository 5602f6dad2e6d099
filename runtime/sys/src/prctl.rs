//! prctl(2): what a process says of itself.

use crate::{Call, Error, Result};
use rustix::process::Signal;
use rustix::thread::CapabilitiesSecureBits;
use std::ffi::CStr;

/// Whether other processes of the same user may trace this one and reach its fds through /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dumpable {
    /// They may; /proc/PID belongs to the process's user.
    Yes,
    /// Only the privileged may: /proc/PID belongs to root (CVE-2016-9962: while fds of the host are open).
    No,
}

/// Sets whether this process may be dumped and traced. Cleared by the kernel at a change of ids, set again by execve(2).
pub fn set_dumpable(dumpable: Dumpable) -> Result<()> {
    let value = libc::c_ulong::from(dumpable == Dumpable::Yes);
    // SAFETY: PR_SET_DUMPABLE takes one number, 0 or 1, and no pointer.
    let returned = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, value, 0, 0, 0) };
    Error::check("prctl PR_SET_DUMPABLE", returned.into())?;
    Ok(())
}

/// Whether this process may be dumped and traced.
pub fn dumpable() -> Result<Dumpable> {
    // SAFETY: PR_GET_DUMPABLE takes no further argument.
    let returned = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
    Ok(if Error::check("prctl PR_GET_DUMPABLE", returned.into())? == 1 {
        Dumpable::Yes
    } else {
        Dumpable::No
    })
}

/// From here on no execve(2) of this thread gains privileges. Cannot be taken back.
pub fn set_no_new_privs() -> Result<()> {
    rustix::thread::set_no_new_privs(true).call("prctl PR_SET_NO_NEW_PRIVS")
}

/// Whether [`set_no_new_privs`] was called on this thread or an ancestor.
pub fn no_new_privs() -> Result<bool> {
    rustix::thread::no_new_privs().call("prctl PR_GET_NO_NEW_PRIVS")
}

/// Makes this process the parent of descendants whose parents die.
pub fn set_child_subreaper() -> Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one number and no pointer.
    let returned = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as libc::c_ulong, 0, 0, 0) };
    Error::check("prctl PR_SET_CHILD_SUBREAPER", returned.into())?;
    Ok(())
}

/// Asks for `signal` when the parent thread dies, or for none. Cleared by a change of ids: ask again after it. A parent that
/// died before this call sends nothing: look at getppid(2) afterwards.
pub fn set_parent_death_signal(signal: Option<Signal>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(signal).call("prctl PR_SET_PDEATHSIG")
}

/// Names this thread as ps(1) shows it; the kernel keeps the first 15 bytes.
pub fn set_name(name: &CStr) -> Result<()> {
    rustix::thread::set_name(name).call("prctl PR_SET_NAME")
}

/// Whether permitted capabilities outlive the next change of all uids from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepCapabilities {
    /// They stay (until execve(2)).
    Yes,
    /// They are dropped.
    No,
}

/// Sets whether a change of uid keeps the permitted capabilities.
pub fn set_keep_capabilities(keep: KeepCapabilities) -> Result<()> {
    rustix::thread::set_keep_capabilities(keep == KeepCapabilities::Yes).call("prctl PR_SET_KEEPCAPS")
}

/// Sets the securebits of this thread; needs CAP_SETPCAP.
pub fn set_secure_bits(bits: CapabilitiesSecureBits) -> Result<()> {
    rustix::thread::set_capabilities_secure_bits(bits).call("prctl PR_SET_SECUREBITS")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;
    use std::fs;

    fn status(field: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line[field.len()..].trim().to_owned()
    }

    #[test]
    fn dumpable_is_cleared_and_set() {
        in_child(|| {
            set_dumpable(Dumpable::No).unwrap();
            assert_eq!(dumpable().unwrap(), Dumpable::No);
            set_dumpable(Dumpable::Yes).unwrap();
            assert_eq!(dumpable().unwrap(), Dumpable::Yes);
        });
    }

    #[test]
    fn no_new_privs_shows_in_proc() {
        in_child(|| {
            assert!(!no_new_privs().unwrap());
            set_no_new_privs().unwrap();
            assert!(no_new_privs().unwrap());
            assert_eq!(status("NoNewPrivs:"), "1");
        });
    }

    #[test]
    fn a_name_shows_in_proc() {
        in_child(|| {
            set_name(c"croft:[init]").unwrap();
            assert_eq!(status("Name:"), "croft:[init]");
        });
    }

    #[test]
    fn a_subreaper_gets_its_grandchildren() {
        in_child(|| {
            set_child_subreaper().unwrap();
            let script = "sleep 0.01 > /dev/null & echo $!";
            let shell = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
            let orphan: libc::pid_t = String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap();
            // SAFETY: a null status is allowed; the orphan is nobody's child but ours, if the call worked.
            assert_eq!(unsafe { libc::waitpid(orphan, std::ptr::null_mut(), 0) }, orphan);
        });
    }

    #[test]
    fn parent_death_signal_is_kept() {
        in_child(|| {
            set_parent_death_signal(Some(Signal::KILL)).unwrap();
            assert_eq!(rustix::process::parent_process_death_signal().unwrap(), Some(Signal::KILL));
            set_parent_death_signal(None).unwrap();
            assert_eq!(rustix::process::parent_process_death_signal().unwrap(), None);
        });
    }

    #[test]
    fn kept_capabilities_outlive_a_change_of_uid() {
        in_child(|| {
            set_keep_capabilities(KeepCapabilities::Yes).unwrap();
            let before = status("CapPrm:");
            // SAFETY: setresuid takes numbers only; this child is single-threaded.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 1000, 1000, 1000) }, 0);
            assert_eq!(status("CapPrm:"), before);
            assert_eq!(status("CapEff:"), "0000000000000000");
        });
    }

    #[test]
    fn secure_bits_are_set() {
        in_child(|| {
            set_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP).unwrap();
            let bits = rustix::thread::capabilities_secure_bits().unwrap();
            assert_eq!(bits, CapabilitiesSecureBits::NO_SETUID_FIXUP);
        });
    }
}
