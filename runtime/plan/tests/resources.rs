//! Text in, text out: each case of `tests/resources/*.txt` is the JSON of `linux.resources` and, by host, the writes.
//!
//! A case is `== title`, the JSON on one line, perhaps lines `now FILE = TEXT` (what the group's files hold: an
//! update) and `swap N` (the `memory.swap` last given), then `-- HOST` and what comes out. `BLESS=1` writes the
//! stored text anew; read the difference before you keep it.

#![allow(clippy::disallowed_methods, reason = "tests read their stored text")]

mod common;

use croft_plan::cgroup::{self, CgroupHost, Current, Source, Swap};
use oci_spec::runtime::LinuxResources;

fn hosts() -> [(&'static str, CgroupHost); 3] {
    let no_swap = |host: CgroupHost| CgroupHost { swap: Swap::NotAccounted, ..host };
    [
        ("unified", common::unified()),
        ("hybrid", common::hybrid()),
        ("unified, no swap", no_swap(common::unified())),
    ]
}

/// The case again, with what comes out of it now.
fn answer(case: &str) -> String {
    let asked: Vec<&str> = case.lines().collect();
    let (head, stored) =
        asked.split_at(asked.iter().position(|l| l.starts_with("-- ")).unwrap_or(asked.len()));
    let mut out: String = head.iter().map(|line| format!("{line}\n")).collect();
    let wanted = |name: &str| stored.iter().any(|line| *line == format!("-- {name}"));
    for (name, host) in hosts() {
        if stored.is_empty() && !name.contains(',') || wanted(name) {
            out += &format!("-- {name}\n{}", outcome(head, &host));
        }
    }
    out
}

fn outcome(head: &[&str], host: &CgroupHost) -> String {
    let mut json = serde_json::from_str(head[1]).expect("the second line is JSON");
    cgroup::prepass(&mut json);
    let resources: LinuxResources = serde_json::from_value(json).expect("the JSON is linux.resources");
    let mut files = |source: Source<'_>| {
        let line = head[2..].iter().find_map(|line| line.strip_prefix(&format!("now {} = ", source.file)));
        Ok::<_, ()>(line.map(|text| format!("{text}\n")))
    };
    let current = Current::read(&resources, host, &mut files).expect("no read fails");
    let swap = head[2..]
        .iter()
        .find_map(|line| line.strip_prefix("swap "))
        .map(|swap| swap.parse().expect("swap is a number"));
    match cgroup::update(&resources, host, &current.with_swap(swap)) {
        Ok(writes) => {
            let warnings = writes.warnings.iter().map(|warning| format!("warning: {warning}\n"));
            writes.writes.iter().map(|write| format!("{write}\n")).chain(warnings).collect()
        }
        Err(refusal) => format!("refused: {refusal}\n"),
    }
}

fn check(name: &str, stored: &str) {
    let (intro, cases) = stored.split_once("\n== ").expect("there is a case");
    let answers = cases.split("\n== ").map(|case| format!("\n== {}", answer(case.trim_end())));
    let now: String = [intro.to_owned()].into_iter().chain(answers).collect();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(format!("{}/tests/resources/{name}", env!("CARGO_MANIFEST_DIR")), &now)
            .expect("written");
    } else {
        let (now, stored): (Vec<_>, Vec<_>) = (now.lines().collect(), stored.lines().collect());
        let first = now.iter().zip(&stored).position(|(a, b)| a != b).unwrap_or(now.len().min(stored.len()));
        assert!(
            now == stored,
            "{name}:{}: now {:?}, stored {:?}",
            first + 1,
            now.get(first),
            stored.get(first)
        );
    }
}

macro_rules! tables {
    ($($test:ident $file:literal;)*) => {
        $(#[test] fn $test() { check($file, include_str!(concat!("resources/", $file))); })*
    };
}

tables! {
    memory "memory.txt";
    cpu "cpu.txt";
    block_io "block_io.txt";
    others "others.txt";
    unified "unified.txt";
    update "update.txt";
}
