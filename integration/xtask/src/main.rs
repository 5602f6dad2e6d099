//! The project's own commands: `cargo xtask demo`, `cargo xtask test` and the rest.
fn main() {}
