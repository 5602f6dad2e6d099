//! croftd's numbers for Prometheus, as OpenMetrics text. All but the latencies are read when they are asked for.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use croft_api::container::{Container, State};
use croft_api::stats::{Pressure, Stats};
use croft_plan::cgroup::stats as raw;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What a scrape says the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// How long requests took until their answers began, by method, path and status.
#[derive(Debug, Clone)]
pub struct Latency(Family<Labels, Histogram, fn() -> Histogram>);

/// Bounds in seconds: from what is answered from memory to what starts a container or waits for one.
const BOUNDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

impl Default for Latency {
    fn default() -> Self {
        Latency(Family::new_with_constructor(|| Histogram::new(BOUNDS)))
    }
}

impl Latency {
    /// Counts a request. `path` is the pattern, not what was asked: names in it would make a series each.
    pub fn count(&self, method: &str, path: &str, status: u16, took: Duration) {
        let labels =
            vec![("method", method.to_owned()), ("path", path.to_owned()), ("status", status.to_string())];
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// What is known at the moment of a scrape.
#[derive(Debug)]
pub struct Scrape {
    /// Every container.
    pub containers: Vec<Container>,
    /// The numbers of those that run.
    pub stats: Vec<Stats>,
    /// The numbers of the group that all of them are in.
    pub group: raw::Stats,
    /// The sizes of the images, in bytes.
    pub images: Vec<u64>,
    /// croftd's own process.
    pub own: Own,
}

/// What croftd itself uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Own {
    /// Bytes of memory in RAM.
    pub memory: u64,
    /// Bytes of address space.
    pub virtual_memory: u64,
    /// Seconds of processor time.
    pub cpu: f64,
    /// Descriptors that are open.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
}

impl Own {
    /// Looks at this process; zeros where procfs does not say.
    pub fn read() -> Self {
        let text = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let fds = std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default();
        Own { fds: fds as u64, ..Self::parse(&text("status"), &text("stat")) }
    }

    fn parse(status: &str, stat: &str) -> Self {
        let line = |key: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
        };
        let after_name = stat.rfind(')').and_then(|at| stat.get(at + 2..)).unwrap_or_default();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // utime and stime, fields 14 and 15 of proc_pid_stat(5).
        let ticks =
            |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Own {
            memory: line("VmRSS") * 1024,
            virtual_memory: line("VmSize") * 1024,
            cpu: (ticks(14) + ticks(15)) as f64 / croft_engine::counters::TICKS_PER_SECOND as f64,
            fds: 0,
            threads: line("Threads"),
        }
    }
}

type Samples = Vec<(Labels, f64)>;

fn gauge(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, samples: Samples) {
    let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
    for (labels, value) in samples {
        family.get_or_create(&labels).set(value);
    }
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family),
        None => registry.register(name, help, family),
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, samples: Samples) {
    let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
    for (labels, value) in samples {
        family.get_or_create(&labels).inc_by(value);
    }
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family),
        None => registry.register(name, help, family),
    }
}

