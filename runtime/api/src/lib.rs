//! What croftd can be asked and what it answers: HTTP/1.1 and JSON on a Unix socket, every path below `/v1`.
//!
//! [`container`], [`image`], [`network`], [`volume`], [`files`], [`stats`], [`event`] and [`system`] are the values on the wire; [`problem`] is every refusal; [`stream`] is what attached clients speak; [`pieces`] are bodies for threads; [`client`] asks; [`keys`] and [`tls`] are for other hosts; [`names`] are what people give.
#![forbid(unsafe_code)]

pub mod client;
pub mod container;
pub mod event;
pub mod files;
pub mod image;
pub mod keys;
pub mod names;
pub mod network;
pub mod pieces;
pub mod problem;
pub mod stats;
pub mod stream;
pub mod system;
pub mod tls;
pub mod volume;

/// The version in every path. It changes when a client of before could not go on.
pub const VERSION: &str = "v1";

/// Where croftd listens unless it is told otherwise.
pub const SOCKET: &str = "/run/croft/croft.sock";
