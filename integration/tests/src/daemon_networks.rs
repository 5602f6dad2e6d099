//! Networks in croftd and croft: made and removed, joined and left, and what is refused.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use croft_harness::stage::COMMAND_LIMIT;
use croft_harness::{Croft, Facility, Host, OnRunc, Subject, Test};
use serde_json::Value;

const OURS: OnRunc = OnRunc::CroftOnly("croftd is tried with the runtime that it comes with");

const NETWORKS: &[Facility] = &[Facility::Root, Facility::Packages(&["nftables", "iproute2"])];
const WITH_CURL: &[Facility] = &[Facility::Root, Facility::Packages(&["nftables", "iproute2", "curl"])];

pub const SUBJECT: Subject = Subject {
    name: "daemon_networks",
    on_runc: &[("*", OURS)],
    tests: &[
        Test { name: "networks_are_made_listed_and_removed", requires: NETWORKS, run: made_and_removed },
        Test { name: "a_container_has_several_networks_and_names", requires: NETWORKS, run: several },
        Test { name: "containers_join_and_leave_networks", requires: WITH_CURL, run: join_and_leave },
        Test { name: "a_routed_network_with_limits", requires: NETWORKS, run: routed_with_limits },
        Test { name: "a_start_is_not_heard_by_all_others", requires: NETWORKS, run: unheard },
        Test { name: "neighbours_talk_past_their_bridge", requires: NETWORKS, run: past_the_bridge },
        Test { name: "bad_requests_for_networks_leave_nothing", requires: NETWORKS, run: bad_requests },
        Test { name: "a_killed_croftd_finishes_what_it_began", requires: NETWORKS, run: killed },
    ],
};

/// What `croft` answers with `--format json`.
fn json(croft: &Croft, args: &[&str]) -> Result<Value> {
    let text = croft.ok(&[args, &["--format", "json"]].concat())?;
    serde_json::from_str(&text).with_context(|| text)
}

/// A container that sleeps.
fn sleeper(croft: &Croft, name: &str, options: &[&str]) -> Result<()> {
    let args = [&["run", "--detach", "--name", name][..], options, &["box", "sleep", "1000"]].concat();
    croft.ok(&args).map(drop)
}

fn pings(croft: &Croft, from: &str, to: &str) -> Result<bool> {
    Ok(croft.run(&["exec", from, "ping", "-c", "1", "-W", "2", to])?.code() == 0)
}

/// Waits until a container reaches an address.
fn pings_soon(croft: &Croft, from: &str, to: &str) -> Result<()> {
    let end = Instant::now() + COMMAND_LIMIT;
    while !pings(croft, from, to)? {
        ensure!(Instant::now() < end, "{from} does not reach {to}");
    }
    Ok(())
}

/// The addresses that `croft inspect` shows, without the lengths of their ranges.
fn addresses(croft: &Croft, name: &str) -> Result<Vec<String>> {
    let all = croft.inspect(name)?["addresses"].as_array().cloned().unwrap_or_default();
    let plain = |address: &Value| address.as_str()?.split('/').next().map(str::to_owned);
    Ok(all.iter().filter_map(plain).collect())
}