/// A scrape as text.
pub fn text(scrape: &Scrape, latency: &Latency) -> String {
    let mut registry = Registry::default();
    containers(registry.sub_registry_with_prefix("croft_container"), &scrape.stats);
    total(registry.sub_registry_with_prefix("croft"), scrape);
    let api = registry.sub_registry_with_prefix("croft_api");
    let help = "How long requests took until their answers began";
    api.register_with_unit("request_duration", help, Unit::Seconds, latency.0.clone());
    own(registry.sub_registry_with_prefix("process"), &scrape.own);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn containers(registry: &mut Registry, stats: &[Stats]) {
    let each = |value: &dyn Fn(&Stats) -> f64| -> Samples {
        stats.iter().map(|stats| (name(stats), value(stats))).collect()
    };
    let seconds = |ns: u64| ns as f64 / 1e9;
    let (second, byte) = (Some(Unit::Seconds), Some(Unit::Bytes));
    counter(registry, "cpu", "Processor time used", second.clone(), each(&|s| seconds(s.cpu_ns)));
    let help = "Time that its processor limit did not let it run";
    counter(registry, "cpu_throttled", help, second.clone(), each(&|s| seconds(s.throttled_ns)));
    let help = "Memory, less what the page cache would give up first";
    gauge(registry, "memory_usage", help, byte.clone(), each(&|s| s.memory as f64));
    let help = "How much memory it may have, at most the host's";
    gauge(registry, "memory_limit", help, byte.clone(), each(&|s| s.memory_limit as f64));
    gauge(registry, "pids", "Processes and threads", None, each(&|s| s.pids as f64));
    let help = "Read from block devices";
    counter(registry, "block_read", help, byte.clone(), each(&|s| s.block_read as f64));
    let help = "Written to block devices";
    counter(registry, "block_written", help, byte.clone(), each(&|s| s.block_written as f64));
    traffic(registry, stats);
    let of = stats.iter().filter_map(|stats| Some((name(stats), stats.pressure?))).collect();
    pressure(registry, of);
}

fn name(stats: &Stats) -> Labels {
    vec![("id", stats.id.clone()), ("name", stats.name.clone())]
}

fn traffic(registry: &mut Registry, stats: &[Stats]) {
    let each = |value: fn(&croft_api::stats::Traffic) -> u64| -> Samples {
        let of = |stats: &Stats| Some((name(stats), value(&stats.network?) as f64));
        stats.iter().filter_map(of).collect()
    };
    let byte = Some(Unit::Bytes);
    let help = "What came over its network interfaces";
    counter(registry, "network_receive", help, byte.clone(), each(|t| t.received_bytes));
    let help = "What went over its network interfaces";
    counter(registry, "network_transmit", help, byte, each(|t| t.sent_bytes));
    let help = "Packets that came over its network interfaces";
    counter(registry, "network_receive_packets", help, None, each(|t| t.received_packets));
    let help = "Packets that went over its network interfaces";
    counter(registry, "network_transmit_packets", help, None, each(|t| t.sent_packets));
    let help = "Packets that came over its network interfaces and were lost";
    counter(registry, "network_receive_dropped", help, None, each(|t| t.received_dropped));
    let help = "Packets that were to go over its network interfaces and were lost";
    counter(registry, "network_transmit_dropped", help, None, each(|t| t.sent_dropped));
}

fn pressure(registry: &mut Registry, of: Vec<(Labels, Pressure)>) {
    let mut samples = Samples::new();
    for (labels, Pressure { cpu, memory, io }) in of {
        for (resource, stall) in [("cpu", cpu), ("memory", memory), ("io", io)] {
            for (tasks, us) in [("some", stall.some_us), ("full", stall.full_us)] {
                let further = [("resource", resource.to_owned()), ("tasks", tasks.to_owned())];
                let labels = labels.iter().cloned().chain(further).collect();
                samples.push((labels, us as f64 / 1e6));
            }
        }
    }
    let help = "How long some or all tasks waited for want of something (PSI)";
    counter(registry, "pressure_stalled", help, Some(Unit::Seconds), samples);
}

fn total(registry: &mut Registry, scrape: &Scrape) {
    let one = |value: f64| vec![(Labels::new(), value)];
    let states = [State::Created, State::Running, State::Paused, State::Stopped];
    let count = |state| scrape.containers.iter().filter(|container| container.state == state).count();
    let of_state = states.map(|state| (vec![("state", word(state).to_owned())], count(state) as f64));
    gauge(registry, "containers", "Containers by what they do", None, of_state.to_vec());
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    gauge(registry, "build", "croftd's version", Some(Unit::Other("info".into())), vec![(version, 1.0)]);
    gauge(registry, "images", "Images", None, one(scrape.images.len() as f64));
    let sizes = scrape.images.iter().sum::<u64>() as f64;
    let help = "The images' sizes in all; what several share is counted for each";
    gauge(registry, "images_size", help, Some(Unit::Bytes), one(sizes));
    let group = &scrape.group;
    let help = "Processor time used by all containers, those too that are gone";
    let cpu = group.cpu.usage.total as f64 / 1e9;
    counter(registry, "group_cpu", help, Some(Unit::Seconds), one(cpu));
    let help = "Memory of all containers, with their page cache";
    gauge(registry, "group_memory", help, Some(Unit::Bytes), one(group.memory.usage.usage as f64));
    gauge(registry, "group_pids", "Processes of all containers", None, one(group.pids.current as f64));
    let of = crate::stats::pressure(group).into_iter().map(|pressure| (Labels::new(), pressure)).collect();
    pressure(registry, of);
}

/// A state as the API writes it.
fn word(state: State) -> &'static str {
    match state {
        State::Created => "created",
        State::Running => "running",
        State::Paused => "paused",
        State::Stopped => "stopped",
    }
}

/// As every client library of Prometheus calls them.
fn own(registry: &mut Registry, own: &Own) {
    let one = |value: f64| vec![(Labels::new(), value)];
    let byte = Some(Unit::Bytes);
    gauge(registry, "resident_memory", "croftd's memory in RAM", byte.clone(), one(own.memory as f64));
    gauge(registry, "virtual_memory", "croftd's address space", byte, one(own.virtual_memory as f64));
    counter(registry, "cpu", "croftd's processor time", Some(Unit::Seconds), one(own.cpu));
    gauge(registry, "open_fds", "croftd's open descriptors", None, one(own.fds as f64));
    gauge(registry, "threads", "croftd's threads", None, one(own.threads as f64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_a_line_for_each_number() {
        let stats = Stats {
            id: "abc".into(),
            name: "web\"1".into(),
            cpu_ns: 1_500_000_000,
            network: Some(croft_api::stats::Traffic { received_bytes: 7, ..Default::default() }),
            pressure: Some(Pressure::default()),
            ..Stats::default()
        };
        let scrape = Scrape {
            containers: Vec::new(),
            stats: vec![stats],
            group: raw::Stats::default(),
            images: vec![10, 20],
            own: Own { memory: 4096, ..Own::default() },
        };
        let latency = Latency::default();
        latency.count("GET", "/containers/{name}", 200, Duration::from_millis(3));
        let text = text(&scrape, &latency);
        for line in [
            r#"croft_container_cpu_seconds_total{id="abc",name="web\"1"} 1.5"#,
            r#"croft_container_network_receive_bytes_total{id="abc",name="web\"1"} 7.0"#,
            "croft_images_size_bytes{} 30.0",
            "process_resident_memory_bytes{} 4096.0",
            r#"croft_api_request_duration_seconds_bucket{le="0.005",method="GET",path="/containers/{name}",status="200"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_own_process_is_understood() {
        let status = "Name:\tcroftd\nVmSize:\t    100 kB\nVmRSS:\t     50 kB\nThreads:\t5\n";
        let stat = "7 (croftd) S 3 7 7 0 -1 4 0 0 0 0 150 50 3 4 20 0 5 0 4242 99 1 2";
        let own = Own::parse(status, stat);
        let expected = Own { memory: 51_200, virtual_memory: 102_400, cpu: 2.0, fds: 0, threads: 5 };
        assert_eq!(own, expected);
        assert!(Own::read().fds > 2 && Own::read().memory > 0);
    }
}
