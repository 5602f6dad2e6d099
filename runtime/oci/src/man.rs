//! The man pages come from the command line's definition; this test fails when those in `man/` are stale.
//!
//! `BLESS=1 cargo test -p croft-oci man` writes them anew.

use std::path::Path;

use clap::CommandFactory;

use crate::args::Cli;

/// Every page: its file name and its text.
fn pages() -> Vec<(String, String)> {
    let mut root = Cli::command();
    root.build();
    let mut commands = vec![root.clone().name("croft-oci")];
    for sub in root.get_subcommands().filter(|s| s.get_name() != "help") {
        let name: &'static str = format!("croft-oci-{}", sub.get_name()).leak();
        commands.push(sub.clone().name(name).bin_name(name));
    }
    commands.into_iter().map(page).collect()
}

fn page(command: clap::Command) -> (String, String) {
    let file = format!("{}.8", command.get_name());
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command).section("8").source("croft").manual("croft");
    man.render(&mut text).expect("a page is written to memory");
    (file, String::from_utf8(text).expect("a page is UTF-8"))
}

#[test]
fn man_pages_are_fresh() {
    let pages = pages();
    assert!(pages.len() > 5, "there is a page for every command");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man");
    for (file, text) in &pages {
        croft_harness::fresh::check(&folder.join(file), text, "-p croft-oci man");
    }
    let own = |name: &str| name.starts_with("croft-oci") && !pages.iter().any(|(file, _)| file == name);
    let orphans: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|name| own(name))
        .collect();
    assert!(orphans.is_empty(), "pages of no command: {orphans:?}");
}
