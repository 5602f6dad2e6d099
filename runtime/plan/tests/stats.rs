//! The numbers of `events`, from stored files of a group.
//!
//! `stats/v1.*` were taken from one container of runc 1.1.5 on a hybrid host: its files, and what `runc events --stats`
//! printed of them. `stats/v2.*` were made by hand from the kernel's documentation.

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;

use croft_plan::cgroup::stats::{Event, EventKind, ReadError, Stats, oom_kills};
use croft_plan::cgroup::{CgroupHost, Source, Version};
use proptest::prelude::*;

type Stored = BTreeMap<(String, Version, String), String>;

/// Sections `=== CONTROLLER VERSION FILE` of text.
fn stored(text: &str) -> Stored {
    let section = |section: &str| {
        let (head, text) = section.split_once('\n').expect("a section has a first line");
        let words: Vec<&str> = head.split(' ').collect();
        let version = if words[1] == "v1" { Version::V1 } else { Version::V2 };
        ((words[0].to_owned(), version, words[2].to_owned()), text.to_owned())
    };
    text.split("=== ").filter(|s| !s.is_empty()).map(section).collect()
}

fn reading(files: &Stored) -> impl FnMut(Source<'_>) -> Result<Option<String>, Infallible> + '_ {
    |source| Ok(files.get(&(source.controller.to_owned(), source.version, source.file.to_owned())).cloned())
}

fn stats(host: &CgroupHost, files: &str) -> Result<Stats, ReadError<Infallible>> {
    Stats::read(host, &mut reading(&stored(files)))
}

fn line(id: &str, stats: Stats) -> String {
    let event = Event { kind: EventKind::Stats, id: id.to_owned(), data: Some(Box::new(stats)) };
    serde_json::to_string(&event).expect("an event is JSON") + "\n"
}

#[test]
fn v1_prints_what_runc_prints_of_the_same_files() {
    let stats = stats(&common::hybrid(), include_str!("stats/v1.files")).unwrap();
    assert_eq!(line("croft-tables-stats", stats), include_str!("stats/v1.json"));
}

#[test]
fn v2() {
    let stats = stats(&common::unified(), include_str!("stats/v2.files")).unwrap();
    let printed = line("croft", stats.clone());
    assert_eq!(printed, include_str!("stats/v2.json"));
    let read: Event = serde_json::from_str(&printed).unwrap();
    assert_eq!(read.data, Some(Box::new(stats)));
}

#[test]
fn a_container_without_v1_groups_on_a_hybrid_host() {
    let files = "=== cpu v2 cpu.stat\nusage_usec 7\nuser_usec 3\nsystem_usec 4\n\
        === cgroup v2 cgroup.procs\n100\n101\n\
        === cpu v2 cpu.pressure\nsome avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
    let stats = stats(&common::hybrid(), files).unwrap();
    assert_eq!((stats.cpu.usage.total, stats.cpu.usage.user, stats.cpu.usage.kernel), (7000, 3000, 4000));
    assert_eq!((stats.pids.current, stats.pids.limit), (2, 0));
    assert_eq!(stats.cpu.psi.unwrap().some.total, 9);
    assert_eq!(stats.memory, Default::default());
}

#[test]
fn no_group_at_all_is_all_zero() {
    assert_eq!(stats(&common::unified(), "").unwrap(), Stats::default());
    assert_eq!(stats(&common::hybrid(), "").unwrap(), Stats::default());
}

#[test]
fn no_limits() {
    let files = "=== memory v2 memory.max\nmax\n=== memory v2 memory.swap.max\n4096\n=== memory v2 memory.current\n5\n\
        === pids v2 pids.current\n1\n=== pids v2 pids.max\nmax\n";
    let stats = stats(&common::unified(), files).unwrap();
    assert_eq!((stats.memory.usage.limit, stats.memory.swap.limit), (u64::MAX, u64::MAX));
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 0));
}