fn made_and_removed(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    let named = croft.ok(&["network", "ls", "--quiet"])?;
    ensure!(named == "croft\n", "{named}");
    let subnets = ["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "--gateway", "10.77.0.254"];
    let args = [&["network", "create", "--internal", "--label", "tier=data"][..], &subnets, &["back"]];
    ensure!(croft.ok(&args.concat())? == "back\n");
    croft.ok(&["network", "create", "front"])?;
    let table = croft.ok(&["network", "ls"])?;
    let line = table.lines().find(|line| line.contains(" back ")).context("back is listed")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(words == ["back", "bridge", "10.77.0.0/24", "fd77::/64", "yes", "0"], "{table}");
    sleeper(&croft, "db", &["--network", "back", "--ip", "10.77.0.9", "--mac-address", "02:00:00:00:00:09"])?;
    let back = &json(&croft, &["network", "inspect", "back"])?[0];
    ensure!(back["gateways"][0] == "10.77.0.254" && back["labels"]["tier"] == "data", "{back}");
    ensure!(back["internal"] == true && back["containers"][0]["name"] == "db", "{back}");
    ensure!(back["containers"][0]["addresses"][0] == "10.77.0.9/24", "{back}");
    let db = croft.inspect("db")?;
    ensure!(db["addresses"][0] == "10.77.0.9/24" && db["networks"][0]["mac"] == "02:00:00:00:00:09", "{db}");
    let seen = croft.ok(&["exec", "db", "ip", "addr", "show", "eth0"])?;
    ensure!(seen.contains("inet 10.77.0.9/24") && seen.contains("02:00:00:00:00:09"), "{seen}");
    let listed = croft.ok(&["ps"])?;
    ensure!(listed.contains(" 10.77.0.9 fd77::"), "{listed}");
    let (code, refused) = croft.fails(&["network", "rm", "back"])?;
    ensure!(
        code == 125 && refused.contains("containers are in it: db") && refused.contains("hint:"),
        "{refused}"
    );
    ensure!(json(&croft, &["network", "prune", "--force"])? == serde_json::json!(["front"]));
    croft.ok(&["rm", "--force", "db"])?;
    ensure!(croft.ok(&["network", "rm", "back"])? == "back\n");
    ensure!(json(&croft, &["network", "ls"])?.as_array().is_some_and(|all| all.len() == 1));
    let events = croft.ok(&["events", "--since", "0", "--no-follow"])?;
    for event in ["network create back", "network delete back", "network delete front"] {
        ensure!(events.contains(event), "{event}: {events}");
    }
    croft.nothing_is_left()
}

fn several(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    for name in ["front", "back"] {
        croft.ok(&["network", "create", name])?;
    }
    let both = ["--network", "front", "--network", "name=back,alias=store", "--network-alias", "www"];
    sleeper(&croft, "web", &[&both[..], &["--publish", "8080:80"]].concat())?;
    sleeper(&croft, "db", &["--network", "back"])?;
    sleeper(&croft, "user", &["--network", "front"])?;
    for (from, to, reached) in [
        ("user", "web", true),
        ("user", "www", true),
        ("db", "www", true),
        ("db", "store", true),
        ("user", "store", false),
        ("user", "db", false),
        ("web", "db", true),
    ] {
        ensure!(pings(&croft, from, to)? == reached, "{from} {to}");
    }
    let id: String = croft.inspect("db")?["id"].as_str().context("an id")?.chars().take(12).collect();
    ensure!(pings(&croft, "web", &id)?, "by its id, as it is printed");
    let routes = croft.ok(&["exec", "web", "ip", "route"])?;
    ensure!(routes.contains("default via") && routes.contains("dev eth1"), "{routes}");
    ensure!(croft.ok(&["ps"])?.contains("8080->80/tcp"));
    // A name is the container's from when it has it.
    croft.ok(&["rename", "db", "store2"])?;
    ensure!(pings(&croft, "web", "store2")? && !pings(&croft, "web", "db")?);
    croft.ok(&["rm", "--force", "web", "store2", "user"])?;
    croft.nothing_is_left()
}

fn join_and_leave(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["network", "create", "--subnet", "10.78.0.0/24", "back"])?;
    sleeper(&croft, "web", &["--network", "croft"])?;
    sleeper(&croft, "db", &["--network", "back"])?;
    ensure!(!pings(&croft, "web", &addresses(&croft, "db")?[0])?);
    croft.ok(&["network", "connect", "--ip", "10.78.0.7", "--alias", "front", "back", "web"])?;
    ensure!(pings(&croft, "web", "db")? && pings(&croft, "db", "front")? && pings(&croft, "db", "web")?);
    ensure!(addresses(&croft, "web")?.contains(&"10.78.0.7".to_owned()));
    ensure!(croft.ok(&["exec", "web", "cat", "/etc/hosts"])?.contains("10.78.0.7\t"));
    let counters = croft.stage.run(
        "curl",
        &[
            "--silent",
            "--unix-socket",
            "/run/croft/croft.sock",
            "http://croft/v1/containers/web/networks/counters",
        ],
    );
    if let Ok(output) = counters {
        let counters: Value = serde_json::from_str(&output.success()?.stdout)?;
        ensure!(
            counters[1]["network"] == "back" && counters[1]["sent_packets"].as_u64() > Some(0),
            "{counters}"
        );
    }
    // What it has joined is its own when it starts again.
    croft.ok(&["restart", "--time", "0", "web"])?;
    ensure!(pings(&croft, "web", "db")? && pings(&croft, "db", "front")?);
    croft.ok(&["network", "disconnect", "croft", "web"])?;
    ensure!(
        addresses(&croft, "web")?[0] == "10.78.0.7" && pings(&croft, "web", "db")?,
        "by the name service of back"
    );
    let (_, again) = croft.fails(&["network", "disconnect", "croft", "web"])?;
    ensure!(again.contains("not in it"), "{again}");
    croft.ok(&["stop", "--time", "0", "web"])?;
    croft.ok(&["network", "connect", "croft", "web"])?;
    croft.ok(&["network", "disconnect", "back", "web"])?;
    croft.ok(&["start", "web"])?;
    ensure!(!addresses(&croft, "web")?.contains(&"10.78.0.7".to_owned()) && !pings(&croft, "web", "db")?);
    let events = croft.ok(&["events", "--since", "0", "--no-follow"])?;
    ensure!(
        events.contains("container connect web (back)")
            && events.contains("container disconnect web (croft)")
    );
    croft.ok(&["rm", "--force", "web", "db"])?;
    croft.nothing_is_left()
}

