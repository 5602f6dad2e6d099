//! The numbers of many containers, for who looks at them again and again: what they share of the host is looked at once.

use std::os::fd::AsFd;
use std::path::Path;

use croft_plan::cgroup::stats::Stats;
use croft_plan::cgroup::{CgroupHost, Source, Version};
use croft_plan::lifecycle::Verb;
use croft_sys::proc::Proc;
use croft_sys::{Errno, cgroup, wait};

use crate::error::{Context, Result};
use crate::events::malformed;
use crate::ps::{self, running};
use crate::state::StateRoot;

/// What procfs counts times in: USER_HZ, the same on every architecture that croft is built for (proc_pid_stat(5)).
pub const TICKS_PER_SECOND: u64 = 100;

/// Reads numbers.
#[derive(Debug)]
pub struct Reader {
    root: StateRoot,
    proc: Proc,
    host: CgroupHost,
}

/// What went over a network interface, as whoever has it sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that came.
    pub received_bytes: u64,
    /// Packets that came.
    pub received_packets: u64,
    /// Packets that came and were lost.
    pub received_dropped: u64,
    /// Bytes that went.
    pub sent_bytes: u64,
    /// Packets that went.
    pub sent_packets: u64,
    /// Packets that were to go and were lost.
    pub sent_dropped: u64,
}

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number on the host.
    pub pid: i32,
    /// Its number in the container.
    pub pid_inside: i32,
    /// Its parent's number on the host.
    pub parent: i32,
    /// Its user on the host.
    pub uid: u32,
    /// Its state's letter: `R`, `S`, `D`, ...
    pub state: char,
    /// How many threads it has.
    pub threads: u64,
    /// Its memory that is in RAM, in bytes.
    pub memory: u64,
    /// The processor time that it used, in clock ticks (see [`TICKS_PER_SECOND`]).
    pub ticks: u64,
    /// When it began, in clock ticks since boot.
    pub start: u64,
    /// Its arguments, or its name in brackets.
    pub command: String,
}

impl Reader {
    /// Looks at the host.
    ///
    /// # Errors
    /// When /proc is not procfs, or the host has no cgroup2 mount.
    pub fn new(root: StateRoot) -> Result<Self> {
        let proc = Proc::open().on(|| "open /proc".into())?;
        let host = crate::facts::gather(&proc)?.cgroups;
        Ok(Self { root, proc, host })
    }

    /// The numbers of a container's groups.
    ///
    /// # Errors
    /// When it does not run, or a file of its groups cannot be understood.
    pub fn stats(&self, id: &str) -> Result<Stats> {
        let container = running(&self.root, id, Verb::Events, &self.proc)?;
        let mut files = |source: Source<'_>| crate::update::read(&container.record.groups, source);
        Stats::read(&self.host, &mut files).map_err(malformed)
    }

    /// The numbers of a group that is called `path` in every hierarchy, with all below it. Zeros where there is none.
    ///
    /// # Errors
    /// When a file of it cannot be understood.
    pub fn group(&self, path: &Path) -> Result<Stats> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let mut files = |source: Source<'_>| {
            let mount = match source.version {
                Version::V2 => Some(&self.host.v2.mount),
                Version::V1 => self.host.v1.get(source.controller),
            };
            let Some(mount) = mount else { return Ok(None) };
            match cgroup::open(&mount.join(path)).and_then(|dir| cgroup::read(dir.as_fd(), source.file)) {
                Ok(text) => Ok(Some(text)),
                Err(e) if matches!(e.errno(), Errno::NOENT | Errno::OPNOTSUPP | Errno::NODEV) => Ok(None),
                Err(e) => Err(e),
            }
        };
        Stats::read(&self.host, &mut files).map_err(malformed)
    }

    /// What went over all interfaces of a container's network namespace but the loopback.
    ///
    /// # Errors
    /// When it does not run.
    pub fn traffic(&self, id: &str) -> Result<Traffic> {
        let container = running(&self.root, id, Verb::Events, &self.proc)?;
        let (Some(pidfd), Some(process)) = (&container.pidfd, container.record.process) else {
            return Ok(Traffic::default());
        };
        let text = self.proc.read(&format!("{}/net/dev", process.pid));
        // The number was still its own when the file was read if the process lives even now.
        if !wait::is_alive(pidfd.as_fd()).unwrap_or(false) {
            return Ok(Traffic::default());
        }
        Ok(traffic(&text.on(|| format!("read the interfaces of container {id:?}"))?))
    }

    /// The processes of a container, in the order of their numbers. Those that end meanwhile are left out.
    ///
    /// # Errors
    /// When it does not run.
    pub fn processes(&self, id: &str) -> Result<Vec<Process>> {
        let pids = ps::pids(&self.root, id)?;
        Ok(pids.into_iter().filter_map(|pid| self.process(pid)).collect())
    }

    fn process(&self, pid: i32) -> Option<Process> {
        let stat = self.proc.read(&format!("{pid}/stat")).ok()?;
        let status = self.proc.read(&format!("{pid}/status")).ok()?;
        let arguments = self.proc.read(&format!("{pid}/cmdline")).unwrap_or_default();
        process(pid, &stat, &status, &arguments)
    }
}

