//! What containers use: samples of their groups' and interfaces' counters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use croft_api::container::{NetworkMode, State};
use croft_api::problem::{Kind, Problem};
use croft_api::stats::{Pressure, Process, Stall, Stats, Traffic};
use croft_engine::counters::{self, Reader};
use croft_plan::cgroup::stats as raw;

use crate::container::View;
use crate::daemon::{Shared, error_chain};

/// Takes samples, and remembers the last of each container for what is a rate.
#[derive(Debug)]
pub struct Sampler {
    reader: Reader,
    host_memory: u64,
    before: HashMap<String, (Instant, u64)>,
}

/// Whether a container has numbers.
pub fn runs(view: &View) -> bool {
    matches!(view.state, State::Running | State::Paused)
}

impl Sampler {
    /// Looks at the host.
    ///
    /// # Errors
    /// When its control groups cannot be looked at.
    pub fn new(shared: &Arc<Shared>) -> Result<Self, Problem> {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Ok(Sampler {
            reader: shared.counters()?,
            host_memory: kib.map_or(u64::MAX, |kib| kib * 1024),
            before: HashMap::new(),
        })
    }

    /// The numbers of those of `views` that run, in their order. One that ends meanwhile is left out.
    pub fn take(&mut self, views: &[View]) -> Vec<Stats> {
        let mut all = Vec::new();
        let mut seen = HashMap::new();
        for view in views.iter().filter(|view| runs(view)) {
            let id = &view.record.id;
            let now = Instant::now();
            let Ok(raw) = self.reader.stats(id) else { continue };
            let mut stats = shown(view, &raw, self.host_memory);
            if view.record.config.network != NetworkMode::Host {
                stats.network = self.reader.traffic(id).ok().map(traffic);
            }
            if let Some((then, used)) = self.before.get(id) {
                let passed = now.duration_since(*then).as_nanos().max(1) as f64;
                stats.cpu_percent = stats.cpu_ns.saturating_sub(*used) as f64 / passed * 100.0;
            }
            seen.insert(id.clone(), (now, stats.cpu_ns));
            all.push(stats);
        }
        self.before = seen;
        all
    }
}

fn shown(view: &View, raw: &raw::Stats, host_memory: u64) -> Stats {
    let sum = |op: &str| -> u64 {
        let of_op = raw.blkio.io_service_bytes_recursive.iter().filter(|entry| entry.op == op);
        of_op.map(|entry| entry.value).sum()
    };
    // On v1 the group's own and all below it are told apart.
    let inactive = ["total_inactive_file", "inactive_file"].iter().find_map(|key| raw.memory.raw.get(*key));
    let limit = if raw.memory.usage.limit == 0 { u64::MAX } else { raw.memory.usage.limit };
    Stats {
        id: view.record.id.clone(),
        name: view.record.name.clone(),
        cpu_percent: 0.0,
        cpu_ns: raw.cpu.usage.total,
        throttled_ns: raw.cpu.throttling.throttled_time,
        memory: raw.memory.usage.usage.saturating_sub(inactive.copied().unwrap_or_default()),
        memory_limit: limit.min(host_memory),
        pids: raw.pids.current,
        pids_limit: Some(raw.pids.limit).filter(|limit| *limit != 0 && *limit != u64::MAX),
        block_read: sum("Read"),
        block_written: sum("Write"),
        network: None,
        pressure: pressure(raw),
    }
}

/// The pressure of a group; none where no kind of it is counted.
pub fn pressure(raw: &raw::Stats) -> Option<Pressure> {
    let kinds = [raw.cpu.psi, raw.memory.psi, raw.blkio.psi];
    if kinds.iter().all(Option::is_none) {
        return None;
    }
    let [cpu, memory, io] = kinds.map(|psi| {
        let psi = psi.unwrap_or_default();
        Stall {
            some_avg10: psi.some.avg10,
            full_avg10: psi.full.avg10,
            some_us: psi.some.total,
            full_us: psi.full.total,
        }
    });
    Some(Pressure { cpu, memory, io })
}

fn traffic(raw: counters::Traffic) -> Traffic {
    Traffic {
        received_bytes: raw.received_bytes,
        received_packets: raw.received_packets,
        received_dropped: raw.received_dropped,
        sent_bytes: raw.sent_bytes,
        sent_packets: raw.sent_packets,
        sent_dropped: raw.sent_dropped,
    }
}

/// The processes of a container.
///
/// # Errors
/// When it does not run.
pub fn processes(shared: &Shared, view: &View) -> Result<Vec<Process>, Problem> {
    let title = format!("top {}", view.record.name);
    if !runs(view) {
        let why = format!("it is {}", crate::container::word(view.state));
        return Err(Problem::new(Kind::WrongState, title, why));
    }
    let found = shared.counters()?.processes(&view.record.id);
    let found = found.map_err(|e| Problem::new(Kind::Internal, title, error_chain(&e)))?;
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime = uptime.split('.').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let first = view.record.ids;
    Ok(found
        .into_iter()
        .map(|process| Process {
            pid: process.pid,
            pid_inside: process.pid_inside,
            parent: process.parent,
            uid: process.uid,
            uid_inside: first.and_then(|first| process.uid.checked_sub(first)).unwrap_or(process.uid),
            state: process.state.to_string(),
            threads: process.threads,
            memory: process.memory,
            cpu_ms: process.ticks * 1000 / counters::TICKS_PER_SECOND,
            age: uptime.saturating_sub(process.start / counters::TICKS_PER_SECOND),
            command: process.command,
        })
        .collect())
}
