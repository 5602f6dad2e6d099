//! Replacing the running program, and which descriptors stay open over it.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::error::{Call, Error, Result};
use crate::mount::{self, Attributes, Depth};

/// The commands of croft-oci that make a process which a container can look at: for them it is sealed. As any other argument the word
/// costs a needless seal.
pub const CLONING: [&str; 3] = ["create", "run", "exec"];

/// What the mount of a sealed program is.
pub(crate) const SEAL: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Runs the program `path` in place of the caller; returns only on failure.
pub fn execve(path: &Path, args: &[CString], env: &[CString]) -> Result<Infallible> {
    let path = c_path(path)?;
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: path and every element are NUL-terminated strings that outlive the call, both arrays end in a null pointer.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Err(Error::last("execve"))
}

/// Runs the program behind `file` in place of the caller; returns only on failure.
pub fn fexecve(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> Result<Infallible> {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: as in execve; the path is an empty string, which AT_EMPTY_PATH makes mean the file itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(Error::last("execveat"))
}

fn c_path(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::new("execve", rustix::io::Errno::INVAL))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Marks every descriptor from `first` on as closed on exec (close_range(2), Linux 5.11).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: integers only; no descriptor is closed now, so no owner is left with a number that is not its own.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if r == 0 { Ok(()) } else { Err(Error::last("close_range")) }
}

/// Closes every descriptor from `first` on but those in `keep`: for a clone that never returns to the code that owns them.
pub fn close_all_but(first: u32, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|n| *n >= first).collect();
    numbers.sort_unstable();
    let mut from = first;
    for next in numbers.into_iter().chain([u32::MAX]) {
        // SAFETY: integers only. The owners of what is closed are in frames that this process, a clone that ends in exec or
        // exit, never goes back to; whatever it goes on to use is in `keep`.
        if next > from && unsafe { libc::syscall(libc::SYS_close_range, from, next - 1, 0) } != 0 {
            return Err(Error::last("close_range"));
        }
        from = next.saturating_add(1);
    }
    Ok(())
}

/// The program that the caller runs, as an `O_PATH` descriptor.
pub fn own_program() -> Result<OwnedFd> {
    rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call("open /proc/self/exe")
}

/// Whether the caller's program runs from what [`seal`] or [`seal_copy`] made. A mount that `seal` made is read-only and of
/// that one file, so that its path there is `/`. A read-only mount of the host's is not enough: it may be made writable
/// later, while a container still holds a descriptor of a file in it.
pub fn is_sealed() -> Result<bool> {
    let link = rustix::fs::readlink("/proc/self/exe", Vec::new()).call("readlink /proc/self/exe")?;
    let flags = rustix::fs::fstatvfs(own_program()?).call("fstatvfs")?.f_flag;
    if link.as_bytes() == b"/" && flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    // Only a descriptor that is open for reading tells the seals; a file that may not be read has none.
    let readable = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let seals = readable.and_then(|file| rustix::fs::fcntl_get_seals(&file));
    Ok(seals.is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// Whether `program` is root's and only root can change it: then a container of an ordinary user cannot.
pub fn belongs_to_the_system(program: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstat(program).call("fstat")?;
    Ok(stat.st_uid == 0 && stat.st_mode & 0o022 == 0)
}

/// A copy of the caller's program in memory that nobody can change any more (memfd_create(2), CVE-2019-5736).
pub fn seal_copy() -> Result<OwnedFd> {
    let program = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let program = program.call("open /proc/self/exe")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A kernel of before 6.3 does not know that a file in memory can be kept from being run, nor the flag that allows it.
    let copy = match rustix::fs::memfd_create(c"croft-oci", flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"croft-oci", flags),
        other => other,
    };
    let copy = copy.call("memfd_create")?;
    let mut left = rustix::fs::fstat(&program).call("fstat")?.st_size as usize;
    while left > 0 {
        match rustix::fs::sendfile(&copy, &program, None, left).call("sendfile")? {
            0 => return Err(Error::new("sendfile of a program that shrinks", rustix::io::Errno::IO)),
            n => left = left.saturating_sub(n),
        }
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).call("seal")?;
    Ok(copy)
}

/// A descriptor for `program` through a read-only mount of its own that is attached nowhere and, once the descriptor is closed
/// by an exec, can be reached, changed and reopened for writing by nobody (CVE-2019-5736).
pub fn seal(program: BorrowedFd<'_>) -> Result<OwnedFd> {
    let sealed = mount::open_tree(program, Path::new(""), Depth::One)?;
    let attributes = Attributes { set: SEAL, propagation: libc::MS_PRIVATE, ..Default::default() };
    mount::set_attributes(sealed.as_fd(), Depth::One, attributes)?;
    Ok(sealed)
}
