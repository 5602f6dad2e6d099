//! What the integration tests, the benches and the demo share: Debian packages, root filesystems, hosts, snapshots.
