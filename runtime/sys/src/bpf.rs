//! bpf(2): load programs, and attach, list, replace and detach the device filters of cgroups. Maps are in [`map`].

pub mod map;

use crate::{Error, Result};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// The registers: destination in the low four bits, source in the high ones (little-endian machines).
    pub registers: u8,
    /// Where to jump, or an offset into memory.
    pub offset: i16,
    /// The operand.
    pub immediate: i32,
}

impl Instruction {
    /// Reads an instruction as it lies in memory on a little-endian machine.
    pub fn from_bytes(b: [u8; 8]) -> Self {
        Self {
            code: b[0],
            registers: b[1],
            offset: i16::from_le_bytes([b[2], b[3]]),
            immediate: i32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        }
    }
}

/// What a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It decides on the access to devices of a cgroup's processes.
    DeviceFilter,
    /// It decides what becomes of packets, as a filter of tc(8).
    Classifier,
}

impl Kind {
    /// BPF_PROG_TYPE_CGROUP_DEVICE, BPF_PROG_TYPE_SCHED_CLS.
    fn program_type(self) -> u32 {
        match self {
            Kind::DeviceFilter => 15,
            Kind::Classifier => 3,
        }
    }

    /// BPF_CGROUP_DEVICE; a classifier has none.
    fn attach_type(self) -> u32 {
        match self {
            Kind::DeviceFilter => BPF_CGROUP_DEVICE,
            Kind::Classifier => 0,
        }
    }
}

/// A program that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's verifier refused the program: {log}")]
pub struct Refused {
    /// The call's error.
    pub source: Error,
    /// The end of what the verifier had to say; empty if the program did not get that far.
    pub log: String,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The most programs that the kernel allows on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// `union bpf_attr` of BPF_PROG_LOAD, up to what is used here; the kernel takes what is missing as zero.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    program_flags: u32,
    name: [u8; 16],
    interface_index: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` of BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
    replaced_fd: u32,
}

/// `union bpf_attr` of BPF_PROG_QUERY.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// `union bpf_attr` of BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
struct FdById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `union bpf_attr` of BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct InfoByFd {
    fd: u32,
    size: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`, beyond which the kernel does not write when it is told this size.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    code_lengths: [u32; 2],
    codes: [u64; 2],
    load_time: u64,
    user: u32,
    map_count: u32,
    maps: u64,
}

/// The most maps of a program that are asked for.
const MAX_MAPS: usize = 16;

/// What tells a loaded program from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its number, which another program may have once this one has gone.
    pub id: u32,
    /// The kernel's hash of its instructions.
    pub tag: [u8; 8],
}

fn bpf<T>(call: &'static str, command: libc::c_int, attr: &mut T) -> Result<libc::c_long> {
    // SAFETY: bpf reads and writes at most the given number of bytes at `attr`, which is a whole T, and follows the pointers in it:
    // each caller keeps what those point to alive, and as long as the attr says, across the call.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    Error::check(call, returned)
}

/// Loads a program under `name` (its first 15 bytes; letters, digits, '_' and '.'), as bpftool(8) will show it. The program
/// calls no kernel function that is for GPL programs only.
pub fn load(kind: Kind, name: &str, program: &[Instruction]) -> std::result::Result<OwnedFd, Refused> {
    let mut log = Vec::new();
    load_logging(kind, name, program, &mut log).or_else(|first| {
        // Once more, with the verifier's reasons, which cost too much to ask for every time.
        log.resize(64 << 10, 0);
        load_logging(kind, name, program, &mut log).map_err(|_| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let text = String::from_utf8_lossy(&log[..end]);
            let tail: Vec<&str> = text.trim_end().lines().rev().take(4).collect();
            Refused { source: first, log: tail.into_iter().rev().collect::<Vec<_>>().join("; ") }
        })
    })
}

fn load_logging(kind: Kind, name: &str, program: &[Instruction], log: &mut [u8]) -> Result<OwnedFd> {
    let license = CString::from(c"Apache-2.0");
    let mut attr = Load {
        program_type: kind.program_type(),
        instruction_count: u32::try_from(program.len())
            .map_err(|_| Error::new("bpf PROG_LOAD", Errno::TOOBIG))?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        program_flags: 0,
        name: [0; 16],
        interface_index: 0,
        expected_attach_type: kind.attach_type(),
    };
    for (place, byte) in attr.name[..15].iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    let mut tries = 0;
    loop {
        match bpf("bpf PROG_LOAD", BPF_PROG_LOAD, &mut attr) {
            // SAFETY: the kernel has just made this fd (close-on-exec) for us alone; fds fit an i32.
            Ok(number) => return Ok(unsafe { OwnedFd::from_raw_fd(number as i32) }),
            // The verifier gives way to a pending signal in this manner.
            Err(error) if error.errno() == Errno::AGAIN && tries < 5 => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Attaches a device filter to a cgroup beside those there: an access must pass every one of them, and those of the ancestors.
pub fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        program_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replaced_fd: 0,
    };
    bpf("bpf PROG_ATTACH", BPF_PROG_ATTACH, &mut attr)?;
    Ok(())
}

/// Puts `program` in the place of `old` on a cgroup, in one step: at no moment is the cgroup without a filter.
pub fn replace(cgroup: BorrowedFd<'_>, old: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        program_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | BPF_F_REPLACE,
        replaced_fd: old.as_raw_fd() as u32,
    };
    bpf("bpf PROG_ATTACH", BPF_PROG_ATTACH, &mut attr)?;
    Ok(())
}

/// Takes a device filter off a cgroup.
pub fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        program_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf("bpf PROG_DETACH", BPF_PROG_DETACH, &mut attr)?;
    Ok(())
}

