//! Debian packages and root filesystems, for tests: installed where the machine's own suite has them, unpacked apart
//! from the machine where another suite is wanted.

mod apt;
mod bootstrap;
mod prefix;
mod rootfs;
mod source;

pub use apt::{archive_uri, ensure_packages};
pub use bootstrap::{Bootstrap, Variant};
pub use prefix::{Peers, Prefix, peers, private_prefix, rehome};
pub use rootfs::rootfs;
pub use source::fetch_source;

/// Fetching from an archive ends within this, or something is wrong with the network.
const FETCH_LIMIT: std::time::Duration = std::time::Duration::from_secs(1800);