fn routed_with_limits(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["network", "create", "--mode", "routed", "--subnet", "10.81.0.0/24", "flat"])?;
    sleeper(&croft, "a", &["--network", "flat", "--limit-ingress", "50mbit", "--limit-egress", "1gbit"])?;
    sleeper(&croft, "b", &["--network", "flat", "--publish", "8080:80"])?;
    ensure!(pings(&croft, "a", "b")? && pings(&croft, "b", "a")? && pings(&croft, "a", "10.81.0.1")?);
    let limits = |croft: &Croft| croft.inspect("a").map(|a| a["networks"][0]["limits"].clone());
    ensure!(croft.inspect("a")?["addresses"][0] == "10.81.0.2/32");
    ensure!(limits(&croft)? == serde_json::json!({"ingress": 50_000_000, "egress": 1_000_000_000}));
    let shown = croft.stage.run("tc", &["qdisc", "show"])?.success()?.stdout;
    ensure!(shown.contains("rate 50Mbit") && shown.contains("rate 1Gbit"), "{shown}");
    croft.ok(&["network", "limit", "--limit-ingress", "10mbit", "flat", "a"])?;
    let shown = croft.stage.run("tc", &["qdisc", "show"])?.success()?.stdout;
    ensure!(shown.contains("rate 10Mbit") && !shown.contains("rate 1Gbit"), "{shown}");
    ensure!(limits(&croft)? == serde_json::json!({"ingress": 10_000_000}));
    croft.ok(&["rm", "--force", "a", "b"])?;
    croft.ok(&["network", "rm", "flat"])?;
    croft.nothing_is_left()
}