/// What the files `stat`, `status` and `cmdline` of a process say (proc(5)).
fn process(pid: i32, stat: &str, status: &str, arguments: &str) -> Option<Process> {
    // The name in field 2 may hold anything: what follows is counted from its end.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let name = line("Name").unwrap_or_default().trim();
    let words: Vec<&str> = arguments.split('\0').filter(|word| !word.is_empty()).collect();
    Some(Process {
        pid,
        pid_inside: line("NSpid")?.split_whitespace().last()?.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        uid: line("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        threads: number(20)?,
        memory: line("VmRSS")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or_default()
            * 1024,
        ticks: number(14)? + number(15)?,
        start: number(22)?,
        command: if words.is_empty() { format!("[{name}]") } else { words.join(" ") },
    })
}

/// The sum of the lines of `/proc/PID/net/dev` but `lo`.
fn traffic(text: &str) -> Traffic {
    let mut sum = Traffic::default();
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    for (_, numbers) in interfaces.filter(|(name, _)| name.trim() != "lo") {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let at = |field: usize| numbers.get(field).copied().unwrap_or_default();
        sum.received_bytes += at(0);
        sum.received_packets += at(1);
        sum.received_dropped += at(3);
        sum.sent_bytes += at(8);
        sum.sent_packets += at(9);
        sum.sent_dropped += at(11);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_does_not_count() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                    lo:    9000      90    0    0    0     0          0         0     9000      90    0    0    0     0       0          0\n  \
                    eth0:    1000      10    0    1    0     0          0         0      200       2    0    3    0     0       0          0\n  \
                    eth1:5       1    0    0    0     0          0         0      7       1    0    0    0     0       0          0\n";
        let expected = Traffic {
            received_bytes: 1005,
            received_packets: 11,
            received_dropped: 1,
            sent_bytes: 207,
            sent_packets: 3,
            sent_dropped: 3,
        };
        assert_eq!(traffic(text), expected);
    }

    #[test]
    fn a_process_with_a_hostile_name_is_understood() {
        let stat = "7 (a) Z 1 (b)) R 3 7 7 0 -1 4 0 0 0 0 11 2 3 4 20 0 5 0 4242 99 1 2";
        let status = "Name:\ta) Z 1 (b\nUid:\t0\t100000\t0\t0\nVmRSS:\t    12 kB\nNSpid:\t7\t1\n";
        let found = process(7, stat, status, "sh\0-c\0true\0").unwrap();
        let expected = Process {
            pid: 7,
            pid_inside: 1,
            parent: 3,
            uid: 100_000,
            state: 'R',
            threads: 5,
            memory: 12 << 10,
            ticks: 13,
            start: 4242,
            command: "sh -c true".into(),
        };
        assert_eq!(found, expected);
        assert_eq!(process(7, stat, status, "").unwrap().command, "[a) Z 1 (b]");
    }

    #[test]
    fn the_own_group_has_numbers() {
        let reader = Reader::new(StateRoot::new("/nonexistent".into())).unwrap();
        let root = reader.group(Path::new("/")).unwrap();
        let missing = reader.group(Path::new("/no/such/group")).unwrap();
        assert_eq!((missing.pids.current, missing.memory.usage.usage), (0, 0));
        assert!(root.cpu.usage.total > 0 || root.memory.usage.usage > 0 || reader.host.v1.is_empty());
        assert!(reader.stats("none-such").is_err());
    }
}
