//! Who a process is: user and group ids, and capabilities. Each call changes the calling thread only, so the caller is single-threaded.

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{Call, Error, Result};

/// Sets the supplementary groups.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).call("setgroups")
}

/// Sets the real, effective and saved group id.
pub fn set_gid(gid: u32) -> Result<()> {
    let gid = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).call("setresgid")
}

/// Sets the real, effective and saved user id.
pub fn set_uid(uid: u32) -> Result<()> {
    let uid = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).call("setresuid")
}

/// Sets the ids that the calling thread has for file systems (setfsuid(2), setfsgid(2)). Its effective capabilities on files go with
/// the id 0: the caller sets them again where they are still wanted.
pub fn set_filesystem_ids(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: integers only. The calls tell the ids before and no error, so they are made once more with an id that is none, which
    // changes nothing, to learn what became of the first.
    let now = unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        (libc::setfsuid(u32::MAX) as u32, libc::setfsgid(u32::MAX) as u32)
    };
    if now == (uid, gid) { Ok(()) } else { Err(Error::new("setfsuid", Errno::PERM)) }
}

/// Sets the effective, permitted and inheritable capabilities in one call; bit n is capability number n.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    rustix::thread::set_capabilities(None, sets).call("capset")
}

/// The effective, permitted and inheritable capabilities of the caller, as bits.
pub fn capabilities() -> Result<(u64, u64, u64)> {
    let sets = rustix::thread::capabilities(None).call("capget")?;
    Ok((sets.effective.bits(), sets.permitted.bits(), sets.inheritable.bits()))
}

/// Drops every capability that is not in `keep` from the bounding set.
///
/// The last capability is found by the same call that drops: this runs under a seccomp filter that may forbid reading files.
pub fn limit_bounding(keep: u64) -> Result<()> {
    for number in (0..u64::BITS).filter(|n| keep >> n & 1 == 0) {
        // SAFETY: integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) } != 0 {
            match Error::last("prctl PR_CAPBSET_DROP") {
                // Past the last that the kernel knows.
                e if e.errno() == Errno::INVAL => break,
                // Without CAP_SETPCAP what is not there cannot be dropped either.
                e if in_bounding(number) => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The bounding set as bits.
pub fn bounding() -> u64 {
    (0..u64::BITS).filter(|n| in_bounding(*n)).fold(0, |bits, n| bits | 1 << n)
}

/// False for a number that the kernel does not know.
fn in_bounding(number: u32) -> bool {
    // SAFETY: integers only; the answer is 1, 0 or an error.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) == 1 }
}

/// Raises the capabilities `ambient` (which must be permitted and inheritable) in the ambient set and clears the rest.
pub fn set_ambient(ambient: u64) -> Result<()> {
    let control = |what: libc::c_int, number: u32| {
        // SAFETY: integers only.
        let r = unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, what as libc::c_ulong, libc::c_ulong::from(number), 0, 0)
        };
        if r == 0 { Ok(()) } else { Err(Error::last("prctl PR_CAP_AMBIENT")) }
    };
    control(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    (0..64).filter(|n| ambient >> n & 1 == 1).try_for_each(|n| control(libc::PR_CAP_AMBIENT_RAISE, n))
}

/// The number that the kernel calls by `name`, such as `CAP_SYS_ADMIN`.
pub fn capability_number(name: &str) -> Option<u32> {
    name.parse::<caps::Capability>().ok().map(|c| u32::from(c.index()))
}

/// Sets the file mode creation mask and returns the one before.
pub fn set_umask(mask: rustix::fs::Mode) -> rustix::fs::Mode {
    rustix::process::umask(mask)
}

/// The real and effective user id of the caller.
pub fn user() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::geteuid().as_raw())
}

/// The real group id of the caller.
pub fn group() -> u32 {
    rustix::process::getgid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;

    #[test]
    fn file_system_ids_are_the_threads_own() {
        if user().1 != 0 {
            return crate::testing::skipped("file_system_ids_are_the_threads_own", "needs root");
        }
        let made = |name: &str, folder: &std::path::Path| {
            std::fs::write(folder.join(name), "").unwrap();
            let data = std::fs::metadata(folder.join(name)).unwrap();
            (std::os::unix::fs::MetadataExt::uid(&data), std::os::unix::fs::MetadataExt::gid(&data))
        };
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let (effective, permitted, inheritable) = capabilities().unwrap();
                set_filesystem_ids(1234, 2345).unwrap();
                set_capabilities(effective, permitted, inheritable).unwrap();
                made("other", folder.path())
            });
            assert_eq!(other.join().unwrap(), (1234, 2345));
        });
        assert_eq!(made("own", folder.path()), (0, 0));
    }

    #[test]
    fn the_bounding_set_keeps_what_it_is_told_to() {
        in_child(|| {
            let keep = 1 << 0 | 1 << 21;
            limit_bounding(keep).unwrap();
            assert_eq!(bounding(), keep);
            // Again: nothing is left to drop.
            limit_bounding(keep).unwrap();
        });
    }
}