fn bad_requests(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    croft.ok(&["network", "create", "--subnet", "10.79.0.0/29", "small"])?;
    sleeper(&croft, "has", &["--network", "small", "--ip", "10.79.0.2"])?;
    sleeper(&croft, "alone", &["--network", "none"])?;
    let before = croft.ok(&["network", "ls", "--format", "json"])?;
    for (args, words) in [
        (&["network", "create", "small"][..], "there already"),
        (&["network", "create", "--subnet", "10.79.0.0/24", "other"], "10.79.0.0/29 of small"),
        (&["network", "create", "--subnet", "10.79.0.0/99", "other"], "no range of addresses"),
        (&["network", "create", "--gateway", "10.80.0.1", "other"], "belongs to no range"),
        (&["network", "create", "--mtu", "100", "other"], "largest packet"),
        (&["network", "create", "host"], "means something else"),
        (&["network", "rm", "none-such"], "no network none-such"),
        (&["network", "inspect", "none-such"], "no network none-such"),
        (&["network", "rm", "small"], "containers are in it: has"),
        (&["network", "connect", "none-such", "has"], "no network none-such"),
        (&["network", "connect", "small", "has"], "in it already"),
        (&["network", "connect", "small", "alone"], "--network none"),
        (&["network", "connect", "small", "nobody"], "no container is called so"),
        (&["network", "connect", "--mac-address", "x", "croft", "has"], "no hardware address"),
        (&["network", "connect", "--alias", "a b", "croft", "has"], "no name"),
        (&["network", "disconnect", "croft", "has"], "not in it"),
        (&["network", "limit", "--limit-egress", "1mbit", "croft", "has"], "not in it"),
        (&["network", "limit", "--limit-egress", "10mb", "small", "has"], "no rate"),
        (&["create", "--network", "small", "--limit-egress", "10bit", "box", "true"], "too little"),
        (&["create", "--network", "small", "--network", "small", "box", "true"], "in it already"),
        (&["create", "--network", "small", "--ip", "10.79.0.2", "box", "true"], "10.79.0.2 is taken"),
        (&["create", "--network", "small", "--ip", "10.79.1.2", "box", "true"], "no address of 10.79.0.0/29"),
        (&["create", "--network", "small", "--ip6", "fd::1", "box", "true"], "no address of fd"),
        (&["create", "--network", "none", "--ip", "10.79.0.3", "box", "true"], "goes with no other"),
        (&["create", "--network", "name=small,ip=x", "box", "true"], "no address of IPv4"),
    ] {
        let (code, text) = croft.fails(args)?;
        ensure!(code == 125 && text.contains(words), "{args:?}: {code}: {text}");
    }
    for number in 3..=6 {
        sleeper(&croft, &format!("c{number}"), &["--network", "small"])?;
    }
    let (_, full) = croft.fails(&["run", "--network", "small", "box", "true"])?;
    ensure!(full.contains("no address of 10.79.0.0/29 is left") && full.contains("hint:"), "{full}");
    ensure!(croft.ok(&["ps", "--all", "--quiet"])?.lines().count() == 6);
    croft.ok(&["rm", "--force", "has", "alone", "c3", "c4", "c5", "c6"])?;
    let after = croft.ok(&["network", "ls", "--format", "json"])?;
    ensure!(after == before.replace(&members(&before)?, "\"containers\": []"), "{before}\n{after}");
    croft.nothing_is_left()
}

/// The text of the one list of containers that is not empty.
fn members(text: &str) -> Result<String> {
    let start = text.find("\"containers\": [\n").context("a network has a container")?;
    let end = text[start..].find("\n    ]").context("the list ends")? + "\n    ]".len();
    Ok(text[start..start + end].to_owned())
}

fn killed(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    croft.ok(&["network", "create", "--label", "a=b", "back"])?;
    sleeper(&croft, "web", &["--network", "croft", "--network", "back", "--publish", "8080:80"])?;
    sleeper(&croft, "db", &["--network", "back"])?;
    let [networks, web] = [json(&croft, &["network", "ls"])?, croft.inspect("web")?["networks"].clone()];
    croft.kill()?;
    // It had recorded that it joins, and nothing else.
    let (folder, id) = (croft.stage.path("lib/network/leases"), id_of_db(&networks)?);
    let path = folder.join(format!("{id}.json"));
    let mut lease: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let default = networks.as_array().into_iter().flatten().find(|network| network["name"] == "croft");
    let subnet = default.and_then(|network| network["subnets"][0].as_str()).context("a subnet")?;
    let address = subnet.replace(".0/22", ".99");
    lease["endpoints"].as_array_mut().context("endpoints")?.push(serde_json::json!({
        "network": "croft", "ipv4": address, "ipv6": null, "mac": "0a:00:00:00:00:63", "interface": "eth1",
    }));
    std::fs::write(&path, lease.to_string())?;
    croft.start()?;
    ensure!(croft.inspect("web")?["networks"] == web);
    ensure!(addresses(&croft, "db")?.contains(&address), "{address}");
    ensure!(pings(&croft, "web", &address)?, "it is wired");
    croft.ok(&["system", "check"])?;
    croft.ok(&["rm", "--force", "web", "db"])?;
    ensure!(croft.ok(&["network", "prune", "--force"])? == "back\n");
    croft.nothing_is_left()
}

