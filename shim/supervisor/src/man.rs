//! The man page comes from the command line's definition; this test fails when the one in `man/` is stale.
//!
//! `BLESS=1 cargo test -p croft-shim man` writes it anew.

use std::path::Path;

use clap::CommandFactory;

use crate::Cli;

#[test]
fn the_man_page_is_fresh() {
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(Cli::command()).section("8").source("croft").manual("croft");
    man.render(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../man/croft-shim.8");
    croft_harness::fresh::check(&path, &text, "-p croft-shim man");
}
