//! croft-shim: one small single-threaded process that looks after many containers.
//!
//! It runs croft-oci, is the containers' subreaper, holds their terminals, pipes and pidfds, writes their logs and records how they
//! ended. Its client, croftd, may come and go. Start at [`protocol`] for what can be asked, then [`supervise`] for how it is done.

#![deny(clippy::print_stderr, reason = "eprintln! panics where the file system of the log is full")]

pub mod client;
pub mod frames;
pub mod holder;
pub mod protocol;
pub mod supervise;