/// What a container has counted of ICMPv6 since its start (/proc/net/snmp6).
fn icmpv6(croft: &Croft, name: &str, counter: &str) -> Result<u64> {
    let text = croft.ok(&["exec", name, "cat", "/proc/net/snmp6"])?;
    let line = text.lines().find_map(|line| line.strip_prefix(counter)).with_context(|| text.clone())?;
    Ok(line.trim().parse()?)
}

/// What a container says to groups that nobody is in costs each of the others: with a thousand of them a thousand times.
fn unheard(host: &Host) -> Result<()> {
    let croft = Croft::new(host)?;
    sleeper(&croft, "first", &["--network", "croft"])?;
    // Forwarded from port to port: what the bridge's own device says of the host's groups is not the container's.
    let watch = "table bridge watch { chain c { type filter hook forward priority 0; \
                 icmpv6 type { nd-router-solicit, mld2-listener-report } counter; }; }";
    croft.stage.run("nft", &[watch])?.success()?;
    sleeper(&croft, "second", &["--network", "croft"])?;
    let end = Instant::now() + Duration::from_secs(20);
    while icmpv6(&croft, "second", "Icmp6OutMLDv2Reports ")? == 0
        || icmpv6(&croft, "second", "Icmp6OutRouterSolicits ")? == 0
    {
        ensure!(Instant::now() < end, "it says nothing");
    }
    let passed = croft.stage.run("nft", &["list", "table", "bridge", "watch"])?.success()?.stdout;
    ensure!(passed.contains("counter packets 0 "), "{passed}");
    let of_second = addresses(&croft, "second")?;
    ensure!(of_second.len() == 2, "{of_second:?}");
    for address in of_second {
        ensure!(pings(&croft, "first", &address)?, "{address}");
    }
    croft.ok(&["rm", "--force", "first", "second"])?;
    croft.nothing_is_left()
}

/// With a bridge that lets nothing through but the question who is where.
fn past_the_bridge(host: &Host) -> Result<()> {
    let mut croft = Croft::new(host)?;
    sleeper(&croft, "a", &["--network", "croft"])?;
    sleeper(&croft, "b", &["--network", "croft"])?;
    let b = addresses(&croft, "b")?[0].clone();
    ensure!(pings(&croft, "a", &b)?);
    let wall =
        "table bridge wall { chain c { type filter hook prerouting priority -400; ether type ip drop; }; }";
    croft.stage.run("nft", &[wall])?.success()?;
    pings_soon(&croft, "a", &b)?;
    croft.kill()?;
    // The next one lets whoever comes meet those who are there.
    croft.start()?;
    sleeper(&croft, "c", &["--network", "croft"])?;
    pings_soon(&croft, "c", &b)?;
    ensure!(pings(&croft, "a", &addresses(&croft, "c")?[0])?);
    // One that joins while it runs.
    croft.ok(&["network", "create", "two"])?;
    sleeper(&croft, "d", &["--network", "two"])?;
    croft.ok(&["network", "connect", "two", "c"])?;
    pings_soon(&croft, "c", &addresses(&croft, "d")?[0])?;
    croft.ok(&["network", "limit", "--limit-ingress", "10mbit", "croft", "b"])?;
    ensure!(!pings(&croft, "a", &b)?, "what is limited goes by the bridge");
    croft.ok(&["rm", "--force", "a", "b", "c", "d"])?;
    croft.nothing_is_left()
}

/// The id of the container that is called db.
fn id_of_db(networks: &Value) -> Result<String> {
    let members =
        networks.as_array().into_iter().flatten().filter_map(|network| network["containers"].as_array());
    let db = members.flatten().find(|member| member["name"] == "db").context("db is in a network")?;
    Ok(db["id"].as_str().context("an id")?.to_owned())
}
