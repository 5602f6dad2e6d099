//! Boots a Debian kernel with the unified cgroup v2 hierarchy in QEMU and runs a command there.