#[test]
fn blkio_of_v1_takes_the_first_set_that_says_anything() {
    let throttle = "=== blkio v1 blkio.bfq.io_serviced_recursive\n\
        === blkio v1 blkio.throttle.io_serviced_recursive\n8:0 Read 124\n8:0 Total 124\nTotal 124\n\
        === blkio v1 blkio.throttle.io_service_bytes_recursive\n8:0 Read 4096\nTotal 4096\n\
        === blkio v1 blkio.throttle.io_serviced\n8:0 Read 9\n";
    let stats = stats(&common::hybrid(), throttle).unwrap();
    let serviced: Vec<_> =
        stats.blkio.io_serviced_recursive.iter().map(|e| (e.op.as_str(), e.value)).collect();
    assert_eq!(serviced, [("Read", 124), ("Total", 124)]);
    assert_eq!(stats.blkio.io_service_bytes_recursive.len(), 1);
    let cfq = "=== blkio v1 blkio.sectors_recursive\n8:0 6792\n";
    let sectors = self::stats(&common::hybrid(), cfq).unwrap().blkio.sectors_recursive;
    assert_eq!((sectors[0].major, sectors[0].op.as_str(), sectors[0].value), (8, "", 6792));
}

#[test]
fn numbers_below_zero_are_zero_and_nonsense_is_an_error() {
    let negative = "=== memory v2 memory.stat\nanon -4096\n";
    assert_eq!(stats(&common::unified(), negative).unwrap().memory.raw["anon"], 0);
    let table = [
        ("=== memory v2 memory.stat\nanon x\n", "parse memory.stat of the v2 group: unexpected \"x\""),
        ("=== memory v2 memory.stat\nanon\n", "parse memory.stat of the v2 group: unexpected \"anon\""),
        ("=== pids v2 pids.current\n\n", "parse pids.current of the v2 group: unexpected \"\""),
        ("=== cpu v2 cpu.pressure\nsome avg10\n", "parse cpu.pressure of the v2 group: unexpected \"avg10\""),
    ];
    for (files, error) in table {
        assert_eq!(stats(&common::unified(), files).unwrap_err().to_string(), error);
    }
    let cpus = "=== cpuset v1 cpuset.cpus\n0-3,x\n";
    let error = stats(&common::hybrid(), cpus).unwrap_err().to_string();
    assert_eq!(error, "parse cpuset.cpus of the v1 group: unexpected \"0-3,x\"");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_its_cause() {
    let mut files = |source: Source<'_>| match source.file {
        "memory.current" => Err("input/output error"),
        _ => Ok(None),
    };
    let error = Stats::read(&common::unified(), &mut files).unwrap_err();
    let ReadError::Files { file, version, source } = error else { panic!("{error:?}") };
    assert_eq!((file.as_str(), version, source), ("memory.current", Version::V2, "input/output error"));
}

#[test]
fn oom() {
    let v2 = stored(include_str!("stats/v2.files"));
    assert_eq!(oom_kills(&common::unified(), &mut reading(&v2)), Ok(Some(1)));
    let v1 = stored(include_str!("stats/v1.files"));
    assert_eq!(oom_kills(&common::hybrid(), &mut reading(&v1)), Ok(Some(0)));
    assert_eq!(oom_kills(&common::hybrid(), &mut reading(&Stored::new())), Ok(None));
    let event = Event { kind: EventKind::Oom, id: "a".to_owned(), data: None };
    assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"type":"oom","id":"a"}"#);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the files hold, reading them ends with numbers or an error, not with a panic.
    #[test]
    fn any_text(text in "([a-z_0-9:=. \n-]|max|some |18446744073709551615){0,60}") {
        let mut files = |_: Source<'_>| Ok::<_, Infallible>(Some(text.clone()));
        let _ = Stats::read(&common::hybrid(), &mut files);
        let _ = Stats::read(&common::unified(), &mut files);
    }
}
