//! Kernel calls for croft, one file per facility: mechanism, no policy. The only crate with `unsafe`.

pub mod error;

pub use error::{Error, Result};
