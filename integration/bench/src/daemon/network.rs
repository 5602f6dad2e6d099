//! What a network costs: a start on a bridge beside one without, a start beside many containers with published ports, and throughput
//! beside that of a veth pair and nothing else.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use croft_harness::croft::UNFILTERED_BRIDGES;
use croft_harness::host::Host;
use croft_harness::{Stage, build};
use serde_json::Value;

use super::OURS;
use super::caller::Caller;
use crate::report::Report;
use crate::target::Bound;
use crate::timing::{Times, median};
use crate::{Depth, Priority};

/// How many ports each container publishes where that is measured.
const PORTS: usize = 32;

/// How many containers there are in the end with that many ports.
const MANY: usize = 200;

/// Seconds of each transfer: many short ones, in turns, as the machine's speed changes.
const TRANSFER: &str = "1";

/// Measures and prints. Exits with 1 when a target is not reached.
pub fn run(depth: Depth) -> Result<ExitCode> {
    let host = Host::of(build::croft_oci()?)?;
    crate::ensure(&["iperf3"])?;
    let _priority = Priority::highest();
    let mut report = Report::new(&host, OURS)?;
    let croft = Caller::croft(&host)?;
    set_up(&croft, if depth == Depth::Quick { 5 } else { 100 }, &mut report)?;
    throughput(&croft, if depth == Depth::Quick { 4 } else { 40 }, &mut report)?;
    growth(&host, &croft, if depth == Depth::Quick { (MANY / 4, 5) } else { (MANY, 40) }, &mut report)?;
    print!("{}", report.markdown());
    Ok(if report.reached() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Microseconds that one of croft's commands takes.
fn time(croft: &Caller, args: &[&str]) -> Result<f64> {
    let begin = Instant::now();
    let done = croft.verb(args)?;
    let taken = begin.elapsed();
    done.success()?;
    Ok(taken.as_secs_f64() * 1e6)
}

/// `start` of a container that is there, which is when its network is made.
fn set_up(croft: &Caller, rounds: usize, report: &mut Report) -> Result<()> {
    let kinds = [("on a bridge", "croft"), ("no network", "none")];
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds + 2 {
        for place in 0..kinds.len() {
            let (kind, network) = kinds[(round + place) % kinds.len()];
            croft
                .verb(&["create", "--name", "one", "--network", network, "box", "sleep", "1000"])?
                .success()?;
            let taken = time(croft, &["start", "one"])?;
            croft.verb(&["rm", "--force", "one"])?.success()?;
            if round >= 2 {
                times.entry(kind).or_default().push(taken);
            }
        }
    }
    let more = median(&times[kinds[0].0]) - median(&times[kinds[1].0]);
    let order = kinds.map(|(kind, _)| kind.to_owned());
    let times: Times = times.into_iter().map(|(kind, times)| (kind.to_owned(), Ok(times))).collect();
    report.times("`start` of a container that was created", &order, &times);
    report.verdict("what a network adds to a start, ms".to_owned(), Bound::AtMost(3.0), Some(more / 1e3));
    Ok(())
}

/// Creates and starts a container with ports of its own, the `number`th; how long each took.
fn published(croft: &Caller, number: usize) -> Result<[f64; 2]> {
    let first = 10_000 + number * PORTS;
    let name = format!("port-{number}");
    let ports: Vec<String> =
        (0..PORTS).map(|port| format!("--publish={}:{}", first + port, 1000 + port)).collect();
    let mut args = vec!["create", "--name", &name, "--network", "croft"];
    args.extend(ports.iter().map(String::as_str));
    args.extend(["box", "sleep", "1000"]);
    Ok([time(croft, &args)?, time(croft, &["start", &name])?])
}

/// One more container beside `count` with ports of their own, and one on a croftd with none, in turns.
fn growth(host: &Host, crowded: &Caller, (count, rounds): (usize, usize), report: &mut Report) -> Result<()> {
    let empty = Caller::croft(host)?;
    for number in 1..count {
        published(crowded, number)?;
    }
    let order = [format!("container {count}"), "the first".to_owned()];
    let contenders = [crowded, &empty];
    let mut times = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for round in 0..rounds + 2 {
        for place in 0..contenders.len() {
            let which = (round + place) % contenders.len();
            let taken = published(contenders[which], 0)?;
            contenders[which].verb(&["rm", "--force", "port-0"])?.success()?;
            if round >= 2 {
                for (verb, time) in taken.into_iter().enumerate() {
                    times[verb][which].push(time);
                }
            }
        }
    }
    for (name, [late, early]) in ["create", "start"].into_iter().zip(times) {
        let ratio = median(&late) / median(&early);
        let both: Times = order.iter().cloned().zip([Ok(late), Ok(early)]).collect();
        report.times(&format!("`{name}` with {PORTS} published ports"), &order, &both);
        let what = format!("{name} of container {count} with {PORTS} ports, of the first one's time");
        report.verdict(what, Bound::AtMost(1.1), Some(ratio));
    }
    for number in 1..count {
        crowded.verb(&["rm", "--force", &format!("port-{number}")])?.success()?;
    }
    let left = crowded.verb(&["system", "check"])?;
    ensure!(left.code() == 0, "{left}");
    Ok(())
}

/// Bits a second from one network namespace to another. Sender and receiver have a processor each: otherwise a transfer is half as fast as
/// the next whenever the scheduler places them otherwise.
fn transfer(stage: &Stage, from: &str, to: &str, address: &str) -> Result<f64> {
    // The client comes before the server listens, until it does not. (With --json it ends with 0 all the same.)
    let script = format!(
        "taskset --cpu-list 0 nsenter --net={to} iperf3 --server --one-off >/dev/null 2>&1 & \
         until taskset --cpu-list 1 nsenter --net={from} iperf3 --client {address} --time {TRANSFER} --json >/tmp/said && grep -q sum_received /tmp/said; \
         do :; done; wait; cat /tmp/said"
    );
    let said = stage.run("timeout", &["60", "sh", "-c", &script])?.success()?.stdout;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let rate = &said["end"]["sum_received"]["bits_per_second"];
    rate.as_f64().with_context(|| format!("iperf3 says no rate: {said}"))
}

/// Between two containers of a network, between two namespaces with a veth pair, and between two on a bridge without a rule.
fn throughput(croft: &Caller, rounds: usize, report: &mut Report) -> Result<()> {
    let stage = croft.stage();
    let bare = "mkdir -p /run/netns && ip netns add bench-a && ip netns add bench-b && \
                ip link add eth0 netns bench-a type veth peer name eth0 netns bench-b && \
                ip -n bench-a address add 10.250.0.1/24 dev eth0 && ip -n bench-b address add 10.250.0.2/24 dev eth0 && \
                ip -n bench-a link set eth0 up && ip -n bench-b link set eth0 up";
    let bridged = "ip netns add bench-s && ip -n bench-s link add br0 type bridge && ip -n bench-s link set br0 up && \
                   for end in c:3 d:4; do n=bench-${end%:*}; ip netns add $n && \
                   ip link add eth0 netns $n type veth peer name $n netns bench-s && \
                   ip -n bench-s link set $n master br0 up && ip -n $n link set eth0 up && \
                   ip -n $n address add 10.250.1.${end#*:}/24 dev eth0 || exit; done";
    stage.run("sh", &["-ec", bare])?.success()?;
    stage.run("sh", &["-ec", bridged])?.success()?;
    stage.run("ip", &["netns", "exec", "bench-s", "sh", "-ec", UNFILTERED_BRIDGES])?.success()?;
    let mut namespaces = Vec::new();
    for name in ["from", "to"] {
        let run = ["run", "--detach", "--network", "croft", "--name", name, "box", "sleep", "1000"];
        croft.verb(&run)?.success()?;
        let shown: Value = serde_json::from_str(&croft.verb(&["inspect", name])?.success()?.stdout)?;
        let shown = if shown.is_array() { shown[0].clone() } else { shown };
        let address = shown["addresses"][0].as_str().and_then(|address| address.split('/').next());
        namespaces.push((
            format!("/proc/{}/ns/net", shown["pid"]),
            address.context("it has an address")?.to_owned(),
        ));
    }
    let ways = [
        ("two containers of a network", &*namespaces[0].0, &*namespaces[1].0, &*namespaces[1].1),
        ("a veth pair", "/run/netns/bench-a", "/run/netns/bench-b", "10.250.0.2"),
        ("a bridge without a rule", "/run/netns/bench-c", "/run/netns/bench-d", "10.250.1.4"),
    ];
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        for place in 0..ways.len() {
            let (way, from, to, address) = ways[(round + place) % ways.len()];
            rates.entry(way).or_default().push(transfer(stage, from, to, address)?);
        }
    }
    let rows: Vec<Vec<String>> = ways
        .iter()
        .map(|(way, ..)| vec![(*way).to_owned(), format!("{:.1}", median(&rates[way]) / 1e9)])
        .collect();
    report.table("TCP, one connection", &["between", "median Gbit/s"], &rows);
    let ratio = median(&rates[ways[0].0]) / median(&rates[ways[1].0]);
    report.verdict(
        "throughput between containers, of a veth pair's".to_owned(),
        Bound::AtLeast(0.97),
        Some(ratio),
    );
    stage.run("sh", &["-ec", "for n in a b c d s; do ip netns del bench-$n; done"])?.success()?;
    croft.verb(&["rm", "--force", "from", "to"])?.success()?;
    Ok(())
}
