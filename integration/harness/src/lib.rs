//! What the integration tests, the benches and the demo share: Debian packages, root filesystems, hosts, snapshots.
//!
//! Start at [`suite`] for how a test is written, then [`bundle`] for how it makes a container.
pub mod build;
pub mod bundle;
pub mod cache;
pub mod config;
pub mod containerd;
pub mod croft;
pub mod debian;
pub mod facility;
pub mod fresh;
pub mod host;
pub mod process;
pub mod ptrace;
pub mod python;
pub mod relay;
pub mod rootfs;
pub mod snapshot;
pub mod stage;
pub mod suite;
pub mod sweep;
pub mod terminal;

pub use bundle::Bundle;
pub use croft::Croft;
pub use facility::Facility;
pub use host::{Host, RuntimeKind};
pub use process::Output;
pub use relay::Relay;
pub use stage::Stage;
pub use suite::{OnRunc, Subject, Test};