/// The ids of the device filters attached to this cgroup itself, oldest first.
pub fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attr = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    bpf("bpf PROG_QUERY", BPF_PROG_QUERY, &mut attr)?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}

/// The program with this id; ENOENT if it is gone.
pub fn program(id: u32) -> Result<OwnedFd> {
    let mut attr = FdById { id, next_id: 0, open_flags: 0 };
    let number = bpf("bpf PROG_GET_FD_BY_ID", BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: the kernel has just made this fd (close-on-exec) for us alone; fds fit an i32.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// What the kernel has of a loaded program, with the ids of up to `maps.len()` of its maps, and how many it has.
fn info(program: BorrowedFd<'_>, maps: &mut [u32]) -> Result<ProgramInfo> {
    let mut info = ProgramInfo {
        map_count: maps.len() as u32,
        maps: maps.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    let size = size_of::<ProgramInfo>() as u32;
    let mut attr = InfoByFd { fd: program.as_raw_fd() as u32, size, info: &raw mut info as u64 };
    bpf("bpf OBJ_GET_INFO_BY_FD", BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// The identity of a loaded program; `None` if it is not of this kind.
pub fn identity(program: BorrowedFd<'_>, kind: Kind) -> Result<Option<Identity>> {
    let info = info(program, &mut [])?;
    let identity = Identity { id: info.id, tag: info.tag };
    Ok((info.kind == kind.program_type()).then_some(identity))
}

/// The ids of the maps of a loaded program, in the order in which it uses them; of at most 16.
pub fn maps_of(program: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = vec![0; MAX_MAPS];
    let info = info(program, &mut ids)?;
    ids.truncate(info.map_count as usize);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::skipped;
    use std::fs;
    use std::os::fd::AsFd;
    use std::path::PathBuf;

    /// A program that gives `verdict` for every access: 1 allows it, 0 denies it.
    fn always(verdict: i32) -> [Instruction; 2] {
        [
            Instruction { code: 0xb7, registers: 0, offset: 0, immediate: verdict },
            Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
        ]
    }

    /// A cgroup of the test's own, removed at its end.
    struct Group(PathBuf);

    impl Group {
        fn new(name: &str) -> Option<Group> {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
            let path =
                PathBuf::from(line.split(' ').nth(4)?).join(format!("croft-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Some(Group(path))
        }

        fn open(&self) -> OwnedFd {
            fs::File::open(&self.0).unwrap().into()
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).unwrap();
        }
    }

    #[test]
    fn filters_are_attached_listed_replaced_and_detached() {
        let Some(group) = Group::new("bpf") else { return skipped("bpf: attach", "no cgroup2 is mounted") };
        let cgroup = group.open();
        let allow = load(Kind::DeviceFilter, "croft_allow", &always(1)).unwrap();
        let deny = load(Kind::DeviceFilter, "a_name_longer_than_fifteen_bytes", &always(0)).unwrap();
        attach(cgroup.as_fd(), allow.as_fd()).unwrap();
        let first = attached(cgroup.as_fd()).unwrap();
        assert_eq!(first.len(), 1);
        replace(cgroup.as_fd(), program(first[0]).unwrap().as_fd(), deny.as_fd()).unwrap();
        let second = attached(cgroup.as_fd()).unwrap();
        assert!(second.len() == 1 && second != first);
        attach(cgroup.as_fd(), allow.as_fd()).unwrap();
        assert_eq!(attached(cgroup.as_fd()).unwrap(), [second[0], first[0]]);
        detach(cgroup.as_fd(), deny.as_fd()).unwrap();
        detach(cgroup.as_fd(), allow.as_fd()).unwrap();
        assert!(attached(cgroup.as_fd()).unwrap().is_empty());
        assert_eq!(detach(cgroup.as_fd(), allow.as_fd()).unwrap_err().errno(), Errno::NOENT);
    }

    #[test]
    fn a_loaded_program_has_an_identity() {
        let allow = load(Kind::DeviceFilter, "croft_allow", &always(1)).unwrap();
        let deny = load(Kind::DeviceFilter, "croft_deny", &always(0)).unwrap();
        let again = load(Kind::DeviceFilter, "croft_again", &always(1)).unwrap();
        let [first, second, third] =
            [&allow, &deny, &again].map(|p| identity(p.as_fd(), Kind::DeviceFilter).unwrap().unwrap());
        assert!(first.tag != second.tag && first.tag == third.tag && first.id != third.id);
        assert_eq!(identity(program(first.id).unwrap().as_fd(), Kind::DeviceFilter).unwrap(), Some(first));
    }

    #[test]
    fn an_attached_filter_decides_for_the_group() {
        let Some(group) = Group::new("bpf-deny") else {
            return skipped("bpf: deny", "no cgroup2 is mounted");
        };
        let cgroup = group.open();
        let deny = load(Kind::DeviceFilter, "croft_deny", &always(0)).unwrap();
        attach(cgroup.as_fd(), deny.as_fd()).unwrap();
        let script = format!("echo $$ > {}/cgroup.procs; exec head -c 1 /dev/zero 2>&1", group.0.display());
        let denied = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        detach(cgroup.as_fd(), deny.as_fd()).unwrap();
        assert!(String::from_utf8_lossy(&denied.stdout).contains("Operation not permitted"), "{denied:?}");
        let allowed = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(allowed.stdout, [0]);
    }

    #[test]
    fn a_refused_program_comes_with_the_verifiers_reason() {
        let uninitialised = [Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 }];
        let refused = load(Kind::DeviceFilter, "croft_bad", &uninitialised).unwrap_err();
        assert_eq!(refused.source.errno(), Errno::ACCESS);
        assert!(refused.log.contains("R0"), "{}", refused.log);
    }
}
