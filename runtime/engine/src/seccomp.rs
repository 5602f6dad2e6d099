//! Placeholder until the compiler lands.
use croft_sys::seccomp::{FilterFlags, SockFilter};
/// A compiled filter.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The program.
    pub program: Vec<SockFilter>,
    /// How it is loaded.
    pub flags: FilterFlags,
    /// What was left out.
    pub warnings: Vec<String>,
}
/// Compiles.
pub fn program(
    _p: &oci_spec::runtime::LinuxSeccomp,
    _c: Option<&std::path::Path>,
) -> Result<Compiled, String> {
    Err("seccomp is not supported by this build yet".into())
}
