//! What containers use.

use serde::{Deserialize, Serialize};

/// The numbers of one container at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Stats {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Percent of one processor that it used since the sample before: 200 is two processors.
    pub cpu_percent: f64,
    /// Nanoseconds of processor time that it has used.
    pub cpu_ns: u64,
    /// Nanoseconds that it could have run and its limit did not let it.
    pub throttled_ns: u64,
    /// Bytes of memory, less what the page cache would give up first.
    pub memory: u64,
    /// Its limit of memory in bytes; the host's memory where that is less.
    pub memory_limit: u64,
    /// Processes and threads.
    pub pids: u64,
    /// How many it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// Bytes read from block devices.
    pub block_read: u64,
    /// Bytes written to block devices.
    pub block_written: u64,
    /// What went over its network interfaces; none with the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Traffic>,
    /// How long it waited for want of processors, memory and block devices; none where the kernel does not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// What went over network interfaces, as the container sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Traffic {
    /// Bytes that came.
    pub received_bytes: u64,
    /// Packets that came.
    pub received_packets: u64,
    /// Packets that came and were lost.
    pub received_dropped: u64,
    /// Bytes that went.
    pub sent_bytes: u64,
    /// Packets that went.
    pub sent_packets: u64,
    /// Packets that were to go and were lost.
    pub sent_dropped: u64,
}

/// Pressure stall information of a container's groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Pressure {
    /// For processors.
    pub cpu: Stall,
    /// For memory.
    pub memory: Stall,
    /// For block devices.
    pub io: Stall,
}

/// How long tasks waited for one thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Stall {
    /// Percent of the last 10 seconds in which some task waited.
    pub some_avg10: f64,
    /// Percent of the last 10 seconds in which all tasks waited.
    pub full_avg10: f64,
    /// Microseconds in which some task waited.
    pub some_us: u64,
    /// Microseconds in which all tasks waited.
    pub full_us: u64,
}

/// A process of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Process {
    /// Its number on the host.
    pub pid: i32,
    /// Its number in the container.
    pub pid_inside: i32,
    /// Its parent's number on the host.
    pub parent: i32,
    /// Its user on the host.
    pub uid: u32,
    /// Its user in the container.
    pub uid_inside: u32,
    /// Its state's letter as in ps(1): `R`, `S`, `D`, ...
    pub state: String,
    /// How many threads it has.
    pub threads: u64,
    /// Its memory that is in RAM, in bytes.
    pub memory: u64,
    /// Milliseconds of processor time that it used.
    pub cpu_ms: u64,
    /// How many seconds ago it began.
    pub age: u64,
    /// Its arguments, or its name in brackets.
    pub command: String,
}
