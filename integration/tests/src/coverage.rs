//! Every property of the runtime-spec that concerns Linux has a test, or a reason why it has none.
//!
//! `schema-properties.txt` lists the properties (`cargo xtask properties` makes it anew from the schema that Debian has);
//! `properties.txt` has a line for each: the property, then `SUBJECT::TEST` of this suite, `plan:TEST` of the plan's own
//! tests for what no test host has, or `- ` and the reason.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use croft_harness::{Host, Subject, Test};

const PROPERTIES: &str = include_str!("../schema-properties.txt");
const TABLE: &str = include_str!("../properties.txt");
const PLAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtime/plan");

pub const SUBJECT: Subject = Subject {
    name: "coverage",
    on_runc: &[],
    tests: &[
        Test { name: "every_property_has_a_test", requires: &[], run: every_property },
        Test { name: "what_is_wrong_is_found", requires: &[], run: what_is_wrong },
    ],
};

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What is wrong with `table` for these properties, one line each. `tests` has the names of the tests it may use.
fn complaints(properties: &str, table: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut shown = BTreeMap::new();
    for line in lines(table) {
        let (property, by) = line.split_once(' ').unwrap_or((line, ""));
        let has_reason = by.strip_prefix("- ").is_some_and(|reason| reason.len() > 10);
        if !has_reason && !tests.contains(by) {
            wrong.push(format!("{property}: there is no test {by:?}"));
        }
        if shown.insert(property, by).is_some() {
            wrong.push(format!("{property}: has two lines"));
        }
    }
    for property in lines(properties) {
        if shown.remove(property).is_none() {
            wrong.push(format!("{property}: has no line in properties.txt"));
        }
    }
    wrong.extend(shown.keys().map(|property| format!("{property}: is no property of the schema")));
    wrong
}

fn every_property(_: &Host) -> Result<()> {
    let mut tests: BTreeSet<String> = crate::SUBJECTS
        .iter()
        .flat_map(|subject| subject.tests.iter().map(move |test| format!("{}::{}", subject.name, test.name)))
        .collect();
    let mut table = TABLE.to_owned();
    if Path::new(PLAN).exists() {
        tests.extend(plan_tests()?.into_iter().map(|name| format!("plan:{name}")));
    } else {
        // In the virtual machine the sources of the plan's tests may be missing: they are looked at on the host.
        table = TABLE.lines().map(|line| line.replace(" plan:", " - not here plan:") + "\n").collect();
    }
    ensure!(lines(PROPERTIES).count() > 150, "the list of properties is not whole");
    let wrong = complaints(PROPERTIES, &table, &tests);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The names of the plan's tests: functions after `#[test]`, and the tables of tests/resources.rs.
fn plan_tests() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(PLAN).join("src"), Path::new(PLAN).join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                names.extend(test_functions(&text));
                let tables = text.lines().filter_map(|line| line.trim().strip_suffix(".txt\";"));
                names.extend(tables.filter_map(|l| l.split_once(' ')).map(|(name, _)| name.to_owned()));
            }
        }
    }
    Ok(names)
}

fn test_functions(source: &str) -> Vec<String> {
    let after = source.split("#[test]").skip(1);
    let names = after.filter_map(|text| text.trim_start().strip_prefix("fn ")?.split('(').next());
    names.map(str::to_owned).collect()
}

fn what_is_wrong(_: &Host) -> Result<()> {
    let tests = BTreeSet::from(["a::b".to_owned(), "plan:c".to_owned()]);
    let check = |table: &str| complaints("x\ny.z\n", table, &tests);
    ensure!(check("# a comment\nx a::b\ny.z plan:c\n").is_empty());
    ensure!(check("x a::b\n") == ["y.z: has no line in properties.txt"]);
    ensure!(check("x a::b\ny.z a::c\n") == ["y.z: there is no test \"a::c\""]);
    ensure!(check("x a::b\ny.z\n") == ["y.z: there is no test \"\""]);
    ensure!(check("x a::b\ny.z - because it cannot be\nw a::b\n") == ["w: is no property of the schema"]);
    ensure!(check("x a::b\nx a::b\ny.z plan:c\n") == ["x: has two lines"]);
    ensure!(test_functions("#[test]\n    fn one() {}\n fn two() {}") == ["one"]);
    Ok(())
}
