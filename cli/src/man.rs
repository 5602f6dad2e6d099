//! The man pages come from the command line's definition; this test fails when those in `man/` are stale.
//!
//! `BLESS=1 cargo test -p croft man` writes them anew.

use std::path::Path;

use clap::CommandFactory;

use crate::args::Cli;

/// Every page: its file name and its text. Commands of commands have pages of their own too.
fn pages() -> Vec<(String, String)> {
    let mut root = Cli::command();
    root.build();
    let mut pages = Vec::new();
    collect("croft", &root, &mut pages);
    pages
}

fn collect(name: &str, command: &clap::Command, pages: &mut Vec<(String, String)>) {
    let own: &'static str = name.to_owned().leak();
    let mut text = Vec::new();
    let named = command.clone().name(own).bin_name(own);
    let man = clap_mangen::Man::new(named).section("1").source("croft").manual("croft");
    man.render(&mut text).expect("a page is written to memory");
    pages.push((format!("{name}.1"), String::from_utf8(text).expect("a page is UTF-8")));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        collect(&format!("{name}-{}", sub.get_name()), sub, pages);
    }
}

#[test]
fn man_pages_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../man");
    let pages = pages();
    assert!(pages.len() > 15, "there is a page for every command");
    for (file, text) in &pages {
        croft_harness::fresh::check(&folder.join(file), text, "-p croft man");
    }
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(
            !name.ends_with(".1") || pages.iter().any(|(file, _)| *file == name),
            "man/{name}: a page of no command"
        );
    }
}
